"""What is recommended, to whom, and why: from nodes and traffic that a person could write down."""

import random

import pytest

from herd.core.signals import GIB
from herd.insights.library import CATEGORIES
from herd.insights.machines import Accelerator, Machine
from herd.insights.recommend import Traffic, recommend

GB = 10**9
SIZES = {
    "qwen3:8b": int(5.2 * GB),
    "llama3.3:70b": 43 * GB,
    "mine:13b": 8 * GB,
    "nomic-embed-text:latest": int(0.274 * GB),
}


def mac(*models, gib=64, name="mac", **changes):
    chip = Accelerator("Apple M2 Max", "apple", gib * GIB)
    return Machine(name, gib * GIB, (chip,), {model: SIZES[model] for model in models}, **changes)


def pc(*models, **changes):
    card = Accelerator("NVIDIA GeForce RTX 3060", "nvidia", 12 * GIB)
    return Machine("pc", 32 * GIB, (card,), {model: SIZES[model] for model in models}, **changes)


def told(machines, traffic=Traffic()):  # noqa: B008 - frozen
    return recommend(machines, traffic, now=1000.0)


def node(document, name):
    return next(each for each in document["nodes"] if each["node_id"] == name)


def by_model(rows):
    return {row["model"]: row for row in rows}


def test_without_nodes_and_traffic_there_is_nothing_to_say_and_no_error():
    """The first look at a fresh router."""
    document = told([])
    assert (document["nodes"], document["generated_at"], document["requests"]) == ([], 1000.0, 0)
    assert document["fleet"]["mix"] == document["fleet"]["missing"] == []
    assert all(not row["covered"] for row in document["fleet"]["coverage"].values())


def test_a_node_without_traffic_is_told_the_best_that_fits_of_each_kind():
    """What can this machine do, is the first question of capacity planning."""
    found = node(told([pc()]), "pc")
    kinds = {category for row in found["recommended_models"] for category in row["best_for"]}
    assert kinds == set(CATEGORIES)
    assert all(row["ram_gb"] <= found["usable_memory_gb"] for row in found["recommended_models"])
    assert all(row["priority"] == "medium" and not row["already_available"] for row in found["recommended_models"])
    assert found["recommended_models"][0]["reason"].startswith("No node has a model for general use")


def test_a_recommendation_has_the_fields_of_the_contract():
    """The page and scripts read them by name."""
    (found,) = told([mac("qwen3:8b")])["nodes"]
    fields = {"model", "display_name", "category", "ram_gb", "quality_score", "reason", "priority", "already_available"}
    assert all(fields <= row.keys() for row in found["recommended_models"])
    assert {"total_memory_gb", "usable_memory_gb", "headroom_gb", "current_models"} <= found.keys()
    assert all(row["reason"].endswith(".") and row["reason"].count(". ") == 0 for row in found["recommended_models"])


def test_what_is_asked_for_and_on_no_disk_is_recommended_first():
    """The demand is there; only the model is not."""
    document = told([mac(), pc()], Traffic(asked={"qwen3:8b": 120}))
    placed = document["fleet"]["mix"][0]
    first = node(document, placed["node_id"])["recommended_models"][0]
    assert (first["model"], first["priority"], first["already_available"]) == ("qwen3:8b", "high", False)
    assert "120 requests in 7 days, 100% of the total; pull it here" in first["reason"]


def test_what_is_asked_for_and_on_disk_is_said_to_be_there():
    """Nobody should pull what is there already."""
    document = told([mac("qwen3:8b"), pc()], Traffic(asked={"qwen3:8b": 1}))
    first = node(document, "mac")["recommended_models"][0]
    assert (first["model"], first["already_available"]) == ("qwen3:8b", True)
    assert "1 request in 7 days" in first["reason"]
    assert "keep it in memory" in first["reason"]


def test_another_quantisation_of_a_model_counts_as_having_it():
    """Eight bits are better than the four that would be recommended."""
    held = Machine("mac", 64 * GIB, mac().accelerators, {"qwen3.6:27b-q8_0": 30 * GB})
    best = by_model(node(told([held]), "mac")["recommended_models"])["qwen3.6:27b"]
    assert best["already_available"] is True


def test_measured_speed_is_told_before_the_one_expected_from_bandwidth():
    """What was seen is better than what was computed."""
    traffic = Traffic(asked={"qwen3:8b": 50}, tokens_per_s={("mac", "qwen3:8b"): 38.0})
    document = told([mac("qwen3:8b"), pc("qwen3:8b")], traffic)
    speeds = {each["node_id"]: (each["current_models"][0]["tokens_per_s"], each["current_models"][0]["speed_source"])
              for each in document["nodes"]}  # fmt: skip
    assert speeds == {"mac": (38.0, "measured"), "pc": (41.5, "memory bandwidth")}


def test_no_speed_is_claimed_where_none_is_known():
    """Who pulls 40 GB for its speed must not have been told a guess."""
    unheard = Machine("new", 64 * GIB, (Accelerator("NVIDIA GeForce RTX 9999", "nvidia", 48 * GIB),))
    for machine, known in ((unheard, False), (mac(), True)):
        chats = [row for row in told([machine])["nodes"][0]["recommended_models"] if row["best_for"] != ["embedding"]]
        assert chats
        for row in chats:
            assert (row["tokens_per_s"] is not None) is known
            assert ("at reading speed or faster" in row["reason"]) is known
            assert ("speed on this node unknown" in row["reason"]) is not known


def test_a_model_that_nobody_knows_is_named_and_not_sized_by_guess():
    """A guessed size is how a machine is filled to the brim, or kept empty."""
    document = told([mac()], Traffic(asked={"nobodys:7b": 9}))
    (missing,) = document["fleet"]["missing"]
    assert (missing["model"], missing["requests"], missing["ram_gb"]) == ("nobodys:7b", 9, None)
    assert "its size is unknown" in missing["reason"]
    assert document["fleet"]["mix"] == []


def test_a_model_of_ones_own_has_the_size_that_its_node_tells():
    """The catalogue cannot know it; the engine does."""
    document = told([mac("mine:13b")], Traffic(asked={"mine:13b": 9}))
    (placed,) = document["fleet"]["mix"]
    assert (placed["model"], placed["category"], placed["already_available"]) == ("mine:13b", None, True)
    assert placed["ram_gb"] == pytest.approx(8 * GB * 1.1 / GIB + 0.5, abs=0.01)


def test_what_no_node_has_room_for_says_how_much_is_missing():
    """The number decides whether to buy memory or another model."""
    (missing,) = told([pc()], Traffic(asked={"llama3.3:70b": 5}))["fleet"]["missing"]
    assert "needs 44.55 GiB, but the largest node has 11.4 GiB for models" in missing["reason"]
    (without,) = told([], Traffic(asked={"llama3.3:70b": 5}))["fleet"]["missing"]
    assert "no node accepts requests" in without["reason"]


def test_what_was_not_used_for_a_week_may_go():
    """Disks fill up with models that somebody once tried."""
    traffic = Traffic(asked={"qwen3:8b": 5}, served={("mac", "qwen3:8b"): 5}, complete=True)
    (drop,) = node(told([mac("qwen3:8b", "llama3.3:70b", gib=16)], traffic), "mac")["drop"]
    assert (drop["model"], drop["size_gb"]) == ("llama3.3:70b", 40.05)
    assert drop["reason"] == "Not used here in 7 days: no requests; removing it frees 40.05 GiB of disk."


def test_nothing_is_dropped_that_was_asked_for_and_is_nowhere_else():
    """Requests that failed are demand too."""
    traffic = Traffic(asked={"llama3.3:70b": 2}, complete=True)
    assert node(told([mac("llama3.3:70b", gib=16)], traffic), "mac")["drop"] == []


def test_nothing_is_dropped_before_there_are_records_of_the_whole_time():
    """A router that was started yesterday knows nothing of last week."""
    assert node(told([mac("llama3.3:70b", gib=16)], Traffic(complete=False)), "mac")["drop"] == []


@pytest.mark.parametrize("changes", [{"status": "offline"}, {"draining": True}, {"engine": "llamacpp"}])
def test_nothing_is_recommended_to_a_node_that_takes_no_model(changes):
    """Gone, drained, or with an engine that serves what it was started with."""
    document = told([pc(**changes)], Traffic(asked={"qwen3:8b": 5}))
    assert (node(document, "pc")["recommended_models"], document["fleet"]["mix"]) == ([], [])


def test_coverage_tells_what_the_fleet_can_do_and_what_is_asked_of_it():
    """A kind of request without a model fails at the first one."""
    document = told([mac("qwen3:8b", "nomic-embed-text:latest")], Traffic(asked={"qwen3:8b": 7}))
    coverage = document["fleet"]["coverage"]
    assert coverage["general"] == {"covered": True, "models": ["qwen3:8b"], "nodes": ["mac"], "requests": 7}
    assert (coverage["embedding"]["covered"], coverage["vision"]["covered"]) == (True, False)


def test_only_the_roomiest_node_is_urged_to_close_a_gap():
    """One node with a vision model is enough for a beginning."""
    document = told([mac("qwen3:8b"), pc("qwen3:8b")])
    urged = {
        each["node_id"]
        for each in document["nodes"]
        for row in each["recommended_models"]
        if row["priority"] == "medium"
    }
    assert urged == {"mac"}


def test_the_order_of_the_nodes_changes_nothing_in_the_document():
    """The roster gives them in the order in which they came."""
    machines = [mac("qwen3:8b"), pc("mine:13b"), mac("llama3.3:70b", name="mini"), mac(name="other", gib=16)]
    traffic = Traffic(asked={"qwen3:8b": 50, "mine:13b": 20, "llama3.3:70b": 10, "gemma3:12b": 9})
    first = told(machines, traffic)
    assert all(told(random.Random(seed).sample(machines, 4), traffic) == first for seed in range(6))


def test_memory_of_the_mix_and_headroom_are_the_usable_memory():
    """What is not spent is told, and nothing twice."""
    document = told([mac("qwen3:8b"), pc()], Traffic(asked={"qwen3:8b": 5, "gemma3:12b": 9, "llama3.2:3b": 2}))
    for each in document["nodes"]:
        taken = sum(row["ram_gb"] for row in document["fleet"]["mix"] if row["node_id"] == each["node_id"])
        assert taken + each["headroom_gb"] == pytest.approx(each["usable_memory_gb"], abs=0.05)
