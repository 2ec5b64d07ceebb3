"""The checks of models: when each fires, and when it must not."""

import pytest

from herd.core.health.report import ContextActions, Fallback, LoadedFacts, Turnover
from tests.health.builders import GIB, LLAMA, found, history, node, one, report, served, severities


def fallen_back(count, of=100):
    return history(served=(served(of),), fallbacks=(Fallback("big:70b", LLAMA, "loaded_alternative", count),))


@pytest.mark.parametrize(
    ("count", "of", "expected"),
    [(0, 100, []), (1, 100, ["info"]), (5, 100, ["info"]), (6, 100, ["warning"]), (3, 10, ["info"])],
)
def test_fallbacks_are_told_and_are_a_warning_over_five_percent(count, of, expected):
    """A user who asked for the large model got the small one; of ten requests three prove nothing yet."""
    past = fallen_back(count, of) if count else history()
    assert severities("vram_fallback", report(past=past)) == expected


def test_fallbacks_list_the_requested_and_the_answering_model():
    """Which model to load is the answer to it."""
    told = one("vram_fallback", report(past=fallen_back(7)))
    assert f"big:70b → {LLAMA} 7" in told.description
    assert told.data["reasons"] == {"loaded_alternative": 7}


@pytest.mark.parametrize(
    ("actions", "expected"),
    [((), []), (("stripped",), ["info"]), (("moved",), ["info"]), (("stripped", "warned"), ["warning"])],
)
def test_context_protection_is_to_know_and_a_reload_is_a_warning(actions, expected):
    """What was stripped cost nothing; what was passed on cost a reload each time."""
    past = history(context=tuple(ContextActions(LLAMA, action, 3, 65_536, 4096) for action in actions))
    assert severities("context_protection", report(past=past)) == expected


def test_context_protection_names_the_largest_context_that_was_asked():
    """It is what the model should be loaded with."""
    asked = [ContextActions("a:1b", "warned", 2, 9000, 4096), ContextActions("b:1b", "warned", 1, 65_536, 8192)]
    told = one("context_protection", report(past=history(context=tuple(asked))))
    assert "b:1b for 65,536 tokens; 8,192 are loaded" in told.description


@pytest.mark.parametrize(("loads", "unloads", "fires"), [(4, 3, True), (5, 5, True), (4, 1, False), (3, 3, False)])
def test_a_model_that_comes_and_goes_thrashes(loads, unloads, fires):
    """Four loads without unloads are four agents that started, not one memory that is too small."""
    told = found("model_thrashing", report(past=history(turnover=(Turnover("ada", LLAMA, loads, unloads),))))
    assert [(each.severity, each.node_id, each.model) for each in told] == (
        [("warning", "ada", LLAMA)] if fires else []
    )


@pytest.mark.parametrize(
    ("size", "weights", "expected"),
    [
        (11, 2, []), (12, 2, ["info"]), (22, 2, ["warning"]), (35, 2, ["critical"]), (60, 45, []), (12, 0, []),
    ],
)  # fmt: skip
def test_a_cache_that_takes_a_large_share_of_the_memory_is_told_by_that_share(size, weights, expected):
    """A large model may have a large cache; a small one with a huge cache is a mistake in num_ctx or slots."""
    bloated = node(loaded=(LoadedFacts(LLAMA, size * GIB, weights * GIB, 131_072),))
    assert severities("kv_cache_bloat", report(bloated)) == expected


def test_the_share_is_that_of_the_gpu_where_there_is_one():
    """Ten gigabytes are little beside 64, and half of a small card."""
    card = node(loaded=(LoadedFacts(LLAMA, 9 * GIB, 2 * GIB, 65_536),), vram_total=16 * GIB, vram_used=9 * GIB)
    told = one("kv_cache_bloat", report(card))
    assert told.severity == "warning"
    assert "7.0 GiB of KV cache and buffers" in told.description
    assert "44% of the node's memory" in told.description
    assert "65,536 tokens" in told.description


@pytest.mark.parametrize(
    ("context", "tokens", "requests", "fires"),
    [(131_072, 3000, 100, True), (8192, 3000, 100, False), (131_072, 100_000, 100, False), (131_072, 3000, 19, False),
     (131_072, 0, 100, False), (None, 3000, 100, False)],
)  # fmt: skip
def test_a_context_far_larger_than_any_request_is_wasted_memory(context, tokens, requests, fires):
    """Memory that another model could live in."""
    wide = node(loaded=(LoadedFacts(LLAMA, 12 * GIB, 2 * GIB, context),))
    past = history(served=(served(requests, largest_tokens=tokens),))
    told = found("context_waste", report(wide, past=past, limits={"health_kv_info_pct": 100}))
    assert bool(told) is fires
    assert all("A context of 8,192 would free about 9.4 GiB" in each.description for each in told)


@pytest.mark.parametrize(("context", "fires"), [(131_072, True), (4096, False)])
def test_no_context_below_the_usual_one_is_advised(context, fires):
    """A day of short requests is no reason to cut off tomorrow's conversation."""
    wide = node(loaded=(LoadedFacts(LLAMA, 12 * GIB, 2 * GIB, context),))
    told = found("context_waste", report(wide, past=history(served=(served(100, largest_tokens=80),))))
    assert [each.data["enough"] for each in told] == [4096] * fires


def test_a_waste_that_is_not_worth_a_reload_is_not_told():
    """Half a gigabyte frees no room for anything."""
    small = node(loaded=(LoadedFacts(LLAMA, int(2.5 * GIB), 2 * GIB, 131_072),))
    past = history(served=(served(100, largest_tokens=3000),))
    assert found("context_waste", report(small, past=past)) == []


@pytest.mark.parametrize("check_id", ["kv_cache_bloat", "context_waste"])
def test_what_a_lost_node_had_loaded_is_not_told(check_id):
    """It is not in any memory any more."""
    gone = node(status="offline", loaded=(LoadedFacts(LLAMA, 60 * GIB, 2 * GIB, 131_072),))
    assert found(check_id, report(gone)) == []


@pytest.mark.parametrize(("changes", "named"), [(0, False), (2, False), (3, True), (6, True)])
def test_reloads_that_follow_other_contexts_are_put_down_to_them_and_others_to_memory(changes, named):
    """More memory does not help against two clients that disagree about num_ctx."""
    told = one("model_thrashing", report(past=history(turnover=(Turnover("ada", LLAMA, 6, 5, changes),))))
    assert ("num_ctx" in told.description, "num_ctx" in told.fix) == (named, named)
    assert ("compete for the node's memory" in told.fix) is not named
