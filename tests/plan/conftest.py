"""What every test of a plan works in."""

from pathlib import Path

import pytest

from tests.given import checkout


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Give a checkout."""
    return checkout(tmp_path)
