"""Every section of the page, with data and without, wide and narrow, light and dark: it shows what it should, fits the
screen, asks no other host, says nothing on the console, and can be read by a screen reader."""

import pytest
from axe_playwright_python.sync_playwright import Axe

from tests.dashboard.conftest import SECTIONS, SHAPES

SHOWN = {
    "fleet": ["nodes up", "studio", "gpu-box", "mini", "llama3.3:70b", "Just ended"],
    "trends": ["Requests per hour", "Time to first token", "Tokens per hour"],
    "latency": ["Percentiles", "First token", "Herd's own", "By model and node", "llama3.2:3b", "studio"],
    "usage": ["Requests by model", "Tokens in", "llama3.2:3b", "qwen3:8b"],
    "models": ["llama3.2:3b", "loaded", "nomic-embed-text:latest"],
    "apps": ["prod", "batch", "night", "user:ann"],
    "traces": ["llama3.2:3b", "completed", "rejected", "studio"],
    "health": ["of 100", "What to do:", "node_offline", "passes", "heartbeat_offline_s"],
    "recommendations": ["studio", "gpu-box", "mini"],
    "settings": ["retention_days", "Days that rows are kept.", "/.fleet-manager/config.toml"],
}
TO_DO = {
    "fleet": "herd-node",
    "trends": "curl -s http",
    "latency": "curl -s http",
    "usage": "curl -s http",
    "models": "curl -s http",
    "apps": "X-Herd-Tags: prod, review",
    "traces": "curl -s http",
    "health": "herd-node",
    "recommendations": "herd-node",
    "settings": "Change at once",
}
STRICT = {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]}
CONTRAST = {"type": "rule", "values": ["color-contrast"]}  # all else is the same in either scheme


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("shape", SHAPES)
def test_every_section_shows_what_the_fleet_did_and_fits_the_screen(visit, busy, shape, scheme):
    """An operator opens it on whatever is at hand."""
    tab = visit(busy, shape, scheme)
    tab.go("#/fleet")
    for section in SECTIONS:
        tab.turn_to(f"#/{section}")
        for text in SHOWN[section]:
            tab.sees(text)
        assert not tab.too_wide(), f"{section} is wider than the {shape} screen"
        tab.shot(f"busy-{section}-{shape}-{scheme}")


@pytest.mark.parametrize("shape", SHAPES)
def test_every_section_of_an_empty_fleet_says_what_to_do_next(visit, fresh, shape):
    """The first thing that a newcomer sees is a page without anything on it."""
    tab = visit(fresh, shape)
    tab.go("#/fleet")
    for section in SECTIONS:
        tab.turn_to(f"#/{section}")
        tab.sees(TO_DO[section])
        assert not tab.too_wide(), f"{section} is wider than the {shape} screen"
        tab.shot(f"empty-{section}-{shape}")


def test_filters_that_nothing_matches_say_so_instead_of_blank_charts(visit, busy):
    """Six empty frames look like a defect."""
    tab = visit(busy)
    tab.go("#/trends?node_id=mini&tag=nobody-uses-this")
    tab.sees("Choose a longer window")
    assert tab.page.locator("figure.chart").count() == 0


@pytest.mark.parametrize(("scheme", "rules"), [("light", STRICT), ("dark", CONTRAST)], ids=["light", "dark"])
def test_every_section_passes_the_checks_of_accessibility(visit, busy, scheme, rules):
    """Names, roles, landmarks, order of headings, and contrast in either scheme."""
    tab = visit(busy, "wide", scheme)
    tab.go("#/fleet")
    found = {}
    options = {"runOnly": rules, "resultTypes": ["violations"]}
    for view in [*(section for section in SECTIONS if section != "traces"), "traces?q=told", "traces/told-1"]:
        tab.turn_to(f"#/{view}")
        violations = Axe().run(tab.page, options=options).response["violations"]
        found[view] = [(each["id"], [node["html"][:160] for node in each["nodes"][:3]]) for each in violations]
    assert {view: violations for view, violations in found.items() if violations} == {}


WRITTEN = """() => {
    const write = CanvasRenderingContext2D.prototype.fillText, clear = CanvasRenderingContext2D.prototype.clearRect;
    window.written = new Map();
    CanvasRenderingContext2D.prototype.clearRect = function (...at) {
        window.written.set(this.canvas, []);
        return clear.apply(this, at);
    };
    CanvasRenderingContext2D.prototype.fillText = function (text, ...at) {
        window.written.get(this.canvas)?.push(String(text));
        return write.call(this, text, ...at);
    };
}"""


def test_an_axis_of_counts_has_each_whole_number_once(visit, busy):
    """`0 0 0 1 1 1` beside an empty chart looks like a defect, and is one."""
    tab = visit(busy)
    tab.page.add_init_script(f"({WRITTEN})()")
    tab.go("#/trends?hours=24&model=qwen3:8b")
    tab.page.wait_for_function("[...(window.written ?? new Map()).values()].filter((texts) => texts.length).length > 4")
    for texts in tab.page.evaluate("[...window.written.values()]"):
        numbers = [text for text in texts if text.isdigit()]
        assert len(numbers) == len(set(numbers)), texts


def test_every_chart_has_a_table_of_the_same_numbers(visit, busy):
    """A canvas says nothing to a screen reader."""
    tab = visit(busy)
    tab.go("#/usage")
    charts = tab.page.locator("figure.chart")
    assert charts.count() == 2
    charts.first.locator("summary").click()
    rows = charts.first.locator("details table tbody tr")
    tab.page.wait_for_function("document.querySelectorAll('figure.chart details table tbody tr').length > 0")
    assert rows.count() == 8
    requests = sum(row["request_count"] for row in busy.router.get("/dashboard/api/usage")["data"])
    shown = sum(int(text) for text in rows.first.locator("td").all_inner_texts() if text.isdigit())
    assert shown == requests
