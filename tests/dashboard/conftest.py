"""A browser at the page of a running router: what a person sees there, and what must never happen meanwhile."""

import asyncio
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from herd.sim import Fault, FaultKind, SimConfig, SimModel
from tests.e2e import traffic
from tests.e2e.conftest import MACHINES, started
from tests.harness import until

CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = (
    "--no-sandbox", "--headless=new", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
PATIENCE_MS = 15_000
ARTIFACTS = Path(__file__).parents[2] / "test-artifacts" / "dashboard"
SECTIONS = (
    "fleet", "trends", "latency", "usage", "models", "apps", "traces", "health", "recommendations", "plan", "settings",
)  # fmt: skip
MARKUP = "<img src=x onerror=alert(1)>"
EVIL = SimConfig("evil", memory_gb=16, models=(SimModel(MARKUP, size_gb=1.0),), preload=(MARKUP,))
SHAPES = {"wide": (1280, 900), "narrow": (380, 800)}


def _section(view: str) -> str:
    return view.removeprefix("#/").split("?")[0].split("/")[0]


@dataclass
class Visit:
    """One tab. `problems` are what no visit may leave behind: errors on the console, requests to another host."""

    page: Page
    url: str
    problems: list[str]

    def go(self, view: str) -> Page:
        """Open a view by its address, and wait until it is read."""
        self.page.goto(f"{self.url}/dashboard{view}")
        section = _section(view)
        self.settled(section if section in SECTIONS else "")
        return self.page

    def turn_to(self, view: str) -> Page:
        """Follow a link within the page."""
        self.page.evaluate("view => { location.hash = view; }", view)
        self.settled(_section(view))
        return self.page

    def settled(self, section: str = "") -> None:
        """Wait until a section's title is there, and nothing is being read."""
        place = f'main[data-section="{section}"]' if section else "main"
        expect(self.page.locator(f"{place}:not([aria-busy]) h1")).to_be_visible()

    def sees(self, text: str) -> None:
        """Wait for a text in the content."""
        expect(self.page.locator("main")).to_contain_text(text)

    def shot(self, name: str, whole: bool = True) -> None:
        """Keep a picture of the page, or of what is seen of it, among the run's files."""
        ARTIFACTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=ARTIFACTS / f"{name}.png", full_page=whole, animations="disabled")

    def too_wide(self) -> bool:
        """Whether the page must be scrolled sideways."""
        return bool(self.page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth"))


@pytest.fixture(scope="module")
def browser():
    """One browser for a module of tests."""
    assert CHROMIUM.exists(), "these tests need Debian's chromium: `make tools` installs it"
    with sync_playwright() as driver:
        expect.set_options(timeout=PATIENCE_MS)
        running = driver.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        yield running
        running.close()


@pytest.fixture
def visit(browser: Browser):
    """Opens tabs, and at the end looks whether anything went wrong in one of them."""
    visits: list[Visit] = []

    def begin(fleet, shape="wide", scheme="light", expected=()) -> Visit:
        width, height = SHAPES[shape]
        context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme, reduced_motion="reduce",
            timezone_id="Europe/Berlin",
        )  # fmt: skip
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        visits.append(Visit(page, fleet.url, []))
        _watch(visits[-1], expected)
        return visits[-1]

    yield begin
    problems = [problem for each in visits for problem in each.problems]
    for each in visits:
        each.page.context.close()
    assert problems == []


def _watch(visit: Visit, expected: tuple[str, ...]) -> None:
    def note(problem: str) -> None:
        if not any(re.search(pattern, problem) for pattern in expected):
            visit.problems.append(problem)

    def heard(message) -> None:
        if message.type in {"error", "warning"}:
            note(f"console: {message.text} ({message.location.get('url')})")

    def asked(request) -> None:
        if not request.url.startswith((f"{visit.url}/", "data:")):
            note(f"another host: {request.url}")

    def opened(dialog) -> None:
        note(f"a script ran: {dialog.message}")
        dialog.dismiss()

    visit.page.on("console", heard)
    visit.page.on("pageerror", lambda error: note(f"exception: {error}"))
    visit.page.on("request", asked)
    visit.page.on("dialog", opened)


def send(fleet, asks: list[traffic.Ask]) -> None:
    """Send requests from a thread of their own: the browser's driver has a loop in this one."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, traffic.send(fleet.url, asks, 8)).result()


def chat(fleet, request_id: str, model: str = "llama3.2:3b", **body) -> httpx.Response:
    """One chat with a given id."""
    document = {"model": model, "messages": traffic.HELLO, "stream": False, **body}
    return httpx.post(f"{fleet.url}/api/chat", json=document, headers={"X-Request-Id": request_id}, timeout=20)


def make_history(fleet) -> None:
    """Sixty requests of every kind, some of them with a story to tell."""
    send(fleet, [ask for ask in traffic.mixed(60, seed=3) if not ask.leave])
    chat(fleet, "told-1", stream=True, metadata={"tags": ["prod", "review"]})
    chat(fleet, "fallback-1", model="absent:1b", fallback_models=["llama3.2:3b"])
    for name in fleet.nodes.nodes:
        fleet.nodes.script(name, Fault(FaultKind.HTTP_500, times=1))
    chat(fleet, "failed-1")
    fleet.nodes.clear()
    until(lambda: fleet.router.rows("request_id = 'failed-1'"), "the last row is there")


@pytest.fixture(scope="module")
def busy(tmp_path_factory):
    """Four machines, one of them with a name that a browser must not read as markup, and sixty requests."""
    running = started(tmp_path_factory.mktemp("busy"), *MACHINES, EVIL)
    make_history(running)
    chat(running, "evil-1", model=MARKUP)
    running.router.row("evil-1")
    yield running
    running.nodes.stop()
    running.router.stop()


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    """A router that nobody has joined and nobody has asked."""
    running = started(tmp_path_factory.mktemp("fresh"))
    yield running
    running.nodes.stop()
    running.router.stop()
