"""The catalogue of models: what Ollama's public library offers, how much memory it takes, and how good it was found.

Reads `models.toml`, once; knows neither nodes nor traffic.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from herd.wire import canonical_name

GB: Final = 10**9
FILE: Final = Path(__file__).with_name("models.toml")
CATEGORIES: Final = ("general", "code", "reasoning", "vision", "embedding", "small and fast")
_UNRANKED: Final = 99


@dataclass(frozen=True, slots=True)
class Figure:
    """One published result, in percent, and where it was published."""

    benchmark: str
    score: float
    source: str


@dataclass(frozen=True, slots=True)
class Model:
    """One model as the library has it. Sizes are bytes by quantisation; `default` is that of the plain name."""

    name: str
    display_name: str
    parameters_b: float
    active_parameters_b: float
    context: int
    default: str
    sizes: Mapping[str, int]
    categories: tuple[str, ...]
    figures: tuple[Figure, ...]
    latest: bool = False

    @property
    def size(self) -> int:
        """Bytes of the weights in the default quantisation."""
        return self.sizes[self.default]

    @property
    def active_share(self) -> float:
        """The share of the weights that one token reads: 1.0 except for mixtures."""
        return self.active_parameters_b / self.parameters_b


class Library:
    """The catalogue, with the yardsticks by which the models of a category are ranked."""

    def __init__(self, models: tuple[Model, ...], yardsticks: Mapping[str, tuple[str, ...]]) -> None:
        self.models = models
        self.yardsticks = yardsticks
        self._by_name = {canonical_name(model.name): model for model in models}
        self._by_name |= {canonical_name(model.name.partition(":")[0]): model for model in models if model.latest}

    def find(self, name: str) -> Model | None:
        """The model of that name, or that it is another quantisation of (`qwen3:8b-q8_0` is `qwen3:8b`); None else."""
        name = canonical_name(name)
        while name not in self._by_name:
            name, dash, _ = name.rpartition("-")
            if not dash or ":" not in name:
                return None
        return self._by_name[name]

    def size_of(self, name: str) -> int:
        """Bytes of the weights of the quantisation that a name asks for; 0 where the catalogue does not have it."""
        model = self.find(name)
        if model is None:
            return 0
        ending = canonical_name(name).removeprefix(canonical_name(model.name)).casefold()
        asked = (size for quantisation, size in model.sizes.items() if ending.endswith(f"-{quantisation.casefold()}"))
        return next(asked, model.size)

    def quality(self, model: Model, category: str) -> Figure | None:
        """The figure by which a model is judged in a category; None where nobody published one."""
        found = {figure.benchmark: figure for figure in model.figures}
        return next((found[name] for name in self.yardsticks[category] if name in found), None)

    def rank(self, model: Model, category: str) -> tuple[float, ...]:
        """Less is better: the yardstick's place, then the score; those without a figure come last, the larger first."""
        figure = self.quality(model, category)
        if figure is None:
            return (_UNRANKED, 0.0, -model.parameters_b)
        return (self.yardsticks[category].index(figure.benchmark), -figure.score, -model.parameters_b)


def load(path: Path = FILE) -> Library:
    """The catalogue of a file. Raises KeyError, TypeError or ValueError where the file is not one."""
    told = tomllib.loads(path.read_text(encoding="utf-8"))
    yardsticks = {category: tuple(names) for category, names in told["yardsticks"].items()}
    return Library(tuple(_model(each) for each in told["models"]), yardsticks)


def _model(told: Mapping[str, Any]) -> Model:
    return Model(
        name=told["name"],
        display_name=told["display_name"],
        parameters_b=float(told["parameters_b"]),
        active_parameters_b=float(told.get("active_parameters_b", told["parameters_b"])),
        context=told["context"],
        default=told["default"],
        sizes={name: round(size * GB) for name, size in told["sizes_gb"].items()},
        categories=tuple(told["categories"]),
        figures=tuple(Figure(**figure) for figure in told["figures"]),
        latest=told.get("latest", False),
    )


LIBRARY: Final = load()
