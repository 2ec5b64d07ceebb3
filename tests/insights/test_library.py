"""The two data files: whole, plausible, and found by the names that engines and drivers use."""

import pytest

from herd.core.signals import GIB
from herd.insights.library import CATEGORIES, GB, LIBRARY
from herd.insights.machines import MACHINES, Accelerator, Machine
from herd.wire import canonical_name

MODELS = {model.name: model for model in LIBRARY.models}


def test_the_catalogue_is_large_enough_to_be_of_use():
    """Sixty models at least, each once, and some for every purpose."""
    assert len(LIBRARY.models) == len(MODELS) >= 60
    for category in CATEGORIES:
        assert sum(category in model.categories for model in LIBRARY.models) >= 8, category


@pytest.mark.parametrize("model", LIBRARY.models, ids=lambda model: model.name)
def test_each_model_is_told_completely(model):
    """A size or a source that is missing would make a recommendation a guess."""
    assert canonical_name(model.name) == model.name
    assert model.default in model.sizes
    assert set(model.categories) <= set(CATEGORIES)
    assert model.categories
    assert model.figures
    assert all(figure.source and 0 < figure.score <= 100 for figure in model.figures)
    assert model.context >= 256


@pytest.mark.parametrize("model", LIBRARY.models, ids=lambda model: model.name)
def test_sizes_are_what_so_many_parameters_take(model):
    """A slip of a digit shows as bits a parameter that no quantisation has; vocabularies weigh on small models."""
    bits = {name: size * 8 / (model.parameters_b * 1e9) for name, size in model.sizes.items()}
    plausible = {"Q4": (3.9, 9.5), "MX": (4, 6), "Q8": (7.4, 13), "FP": (14, 18.5), "BF": (14, 18.5)}
    for name, found in bits.items():
        least, most = plausible[name[:2]]
        assert least <= found <= (12 if model.name.startswith("gemma4:e") and name[:2] == "Q4" else most), (name, found)
    assert 0 < model.active_parameters_b <= model.parameters_b
    assert sorted(bits.values()) == [
        bits[name] for name in sorted(bits, key=lambda name: (name[:2] != "Q4", name[0] != "Q"))
    ]


def test_every_yardstick_is_of_a_category_and_used():
    """A yardstick that nobody was measured with ranks nobody."""
    benchmarks = {figure.benchmark for model in LIBRARY.models for figure in model.figures}
    assert set(LIBRARY.yardsticks) == set(CATEGORIES)
    assert {name for names in LIBRARY.yardsticks.values() for name in names} == benchmarks


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("qwen3:8b", "qwen3:8b"),
        ("qwen3", "qwen3:8b"),
        ("qwen3:latest", "qwen3:8b"),
        ("qwen3:8b-q8_0", "qwen3:8b"),
        ("llama3.1:8b-instruct-q5_K_M", "llama3.1:8b"),
        ("qwen3-coder-next", "qwen3-coder-next:latest"),
        ("qwen3:9b", None),
        ("qwen3-mine", None),
        ("someone/qwen3:8b", None),
        ("8b", None),
    ],
)
def test_a_model_is_found_by_the_names_that_ollama_has_for_it(name, expected):
    """Another quantisation is the same model; another's model of a similar name is not."""
    found = LIBRARY.find(name)
    assert (found.name if found else None) == expected


def test_a_quantisation_that_is_named_has_its_own_size():
    """Eight bits do not fit where four do."""
    assert LIBRARY.size_of("qwen3:8b-q8_0") == round(8.9 * GB)
    assert LIBRARY.size_of("qwen3:8b-thinking") == LIBRARY.size_of("qwen3") == round(5.2 * GB)
    assert LIBRARY.size_of("mine:7b") == 0


def test_models_are_ranked_by_the_same_yardstick_before_the_next():
    """Percentages of different tests cannot be compared."""
    ranked = sorted((model for model in LIBRARY.models if "code" in model.categories),
                    key=lambda model: LIBRARY.rank(model, "code"))  # fmt: skip
    figures = [LIBRARY.quality(model, "code") for model in ranked]
    hard = [figure.score for figure in figures if figure.benchmark == "SWE-bench Verified"]
    assert hard == sorted(hard, reverse=True)
    assert [figure.benchmark for figure in figures[: len(hard)]] == ["SWE-bench Verified"] * len(hard)


def speed(*accelerators, memory=64 * GIB):
    found = MACHINES.speed(Machine("n", memory, accelerators))
    return found and round(found.bandwidth / 1e9)


def nvidia(name, gib):
    return Accelerator(name, "nvidia", gib * GIB)


@pytest.mark.parametrize(
    ("accelerators", "expected"),
    [
        ((nvidia("NVIDIA GeForce RTX 4090", 24),), 1008),
        ((nvidia("NVIDIA GeForce RTX 4090 Laptop GPU", 16),), 576),
        ((nvidia("nvidia geforce rtx 3080", 10),), 760),
        ((nvidia("NVIDIA GeForce RTX 3080", 12),), 912),
        ((Accelerator("Apple M3 Max", "apple", 36 * GIB),), 300),
        ((Accelerator("Apple M3 Max", "apple", 128 * GIB),), 400),
        ((Accelerator("AMD 0x744c", "amd", int(23.98 * GIB)),), 960),
        ((Accelerator("AMD 0x744c", "amd", int(19.98 * GIB)),), 800),
        ((nvidia("NVIDIA GeForce RTX 4090", 24), nvidia("NVIDIA GeForce RTX 3060", 12)), 360),
        ((nvidia("NVIDIA GeForce RTX 9999", 24),), None),
        ((nvidia("NVIDIA GeForce RTX 4090", 24), nvidia("unheard of", 12)), None),
    ],
)
def test_a_chip_is_known_by_the_name_that_its_driver_gives(accelerators, expected):
    """A laptop's card is not the desktop's, and what is unknown is not guessed."""
    assert speed(*accelerators) == expected


def test_without_an_accelerator_the_assumption_is_said():
    """Nobody tells which memory a machine has; the slower kind is assumed, and named."""
    found = MACHINES.speed(Machine("n", 32 * GIB))
    assert (found.bandwidth, found.chip) == (51.2e9, "processor")
    assert "DDR4" in found.assumed
    assert MACHINES.speed(Machine("n", 1, (nvidia("Tesla T4", 15),))).assumed is None


@pytest.mark.parametrize(
    ("machine", "usable"),
    [
        (Machine("mac", 36 * GIB, (Accelerator("Apple M3 Max", "apple", 36 * GIB),)), 24.0),
        (Machine("mac", 64 * GIB, (Accelerator("Apple M2 Max", "apple", 64 * GIB),)), 48.0),
        (Machine("pc", 64 * GIB, (nvidia("NVIDIA GeForce RTX 3090", 24),)), 22.8),
        (Machine("two", 64 * GIB, (nvidia("NVIDIA GeForce RTX 3090", 24),) * 2), 45.6),
        (Machine("gb10", 119 * GIB, (nvidia("NVIDIA GB10", 119),)), 89.25),
        (Machine("cpu", 32 * GIB), 25.6),
        (Machine("small", 4 * GIB), 2.0),
        (Machine("tiny", GIB), 0.0),
    ],
)
def test_some_memory_is_left_to_everything_else(machine, usable):
    """A model that leaves the system nothing is unloaded, or takes the machine with it."""
    assert machine.usable / GIB == pytest.approx(usable, abs=0.01)


def test_a_mixture_reads_only_the_experts_of_a_token():
    """That is what makes thirty billion parameters as fast as three."""
    found = MACHINES.speed(Machine("mac", 64 * GIB, (Accelerator("Apple M2 Max", "apple", 64 * GIB),)))
    dense, mixture = MODELS["qwen3:32b"], MODELS["qwen3:30b"]
    slow, fast = (found.tokens_per_s(model.size, model.active_share) for model in (dense, mixture))
    assert (slow, fast > 5 * slow) == (12.0, True)
    assert found.tokens_per_s(0) is None
