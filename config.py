"""pyinfra reads this before the inventory: wrong settings and empty inventories end here."""

from pyinfra import config

from gatehouse.deploys.invocation import check

config.REQUIRE_PYINFRA_VERSION = "~=3.10.0"
# Uploads that need sudo pass through here; /tmp is often a small memory disk.
config.TEMP_DIR = "/var/tmp"  # noqa: S108 - pyinfra makes the names; no secret passes through

check()
