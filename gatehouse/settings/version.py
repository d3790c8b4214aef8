"""Which LiteLLM versions must never serve, and why."""

import re

FLOOR = (1, 103, 8)
FLOOR_REASON = (
    "versions before 1.103.8 have known holes that let strangers in (CVE-2026-42208, "
    "CVE-2026-59822, CVE-2026-114612 among them)"
)
REFUSED = {
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
    found = _TAG.fullmatch(tag(image))
    if not found:
        if "@sha256:" in image and not tag(image):
            return "its version cannot be seen: write the tag before the digest"
        return f"its tag {tag(image) or '(none)'!r} is not a version"
    version = (int(found[1]), int(found[2]), int(found[3]))
    if version in REFUSED:
        return REFUSED[version]
    return FLOOR_REASON if version < FLOOR else None
