"""The runbook as a page of its own, so that a finding's link leads to what to do where there is no internet.

Made once from the same text as `docs/runbook.md`; knows how a document is laid out, not what it says.
"""

import re
from collections.abc import Iterator, Sequence
from html import escape
from itertools import pairwise
from pathlib import Path
from typing import Final

from fastapi import APIRouter, Request
from fastapi.responses import Response
from markdown_it import MarkdownIt
from markdown_it.token import Token

from herd.routes.dashboard import File, made, sent

router = APIRouter(prefix="/dashboard")

RUNBOOK: Final = Path(__file__).parents[1] / "reference" / "runbook.md"
COMMENT: Final = re.compile(r"<!--.*?-->", re.DOTALL)
PAGE: Final = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Runbook · Herd</title>
<link rel="icon" href="static/icon.svg" type="image/svg+xml">
<script src="static/theme.js"></script>
<link rel="stylesheet" href="static/style.css">
<link rel="stylesheet" href="static/parts.css">
<link rel="stylesheet" href="static/runbook.css">
<script type="module" src="static/runbook.js"></script>
</head>
<body class="runbook">
<a class="skip" href="#main">Skip to the content</a>
<header class="side">
  <div class="brand">
    <a href="../dashboard" class="name">Herd</a>
    <a href="../dashboard#/health">All findings</a>
    <button type="button" id="menu" class="quiet menu" aria-expanded="false" aria-controls="sections">Menu</button>
  </div>
  <nav id="sections" aria-label="Sections of the runbook">{contents}</nav>
  <div class="foot"><button type="button" id="theme" class="quiet">Theme: system</button></div>
</header>
<main id="main" tabindex="-1">
<article>
{text}</article>
</main>
</body>
</html>
"""


def page(markdown: str) -> str:
    """The document with its contents beside it; each heading has the id that GitHub gives it."""
    parser = MarkdownIt("commonmark", {"html": False})
    parser.add_render_rule("fence", _commands)
    tokens = parser.parse(COMMENT.sub("", markdown))
    headings = list(_headings(tokens))
    for opening, name, _ in headings:
        opening.attrSet("id", name)
    text = parser.renderer.render(tokens, parser.options, {})
    return PAGE.format(contents="".join(_contents(headings)), text=text)


def _commands(_renderer: object, tokens: Sequence[Token], index: int, *_: object) -> str:
    """Commands, wider than a phone at times: what scrolls must be reachable by keyboard."""
    return f'<pre tabindex="0"><code>{escape(tokens[index].content)}</code></pre>\n'


def _headings(tokens: Sequence[Token]) -> Iterator[tuple[Token, str, str]]:
    """Each heading's opening token, its id and its words."""
    for opening, inline in pairwise(tokens):
        if opening.type == "heading_open":
            yield opening, inline.content.lower().replace(" ", "-"), inline.content


def _contents(headings: Sequence[tuple[Token, str, str]]) -> Iterator[str]:
    """The parts, each with a list of its sections."""
    groups: list[tuple[str, list[str]]] = []
    for opening, name, words in headings:
        link = f'<a href="#{escape(name)}">{escape(words)}</a>'
        if opening.tag == "h2":
            groups.append((link, []))
        elif opening.tag == "h3":
            groups[-1][1].append(f"<li>{link}</li>")
    for part, sections in groups:
        yield f"<p>{part}</p><ul>{''.join(sections)}</ul>"


FILE: Final[File] = made(page(RUNBOOK.read_text(encoding="utf-8")).encode(), ".html")


@router.head("/runbook", include_in_schema=False)
@router.get("/runbook")
async def runbook(request: Request) -> Response:
    """The runbook: what each check and alert means, and what to do. Sections are linked as `#NAME`."""
    return sent(request, FILE)
