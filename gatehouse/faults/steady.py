"""A steady load of real requests through a virtual key, whatever happens.

It needs Python 3.11 and nothing else, because it runs inside the workstation: `python3 steady.py
FOLDER RATE MODEL`. `FOLDER/key` holds the key; each line of `FOLDER/answers` is one request as
JSON; it ends when `FOLDER/stop` is there. The loop is open: requests are sent whether or not others
are answered, as clients do.
"""

import http.client
import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

ADDRESS = ("127.0.0.1", 4000)
TIMEOUT_SECONDS = 45
MOST_AT_ONCE = 200
STREAM_EVERY = 4
NO_WORD = "200 without a word"
NOT_WHOLE = "200 with half an answer"
CUT = "a stream that was cut"


def ask(key: str, model: str, number: int) -> dict[str, Any]:
    """Ask once, every fourth time for a stream; `id` is there only for a whole answer.

    The server repeats the question, so that the answer shows by itself that it is whole.
    """
    stream = number % STREAM_EVERY == 0
    mark = f"{number}-{time.time_ns()}"
    body = {
        "model": model,
        "messages": [{"role": "user", "content": f"Are you there? {mark}"}],
        "stream": stream,
    }
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    begin = time.monotonic()
    found: dict[str, Any] = {"at": time.time(), "status": 0, "id": None, "words": ""}
    connection = http.client.HTTPConnection(*ADDRESS, timeout=TIMEOUT_SECONDS)
    try:
        connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
        answer = connection.getresponse()
        found["status"] = answer.status
        text = answer.read().decode(errors="replace")
        if answer.status == http.HTTPStatus.OK:
            name, said, ended = (_streamed if stream else _plain)(text)
            whole = ended and mark in said
            found["id"] = name if whole else None
            found["words"] = "" if whole else _fault(said, ended=ended)
        else:
            found["words"] = text[:200]
    except (OSError, ValueError, LookupError, TypeError, http.client.HTTPException) as error:
        found["words"] = CUT if stream and found["status"] else type(error).__name__
    finally:
        connection.close()
    found["seconds"] = round(time.monotonic() - begin, 3)
    return found


def _plain(text: str) -> tuple[str, str, bool]:
    """Give id, content, and that it has an end."""
    whole = json.loads(text)
    return whole["id"], whole["choices"][0]["message"]["content"] or "", True


def _streamed(text: str) -> tuple[str, str, bool]:
    """Give id, content, and whether the stream says that it is at its end."""
    events = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data:")]
    ended = bool(events) and events[-1] == "[DONE]"
    chunks = [json.loads(event) for event in events if event != "[DONE]"]
    # An error among them has no choices, and counts as a cut.
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    return chunks[0]["id"], "".join(delta.get("content") or "" for delta in deltas), ended


def _fault(said: str, *, ended: bool) -> str:
    if not ended:
        return CUT
    return NOT_WHOLE if said else NO_WORD


def main() -> None:
    """Ask until told to stop, then wait for what is under way."""
    folder, rate, model = Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3]
    key = (folder / "key").read_text().strip()
    lock, gate = threading.Lock(), threading.Semaphore(MOST_AT_ONCE)
    running = []

    def one(number: int) -> None:
        with gate:
            line = json.dumps(ask(key, model, number))
        with lock, (folder / "answers").open("a") as file:
            file.write(line + "\n")

    begin, number = time.monotonic(), 0
    while not (folder / "stop").exists():
        number += 1
        thread = threading.Thread(target=one, args=(number,))
        thread.start()
        running.append(thread)
        time.sleep(max(0.0, begin + number / rate - time.monotonic()))
    for thread in running:
        thread.join()


if __name__ == "__main__":
    main()
