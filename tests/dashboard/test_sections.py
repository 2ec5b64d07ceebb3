"""Every section of the page, with data and without, wide and narrow, light and dark: it shows what it should, fits the
screen, asks no other host, says nothing on the console, and can be read by a screen reader."""

import re
from urllib.parse import urlencode, urljoin

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from tests.dashboard.conftest import SECTIONS, SHAPES

SHOWN = {
    "fleet": ["nodes up", "studio", "gpu-box", "mini", "llama3.3:70b", "Latest requests"],
    "trends": ["Requests per hour", "Time to first token", "Tokens per hour"],
    "latency": [
        "Percentiles",
        "First token",
        "Router overhead",
        "By model and node",
        "Predicted against actual",
        "studio",
    ],
    "usage": ["Requests by model", "Tokens in", "llama3.2:3b", "qwen3:8b"],
    "models": ["llama3.2:3b", "loaded", "nomic-embed-text:latest"],
    "apps": ["prod", "batch", "night", "user:ann"],
    "traces": ["llama3.2:3b", "completed", "rejected", "studio"],
    "health": ["of 100", "What to do:", "node_offline", "passing", "heartbeat_offline_s"],
    "recommendations": ["studio", "gpu-box", "mini"],
    "plan": ["Add a node", "Traffic", "Simulate"],
    "settings": ["retention_days", "Days to keep rows in the trace store.", "/.fleet-manager/config.toml"],
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
    "plan": "herd-node",
    "settings": "Take effect immediately",
}
SCOPED = ("trends", "latency", "usage", "models", "apps")
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


# One right after the other, before the router has answered for the first.
CHOOSE_TWO = """(bar, values) => values.forEach((value, index) => {
    const select = bar.querySelectorAll('select')[index];
    select.value = value;
    select.dispatchEvent(new Event('change'));
})"""


@pytest.mark.parametrize("section", SCOPED)
def test_each_table_is_narrowed_to_what_the_address_names_and_so_are_its_files(visit, busy, section):
    """What one person narrowed down must be what a colleague sees, and what his spreadsheet gets."""
    tab = visit(busy)
    page = tab.go(f"#/{section}?tag=night")
    bar = page.get_by_role("group", name="Filters")
    expect(bar.get_by_label("Tag")).to_have_value("night")
    bar.evaluate(CHOOSE_TWO, ["gpu-box", "qwen3:8b"])
    expect(page).to_have_url(re.compile(rf"/dashboard#/{section}\?.*node_id=gpu-box&model=qwen3"))
    scope = {"node_id": "gpu-box", "model": "qwen3:8b", "tag": "night"}
    wanted = httpx.get(f"{busy.url}/dashboard/api/{section}", params=scope).json()
    assert 0 < requests_of(section, wanted) < requests_of(section, busy.router.get(f"/dashboard/api/{section}"))
    SHOWS[section](page, requests_of(section, wanted))
    for form in ("CSV", "JSON"):
        link = page.get_by_role("link", name=form, exact=True)
        asked = re.escape(urlencode({**scope, "format": form.lower()}))
        expect(link).to_have_attribute("href", re.compile(rf"/dashboard/api/{section}\?(days|hours)=\d+&{asked}"))
        assert httpx.get(urljoin(busy.url, link.get_attribute("href"))).status_code == 200
    page.get_by_role("link", name="Clear filters").click()
    expect(bar.get_by_label("Node")).to_have_value("")


def requests_of(section, document):
    """How many requests an answer is about."""
    rows = [document["total"]] if section == "latency" else document["data"]
    return sum(row["request_count"] for row in rows)


def sum_of_column(page, requests):
    """The numbers below the head `Requests` of the first table that has one."""
    page.wait_for_function(
        """sum => {
            const columns = [...document.querySelectorAll('main table')]
                .map(table => [...table.querySelectorAll('td[data-head=Requests]')]);
            const cells = columns.find(column => column.length) ?? [];
            return cells.reduce((all, cell) => all + parseInt(cell.innerText), 0) === sum;
        }""",
        arg=requests,
    )


def sum_of_chart(page, requests):
    """The numbers of the first chart's table."""
    page.locator("figure.chart summary").first.click()
    page.wait_for_function(
        """sum => [...document.querySelector('figure.chart details').querySelectorAll('td')]
            .reduce((all, cell) => all + Number(cell.innerText), 0) === sum""",
        arg=requests,
    )


SHOWS = {**dict.fromkeys(SCOPED, sum_of_column), "trends": sum_of_chart}


def test_filters_that_nothing_matches_say_so_instead_of_blank_charts_or_of_how_to_begin(visit, busy):
    """Six empty frames look like a defect, and a command to send the first request like a lost database."""
    tab = visit(busy)
    tab.go("#/fleet")
    for section in SCOPED:
        tab.turn_to(f"#/{section}?node_id=mini&tag=nobody-uses-this")
        tab.sees("2 active filters: node mini, tag nobody-uses-this.")
        assert tab.page.locator("figure.chart, main table, .copyable").count() == 0
        tab.page.get_by_role("link", name="Clear filters").click()
        expect(tab.page.get_by_text("active filters")).to_have_count(0)
        assert tab.page.url.endswith(f"#/{section}")


def test_on_a_phone_every_number_says_what_it_is_and_a_table_can_be_sorted(visit, busy):
    """There are no heads above the columns there: two bare durations below one another are a riddle."""
    tab = visit(busy, "narrow")
    page = tab.go("#/models")
    row = page.locator("main tbody tr").filter(has_text="llama3.2:3b")
    for text in (r"\d% of all", r"p50 [\d.]+ m?s\s+p95 [\d.]+ m?s", r"in [\d,.k]+\s+out [\d,.k]+"):
        assert re.search(text, row.inner_text()), text
    page.get_by_label("Sort by").select_option("Model")
    expect(page).to_have_url(re.compile(r"/dashboard#/models\?sort=model.up$"))
    names = page.locator("main tbody th")
    expect(names).to_have_text(sorted(names.all_inner_texts(), key=lambda name: (name == "none", name)))
    page.set_viewport_size({"width": 1280, "height": 900})
    assert "p50 " not in row.inner_text()
    expect(page.get_by_label("Sort by")).to_be_hidden()


def test_memory_is_told_in_gibibytes_wherever_it_is_told(visit, busy):
    """A finding says 21.1 GiB; a card that says 21.1 GB of the same memory makes one of them wrong."""
    tab = visit(busy)
    page = tab.go("#/fleet")
    card = page.get_by_role("article", name="Node gpu-box")
    expect(card).to_contain_text("of 64.0 GiB")
    expect(card).to_contain_text("of 24.0 GiB")
    for view in ("fleet", "health", "recommendations"):
        tab.turn_to(f"#/{view}")
        assert re.findall(r"[\d.]+ GB(?!/s)", page.inner_text("main")) == []


def test_charts_side_by_side_stand_on_one_line_however_long_their_legends_are(visit, busy):
    """Two axes are compared by the eye."""
    tab = visit(busy)
    page = tab.go("#/usage")
    page.wait_for_function("() => document.querySelectorAll('herd-chart canvas').length === 2")
    tops = "part => [...document.querySelectorAll(part)].map(each => each.getBoundingClientRect().top)"
    assert len({round(top) for top in page.evaluate(tops, "herd-chart canvas")}) == 1
    entries = page.evaluate(tops, "figure:first-of-type .legend-item")
    assert max(entries) > min(entries), "the first legend is too short to put the second chart out of line"


@pytest.mark.parametrize(("scheme", "rules"), [("light", STRICT), ("dark", CONTRAST)], ids=["light", "dark"])
def test_every_section_passes_the_checks_of_accessibility(visit, busy, scheme, rules):
    """Names, roles, landmarks, order of headings, and contrast in either scheme."""
    tab = visit(busy, "wide", scheme)
    tab.go("#/fleet")
    found = {}
    options = {"runOnly": rules, "resultTypes": ["violations"]}
    for view in [*(section for section in SECTIONS if section != "traces"), "traces?q=told", "traces/told-1"]:
        tab.turn_to(f"#/{view}")
        found[view] = violations(tab.page, options)
    tab.page.goto(f"{busy.url}/dashboard/runbook")
    found["runbook"] = violations(tab.page, options)
    tab.shot(f"runbook-wide-{scheme}", whole=False)
    assert {view: each for view, each in found.items() if each} == {}


def violations(page, options):
    """What axe finds, and where."""
    found = Axe().run(page, options=options).response["violations"]
    return [(each["id"], [node["html"][:160] for node in each["nodes"][:3]]) for each in found]


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
    tab.page.wait_for_function(
        "() => [...(window.written ?? new Map()).values()].filter((texts) => texts.length).length > 4"
    )
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
    tab.page.wait_for_function("() => document.querySelectorAll('figure.chart details table tbody tr').length > 0")
    assert rows.count() == 8
    requests = sum(row["request_count"] for row in busy.router.get("/dashboard/api/usage")["data"])
    shown = sum(int(text) for text in rows.locator("td").all_inner_texts() if text.isdigit())
    assert shown == requests


@pytest.mark.parametrize("section", ["apps", "usage"])
def test_a_column_that_counts_more_than_what_failed_is_not_named_so(visit, busy, section):
    """`failed_count` of the API and of the file is another number: what broke off is beside it, not in it."""
    tab = visit(busy)
    page = tab.go(f"#/{section}")
    table = page.get_by_role("table").filter(has=page.get_by_role("columnheader", name="Requests")).first
    heads = table.get_by_role("columnheader")
    names = heads.all_inner_texts()
    place = next(place for place, name in enumerate(names) if name.strip() == "Errors")
    assert not [name for name in names if name.strip() == "Failed"]
    shown = [row.locator("th, td").nth(place).inner_text() for row in table.locator("tbody tr").all()]
    rows = busy.router.get(f"/dashboard/api/{section}")["data"]
    assert sum(map(int, shown)) == sum(row["failed_count"] + row["incomplete_count"] for row in rows)
