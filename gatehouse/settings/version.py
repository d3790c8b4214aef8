"""Which LiteLLM versions must never serve, and why."""

import re

Version = tuple[int, int, int]

FLOOR = (1, 103, 8)
# Before it LiteLLM has no way to make a stream of a whole answer.
STREAM_GUARD = (1, 108, 0)
# What is known of versions below it: the hole, the first version that has it, and the first of
# each line that has it no more.
HOLES: tuple[tuple[str, Version, tuple[Version, ...]], ...] = (
    ("CVE-2026-42208 (SQL injection without a key)", (1, 81, 16), ((1, 83, 7),)),
    ("CVE-2026-42271 (commands by MCP stdio)", (0, 0, 0), ((1, 83, 7),)),
    ("CVE-2026-42203 (templates of /prompts/test)", (0, 0, 0), ((1, 83, 7),)),
    ("CVE-2026-40217 and GHSA-69x8-hrgq-fjj8 (sandbox, roles, hashes)", (0, 0, 0), ((1, 83, 14),)),
    ("CVE-2026-49468 (authentication by the Host header)", (0, 0, 0), ((1, 84, 0),)),
    ("CVE-2026-59822 (MCP without authentication)", (0, 0, 0), ((1, 84, 0),)),
    ("GHSA-g5ff-637f-6q2m (reads files)", (0, 0, 0), ((1, 95, 0),)),
    (
        "CVE-2026-114612 (from the salt key to admin)",
        (0, 0, 0),
        ((1, 100, 4), (1, 101, 3), (1, 102, 2), (1, 103, 1)),
    ),
)
REFUSED: dict[Version, str] = {
    (1, 82, 7): "its PyPI release was malicious (MAL-2026-2144)",
    (1, 82, 8): "its PyPI release was malicious (MAL-2026-2144)",
    (1, 106, 2): "it cannot start without a network (BerriAI/litellm#46711)",
    (1, 107, 0): "its vendor withdrew trust in it (BerriAI/litellm discussion #48242)",
}
ADVICE = "use 1.108.12 or a later 1.108.x"

_TAG = re.compile(r"v?(\d+)\.(\d+)\.(\d+)(?:[-.].*)?")


def tag(image: str) -> str:
    """Give the tag of an image reference, or "" when it has none."""
    name = image.split("@", 1)[0]
    last = name.rsplit("/", 1)[-1]
    return last.split(":", 1)[1] if ":" in last else ""


def floating(image: str) -> bool:
    """Tell whether it can mean another image tomorrow: no digest, and no digit in its tag."""
    return "@sha256:" not in image and not any(char.isdigit() for char in tag(image))


def refusal(image: str) -> str | None:
    """Say why this LiteLLM image must not be used, or None when it may.

    The list is of 2026-11; sources: the advisories named in the reasons.
    """
    version = number(image)
    if version is None:
        if "@sha256:" in image and not tag(image):
            return "its version cannot be seen: write the tag before the digest"
        return f"its tag {tag(image) or '(none)'!r} is not a version"
    if version in REFUSED:
        return REFUSED[version]
    return _below(version) if version < FLOOR else None


def number(image: str) -> Version | None:
    """Give the version that the image's tag says, or None when it says none."""
    found = _TAG.fullmatch(tag(image))
    return (int(found[1]), int(found[2]), int(found[3])) if found else None


def holes(version: Version) -> list[str]:
    """Give the known holes that a version has."""
    return [name for name, first, fixed in HOLES if first <= version and _open(version, fixed)]


def _open(version: Version, fixed: tuple[Version, ...]) -> bool:
    """Tell whether a version is older than what mends its line, or than the first that does."""
    line = next((each for each in fixed if each[:2] == version[:2]), None)
    return version < line if line else version < min(fixed)


def _below(version: Version) -> str:
    known = holes(version)
    has = f"it has {', '.join(known)}" if known else "nobody mends its line any more"
    return (
        "versions before 1.103.8 are signed with a key that their vendor has replaced "
        f"(BerriAI/litellm discussion #48242), and {has}"
    )
