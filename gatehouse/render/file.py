"""One file on the host."""

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True)
class File:
    """What a file holds and who may read it; `mode` is in octal digits."""

    content: str
    mode: str = "644"
    owner: str = "root"
    group: str = "root"

    @property
    def sha256(self) -> str:
        """Hash of the content in hexadecimal."""
        return hashlib.sha256(self.content.encode()).hexdigest()
