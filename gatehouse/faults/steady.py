"""A steady load of real requests through a virtual key, whatever happens.

It needs Python 3.11 and nothing else, because it runs inside the workstation: `python3 steady.py
FOLDER RATE`. `FOLDER/key` holds the key; each line of `FOLDER/answers` is one request as JSON; it
ends when `FOLDER/stop` is there. The loop is open: requests are sent whether or not others are
answered, as clients do.
"""

import http.client
import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

MODEL = "chat-faults-upstream"
ADDRESS = ("127.0.0.1", 4000)
TIMEOUT_SECONDS = 60
MOST_AT_ONCE = 200
STREAM_EVERY = 4


def ask(key: str, number: int) -> dict[str, Any]:
    """Ask once, every fourth time for a stream; `id` is there only for a whole answer."""
    stream = number % STREAM_EVERY == 0
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": f"Are you there? {number} {time.time_ns()}"}],
        "stream": stream,
    }
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    begin = time.monotonic()
    found: dict[str, Any] = {"at": time.time(), "status": 0, "id": None, "words": ""}
    connection = http.client.HTTPConnection(*ADDRESS, timeout=TIMEOUT_SECONDS)
    try:
        connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
        answer = connection.getresponse()
        text = answer.read().decode(errors="replace")
        found["status"] = answer.status
        if answer.status != http.HTTPStatus.OK:
            found["words"] = text[:200]
        elif not stream:
            found["id"] = json.loads(text)["id"]
        elif text.rstrip().endswith("data: [DONE]"):
            found["id"] = json.loads(text.partition("data: ")[2].partition("\n")[0])["id"]
        else:
            found["words"] = "the stream was cut"
    except (OSError, ValueError, LookupError, http.client.HTTPException) as error:
        found["words"] = type(error).__name__
    finally:
        connection.close()
    found["seconds"] = round(time.monotonic() - begin, 3)
    return found


def main() -> None:
    """Ask until told to stop, then wait for what is under way."""
    folder, rate = Path(sys.argv[1]), float(sys.argv[2])
    key = (folder / "key").read_text().strip()
    lock, gate = threading.Lock(), threading.Semaphore(MOST_AT_ONCE)
    running = []

    def one(number: int) -> None:
        with gate:
            line = json.dumps(ask(key, number))
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
