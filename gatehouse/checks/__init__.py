"""The one list of checks: the last step of a deploy, `make verify` and the host tests read it."""

from gatehouse.checks.check import Check, Result
from gatehouse.checks.every import every

__all__ = ["Check", "Result", "every"]
