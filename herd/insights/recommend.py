"""Model recommendations per node: what fits, what is requested, what is missing and what is unused.

Pure: machines, traffic and catalogue go in, a document comes out. A model's size comes from the node that has it, else
from the catalogue; models of unknown size are listed, never guessed. Memory is in GiB, as everywhere.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

from herd.core.signals import GIB
from herd.insights.library import CATEGORIES, LIBRARY, Library, Model
from herd.insights.machines import MACHINES, Machine, Machines, Speed, needed
from herd.insights.packing import READABLE, Mix, Placement, Wanted, pack

Document = dict[str, Any]

MOST_NAMED: Final = 20  # limit of listed missing models: clients can send any name


@dataclass(frozen=True, slots=True)
class Traffic:
    """Requests of the last `days`.

    `asked` counts requests by requested model, `served` by node and model; `tokens_per_s` is measured, by
    node and model. `complete`: records cover all of those days.
    """

    days: int = 7
    asked: Mapping[str, int] = field(default_factory=dict)
    served: Mapping[tuple[str, str], int] = field(default_factory=dict)
    tokens_per_s: Mapping[tuple[str, str], float] = field(default_factory=dict)
    complete: bool = False


@dataclass(frozen=True)
class Advice:
    """The input of the recommendations; machines sorted by name."""

    machines: Sequence[Machine]
    traffic: Traffic
    library: Library = LIBRARY
    table: Machines = MACHINES

    def document(self, now: float) -> Document:
        """The recommendations, made at `now` (unix s)."""
        return {
            "generated_at": now,
            "window_days": self.traffic.days,
            "requests": sum(self.traffic.asked.values()),
            "nodes": [self._node(machine) for machine in self.machines],
            "fleet": {
                "usable_memory_gb": _gb(sum(machine.usable for machine in self._open)),
                "mix": [self._placement(placement) for placement in self.mix.placements],
                "missing": list(self._missing()),
                "coverage": self.coverage,
            },
        }

    @cached_property
    def _open(self) -> list[Machine]:
        """The nodes to recommend models for: online, not draining, with an engine that can load any model."""
        return [
            machine
            for machine in self.machines
            if machine.status != "offline" and not machine.draining and machine.engine == "ollama"
        ]

    @cached_property
    def mix(self) -> Mix:
        """Which models should be in which node's memory, given the requests."""
        wanted = [
            Wanted(
                model,
                requests,
                needed(self.size(model)),
                frozenset(machine.node_id for machine in self._open if model in machine.models),
                {machine.node_id: speed for machine in self._open if (speed := self._speed(machine, model)[0])},
            )
            for model, requests in self.traffic.asked.items()
            if self.size(model) and (self.library.find(model) or any(model in each.models for each in self._open))
        ]
        return pack({machine.node_id: machine.usable for machine in self._open}, wanted)

    @cached_property
    def coverage(self) -> Document:
        """Per category: available models, their nodes, and the number of requests."""
        covered: Document = {}
        for category in CATEGORIES:
            here = {
                (model, machine.node_id)
                for machine in self.machines
                if machine.status != "offline"
                for model in machine.models
                if category in self._categories(model)
            }
            asked = (count for model, count in self.traffic.asked.items() if self.category(model) == category)
            covered[category] = {
                "covered": bool(here),
                "models": sorted({model for model, _ in here}),
                "nodes": sorted({node_id for _, node_id in here}),
                "requests": sum(asked),
            }
        return covered

    @cached_property
    def _told_sizes(self) -> dict[str, int]:
        told: dict[str, int] = {}
        for machine in self.machines:
            for model, size in machine.models.items():
                told[model] = max(size, told.get(model, 0))
        return told

    def size(self, model: str) -> int:
        """Bytes of a model's weights, from a node or the catalogue; 0 if unknown."""
        return self._told_sizes.get(model) or self.library.size_of(model)

    def category(self, model: str) -> str | None:
        """A model's main category; None if it is not in the catalogue."""
        return next(iter(self._categories(model)), None)

    def _categories(self, model: str) -> tuple[str, ...]:
        known = self.library.find(model)
        return known.categories if known else ()

    @cached_property
    def _hardware(self) -> dict[str, Speed | None]:
        return {machine.node_id: self.table.speed(machine) for machine in self.machines}

    @cached_property
    def _gaps(self) -> dict[str, str]:
        """The categories without any model in the fleet, each with the node that has the most room left."""
        roomiest = max(self._open, key=lambda machine: (self.mix.left[machine.node_id], machine.node_id), default=None)
        open_ = (category for category in CATEGORIES if not self.coverage[category]["covered"])
        return dict.fromkeys(open_, roomiest.node_id) if roomiest else {}

    def _speed(self, machine: Machine, model: str) -> tuple[float | None, str | None]:
        """Tokens per second and the source of the number; None for embeddings, which generate nothing."""
        measured = self.traffic.tokens_per_s.get((machine.node_id, model))
        if measured:
            return measured, "measured"
        known, hardware = self.library.find(model), self._hardware[machine.node_id]
        if hardware is None or self.category(model) == "embedding":
            return None, None
        expected = hardware.tokens_per_s(self.size(model), known.active_share if known else 1.0)
        return expected, "memory bandwidth" if expected else None

    def _node(self, machine: Machine) -> Document:
        hardware = self._hardware[machine.node_id]
        recommended = list(self._recommended(machine)) if machine in self._open else []
        taken = sum(each.needed for each in self.mix.placements if each.node_id == machine.node_id)
        return {
            "node_id": machine.node_id,
            "status": machine.status,
            "draining": machine.draining,
            "engine": machine.engine,
            "hardware": hardware
            and {
                "chip": hardware.chip,
                "bandwidth_gb_s": round(hardware.bandwidth / 1e9, 1),
                "assumed": hardware.assumed,
            },
            "total_memory_gb": _gb(machine.capacity),
            "usable_memory_gb": _gb(machine.usable),
            "headroom_gb": _gb(machine.usable - taken),
            "current_models": [self._current(machine, model) for model in sorted(machine.models)],
            "recommended_models": recommended,
            "drop": list(self._drop(machine, {each["model"] for each in recommended})),
        }

    def _current(self, machine: Machine, model: str) -> Document:
        return {
            **self._about(machine, model, self.category(model)),
            "size_gb": _gb(self.size(model)) if self.size(model) else None,
            "loaded": model in machine.loaded,
            "fits": needed(self.size(model)) <= machine.usable,
            "request_count": self.traffic.served.get((machine.node_id, model), 0),
        }

    def _about(self, machine: Machine, model: str, category: str | None) -> Document:
        known, size = self.library.find(model), self.size(model)
        figure = self.library.quality(known, category) if known and category else None
        speed, source = self._speed(machine, model)
        return {
            "model": model,
            "display_name": known.display_name if known else model,
            "category": category,
            "ram_gb": _gb(needed(size)) if size else None,
            "quality_score": figure.score if figure else None,
            "quality": figure and {"benchmark": figure.benchmark, "source": figure.source},
            "tokens_per_s": speed,
            "speed_source": source,
        }

    def _recommended(self, machine: Machine) -> Iterator[Document]:
        """Requested models first, then the best model of each category that fits the node."""
        told = set()
        for placement in self.mix.placements:
            if placement.node_id == machine.node_id:
                told.add(placement.model)
                about = self._about(machine, placement.model, self.category(placement.model))
                yield {**about, **self._why(machine, placement)}
        best: dict[str, list[str]] = {}
        for category in CATEGORIES:
            if (model := self._best(machine, category)) and model.name not in told:
                best.setdefault(model.name, []).append(category)
        for name, categories in best.items():
            yield {**self._about(machine, name, categories[0]), **self._why_best(machine, name, categories)}

    def _why(self, machine: Machine, placement: Placement) -> Document:
        held = self._holds(machine, placement.model)
        asked = self.traffic.asked[placement.model]
        share = 100 * asked / sum(self.traffic.asked.values())
        if held:
            then = "on this node's disk, and fits alongside the others: keep it in memory"
        elif placement.copy > 1:
            then = "more than one node's share, so a second copy here would take some of the load"
        else:
            then = "pull it here, where it fits alongside the others"
        reason = f"{_requests(asked)} in {self.traffic.days} days, {share:.0f}% of the total; {then}."
        return {"reason": reason, "priority": "high", "already_available": held}

    def _best(self, machine: Machine, category: str) -> Model | None:
        """The best model of a category that fits a node, without models known to be slower than reading speed."""
        hardware = self._hardware[machine.node_id]

        def fast(model: Model) -> bool:
            expected = hardware.tokens_per_s(model.size, model.active_share) if hardware else None
            measured = self.traffic.tokens_per_s.get((machine.node_id, model.name))
            return category == "embedding" or (measured or expected or READABLE) >= READABLE

        fits = [
            model
            for model in self.library.models
            if category in model.categories and needed(model.size) <= machine.usable and fast(model)
        ]
        return min(fits, key=lambda model: (self.library.rank(model, category), model.name), default=None)

    def _why_best(self, machine: Machine, name: str, categories: Sequence[str]) -> Document:
        model = self.library.find(name)
        figure = self.library.quality(model, categories[0]) if model else None
        proof = f": {figure.score:g}% on {figure.benchmark} ({figure.source})" if figure else ""
        speed = unknown = ""
        if categories[0] != "embedding":
            if self._speed(machine, name)[0]:
                speed = " and answers at reading speed or faster"
            else:
                unknown = "; speed on this node unknown"
        gaps = [category for category in categories if self._gaps.get(category) == machine.node_id]
        before = f"No node has a model for {_listed(gaps)}; best" if gaps else "Best"
        return {
            "reason": f"{before} model for {_listed(categories)} that fits this node{speed}{proof}{unknown}.",
            "priority": "medium" if gaps else "low",
            "already_available": self._holds(machine, name),
            "best_for": list(categories),
        }

    def _holds(self, machine: Machine, model: str) -> bool:
        """Whether a node has a model, in any quantisation."""
        known = self.library.find(model)
        return model in machine.models or (
            known is not None and any(self.library.find(other) is known for other in machine.models)
        )

    def _drop(self, machine: Machine, recommended: set[str]) -> Iterator[Document]:
        """Models on disk that were not used, if the records cover the whole window."""
        if not self.traffic.complete or machine.status == "offline":
            return
        for model, size in sorted(machine.models.items(), key=lambda item: (-item[1], item[0])):
            asked = self.traffic.asked.get(model, 0)
            elsewhere = any(name == model and node_id != machine.node_id for node_id, name in self.traffic.served)
            used = (machine.node_id, model) in self.traffic.served
            if used or model in recommended or (asked and not elsewhere):
                continue
            why = f"other nodes served its {_requests(asked)}" if asked else "no requests"
            freed = f"; removing it frees {_gb(size)} GiB of disk" if size else ""
            reason = f"Not used here in {self.traffic.days} days: {why}{freed}."
            yield {"model": model, "size_gb": _gb(size) if size else None, "reason": reason}

    def _placement(self, placement: Placement) -> Document:
        machine = next(machine for machine in self.machines if machine.node_id == placement.node_id)
        return {
            **self._about(machine, placement.model, self.category(placement.model)),
            "node_id": placement.node_id,
            "requests": self.traffic.asked[placement.model],
            "already_available": self._holds(machine, placement.model),
            "reason": self._why(machine, placement)["reason"],
        }

    def _missing(self) -> Iterator[Document]:
        """Requested models without a place: unknown size, or no node with enough room."""
        unplaced = {each.model for each in self.mix.unplaced}
        named = sorted(self.traffic.asked.items(), key=lambda item: (-item[1], item[0]))
        without = [(model, asked) for model, asked in named if model in unplaced or not self.size(model)]
        for model, asked in without[:MOST_NAMED]:
            size = self.size(model)
            reason = f"{_requests(asked)} in {self.traffic.days} days; {self._why_not(size)}."
            yield {"model": model, "requests": asked, "ram_gb": _gb(needed(size)) if size else None, "reason": reason}

    def _why_not(self, size: int) -> str:
        if not size:
            return "not on any node or in the catalogue, so its size is unknown"
        if not self._open:
            return "no node accepts requests"
        roomiest = max(machine.usable for machine in self._open)
        if needed(size) > roomiest:
            return f"needs {_gb(needed(size))} GiB, but the largest node has {_gb(roomiest)} GiB for models"
        return f"needs {_gb(needed(size))} GiB, but models with more requests per GiB take the room"


def recommend(
    machines: Sequence[Machine],
    traffic: Traffic,
    now: float,
    library: Library = LIBRARY,
    table: Machines = MACHINES,
) -> Document:
    """The recommendations for nodes and fleet at `now` (unix s)."""
    ordered = sorted(machines, key=lambda machine: machine.node_id)
    return Advice(ordered, traffic, library, table).document(now)


def _gb(size: float) -> float:
    return round(size / GIB, 2)


def _requests(count: int) -> str:
    return "1 request" if count == 1 else f"{count:,} requests"


def _listed(categories: Sequence[str]) -> str:
    named = [
        {"general": "general use", "small and fast": "small and fast answers"}.get(each, each) for each in categories
    ]
    return " and ".join([", ".join(named[:-1]), named[-1]] if len(named) > 1 else named)
