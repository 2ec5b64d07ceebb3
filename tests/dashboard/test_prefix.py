"""The page behind a proxy that has the router under a path, as nginx's `location /herd/ { proxy_pass …/; }` does."""

import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

PREFIX = "/herd"


class Stripping(BaseHTTPRequestHandler):
    """Passes on what is under the prefix, without it."""

    def do_GET(self):
        if not self.path.startswith(PREFIX + "/"):
            self.send_error(404)
            return
        target = self.server.router + self.path.removeprefix(PREFIX)
        with httpx.stream("GET", target, timeout=20) as answer:
            self.send_response(answer.status_code)
            for name in ("content-type", "location", "etag", "content-security-policy"):
                if name in answer.headers:
                    self.send_header(name, answer.headers[name])
            self.end_headers()
            try:
                for chunk in answer.iter_raw():
                    self.wfile.write(chunk)
                    self.wfile.flush()
            except OSError:
                self.close_connection = True

    def log_message(self, *_):
        """Say nothing."""


@dataclass
class Place:
    """Where a browser finds the router."""

    url: str


@pytest.fixture
def behind(router):
    """The router behind such a proxy."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Stripping)
    server.daemon_threads, server.router = True, router.url
    serving = threading.Thread(target=server.serve_forever, daemon=True)
    serving.start()
    yield Place(f"http://127.0.0.1:{server.server_address[1]}{PREFIX}")
    server.shutdown()
    serving.join()
    router.stop()  # ends the streams that the proxy still reads
    server.server_close()


def test_the_page_works_wherever_a_proxy_puts_it(behind, visit):
    """Its scripts, styles, data, feed, links and commands were asked of the proxy's root, where another thing lives."""
    tab = visit(behind)
    page = tab.go("")
    tab.sees(f"--router-url {behind.url}")
    assert page.evaluate("getComputedStyle(document.querySelector('header.side')).display") != "inline"
    page.wait_for_function("document.getElementById('connection').textContent === 'Live'")
    tab.go("#/health")
    page.get_by_role("link", name="node_offline").first.click()
    page.wait_for_url(f"{behind.url}/dashboard/runbook#node_offline")
    page.get_by_role("link", name="Herd", exact=True).click()
    page.wait_for_url(f"{behind.url}/dashboard**")
    moved = httpx.get(f"{behind.url}/api/tags/", follow_redirects=True)
    assert (moved.status_code, str(moved.url)) == (200, f"{behind.url}/api/tags")
