"""Who must have signed LiteLLM's image, by its version. Pure, but for the key that is read."""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from gatehouse.settings import Invalid, Problem, Settings
from gatehouse.settings.version import number

ISSUER = "https://token.actions.githubusercontent.com"
IDENTITY = (
    "https://github.com/BerriAI/project-releaser/.github/workflows/release.yml@refs/heads/main"
)
KEY_URL = (
    "https://raw.githubusercontent.com/BerriAI/litellm/e82a3c646908ba0a6ee0beddc4310d7a6cac4065/"
    "cosign.pub"
)
KEY_SHA256 = "e3fe3e08c44b16407fe0b37c43b4f8b603b3a0f4ee74c29e647bc022d762c2c0"
# The first patch of each line that the vendor's workflow signed without a key, from 15 November
# 2026 on; lines from 1.109 on have no other. (BerriAI/litellm discussion #48242)
KEYLESS = {(1, 106): 11, (1, 108): 11}
KEYLESS_FROM = (1, 109)
# The first patch of each line with the key above; before it, one that the vendor has replaced.
KEYED = {(1, 103): 8, (1, 104): 6, (1, 105): 4, (1, 106): 3, (1, 107): 1, (1, 108): 0}
# Where the vendor publishes: nobody else's key counts for these.
_VENDOR = re.compile(r"(ghcr\.io/berriai|docker\.litellm\.ai/berriai|(docker\.io/)?litellm)/")


@dataclass(frozen=True)
class Signer:
    """Who must have signed: a name for people, cosign's arguments, and the public key if any."""

    name: str
    arguments: tuple[str, ...]
    key: str = ""


class UnknownSignerError(Exception):
    """Nobody can be named whose signature would count; the message says what to do."""


def wanted(settings: Settings) -> tuple[Signer | None, str]:
    """Give who must have signed `litellm_image`, or None and why nobody is asked.

    Raises `Invalid` where a signature is required and cannot be judged.
    """
    if settings.images_cosign == "off":
        return None, 'images_cosign = "off"'
    if settings.images_source == "archive":
        return None, "an archive carries none"
    try:
        return signer(settings.litellm_image, _key(settings.images_cosign_key)), ""
    except UnknownSignerError as error:
        if settings.images_cosign == "required":
            raise Invalid([Problem("images_cosign", str(error))]) from None
        return None, str(error)


def signer(image: str, key: str | None) -> Signer:
    """Give who must have signed an image; `key` is the text of the operator's public key.

    Raises `UnknownSignerError`.
    """
    if not _VENDOR.match(image):
        if key is None:
            raise UnknownSignerError(
                f"{image} is not from LiteLLM's vendor: name the public key that your own copies "
                "are signed with (images_cosign_key)"
            )
        # What a company signs for itself is in no public log.
        ignore = "--insecure-ignore-tlog=true"
        return Signer(f"your key {_sha256(key)[:12]}", (ignore,), key)
    found = number(image)
    line, patch = (found[:2], found[2]) if found else ((0, 0), 0)
    if line >= KEYLESS_FROM or patch >= KEYLESS.get(line, patch + 1):
        arguments = (
            f"--certificate-identity={IDENTITY}",
            f"--certificate-oidc-issuer={ISSUER}",
        )
        return Signer("LiteLLM's release workflow", arguments)
    if patch < KEYED.get(line, patch + 1):
        raise UnknownSignerError(
            f"{image} is signed with a key that its vendor has replaced: use a newer version"
        )
    if key is None:
        raise UnknownSignerError(
            f"{image} is signed with the vendor's key: fetch {KEY_URL} and name the file in "
            "images_cosign_key"
        )
    if _sha256(key) != KEY_SHA256:
        raise UnknownSignerError(
            f"images_cosign_key is not the vendor's key: its sha256 is {_sha256(key)}, and that of "
            f"{KEY_URL} is {KEY_SHA256}"
        )
    return Signer(f"LiteLLM's key {KEY_SHA256[:12]}", (), key)


def repository(image: str) -> str:
    """Give an image's name as Docker writes it before a digest."""
    name = image.partition("@")[0]
    path, slash, last = name.rpartition("/")
    name = f"{path}{slash}{last.partition(':')[0]}"
    return name.removeprefix("docker.io/").removeprefix("library/")


def _key(path: str | None) -> str | None:
    if path is None:
        return None
    try:
        return Path(path).read_text()
    except (OSError, UnicodeDecodeError) as error:
        words = f"{path} cannot be read ({error}): name the file of a public key"
        raise Invalid([Problem("images_cosign_key", words)]) from None


def _sha256(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
