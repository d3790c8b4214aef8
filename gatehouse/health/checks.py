"""The checks, asked and judged."""

import subprocess
import time

from gatehouse.checks import every
from gatehouse.health.document import Checked, Status, Summary
from gatehouse.settings import Settings

SECONDS = 120
_MARK = "\x1e"


def look(settings: Settings) -> Status:
    """Run every check, those with the same command once, and give what they found."""
    began = time.time()
    checks = every(settings)
    commands = list(dict.fromkeys(check.command for check in checks))
    script = "\n".join(f"(\n{each}\n) 2>&1; printf '\\n\\036%s\\n' $?" for each in commands)
    done = subprocess.run(
        ["sh"], input=script, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    answers = dict(zip(commands, _split(done.stdout), strict=False))
    found = []
    for check in checks:
        code, output = answers.get(check.command, (255, "no answer"))
        result = check.judge(code, output)
        found.append(
            Checked(
                name=check.name,
                component=check.component,
                expected=check.expected,
                found=result.found,
                state="ok" if result.holds else check.severity,
                severity=check.severity,
                because=None,
                fix=check.fix,
                repair=check.repair is not None,
            )
        )
    return Status(
        checked=began,
        seconds=round(time.time() - began, 3),
        summary=Summary(
            ok=sum(each.state == "ok" for each in found),
            warnings=sum(each.state == "warning" for each in found),
            failures=sum(each.state == "failure" for each in found),
        ),
        checks=found,
    )


def _split(output: str) -> list[tuple[int, str]]:
    """Split the output at the marks."""
    results = []
    lines: list[str] = []
    for line in output.split("\n"):
        if line.startswith(_MARK):
            results.append((int(line[1:]), "\n".join(lines).strip("\n")))
            lines = []
        else:
            lines.append(line)
    return results
