"""Settings: the one typed, frozen place between `group_data/` and everything else."""

from gatehouse.settings.engines import Engine
from gatehouse.settings.load import Invalid, Problem, defaults, validate
from gatehouse.settings.model import Settings
from gatehouse.settings.models import Model

__all__ = ["Engine", "Invalid", "Model", "Problem", "Settings", "defaults", "validate"]
