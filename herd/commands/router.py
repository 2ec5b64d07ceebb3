"""A command's way to a running router: one question, one document, or one sentence about why there is none."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import httpx

from herd.commands import CommandError, WrongUse
from herd.commands.places import data_dir
from herd.commands.runfile import running
from herd.security.local_code import found

PATIENCE_S: Final = 10.0
Parameters = Mapping[str, str | int | float | Sequence[str] | None]


class RouterAway(CommandError):
    """Nothing answers at the router's address."""


class NotThere(CommandError):
    """The router answers that it has no such thing; `document` is what else it answers."""

    def __init__(self, text: str, document: Mapping[str, Any] | None = None) -> None:
        super().__init__(text)
        self.document = document or {}


def ask(url: str, path: str, expects: str, parameters: Parameters | None = None) -> dict[str, Any]:
    """The document at a path of the router, which has the key `expects`; parameters that are None are left out.

    Raises RouterAway, NotThere for a 404, CommandError for anything else that is no such document.
    """
    return _document(_exchange("GET", url, path, parameters), url, path, expects)


def tell(url: str, path: str, document: Mapping[str, Any], expects: str, method: str = "POST") -> dict[str, Any]:
    """Post a document to a path of the router; returns the answer, and raises, as `ask` does."""
    # With escapes: what was typed may be no valid text.
    body = json.dumps(document).encode("ascii")
    return _document(_exchange(method, url, path, body=body), url, path, expects)


def stream(
    url: str, path: str, parameters: Mapping[str, str], document: Mapping[str, Any], method: str = "POST"
) -> Iterator[dict[str, Any]]:
    """The lines of an answer, as they come: a pull takes minutes. Raises RouterAway."""
    body = json.dumps(document).encode("ascii")
    patience = httpx.Timeout(PATIENCE_S, read=None)
    try:
        with httpx.stream(
            method, f"{url}{path}", params=parameters, content=body, timeout=patience, trust_env=False
        ) as answer:
            for line in answer.iter_lines():
                if line.strip():
                    found = json.loads(line)
                    yield found if isinstance(found, dict) else {"error": line}
    except ValueError:
        raise CommandError(f"{url} is not a Herd router; set --url") from None
    except httpx.HTTPError:
        raise RouterAway(f"no router responds at {url}: start one with `herd`, or set --url") from None


def _document(response: httpx.Response, url: str, path: str, expects: str) -> dict[str, Any]:
    try:
        document = response.json()
    except ValueError:
        document = None
    if not isinstance(document, dict) or (response.status_code == 200 and expects not in document):
        raise CommandError(f"{url} is not a Herd router; set --url")
    if response.status_code == 404:
        text = document.get("error") or document.get("detail") or "there is no such thing"
        raise NotThere(f"{url}: {text}", document)
    if response.status_code != 200:
        raise CommandError(f"{url}{path} returned {response.status_code}:  {document.get('error', document)}")
    return document


def scrape(url: str) -> str:
    """The text at /metrics. Raises RouterAway, or CommandError where there are none."""
    response = _exchange("GET", url, "/metrics")
    if response.status_code != 200:
        raise CommandError(f"{url}/metrics returned {response.status_code}; is it a Herd router?")
    return response.text


def _exchange(
    method: str, url: str, path: str, parameters: Parameters | None = None, body: bytes | None = None
) -> httpx.Response:
    # None and not an empty dictionary, which would take the query out of the path.
    given = {name: value for name, value in (parameters or {}).items() if value is not None} or None
    try:
        # No proxy of the environment: a router is on this machine or in this network.
        return httpx.request(
            method, f"{url}{path}", params=given, content=body, timeout=PATIENCE_S, trust_env=False,
            headers=_credential(url),
        )  # fmt: skip
    except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
        raise WrongUse(f"{url!r} is not a URL ({error}); set --url to one like http://box:11435") from None
    except httpx.TimeoutException:
        raise RouterAway(f"the router at {url} did not respond within {PATIENCE_S:.0f} s; it may be hung") from None
    except httpx.HTTPError:
        raise RouterAway(f"no router responds at {url}: start one with `herd`, or set --url") from None


def _credential(url: str) -> dict[str, str]:
    """The key in HERD_KEY, else the code of the router on this machine, which goes nowhere else."""
    text = os.environ.get("HERD_KEY", "").strip()
    if not text:
        home = data_dir(None)
        here = running(home)
        if here and here.url == url.replace("//localhost:", "//127.0.0.1:"):
            text = found(home) or ""
    return {"authorization": f"Bearer {text}"} if text else {}
