"""The gateway of a host, asked from inside its container: no key leaves the host."""

import base64
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from testinfra.host import Host

AGENT = (Path(__file__).parent / "agent.py").read_text()
CONTAINER = "gatehouse-litellm-1"
# A word of a command line holds no more than 128 KiB; requests beyond that go in several.
MOST_BYTES = 80_000

Request = dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """One answer; status 0 means that there was none. Keys in it are shown by their names."""

    status: int
    headers: dict[str, str]
    text: str

    def json(self) -> Any:  # noqa: ANN401 - any JSON
        """Read the body."""
        return json.loads(self.text)


class Gateway:
    """Asks the gateway; keys are named as `{master}`, or as a request's `keep` named them."""

    def __init__(self, host: Host) -> None:
        """Hold the host that the gateway is on."""
        self._host = host

    def all(self, *requests: Request, at_once: int = 0) -> list[Answer]:
        """Ask in order, or `at_once` at a time, and give the answers in order."""
        return self._run({"requests": list(requests), "at_once": at_once})

    def ask(
        self, method: str, path: str, body: object = None, key: str = "{master}", **more: object
    ) -> Answer:
        """Ask once. `more`: headers, form, keep, timeout (see tests/agent.py)."""
        return self.all(request(method, path, body, key, **more))[0]

    def forget(self) -> None:
        """Remove the keys that were kept in the container."""
        self._run({"requests": [], "forget": True})

    def _run(self, task: dict[str, Any]) -> list[Answer]:
        program, work = (
            base64.b64encode(text.encode()).decode() for text in (AGENT, json.dumps(task))
        )
        if len(work) > MOST_BYTES and len(task["requests"]) > 1:
            middle = len(task["requests"]) // 2
            halves = (task["requests"][:middle], task["requests"][middle:])
            return [answer for half in halves for answer in self._run({**task, "requests": half})]
        found = self._host.run(
            f"printf %s {work} | base64 -d | "
            f'docker exec -i {CONTAINER} python3 -c "$(printf %s {program} | base64 -d)"'
        )
        assert found.rc == 0, f"the client inside {CONTAINER} failed: {found.stderr[-2000:]}"
        return [Answer(**answer) for answer in json.loads(found.stdout)]


def request(
    method: str, path: str, body: object = None, key: str = "{master}", **more: object
) -> Request:
    """Give one request; `key` may be empty."""
    return {"method": method, "path": path, "key": key, **more} | (
        {} if body is None else {"body": body}
    )


def question(model: str, text: str, **more: object) -> dict[str, object]:
    """Give the body of a chat request."""
    return {"model": model, "messages": [{"role": "user", "content": text}], **more}
