"""How a command says that it did not work."""

import click


class ProblemError(click.ClickException):
    """It was tried, and it did not work."""

    exit_code = 1


class CannotLookError(click.ClickException):
    """It could not even be tried."""

    exit_code = 2
