"""systemd's calendar expressions (systemd.time(7)): the forms that people write.

What is not understood here is refused, though systemd might take it; what is accepted here, systemd
takes (tests/lab/test_timers.py asks it).
"""

import re

_WORDS = {
    *("minutely", "hourly", "daily", "weekly", "monthly", "quarterly", "semiannually"),
    *("biannually", "bi-annually", "semi-annually", "yearly", "annually"),
}
_DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_DAY = "|".join(f"{day}|{day[:3]}" for day in _DAYS)
_WEEKDAYS = re.compile(rf"(?:{_DAY})(?:(?:,|\.\.|-)(?:{_DAY}))*,?", re.IGNORECASE)
# A number, a range, or everything, and after / every how many.
_PART = re.compile(r"(?:\*|(\d{1,4})(?:\.\.(\d{1,4}))?)(?:/(\d{1,4}))?")
_BOUNDS = {
    "year": (1970, 2199),
    "month": (1, 12),
    "day": (1, 31),
    "hour": (0, 23),
    "minute": (0, 59),
    "second": (0, 59),
}
_DATE_PARTS, _SHORT_DATE_PARTS, _TIME_PARTS = 3, 2, (2, 3)


def valid(text: str) -> bool:
    """Tell whether this is a calendar expression."""
    if text.lower() in _WORDS:
        return True
    words = text.split(" ")
    if not all(words) or not text.isascii():
        return False
    if words[-1] == "UTC":
        words = words[:-1]
    weekdays = bool(words) and bool(_WEEKDAYS.fullmatch(words[0]))
    rest = words[1:] if weekdays else words
    if not rest:
        return weekdays
    kinds = ["time" if ":" in word else "date" for word in rest]
    if kinds not in (["date"], ["time"], ["date", "time"]):
        return False
    return all(
        _is_time(word) if kind == "time" else _is_date(word)
        for word, kind in zip(rest, kinds, strict=True)
    )


def _is_date(text: str) -> bool:
    parts = text.split("-")
    names = ["year", "month", "day"][-len(parts) :]
    return len(parts) in (_SHORT_DATE_PARTS, _DATE_PARTS) and _parts(parts, names)


def _is_time(text: str) -> bool:
    parts = text.split(":")
    return len(parts) in _TIME_PARTS and _parts(parts, ["hour", "minute", "second"][: len(parts)])


def _parts(parts: list[str], names: list[str]) -> bool:
    return all(
        _is_part(each, *_BOUNDS[name])
        for part, name in zip(parts, names, strict=True)
        for each in part.split(",")
    )


def _is_part(text: str, low: int, high: int) -> bool:
    found = _PART.fullmatch(text)
    if not found:
        return False
    first, last, step = (int(each) if each else None for each in found.groups())
    if step == 0 or (step is not None and step > high):
        return False
    numbers = [each for each in (first, last) if each is not None]
    return all(low <= each <= high for each in numbers) and numbers == sorted(numbers)
