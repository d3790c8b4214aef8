"""Whether the gateway can serve, asked now and not when the document was written."""

import asyncio
import time
from dataclasses import dataclass

import httpx

SECONDS = 2.0
# However many ask, LiteLLM is asked once a second.
_KEPT_SECONDS = 1.0
_OK = 200


@dataclass(frozen=True)
class Ready:
    """Whether it can serve, why not, and how long it took to say so."""

    ready: bool
    reason: str | None
    milliseconds: int


class Gateway:
    """LiteLLM's own readiness."""

    def __init__(self, url: str, transport: httpx.AsyncBaseTransport | None = None) -> None:
        """Hold the gateway's address; `transport` is a test's."""
        # A proxy of the environment has no business between the host and itself.
        self._client = httpx.AsyncClient(
            base_url=url, timeout=SECONDS, trust_env=False, transport=transport
        )
        self._lock = asyncio.Lock()
        self._kept: tuple[float, Ready] | None = None

    async def ready(self) -> Ready:
        """Ask, or give what was answered within the last second."""
        async with self._lock:
            if self._kept and time.monotonic() - self._kept[0] < _KEPT_SECONDS:
                return self._kept[1]
            began = time.monotonic()
            try:
                async with asyncio.timeout(SECONDS):
                    reason = await self._reason()
            except TimeoutError:
                reason = f"the gateway gives no answer in {SECONDS:.0f} s"
            now = time.monotonic()
            found = Ready(reason is None, reason, round((now - began) * 1000))
            self._kept = (now, found)
            return found

    async def _reason(self) -> str | None:
        try:
            answer = await self._client.get("/health/readiness")
        except httpx.TimeoutException:
            return f"the gateway gives no answer in {SECONDS:.0f} s"
        except httpx.TransportError as error:
            return f"the gateway cannot be reached ({error})"
        if answer.status_code != _OK:
            return f"the gateway answers {answer.status_code}"
        try:
            database = answer.json().get("db")
        except (ValueError, AttributeError):
            return "the gateway's answer cannot be read"
        return None if database == "connected" else f"the gateway's database: {database}"
