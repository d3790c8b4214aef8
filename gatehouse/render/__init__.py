"""Rendering: settings in, files out. It is pure: no host is asked, nothing is written."""

from gatehouse.render.file import File
from gatehouse.render.machine import Machine
from gatehouse.render.tree import SERVICES, Rendered, references, render

__all__ = ["SERVICES", "File", "Machine", "Rendered", "references", "render"]
