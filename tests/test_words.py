"""What people read is plain English in the field's words: the worst phrases are refused, each with its remedy.

Read are the page, the command line's texts, findings, help of settings and metrics, error messages, and the documents.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
REMEDIES = {
    r"\b(is|are|be|was|were) told\b(?! apart)|\btold of\b|\btells? of\b": "say reported, shown, listed or notified",
    r"\bwhoever\b|\bwhosoever\b": "name the person or program: anyone who, the client, the operator",
    r"\bstr(ike|uck)\b[\w ]* off\b": "say remove",
    r"\b(left|leaves?|leaving) in order\b": "say shut down cleanly",
    r"\bof late\b|\blately\b": "say recently, or give the time",
    r"\bworks? on nothing\b|\bnothing is under way\b": "say no requests in progress",
    r"\bjust ended\b": "say latest requests",
    r"\bcomes? out the same\b|\bdecided again now\b": "say replayed: same decision",
    r"\bleft alone\b": "say which state it is in: breaker open, skipped",
    r"\b(end|ends|ended|ending) (the|a|its) drain\b": "say resume",
    r"\bcontext of (its|their) own\b": "say overrides the loaded context size",
    r"\bbest mix\b": "say suggested placement",
    r"\bherd's own (share|time)\b|^herd's own$": "say router overhead",
    r"\bneeds? a look\b": "say needs attention",
    r"\bas fast as one reads\b": "say at reading speed",
    r"\bnobody (asks|asked|knows|needs)\b": "say unused, unknown or not needed",
    r"\bsaid goodbye\b|\bfell silent\b": "say shut down, or went offline",
    r"\bloaded ahead\b": "say preloaded",
    r"\bbeside (each|an|every) (Ollama|engine|inference)": "say on each machine that runs an engine",
    r"\b(requests?|tokens|times|rows|lines|checks) an? (second|minute|hour|day|node|model|request)\b": "say per second",
    r"\d %(?!\w)|\} %(?!\w)": "write a percentage without a space: 18%",
    r"\bis over once\b|\bare over once\b": "say is resolved when",
    r"\bchanges? at a restart\b": "say requires a restart",
    r"\bwhat is added to that\b": "say what is added: extra time, bytes, requests",
    r"\bno .{1,40} on record is like that\b": "say no matching requests",
    r"\ba defect of herd's\b": "say a bug in Herd",
    r"\bfor want of\b": "say for lack of, or out of (memory, slots)",
    r"\bmoved no further\b": "say made no progress",
}
PAGE = [*ROOT.glob("herd/dashboard/*.js"), *ROOT.glob("herd/dashboard/sections/*.js")]
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    # observability.md repeats the titles of the pack's panels, which are written in grafana/
    *(path for path in ROOT.glob("docs/*.md") if path.name != "observability.md"),
    *ROOT.glob("herd/reference/*.md"),
]
PROGRAMS = [
    *ROOT.glob("herd/commands/*.py"),
    *ROOT.glob("herd/core/health/of_*.py"),
    *ROOT.glob("herd/routes/*.py"),
    *ROOT.glob("herd/settings/*.py"),
    *ROOT.glob("herd/telemetry/catalog/*.py"),
    *(ROOT / f"herd/{name}.py" for name in ("cli", "core/errors", "core/why", "insights/recommend")),
    *(ROOT / f"herd/reference/{name}.py" for name in ("entries", "pages")),
    ROOT / "node/cli.py",
]


def texts(path: Path) -> Iterator[str]:
    """The texts of a file that a person may read: strings of a program, lines of a document outside its commands."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        for part in ast.walk(ast.parse(text)):
            if isinstance(part, ast.JoinedStr):
                yield "".join(str(each.value) if isinstance(each, ast.Constant) else "{}" for each in part.values)
            elif isinstance(part, ast.Constant) and isinstance(part.value, str):
                yield part.value
    elif path.suffix == ".js":
        code = re.sub(r"^\s*(//|/?\*).*$", "", text, flags=re.MULTILINE)
        yield from (found[0][1:-1] for found in re.finditer(r'"[^"\n]*"|`[^`]*`', code))
    else:
        yield re.sub(r"```.*?```", "", text, flags=re.DOTALL)


@pytest.mark.parametrize("path", [*PAGE, *DOCUMENTS, *PROGRAMS], ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_that_people_read_has_one_of_the_worst_phrases(path):
    """A reader who stumbles over a sentence stops trusting the numbers in it."""
    found = [
        f"{phrase[0]!r} in {text[max(0, phrase.start() - 40) : phrase.end() + 40]!r}: {remedy}"
        for text in texts(path)
        for pattern, remedy in REMEDIES.items()
        for phrase in re.finditer(pattern, text, re.IGNORECASE | re.MULTILINE)
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("words", ["Nothing is told of it", "12 % of all", "4 requests a second", "It was struck off"])
def test_the_phrases_are_found_where_they_stand(words, tmp_path):
    """A pattern that matches nothing would let everything pass."""
    page = tmp_path / "page.js"
    page.write_text(f'// is told in a comment\nshow("{words}.");\n', encoding="utf-8")
    assert [text for text in texts(page) if any(re.search(each, text, re.IGNORECASE) for each in REMEDIES)] == [
        f"{words}."
    ]
