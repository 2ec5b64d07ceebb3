"""The matrix as the tables of docs/resilience.md, so that what operators read is what is tested."""

from collections.abc import Iterator

from tests.resilience.faults import FAULTS, FINAL, MEANS, OUTCOMES, Outcome

VIEWS = {
    "error": "an error in its dialect",
    "broken": "the answer, then one error in its dialect",
    "whole": "the answer",
}


def tables() -> str:
    """Both tables: how a request ends under each fault, and what is to be seen of each such end."""
    return "\n".join((*_faults(), "", *_ends()))


def _faults() -> Iterator[str]:
    yield "| The node, or the wire to it, … | a stream ends | a whole answer ends |"
    yield "| --- | --- | --- |"
    for name, faulty in FAULTS.items():
        otherwise = f"; of `/v1` paths: {faulty.v1_stream}" if faulty.v1_stream else ""
        yield f"| {MEANS[name]} | {faulty.stream}{otherwise} | {faulty.whole} |"


def _ends() -> Iterator[str]:
    yield "| End | client | `status`, `error_type` | another node | class | log |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for name, outcome in OUTCOMES.items():
        status, view = outcome.client
        again = "not needed" if name == "well" else "cannot be tried" if name in FINAL else "is tried first"
        told = ", ".join(f"`{word}`" for word in outcome.row if word)
        code_class = outcome.counters["herd_upstream_requests_total"]["code_class"]
        yield f"| {name} | {status}, {VIEWS[view]} | {told} | {again} | `{code_class}` | {_log(outcome)} |"


def _log(outcome: Outcome) -> str:
    return ", ".join(f"{level} `{event.format(node='NODE')}`" for level, event in outcome.log)
