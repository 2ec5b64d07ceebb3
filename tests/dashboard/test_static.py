"""The page's files: how they are served, and what may not stand in them."""

import re

import httpx
import pytest

from herd.core.events import FLEET_EVENTS, Status
from herd.core.health.checks import CHECKS
from herd.core.signals import SIGNALS
from herd.dataplane.under_way import PHASES
from herd.reference.pages import ENDINGS
from herd.routes.dashboard import FILES, HOME, POLICY
from otel.alerts import alerts
from tests.harness import Router, free_port

OWN = {name: file.body.decode() for name, file in FILES.items() if not name.startswith("vendor/")}
SCRIPTS = {name: text for name, text in OWN.items() if name.endswith(".js")}

TO_MARKUP = ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "DOMParser", "createContextualFragment",
             'setAttribute("style"', "eval(", "new Function", "javascript:")  # fmt: skip


@pytest.fixture(scope="module")
def router(tmp_path_factory):
    """One router for all the questions about its files."""
    started = Router(tmp_path_factory.mktemp("static"), free_port())
    started.start()
    yield started
    started.stop()


def test_the_page_is_served_with_a_policy_that_allows_only_its_own_files(router):
    """Whatever a model, a node or a tag is called, no script but the router's own may ever run here."""
    answer = httpx.get(f"{router.url}/dashboard")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/html")
    assert answer.headers["content-security-policy"] == POLICY
    assert "unsafe" not in POLICY
    assert POLICY.startswith("default-src 'none'")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"


def test_a_file_that_did_not_change_is_not_sent_again(router):
    """The page opens at once, and after an update no browser shows the old one."""
    first = httpx.get(f"{router.url}/dashboard/static/app.js")
    assert first.headers["content-type"].startswith("text/javascript")
    known = {"if-none-match": f'"other", W/{first.headers["etag"]}'}
    again = httpx.get(f"{router.url}/dashboard/static/app.js", headers=known)
    assert (again.status_code, again.content) == (304, b"")
    assert httpx.get(f"{router.url}/dashboard/static/app.js", headers={"if-none-match": '"old"'}).status_code == 200
    head = httpx.head(f"{router.url}/dashboard/static/app.js")
    assert head.content == b""
    assert head.headers["content-length"] == str(len(first.content))


@pytest.mark.parametrize(
    "path", ["../app.py", "%2e%2e/app.py", "..%2fapp.py", "/etc/passwd", "", "vendor/uplot/LICENSE"]
)
def test_nothing_but_the_pages_files_is_served(router, path):
    """A path that leads out of the folder would show an attacker the machine's files."""
    assert httpx.get(f"{router.url}/dashboard/static/{path}").status_code == 404


@pytest.mark.parametrize("name", SCRIPTS)
def test_no_script_makes_markup_from_text(name):
    """One innerHTML is enough for a model's name to become a script."""
    assert [word for word in TO_MARKUP if word in SCRIPTS[name]] == []


@pytest.mark.parametrize("name", SCRIPTS)
def test_each_script_imports_only_files_that_are_there_and_begins_with_its_law(name):
    """There is no build step that would notice."""
    here = (HOME / name).parent
    for wanted in re.findall(r'from "(\.[^"]+)"', SCRIPTS[name]):
        assert (here / wanted).resolve().relative_to(HOME.resolve()).as_posix() in FILES
    assert SCRIPTS[name].startswith("// ")
    assert SCRIPTS[name].count("\n") < 400


def test_no_file_of_ours_names_another_host():
    """The page works where there is no internet, and tells nobody that it was opened."""
    named = {name: re.findall(r"https?://[a-z0-9.-]+", text) for name, text in OWN.items()}
    assert {host for hosts in named.values() for host in hosts} <= {"http://www.w3.org"}  # the namespace of SVG


def test_the_first_page_holds_no_inline_script_or_style():
    """The policy would refuse it, silently for whoever does not look at the console."""
    page = OWN["index.html"]
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\son[a-z]+=|\sstyle=", page)
    names = re.findall(r'(?:src|href)="dashboard/static/([^"]+)"', page)
    assert names
    assert [name for name in names if name not in FILES] == []


def test_all_of_it_is_small():
    """It is fetched whole, perhaps over a slow line."""
    assert sum(len(file.body) for file in FILES.values()) < 400_000


def test_the_chart_library_comes_with_its_licence_and_version():
    """Whoever updates it, or asks whose it is, needs both."""
    vendored = HOME / "vendor" / "uplot"
    version = re.search(r"uPlot (\d+\.\d+\.\d+), MIT", (vendored / "VERSION.md").read_text())
    assert version
    assert "MIT" in (vendored / "LICENSE").read_text()
    assert f"(v{version[1]})" in FILES["vendor/uplot/uPlot.esm.js"].body.decode()


@pytest.mark.parametrize(
    ("table", "words"),
    [("STATUS", Status), ("SIGNALS", SIGNALS)],
)
def test_every_word_of_the_router_has_its_sentence_on_the_page(table, words):
    """A new reason would be shown as a bare word that nobody understands."""
    body = re.search(rf"const {table} = {{\n(.*?)\n}};", SCRIPTS["words.js"], re.DOTALL)[1]
    assert re.findall(r"^  ([a-z_]+): ", body, re.MULTILINE) == [str(word) for word in words]


def test_what_an_ending_means_is_told_in_the_same_words_as_in_the_reference():
    """Two wordings of one thing are two things to a reader."""
    body = re.search(r"const STATUS = {\n(.*?)\n};", SCRIPTS["words.js"], re.DOTALL)[1]
    assert re.findall(r'means:\s+"([^"]+)"', body) == [ENDINGS[status] for status in Status]


def test_each_colour_of_either_theme_is_written_down_once():
    """A colour that is changed in one of two places is wrong for whoever chose his theme the other way."""
    light, dark = re.findall(r"^:root.*?{\n(.*?)^}", OWN["style.css"], re.MULTILINE | re.DOTALL)
    names = [re.findall(r"--([a-z0-9-]+): #", block) for block in (light, dark)]
    assert names[0] == names[1]
    assert len(set(names[0])) == len(names[0]) > 10
    assert "prefers-color-scheme" not in "".join(text for name, text in OWN.items() if name.endswith(".css"))


def test_the_runbook_is_served_as_a_page_with_a_section_for_every_finding_and_every_alert(router):
    """At three in the morning, on a machine without internet, a path in a repository is no help."""
    answer = httpx.get(f"{router.url}/dashboard/runbook")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/html")
    assert answer.headers["content-security-policy"] == POLICY
    sections = re.findall(r'<h3 id="(\w+)">', answer.text)
    assert sorted(sections) == sorted(
        {*(check.check_id for check in CHECKS), *(alert.name.lower() for alert in alerts())}
    )
    links = {*re.findall(r'href="#([^"]+)"', answer.text)}
    assert links - {"main"} == set(re.findall(r'<h[23] id="([^"]+)">', answer.text))
    assert "<!--" not in answer.text
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=", answer.text)
    known = {"if-none-match": answer.headers["etag"]}
    assert httpx.get(f"{router.url}/dashboard/runbook", headers=known).status_code == 304


def test_the_page_has_words_for_each_of_the_cores_signals():
    """A signal without words would be a column without a head."""
    body = re.search(r"const SIGNALS = {\n(.*?)\n};", SCRIPTS["words.js"], re.DOTALL)[1]
    assert re.findall(r"^  ([a-z_]+): {", body, re.MULTILINE) == list(SIGNALS)


def test_the_page_knows_no_change_of_the_fleet_that_there_is_not():
    """A renamed event would leave a dead word behind."""
    body = re.search(r"const CHANGES = {\n(.*?)\n};", SCRIPTS["words.js"], re.DOTALL)[1]
    assert set(re.findall(r"\b([a-z_]+): \"", body)) <= set(FLEET_EVENTS)


def test_the_page_has_words_for_each_phase_of_a_request():
    """A phase without words would be a bare name."""
    body = re.search(r"const PHASES = {\n(.*?)\n};", SCRIPTS["words.js"], re.DOTALL)[1]
    assert tuple(re.findall(r"^  ([a-z_]+): {", body, re.MULTILINE)) == PHASES
