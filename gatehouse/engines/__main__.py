"""`python -m gatehouse.engines VERB NAME`: what the units of engines call."""

import sys

from gatehouse.engines.errors import EngineError, say
from gatehouse.engines.signals import StoppedError

# Each verb is a module with a `main`: only the one that is asked for is imported.
VERBS = ("admit", "ready", "measure", "gone", "refuse")


def main() -> int:
    """Run a verb."""
    match sys.argv[1:]:
        case ["watch"]:
            from gatehouse.engines.watch import main as watch  # noqa: PLC0415 - as below

            return watch()
        case [verb, _, *_] if verb in VERBS:
            # Not importlib: its import costs more than this.
            module = __import__(f"gatehouse.engines.{verb}", fromlist=["main"])
            try:
                code: int = module.main(sys.argv[2:])
            except EngineError as error:
                say(f"{sys.argv[2]}: {error}")
                return 1
            except StoppedError:
                return 0
            return code
    say(f"usage: python -m gatehouse.engines {'|'.join(VERBS)} NAME …, or watch")
    return 2


if __name__ == "__main__":
    sys.exit(main())
