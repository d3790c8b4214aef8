"""The deploy, component by component: the only code that imports pyinfra."""

from collections.abc import Generator

from pyinfra.api.command import PyinfraCommand

# What an operation yields: the commands that make the difference, none where there is none.
Commands = Generator[PyinfraCommand, None, None]
