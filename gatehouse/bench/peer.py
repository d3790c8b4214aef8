"""A resident proxy that starts a container for its first request, in llama-swap's way of working.

It is not llama-swap, which PyPI, npm and Debian do not carry. What is taken from it is when it
looks: 250 ms after the start, then once a second, until the server says that it is well (its
internal/process/process_command.go). `python3 peer.py PORT HOST BACKEND_PORT CONTAINER`; Python
3.11 and nothing else.
"""

import asyncio
import contextlib
import sys

FIRST_LOOK_SECONDS, LOOK_SECONDS = 0.25, 1.0
CONNECT_SECONDS = 5.0
CHUNK = 65536


class Peer:
    """Starts the server once and hands connections on."""

    def __init__(self, host: str, port: int, container: str) -> None:
        """Hand on to that address, which the container has."""
        self._where = (host, port)
        self._container = container
        self._lock = asyncio.Lock()

    async def serve(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        """Hand one connection on, after a start if it needs one."""
        try:
            async with self._lock:
                await self._start()
            server, to_server = await asyncio.open_connection(*self._where)
            await asyncio.gather(_copy(client, to_server), _copy(server, to_client))
        except OSError as error:
            sys.stderr.write(f"{error}\n")
        finally:
            to_client.close()

    async def _start(self) -> None:
        # Whether it runs is known to a resident proxy without a question; here one is asked.
        if await _said("docker", "inspect", "-f", "{{.State.Running}}", self._container) == "true":
            return
        await asyncio.create_subprocess_exec(
            *("docker", "start", "--attach", self._container),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        wait = FIRST_LOOK_SECONDS
        while True:
            await asyncio.sleep(wait)
            if await self._well():
                return
            wait = LOOK_SECONDS

    async def _well(self) -> bool:
        try:
            opening = asyncio.open_connection(*self._where)
            server, to_server = await asyncio.wait_for(opening, CONNECT_SECONDS)
        except OSError:
            return False
        to_server.write(b"GET /health HTTP/1.0\r\n\r\n")
        answer = await server.readline()
        to_server.close()
        return b" 200 " in answer


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while chunk := await reader.read(CHUNK):
            writer.write(chunk)
            await writer.drain()
    writer.close()


async def _said(*words: str) -> str:
    asking = await asyncio.create_subprocess_exec(*words, stdout=asyncio.subprocess.PIPE)
    output, _ = await asking.communicate()
    return output.decode().strip()


async def main(port: int, host: str, backend_port: int, container: str) -> None:
    """Serve until killed."""
    peer = Peer(host, backend_port, container)
    async with await asyncio.start_server(peer.serve, "127.0.0.1", port) as server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4]))
