"""From figures to Markdown: medians, ratios, and which targets are met. Pure; it measures nothing."""

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks.contenders import Footprint
from benchmarks.workloads import TITLES, WORKLOADS, Figures, Workload

LEAST_OF_BARE: Final = 0.6
CPU_A_TOKEN_OF_BARE: Final = 1.3
ADDED_P50_MS: Final = 0.5
P99_OF_BARE: Final = 2.0
MEMORY_MB: Final = 130.0
PAGE_MOVES_P99_MS: Final = 3.0
STRETCH_OF_NGINX: Final = 0.5
MIB_IN_MB: Final = 2**20 / 1e6
HERD_TO_BARE: Final = "herd / bare"


@dataclass(slots=True)
class Results:
    """Everything that a run measured; `rounds` by workload and contender, in the order of the rounds."""

    contenders: Sequence[str]
    missing: Mapping[str, str]
    rounds: dict[str, dict[str, list[Figures]]]
    memory: dict[str, Footprint]
    page_p99_ms: Sequence[tuple[float, float]] = ()

    def of(self, workload: str, contender: str, figure: Callable[[Figures], float]) -> float | None:
        """The median of a figure over the rounds; None where it was not measured."""
        found = self.rounds.get(workload, {}).get(contender)
        return statistics.median(map(figure, found)) if found else None

    def against(
        self, workload: str, contender: str, other: str, compare: Callable[[Figures, Figures], float]
    ) -> float | None:
        """The median of a comparison within each round; None where either was not measured."""
        mine, theirs = (self.rounds.get(workload, {}).get(name) for name in (contender, other))
        if not mine or not theirs:
            return None
        return statistics.median(compare(*pair) for pair in zip(mine, theirs, strict=True))


@dataclass(frozen=True, slots=True)
class Verdict:
    """A target and what was measured, as text; `met` None says that there was nothing to judge."""

    target: str
    found: str
    met: bool | None

    @property
    def word(self) -> str:
        """The verdict in one word."""
        return {True: "pass", False: "**miss**", None: "not measured"}[self.met]


def verdicts(results: Results, herd: str = "herd") -> list[Verdict]:
    """Each target of herd's, judged."""
    closed = [work for work in WORKLOADS if not work.paced]
    ones = [work for work in closed if work.clients == 1]
    found = [
        *(_at_least(results, work, herd, "bare", LEAST_OF_BARE) for work in closed),
        _cpu_a_token(results, herd),
        *(_added_p50(results, work, herd) for work in ones),
        *(_p99(results, work, herd) for work in ones),
        _memory(results, herd),
        *_page(results),
        *(_at_least(results, work, herd, "nginx", STRETCH_OF_NGINX) for work in closed if work.stream),
    ]
    return [verdict for verdict in found if verdict.met is not None]


def markdown(results: Results, head: str) -> str:
    """The whole report."""
    parts = [head, _throughput(results), _latency(results), _paced(results), _memories(results)]
    if results.page_p99_ms:
        parts.append(_page_table(results))
    parts.append(_targets(results))
    if results.missing:
        parts.append("\n".join(f"Without {TITLES[name]}: {why}." for name, why in results.missing.items()))
    return "\n\n".join(part for part in parts if part) + "\n"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table whose first column is text and whose others are numbers."""
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *rows))


def _at_least(results: Results, work: Workload, herd: str, other: str, share: float) -> Verdict:
    ratio = results.against(work.name, herd, other, lambda mine, theirs: mine.requests_s / theirs.requests_s)
    kind = "stretch: " if other == "nginx" else ""
    target = f"{kind}requests/s, {work.title}: at least {share:g} × {TITLES[other]}"
    return Verdict(target, _number(ratio, 2, " ×"), None if ratio is None else ratio >= share)


def _cpu_a_token(results: Results, herd: str) -> Verdict:
    ratio = results.against("paced-200", herd, "bare", lambda mine, theirs: mine.cpu_us / theirs.cpu_us)
    target = f"CPU a token: at most {CPU_A_TOKEN_OF_BARE:g} × {TITLES['bare']}"
    return Verdict(target, _number(ratio, 2, " ×"), None if ratio is None else ratio <= CPU_A_TOKEN_OF_BARE)


def _added_p50(results: Results, work: Workload, herd: str) -> Verdict:
    added = results.against(work.name, herd, "direct", lambda mine, theirs: mine.p50_ms - theirs.p50_ms)
    target = f"added p50, {work.title}: at most {ADDED_P50_MS:g} ms"
    return Verdict(target, _number(added, 2, " ms"), None if added is None else added <= ADDED_P50_MS)


def _p99(results: Results, work: Workload, herd: str) -> Verdict:
    ratio = results.against(work.name, herd, "bare", lambda mine, theirs: mine.p99_ms / theirs.p99_ms)
    target = f"p99, {work.title}: at most {P99_OF_BARE:g} × {TITLES['bare']}"
    return Verdict(target, _number(ratio, 2, " ×"), None if ratio is None else ratio <= P99_OF_BARE)


def _memory(results: Results, herd: str) -> Verdict:
    held = results.memory.get(herd)
    megabytes = None if held is None else (held.pss_mib or held.rss_mib) * MIB_IN_MB
    target = f"memory of all processes: at most {MEMORY_MB:g} MB"
    return Verdict(target, _number(megabytes, 0, " MB"), None if megabytes is None else megabytes <= MEMORY_MB)


def _page(results: Results) -> list[Verdict]:
    if not results.page_p99_ms:
        return []
    moved = statistics.median(beside - alone for alone, beside in results.page_p99_ms)
    target = f"a page that reads a month moves p99 by less than {PAGE_MOVES_P99_MS:g} ms"
    return [Verdict(target, f"{moved:.2f} ms", moved < PAGE_MOVES_P99_MS)]


def _titles(results: Results) -> list[str]:
    return [TITLES[name] for name in results.contenders]


def _throughput(results: Results) -> str:
    rows = [
        [work.title, *_medians(results, work, lambda each: each.requests_s, 0)]
        for work in WORKLOADS
        if work.name in results.rounds and not work.paced
    ]
    if not rows:
        return ""
    return "Requests per second:\n\n" + table(["", *_titles(results), HERD_TO_BARE], rows)


def _latency(results: Results) -> str:
    rows = []
    for work in (work for work in WORKLOADS if work.name in results.rounds and not work.paced):
        for label, digits, figure in (
            ("p50 ms", 2, lambda each: each.p50_ms),
            ("p99 ms", 2, lambda each: each.p99_ms),
            ("CPU µs a request", 0, lambda each: each.cpu_us),
        ):
            rows.append([f"{work.title}: {label}", *_medians(results, work, figure, digits)])
        if work.clients == 1:
            rows += _added(results, work)
    return "Latency and cost of a request:\n\n" + table(["", *_titles(results), HERD_TO_BARE], rows) if rows else ""


def _added(results: Results, work: Workload) -> list[list[str]]:
    rows = []
    for label, compare in (
        ("added p50 ms", lambda mine, theirs: mine.p50_ms - theirs.p50_ms),
        ("added p99 ms", lambda mine, theirs: mine.p99_ms - theirs.p99_ms),
    ):
        found = [_number(results.against(work.name, name, "direct", compare), 2) for name in results.contenders]
        rows.append([f"{work.title}: {label}", *found, ""])
    return rows


def _medians(results: Results, work: Workload, figure: Callable[[Figures], float], digits: int) -> list[str]:
    """A figure of each contender, and herd's ratio to the bare proxy's."""
    ratio = results.against(work.name, "herd", "bare", lambda mine, theirs: figure(mine) / max(figure(theirs), 1e-9))
    return [*(_number(results.of(work.name, name, figure), digits) for name in results.contenders), _number(ratio, 2)]


def _paced(results: Results) -> str:
    work = next(work for work in WORKLOADS if work.paced)
    if work.name not in results.rounds:
        return ""
    rows = [
        ["CPU µs a token", *_medians(results, work, lambda each: each.cpu_us, 1)],
        ["a token's way, p50 ms", *_medians(results, work, lambda each: each.delay_p50_ms, 2)],
        ["a token's way, p99 ms", *_medians(results, work, lambda each: each.delay_p99_ms, 2)],
    ]
    added = [
        _number(results.against(work.name, name, "direct", lambda a, b: a.delay_p99_ms - b.delay_p99_ms), 2)
        for name in results.contenders
    ]
    rows.append(["added delay of a token, p99 ms", *added, ""])
    return f"{work.title}:\n\n" + table(["", *_titles(results), HERD_TO_BARE], rows)


def _memories(results: Results) -> str:
    held = {name: results.memory[name] for name in results.contenders if name in results.memory}
    rows = [
        ["PSS", *(_number(each.pss_mib and each.pss_mib * MIB_IN_MB) for each in held.values())],
        ["RSS", *(_number(each.rss_mib * MIB_IN_MB) for each in held.values())],
        ["processes", *(str(each.processes) for each in held.values())],
    ]
    return "Memory of all processes, MB, the most seen after a round:\n\n" + table(
        ["", *(TITLES[name] for name in held)], rows
    )


def _page_table(results: Results) -> str:
    alone, beside = (statistics.median(column) for column in zip(*results.page_p99_ms, strict=True))
    rows = [["p99 ms", f"{alone:.2f}", f"{beside:.2f}"]]
    return "1 client, a month of 1,000,000 rows:\n\n" + table(["", "alone", "beside a reader of the page"], rows)


def _targets(results: Results) -> str:
    rows = [[verdict.target, verdict.found, verdict.word] for verdict in verdicts(results)]
    return "Targets:\n\n" + table(["target", "measured", "verdict"], rows) if rows else ""


def _number(value: float | None, digits: int = 0, unit: str = "") -> str:
    return "–" if value is None else f"{value:,.{digits}f}{unit}"
