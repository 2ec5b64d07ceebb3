"""`GET /metrics` of the agent, in threads of its own: a scrape waits for nothing of the agent, nor the agent for it.

It knows HTTP and the credential; what is rendered is the metrics' affair.
"""

import hmac
import logging
import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer
from typing import Any

from ..addresses import host_of, is_loopback
from ..logs import fields
from .metrics import AgentMetrics

SILENT_S = 5.0  # a client that sends nothing for so long is let go, and its thread with it

REFUSAL = b"This needs `Authorization: Bearer` with the agent's HERD_METRICS_TOKEN; on loopback, a name of loopback.\n"

logger = logging.getLogger(__name__)


class MetricsServer(ThreadingTCPServer):
    """Listens from its making on and answers from `start`; with a token, to those alone who have it.

    OSError where the address cannot be listened on.
    """

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, host: str, port: int, metrics: AgentMetrics, token: str | None) -> None:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        self.address_family = found[0][0]
        self.metrics = metrics
        self._token = token
        self.host = host
        super().__init__((host, port), _Answer)

    @property
    def port(self) -> int:
        """The port that it listens on, whichever was asked for."""
        return int(self.server_address[1])

    def start(self) -> None:
        """Answer, in the background, until the process ends."""
        threading.Thread(target=self.serve_forever, name="metrics", daemon=True).start()
        logger.info("Metrics are served", extra=fields(host=self.host, port=self.port, credential=bool(self._token)))

    def may_ask(self, authorization: str, host: str) -> bool:
        """Whether who sends these headers is answered: with a token who has it, without one who names loopback.

        A page in somebody's browser can have its name lead to 127.0.0.1, but not ask there by another than its own.
        """
        if self._token is None:
            return not host or is_loopback(_name(host))
        scheme, _, given = authorization.partition(" ")
        same = hmac.compare_digest(given.strip().encode("latin-1", "replace"), self._token.encode())
        return scheme.lower() == "bearer" and same

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - it is called so
        """A client that goes away is no traceback on the terminal."""
        logger.debug("A scrape broke off", extra=fields(client=client_address, error=sys.exc_info()[1]))


def _name(host: str) -> str:
    """The name in a Host header."""
    try:
        return host_of(f"http://{host}")
    except ValueError:  # a bracket that is not closed
        return "?"


class _Answer(BaseHTTPRequestHandler):
    """One request."""

    server: MetricsServer
    timeout = SILENT_S
    server_version, sys_version = "herd-node", ""

    def do_GET(self) -> None:
        """The metrics to who may ask."""
        if not self.server.may_ask(self.headers.get("Authorization", ""), self.headers.get("Host", "")):
            self._answer(401, REFUSAL)
        elif self.path.partition("?")[0] != "/metrics":
            self._answer(404, b"There is /metrics here, and nothing else.\n")
        else:
            self._answer(200, *self.server.metrics.render(self.headers.get("Accept", "")))

    do_HEAD = do_GET

    def _answer(self, status: int, body: bytes, content_type: str = "text/plain; charset=utf-8") -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        if status == 401:
            self.send_header("WWW-Authenticate", "Bearer")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""
