"""Whether a model file is what llama.cpp can read, told by its first bytes. Pure."""

import struct

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
