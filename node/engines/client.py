"""JSON questions to an engine over HTTP; every way in which they fail becomes `EngineAway`, here and nowhere else."""

from typing import Any

import httpx
from pydantic_core import from_json

CONNECT_S = 2.0
ANSWER_S = 10.0  # an engine that loads or swaps answers late; late is not away


class EngineAway(Exception):
    """The engine gave no usable answer; `status` is its HTTP status, where there was one."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class EngineClient:
    """Asks one engine; `start_hint` is how that engine is started, for the message that it is not."""

    def __init__(self, url: str, start_hint: str) -> None:
        self.url = url
        self._start_hint = start_hint
        self._recognised = False
        # trust_env: a proxy of the environment must not stand between two programs of one machine
        self._http = httpx.AsyncClient(
            base_url=url, trust_env=False, timeout=httpx.Timeout(ANSWER_S, connect=CONNECT_S)
        )

    async def get(self, path: str) -> Any:
        """The JSON at a path. EngineAway if there is none."""
        return await self._ask("GET", path, None)

    async def post(self, path: str, body: dict[str, Any]) -> Any:
        """The JSON that a body is answered with. EngineAway if there is none."""
        return await self._ask("POST", path, body)

    async def recognise(self) -> None:
        """Make sure, once and after each absence, that no herd router answers here. EngineAway if one does.

        OLLAMA_HOST often names the router, for its clients; a node that is the router would send it its own requests.
        """
        if self._recognised:
            return
        try:
            health = await self._ask("GET", "/healthz", None)
        except EngineAway as away:
            if away.status is None:
                raise
            health = None
        if isinstance(health, dict) and health.get("service") == "herd":
            raise EngineAway(f"{self.url} is a Herd router, not an engine; set --engine-url")
        self._recognised = True

    async def is_llamacpp(self) -> bool:
        """Whether what answers here lists its models as llama.cpp's server does."""
        try:
            listed = await self._ask("GET", "/v1/models", None)
        except EngineAway:
            return False
        data = listed.get("data") if isinstance(listed, dict) else None
        return isinstance(data, list) and any(
            isinstance(each, dict) and each.get("owned_by") == "llamacpp" for each in data
        )

    async def _ask(self, method: str, path: str, body: dict[str, Any] | None) -> Any:
        try:
            response = await self._http.request(method, path, json=body)
            response.raise_for_status()
            # strict on purpose: what cannot be written as UTF-8 again cannot go into a heartbeat
            return from_json(response.content, allow_inf_nan=False)
        except httpx.HTTPStatusError as error:
            status = error.response.status_code
            raise EngineAway(f"answered {status} to {method} {path}", status) from error
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            self._recognised = False
            raise EngineAway(f"no response from {self.url}; {self._start_hint}") from error
        except httpx.TimeoutException as error:
            raise EngineAway(f"no answer to {method} {path} within {ANSWER_S:.0f} s") from error
        except httpx.HTTPError as error:
            raise EngineAway(f"incomplete answer to {method} {path}: {type(error).__name__}") from error
        except ValueError as error:
            raise EngineAway(f"invalid JSON in the answer to {method} {path}") from error

    async def answers_at(self, url: str, path: str) -> bool:
        """Whether something takes the connection at another address; a slow or odd answer counts."""
        try:
            await self._http.get(url + path, timeout=CONNECT_S)
        except (httpx.ConnectError, httpx.ConnectTimeout):
            return False
        except httpx.HTTPError:
            return True
        return True

    async def close(self) -> None:
        """Close all connections."""
        await self._http.aclose()
