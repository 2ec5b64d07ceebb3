"""What a person does on the page: searches, opens a request, drains a node, changes a setting, uses the keyboard."""

import re
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from playwright.sync_api import expect

from herd.sim import SimConfig
from tests.dashboard.conftest import MARKUP, chat
from tests.e2e.conftest import started
from tests.harness import until


def node(fleet, name):
    return next(each for each in fleet.router.get("/fleet/status")["nodes"] if each["node_id"] == name)


def test_a_name_that_looks_like_markup_is_shown_as_text(visit, busy):
    """Whoever names a model, or sends a request for one, must not run a script in an operator's browser."""
    tab = visit(busy)
    for view in ("#/fleet", "#/traces", "#/models", "#/usage", "#/latency", f"#/traces?q={MARKUP}", "#/traces/evil-1"):
        tab.go(view)
        tab.sees(MARKUP)
        assert tab.page.locator("main img, main script").count() == 0


def test_markup_in_an_error_is_shown_as_text(visit, busy):
    """An engine's message is text of an unknown machine."""
    chat(busy, "evil-2", model="<script>alert(2)</script>:1b")
    until(lambda: busy.router.rows("request_id = 'evil-2'"), "its row is there")
    tab = visit(busy)
    tab.go("#/traces/evil-2")
    tab.sees("model '<script>alert(2)</script>:1b' not found")


def test_a_node_is_drained_by_its_button_after_a_question_and_taken_back(visit, busy):
    """Draining is done before a restart, by somebody in a hurry."""
    tab = visit(busy)
    page = tab.go("#/fleet")
    card = page.get_by_role("article", name="Node mini")
    card.get_by_role("button", name="Drain").click()
    page.get_by_role("button", name="Cancel").click()
    assert not node(busy, "mini")["draining"]
    card.get_by_role("button", name="Drain").click()
    page.get_by_role("dialog").get_by_role("button", name="Drain").click()
    expect(card).to_contain_text("draining")
    assert node(busy, "mini")["draining"]
    card.get_by_role("button", name="Resume").click()
    expect(card.get_by_role("button", name="Drain", exact=True)).to_be_visible()
    assert not node(busy, "mini")["draining"]


def test_a_request_is_found_opened_from_the_list_and_left_again(visit, busy):
    """The way from a complaint to its reason."""
    tab = visit(busy)
    page = tab.go("#/traces")
    page.get_by_role("searchbox").fill("told-1")
    expect(page.locator("main tbody tr")).to_have_count(1)
    assert page.url.endswith("#/traces?q=told-1")
    page.locator("main tbody tr").click()
    tab.sees("Where the time went")
    assert page.url.endswith("#/traces/told-1?q=told-1")
    page.get_by_role("link", name="All traces").click()
    expect(page.locator("main tbody tr")).to_have_count(1)


def test_a_link_to_a_request_shows_its_life_and_its_decision(visit, busy):
    """It is sent to a colleague, who has nothing but the link."""
    tab = visit(busy)
    page = tab.go("#/traces/told-1")
    for text in (
        "Prefill",
        "Decode",
        "Excluded",
        "does not have the model",
        "Replayed from the stored inputs",
        "review",
    ):
        tab.sees(text)
    stored = busy.router.get("/dashboard/api/traces/told-1")
    row = page.get_by_role("row").filter(has_text="answered")
    for value in stored["decision"]["plan"][0]["signals"].values():
        expect(row).to_contain_text(f"{value:.1f}")
    for name in ("Load", "Eviction", "Queue", "Own work", "Affinity", "Availability", "Context"):
        expect(page.get_by_role("columnheader", name=name, exact=True)).to_be_visible()
    assert stored["trace_id"] in page.inner_text("main")
    tab.shot("trace-told-1")


def test_a_request_that_failed_shows_every_attempt_and_what_it_said(visit, busy):
    """The row alone says only how the last one ended."""
    tab = visit(busy, "narrow")
    tab.go("#/traces/failed-1")
    stored = busy.router.get("/dashboard/api/traces/failed-1")
    assert len(stored["attempts"]) == 3
    for attempt in stored["attempts"]:
        tab.sees(f"Attempt {attempt['number']}: llama3.2:3b on {attempt['node_id']}")
        tab.sees(attempt["error_message"])
    assert not tab.too_wide()
    tab.shot("trace-failed-1-narrow")


def test_a_request_that_is_not_on_record_says_so_once_and_offers_the_list(visit, busy):
    """A link may be older than what is kept, and then no patience brings it back."""
    tab = visit(busy, expected=("404",))
    asked = []
    tab.page.on("request", lambda request: asked.append(request.url))
    tab.page.clock.install()
    page = tab.go("#/traces/nobody-knows")
    tab.sees("no request 'nobody-knows' on record")
    assert page.get_by_text("Retrying").count() == 0
    page.clock.run_for(60_000)
    page.evaluate("fetch('/dashboard/api/traces?limit=1').then((answer) => answer.status)")  # the last that is asked
    assert sum(url.endswith("/traces/nobody-knows") for url in asked) == 1
    page.locator("main").get_by_role("link", name="All traces").click()
    tab.settled("traces")


def test_the_filters_stand_in_the_address_and_survive_a_reload(visit, busy):
    """What one person found must be what another sees."""
    tab = visit(busy)
    page = tab.go("#/traces?status=rejected&period=24h")
    expect(page.get_by_label("Status")).to_have_value("rejected")
    expect(page.get_by_label("Received")).to_have_value("24h")
    shown = page.locator("main tbody tr")
    wanted = len(busy.router.get("/dashboard/api/traces?status=rejected&limit=1000")["traces"])
    expect(shown).to_have_count(wanted)
    page.get_by_label("Status").select_option("completed")
    expect(page).to_have_url(re.compile(r"/dashboard#/traces\?status=completed&period=24h$"))
    page.reload()
    expect(page.get_by_label("Status")).to_have_value("completed")
    expect(page.locator("main tbody tr").first).to_contain_text("completed")


def test_a_search_that_was_begun_does_not_bring_back_whoever_has_gone_on(visit, busy):
    """What is typed is searched a moment later; by then another section may be shown."""
    tab = visit(busy)
    tab.page.clock.install()
    page = tab.go("#/traces")
    page.get_by_role("searchbox").fill("told-1")
    tab.turn_to("#/usage")
    page.clock.run_for(1000)
    assert page.url.endswith("#/usage")


def test_older_requests_are_a_page_away_and_the_way_back_is_the_browsers(visit, busy):
    """Sixty requests do not fit on one page of fifty."""
    tab = visit(busy)
    page = tab.go("#/traces")
    expect(page.locator("main tbody tr")).to_have_count(50)
    newest = page.locator("main tbody tr").first.inner_text()
    page.get_by_role("link", name="Older").click()
    page.get_by_role("link", name="Newest").wait_for()
    rows = len(busy.router.rows())
    expect(page.locator("main tbody tr")).to_have_count(rows - 50)
    page.go_back()
    expect(page.locator("main tbody tr")).to_have_count(50)
    assert page.locator("main tbody tr").first.inner_text() == newest


def test_a_setting_is_switched_and_kept_over_a_reload(visit, busy):
    """The page must show what the router has, not what was clicked."""
    tab = visit(busy)
    page = tab.go("#/settings")
    switch = page.get_by_role("switch", name="loaded_fallback")
    expect(switch).to_be_checked()
    switch.uncheck()
    tab.sees("Saved: changed from true to false.")
    page.reload()
    expect(page.get_by_role("switch", name="loaded_fallback")).not_to_be_checked()
    assert "loaded_fallback = false" in (busy.router.data_dir / "config.toml").read_text()
    page.get_by_role("switch", name="loaded_fallback").check()
    tab.sees("Saved: changed from false to true.")


def test_a_wrong_value_is_answered_with_the_reason_and_changes_nothing(visit, busy):
    """Next to the field, in the router's own words."""
    tab = visit(busy, expected=("422",))
    page = tab.go("#/settings?q=queue_limit")
    field = page.get_by_role("spinbutton", name="queue_limit")
    field.fill("0")
    field.press("Enter")
    tab.sees("queue_limit must be 1 or more, not 0")
    expect(field).to_have_value("256")
    assert page.get_by_role("spinbutton", name="port").count() == 0  # does not change at run time


def test_a_finding_is_acknowledged_with_a_note_then_silenced_and_told_of_again(visit, busy):
    """What one person knows of, the next one must not find out again."""
    found = busy.router.get("/dashboard/api/health")["recommendations"][0]
    tab = visit(busy)
    page = tab.go("#/health")
    card = page.get_by_role("article", name=found["title"]).first
    card.get_by_role("button", name="Acknowledge").click()
    page.get_by_role("dialog").get_by_role("textbox").fill("known <b>since</b> noon")
    page.get_by_role("dialog").get_by_role("button", name="Acknowledge").click()
    expect(page.get_by_role("region", name="Acknowledged")).to_contain_text("known <b>since</b> noon")
    tab.turn_to("#/fleet")
    heard = [each for each in busy.router.get("/dashboard/api/health")["recommendations"] if wants_a_look(each)]
    expect(page.get_by_role("link", name=re.compile(rf"^{len(heard)} findings?$"))).to_be_visible()
    tab.turn_to("#/health")
    card.get_by_role("button", name="Silence").click()
    page.get_by_role("dialog").get_by_label("Duration").select_option("a day")
    page.get_by_role("dialog").get_by_role("button", name="Silence").click()
    expect(card).to_contain_text("Silenced until")
    stored = finding(busy, found["id"])
    assert stored["acknowledged"]["note"] == "known <b>since</b> noon"
    for note, kept in (("", "known <b>since</b> noon"), ("until Monday", "until Monday")):
        card.get_by_role("button", name="Edit note").click()
        field = page.get_by_role("dialog").get_by_role("textbox")
        expect(field).to_have_value("known <b>since</b> noon")
        field.fill(note)
        page.get_by_role("dialog").get_by_role("button", name="Save note").click()
        until(lambda kept=kept: finding(busy, found["id"])["acknowledged"]["note"] == kept, "the note is there")
        expect(card).to_contain_text(kept)
    assert stored["silenced_until"] > stored["last_seen"] + 80_000
    card.get_by_role("button", name="Unsilence").click()
    expect(card.get_by_role("button", name="Silence", exact=True)).to_be_visible()
    assert finding(busy, found["id"])["silenced_until"] is None


def test_a_nodes_card_says_that_there_is_a_finding_about_it_and_leads_there(visit, busy):
    """The line above says that something is wrong; which of forty machines it is must not be a search."""
    settings = f"{busy.url}/dashboard/api/settings"
    httpx.post(settings, json={"health_memory_warning_pct": 1}).raise_for_status()
    until(lambda: tight(busy), "the finding is there")
    tab = visit(busy)
    page = tab.go("#/fleet")
    said = page.get_by_role("article", name="Node mini").get_by_title("mini is short of memory")
    expect(said).to_have_text(re.compile(r"^\d findings?$"))
    said.click()
    tab.sees("nodes are short of memory")
    httpx.post(settings, json={"health_memory_warning_pct": 85, "health_resolve_after_s": 0}).raise_for_status()
    until(lambda: not tight(busy), "the finding is over")
    httpx.post(settings, json={"health_resolve_after_s": 60}).raise_for_status()
    tab.go("#/fleet")
    page.reload()
    tab.settled()
    assert said.count() == 0


def tight(fleet):
    """The findings of memory that is nearly used up."""
    found = fleet.router.get("/dashboard/api/health")["recommendations"]
    return [each for each in found if each["check_id"] == "memory_pressure"]


def test_a_findings_runbook_is_one_click_away_and_so_is_the_way_back(visit, busy):
    """What to do about it stood in a repository that the operator may not have."""
    found = busy.router.get("/dashboard/api/health")["recommendations"][0]
    tab = visit(busy, "narrow")
    page = tab.go("#/health")
    page.get_by_role("article", name=found["title"]).first.get_by_role("link", name="Runbook").click()
    section = page.get_by_role("heading", name=found["check_id"], exact=True)
    expect(section).to_be_in_viewport()
    assert page.url.endswith(f"/dashboard/runbook#{found['check_id']}")
    assert not tab.too_wide()
    tab.shot("runbook-narrow", whole=False)
    page.get_by_role("button", name="Menu").click()
    page.get_by_role("navigation").get_by_role("link", name="NodeDown", exact=True).click()
    expect(page.get_by_role("heading", name="NodeDown", exact=True)).to_be_in_viewport()
    expect(page.get_by_role("navigation")).to_be_hidden()
    page.get_by_role("link", name="All findings").click()
    tab.settled("health")


def test_an_address_that_names_no_section_says_so_and_offers_those_that_there_are(visit, busy):
    """Another section under a mistyped address would be taken for the answer."""
    tab = visit(busy)
    page = tab.go("#/<b>nonsense")
    tab.sees("No section named <b>nonsense.")
    assert page.title() == "No such page · Herd"
    assert page.get_by_role("navigation").locator("[aria-current]").count() == 0
    page.locator("main").get_by_role("link", name="Health").click()
    tab.settled("health")


def wants_a_look(found):
    return found["severity"] != "info" and not found["acknowledged"] and not found["silenced_until"]


def finding(fleet, number):
    return next(each for each in fleet.router.get("/dashboard/api/health")["recommendations"] if each["id"] == number)


def test_a_request_that_ends_appears_by_itself(visit, busy):
    """The page is left open on a screen."""
    tab = visit(busy)
    page = tab.go("#/fleet")
    expect(page.locator("#connection")).to_have_text("Live")
    chat(busy, "appears-1")
    expect(page.get_by_role("link", name="Request appears-1")).to_be_visible()
    tab.turn_to("#/traces")
    chat(busy, "appears-2")
    page.get_by_role("button", name="Show 1 new request").click()
    expect(page.get_by_role("link", name="Request appears-2")).to_be_visible()


def test_without_a_live_stream_the_page_asks_again_by_itself(visit, busy):
    """A proxy that cuts streams must not make it a still picture."""
    tab = visit(busy, expected=("dashboard/events", "ERR_FAILED"))
    tab.page.route("**/dashboard/events", lambda route: route.abort())
    page = tab.go("#/fleet")
    expect(page.locator("#connection")).to_have_text("Every 5 s")
    chat(busy, "polled-1")
    expect(page.get_by_role("link", name="Request polled-1")).to_be_visible()


def test_a_router_that_stops_is_told_and_one_that_is_back_is_shown_again(visit, tmp_path):
    """What stands on the screen then is old, and must not be taken for the present."""
    fleet = started(tmp_path / "stops", SimConfig("one"))
    tab = visit(fleet, expected=("ERR_", "50[0-9]"))
    page = tab.go("#/fleet")
    fleet.router.stop()
    tab.sees("The router is not responding. Last updated at")
    tab.sees("one")
    fleet.router.start()
    expect(page.get_by_text("The router is not responding.")).to_have_count(0)
    expect(page.locator("#connection")).to_have_text("Live")
    fleet.nodes.stop()
    fleet.router.stop()


def test_a_section_that_the_router_does_not_know_is_a_quiet_sentence(visit, busy):
    """The page may be newer than the router behind a proxy, or a part of it may be off."""
    tab = visit(busy, expected=("404",))
    tab.page.route("**/dashboard/api/models*", lambda route: route.fulfill(status=404, json={"detail": "Not Found"}))
    tab.go("#/models")
    tab.sees("Models: not available from this router")


def test_the_keyboard_reaches_everything(visit, busy):
    """Some people have no mouse, and some do not want one."""
    tab = visit(busy)
    page = tab.go("#/fleet")
    page.keyboard.press("7")
    tab.settled("traces")
    page.keyboard.press("/")
    expect(page.get_by_role("searchbox")).to_be_focused()
    page.keyboard.type("4")  # typed, not obeyed
    expect(page.get_by_role("searchbox")).to_have_value("4")
    page.keyboard.press("Escape")
    page.keyboard.press("g")
    page.keyboard.press("h")
    tab.settled("health")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_contain_text("Keyboard")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    tab.go("#/traces/told-1")
    expect(page.locator("main a[rel=up]")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page).to_have_url(f"{busy.url}/dashboard#/traces")


def test_the_first_tab_stop_leads_past_the_navigation(visit, busy):
    """Ten links on every page are ten too many for whoever goes by Tab."""
    tab = visit(busy)
    page = tab.go("#/fleet")
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    assert page.url.endswith("#/fleet")


def test_a_theme_that_was_chosen_is_there_after_a_reload(visit, busy):
    """The system's choice is only the beginning."""
    tab = visit(busy)
    page = tab.go("#/fleet")
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    button = page.get_by_role("button", name="Theme")
    button.click()
    button.click()
    expect(button).to_have_text("Theme: dark")
    assert page.evaluate(ground) != light
    page.reload()
    expect(page.get_by_role("button", name="Theme")).to_have_text("Theme: dark")
    assert page.evaluate(ground) != light
    page.goto(f"{busy.url}/dashboard/runbook")
    expect(page.get_by_role("button", name="Theme")).to_have_text("Theme: dark")
    assert page.evaluate(ground) != light


def test_until_a_theme_is_chosen_the_page_follows_the_system_also_while_it_is_open(visit, busy):
    """A page that is left open on a screen sees the evening come."""
    tab = visit(busy)
    page = tab.go("#/fleet")
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    page.emulate_media(color_scheme="dark")
    page.wait_for_function(f"() => {ground} !== '{light}'")
    page.get_by_role("button", name="Theme").click()
    expect(page.get_by_role("button", name="Theme")).to_have_text("Theme: light")
    assert page.evaluate(ground) == light


def test_on_a_narrow_screen_the_sections_are_behind_a_menu(visit, busy):
    """At 380 pixels there is no room for a column of links."""
    tab = visit(busy, "narrow")
    page = tab.go("#/fleet")
    link = page.get_by_role("navigation", name="Sections").get_by_role("link", name="Usage")
    expect(link).to_be_hidden()
    page.get_by_role("button", name="Menu").click()
    link.click()
    tab.settled("usage")
    expect(link).to_be_hidden()


@pytest.mark.parametrize(
    ("template", "href"),
    [
        ("http://127.0.0.1:3000/trace/{trace_id}", "http://127.0.0.1:3000/trace/%s"),
        ("", None),
    ],
)
def test_a_request_leads_to_its_spans_where_a_setting_says_where_they_are(visit, busy, template, href):
    """Herd knows the trace's id, and not the tracing system."""
    answer = httpx.post(f"{busy.url}/dashboard/api/settings", json={"trace_url": template})
    assert answer.status_code == 200
    tab = visit(busy)
    page = tab.go("#/traces/told-1")
    link = page.get_by_role("link", name="Spans")
    if href is None:
        assert link.count() == 0
    else:
        expect(link).to_have_attribute("href", href % busy.router.get("/dashboard/api/traces/told-1")["trace_id"])


@pytest.fixture
def pulling(tmp_path):
    """A router that pulls what is asked for, and a node that downloads a gigabyte a second."""
    fleet = started(tmp_path / "pulling", SimConfig("box", pull_bytes_per_s=1e9), HERD_AUTO_PULL="true")
    yield fleet
    fleet.nodes.stop()
    fleet.router.stop()


def test_a_pull_under_way_is_shown_with_its_progress_and_with_who_waits_and_goes_when_it_ends(visit, pulling):
    """Whoever started a model for the first time wonders for an hour what is going on."""
    tab = visit(pulling)
    page = tab.go("#/fleet")
    assert page.get_by_text("Pulls in progress").count() == 0
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(chat, pulling, "pulled-1", model="wanted:8b")
        tab.sees("Pulls in progress")
        line = page.get_by_role("listitem").filter(has_text="wanted:8b to box")
        expect(line).to_have_text(re.compile(r"wanted:8b to box: [1-9]\d?% of 5\.0 GB, 1 request waiting"))
        tab.sees("box pulled wanted:8b")
        assert answer.result().status_code == 200
    expect(page.get_by_text("Pulls in progress")).to_have_count(0)
