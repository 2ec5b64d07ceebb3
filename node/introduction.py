"""How this node proves to a router who it is: its key, its introduction, and the signature of what it sends.

A router on the same machine and of the same user is met through its local code, which both can read; any other one
through a join code, or by an operator there who accepts this node's key. What is known of a router is kept, so that
another in its place is noticed.
"""

import hmac
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Literal

import httpx
from pydantic import BaseModel, ValidationError

from herd.wire import files, identity, joining
from herd.wire.files import FileUnsafe
from herd.wire.identity import Identity, id_of, shown

from .logs import fields

PIN, STARTS = "router.json", "starts"
STARTS_BITS = 32  # below them, the heartbeats of one start
LOCAL_CODE = "local.code"
MOST_BYTES = 400  # of a file with a code
logger = logging.getLogger(__name__)


class Pin(BaseModel):
    """The router that this node knows: where, by which certificate (base64url of DER), and how it came to know it."""

    url: str
    certificate: str
    way: Literal["local", "code", "knocked"]

    @property
    def router_id(self) -> str:
        """The certificate's id."""
        return id_of(joining.decoded(self.certificate))


class Introduction:
    """This node's key, in `<data_dir>/node`, and what it knows of routers; `code_files` may hold a local code."""

    def __init__(self, data_dir: Path, node_id: str, code_files: Sequence[Path] = ()) -> None:
        self._node_id = node_id
        self._folder = data_dir / "node"
        self._code_files = code_files
        self.identity = self._identity()
        self._sequence = self._sequence_from()
        self._pin = self._kept_pin()
        self._known: str | None = None  # the URL whose router takes our word, as far as we know
        self._signs = True
        self._said = ""

    async def headers(self, http: httpx.AsyncClient, url: str, path: str, body: bytes) -> dict[str, str]:
        """What a request to a router must carry; introduces this node first where that is needed."""
        pin = self._pin
        if pin is not None and pin.url == url and self._known is None:
            self._known = url
        if self._known != url:
            await self._introduce(http, url)
        pin = self._pin
        if pin is None or pin.url != url or not self._signs:
            return {}
        return joining.signed_headers(self.identity, path, pin.router_id, next(self._sequence), body)

    def refused(self) -> None:
        """The router does not know this node, or not by this key: the next request is preceded by an introduction."""
        self._known = ""

    async def _introduce(self, http: httpx.AsyncClient, url: str) -> None:
        for code in (*self._local_codes(), ""):
            certificate = joining.encoded(self.identity.certificate)
            proof = joining.node_proof(code, self._node_id, self.identity.id) if code else ""
            request = joining.JoinRequest(node_id=self._node_id, certificate=certificate, proof=proof)
            body = request.model_dump_json().encode()
            signed = joining.signed_headers(self.identity, joining.JOIN_PATH, joining.UNKNOWN_ROUTER, 0, body)
            headers = {"content-type": "application/json", **signed}
            answer = await http.post(f"{url}{joining.JOIN_PATH}", content=body, headers=headers)
            reply = _reply(answer)
            if reply is not None:
                self._met(url, code, reply)
                return
            if answer.status_code in {404, 405}:  # a router from before introductions takes what is not signed
                self._signs = False
                return
            if not code or answer.status_code != 401:
                self._say(logging.ERROR, "The router does not take this node in", error=_error(answer))

    def _met(self, url: str, code: str, reply: joining.JoinReply) -> None:
        router_id = id_of(joining.decoded(reply.certificate))
        proven = bool(code) and hmac.compare_digest(
            reply.proof, joining.router_proof(code, router_id, self.identity.id)
        )
        if not proven and self._pin and self._pin.url == url and self._pin.router_id != router_id:
            self._say(
                logging.ERROR, "The router changed its identity", url=url, was=shown(self._pin.router_id),
                now=shown(router_id), do=f"if that was you, remove {self._folder / PIN}",
            )  # fmt: skip
            return
        way: Literal["local", "code", "knocked"] = "local" if proven else "knocked"
        if self._pin is None or (self._pin.url, self._pin.router_id) != (url, router_id):
            self._keep_pin(Pin(url=url, certificate=reply.certificate, way=way))
        self._signs = True
        if reply.state == "accepted":
            self._known = url
            self._say(logging.INFO, "The router knows this node", url=url, router=shown(router_id))
        else:
            do = f"herd node accept {shown(self.identity.id)}"
            self._say(logging.WARNING, "This node waits to be accepted: on the router's machine", do=do, url=url)

    def _say(self, level: int, event: str, **what: object) -> None:
        """Log once until there is something else to say."""
        if (said := f"{event} {what}") != self._said:
            self._said = said
            logger.log(level, event, extra=fields(**what))

    def _local_codes(self) -> Iterator[str]:
        for path in self._code_files:
            with suppress(OSError), path.open("r", encoding="ascii", errors="replace") as file:
                code = file.read(MOST_BYTES).strip()
                if code.startswith(joining.LOCAL_PREFIX):
                    yield code

    # What is kept

    def _identity(self) -> Identity:
        try:
            return identity.kept(self._folder, f"herd-node {self._node_id}")
        except OSError as error:
            logger.warning("This node's key cannot be kept: it is another one at each start", extra=fields(error=error))
            return identity.made(f"herd-node {self._node_id}")

    def _sequence_from(self) -> Iterator[int]:
        """Numbers greater than those of any start before, whatever the clock says."""
        starts = 0
        with suppress(OSError, ValueError, FileUnsafe):
            starts = int(files.read_alone(self._folder / STARTS) or b"0")
        starts += 1
        with suppress(OSError):
            files.write_alone(self._folder / STARTS, str(starts).encode())
        return count((starts << STARTS_BITS) + 1)

    def _kept_pin(self) -> Pin | None:
        try:
            content = files.read_alone(self._folder / PIN)
            pin = Pin.model_validate_json(content) if content else None
            return pin if pin and pin.router_id else None
        except (FileUnsafe, ValidationError, ValueError) as error:
            logger.warning("What was known of the router cannot be read", extra=fields(error=error))
            return None

    def _keep_pin(self, pin: Pin) -> None:
        self._pin = pin
        try:
            files.write_alone(self._folder / PIN, pin.model_dump_json().encode())
        except OSError as error:
            logger.warning("The router's certificate cannot be kept", extra=fields(error=error))


def code_files(data_dir: Path, environment: Mapping[str, str]) -> list[Path]:
    """Where a local code may be: where the operator says, in our data directory, in the usual one."""
    given = environment.get("HERD_JOIN_FILE", "").strip()
    usual = Path("~/.fleet-manager").expanduser()
    return [*([Path(given)] if given else []), *(home / LOCAL_CODE for home in dict.fromkeys((data_dir, usual)))]


def _reply(answer: httpx.Response) -> joining.JoinReply | None:
    if answer.status_code not in {200, 202}:
        return None
    try:
        return joining.JoinReply.model_validate_json(answer.content)
    except ValidationError:
        return None


def _error(answer: httpx.Response) -> str:
    return f"{answer.status_code} {answer.text[:500]}"
