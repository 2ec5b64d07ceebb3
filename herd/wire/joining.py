"""How a node is introduced to a router, and how its heartbeats are signed from then on. Pure.

    introduction      what the node shows                               how it learns the router's certificate
    local code        an HMAC with the code as its key                  the answer, under the same code
    join code         the code's secret, inside TLS                     the code has the certificate's fingerprint
    none: it knocks   nothing; an operator accepts the id that waits    the answer, which nobody vouches for

The code itself travels inside TLS only. Every request of a node is signed: method, path, router, sequence and body.
"""

import base64
import hashlib
import hmac
import secrets
from binascii import Error as NotBase64
from dataclasses import dataclass, field
from typing import Annotated, Final, Literal

from pydantic import Field

from herd.wire import NODE_ID_PATTERN, WireModel
from herd.wire.identity import Identity, id_of

JOIN_PATH: Final = "/fleet/join"
NODE, SEQUENCE, SIGNATURE = "herd-node", "herd-seq", "herd-sig"
MOST_SEQUENCE: Final = 2**63 - 1
CODE_PREFIX: Final = "herd-join-"
LOCAL_PREFIX: Final = "herd-local-"
HALF: Final = 16  # bytes of the fingerprint in a code, and of its secret
UNKNOWN_ROUTER: Final = ""  # what a node signs for that does not know the router yet
Base64 = Annotated[str, Field(max_length=8192, pattern=r"^[A-Za-z0-9_-]*$")]


class JoinRequest(WireModel):
    """A node's introduction: its name, its certificate (base64url of DER), and one of the two proofs or none."""

    node_id: Annotated[str, Field(pattern=NODE_ID_PATTERN)]
    certificate: Base64
    secret: Base64 = ""
    proof: Annotated[str, Field(max_length=64, pattern=r"^[0-9a-f]*$")] = ""


class JoinReply(WireModel):
    """The router's certificate, and whether the node belongs to the fleet now; `proof` under the local code."""

    state: Literal["accepted", "waiting"]
    certificate: Base64
    proof: str = ""


@dataclass(frozen=True, slots=True)
class Code:
    """A join code: the beginning of the router's id, and a secret that this router takes."""

    router: bytes
    secret: bytes = field(repr=False)

    @property
    def text(self) -> str:
        """What is pasted."""
        return CODE_PREFIX + encoded(self.router + self.secret)

    def is_of(self, certificate: bytes) -> bool:
        """Whether this is the certificate of the router that made the code."""
        return hmac.compare_digest(bytes.fromhex(id_of(certificate))[:HALF], self.router)


def new_code(router: Identity) -> Code:
    """A code with a new secret."""
    return Code(bytes.fromhex(router.id)[:HALF], secrets.token_bytes(HALF))


def code_in(text: str) -> Code:
    """The code that a text is. Raises ValueError with what is wrong, and without the text."""
    try:
        content = decoded(text.strip().removeprefix(CODE_PREFIX)) if text.strip().startswith(CODE_PREFIX) else b""
    except ValueError:
        content = b""
    if len(content) != 2 * HALF:
        raise ValueError(f"this is no join code: one begins with {CODE_PREFIX} and has 53 characters")
    return Code(content[:HALF], content[HALF:])


def encoded(content: bytes) -> str:
    """Bytes as base64url without padding."""
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def decoded(text: str) -> bytes:
    """The bytes of base64url without padding. Raises ValueError."""
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except NotBase64 as error:
        raise ValueError("not base64url") from error


def signed_form(method: str, path: str, router_id: str, sequence: int, body: bytes) -> bytes:
    """The bytes that a signature is of."""
    return f"herd 1\n{method}\n{path}\n{router_id}\n{sequence}\n{hashlib.sha256(body).hexdigest()}".encode()


def signed_headers(identity: Identity, path: str, router_id: str, sequence: int, body: bytes) -> dict[str, str]:
    """What a node's POST carries."""
    signature = identity.sign(signed_form("POST", path, router_id, sequence, body))
    return {NODE: identity.id, SEQUENCE: str(sequence), SIGNATURE: encoded(signature)}


def node_proof(local_code: str, node_id: str, key_id: str) -> str:
    """What shows that a node can read the router's local code."""
    return _proof(local_code, f"node\n{node_id}\n{key_id}")


def router_proof(local_code: str, router_id: str, key_id: str) -> str:
    """What shows the node that this router wrote the local code."""
    return _proof(local_code, f"router\n{router_id}\n{key_id}")


def _proof(local_code: str, said: str) -> str:
    return hmac.new(local_code.encode(), f"herd join 1\n{said}".encode(), hashlib.sha256).hexdigest()
