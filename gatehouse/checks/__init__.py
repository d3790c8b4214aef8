"""The one list of checks: deploys, `gatehouse status` and `doctor`, and the host tests read it."""

from gatehouse.checks.check import Check, Result
from gatehouse.checks.every import every
from gatehouse.checks.findings import Finding, commands, findings, ordered

__all__ = ["Check", "Finding", "Result", "commands", "every", "findings", "ordered"]
