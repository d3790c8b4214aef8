"""Whether a model file is what llama.cpp can read, told by its first bytes. Pure.

The deploy asks the same question over SSH: `probe` is the command that prints the answer's
material on the host, `read` takes one line of it.
"""

import shlex
import struct
from collections.abc import Sequence

# Magic, version, number of tensors, number of keys.
HEADER_BYTES = 24
_VERSIONS = (2, 3)
# Every key takes more than this, and so does what is told of every tensor.
_ENTRY_BYTES = 8


def gguf_problem(first_bytes: bytes, size: int) -> str | None:
    """Say what is wrong with a GGUF file of this beginning and size; None where nothing is."""
    head = first_bytes[:HEADER_BYTES]
    if size == 0:
        return "it is empty"
    if not head.startswith(b"GGUF"):
        return _something_else(head)
    if len(head) < HEADER_BYTES:
        return f"it is cut off: {size} bytes do not even hold the header"
    version, tensors, keys = struct.unpack("<IQQ", head[4:])
    if int.from_bytes(head[4:8], "big") in _VERSIONS:
        return "it is a big-endian GGUF file, which this machine cannot read"
    if version not in _VERSIONS:
        return f"its GGUF version is {version}; llama.cpp reads {' and '.join(map(str, _VERSIONS))}"
    fits = keys and (tensors + keys) * _ENTRY_BYTES <= size
    return None if fits else f"it is damaged: {tensors} tensors and {keys} keys in {size} bytes"


def _something_else(head: bytes) -> str:
    if head.startswith(b"version https://git"):
        return "it is a Git LFS pointer, not the file itself: download the file"
    if head.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        return "it is a web page, not a model: what was downloaded was an error or a login page"
    return f"it is no GGUF file: it begins with {head[:4]!r}, not with b'GGUF'"


def probe(paths: Sequence[str]) -> str:
    """Give the shell command that prints `file=PATH SIZE HEADER` for each path, header in hex.

    SIZE is `-` where there is no such file, HEADER is `-` where it cannot be read or is empty.
    """
    words = " ".join(map(shlex.quote, paths))
    return (
        f"for file in {words}; do "
        'size=$(stat -L -c %s "$file" 2>/dev/null); [ -f "$file" ] || size=-; '
        f'head=$(head -c {HEADER_BYTES} "$file" 2>/dev/null | od -An -v -tx1 | tr -d " \\n"); '
        'echo "file=$file ${size:--} ${head:--}"; done; true'
    )


def read(line: str) -> tuple[str, str | None]:
    """Read one line of `probe`: the path, and what is wrong with the file there (or None)."""
    path, size, head = line.removeprefix("file=").rsplit(" ", 2)
    if size == "-":
        return path, "there is no such file"
    if head == "-" and size != "0":
        return path, "it cannot be read"
    return path, gguf_problem(b"" if head == "-" else bytes.fromhex(head), int(size))
