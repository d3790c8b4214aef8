"""Becomes a second server beside one that runs in a container: `beside.py PID PORT CLOSED`.

It joins the namespaces and control groups of process PID, takes its user, folder and environment
and executes its command line, but for the port. CLOSED is a descriptor that is closed by that
execution and not before, so that the one who waits for it knows when the server begins. Python 3.11
and nothing else; root.
"""

import ctypes
import os
import sys
from pathlib import Path

# sched.h: CLONE_NEWNS, CLONE_NEWNET, CLONE_NEWIPC.
NAMESPACES = 0x00020000 | 0x40000000 | 0x08000000


def main(pid: int, port: int, closed: int) -> None:
    """Become the server."""
    proc = Path(f"/proc/{pid}")
    words = proc.joinpath("cmdline").read_bytes().split(b"\0")[:-1]
    words[words.index(b"--port") + 1] = str(port).encode()
    pairs = (line.partition(b"=") for line in proc.joinpath("environ").read_bytes().split(b"\0"))
    environment = {name: value for name, _, value in pairs if name}
    status = dict(line.split(":", 1) for line in proc.joinpath("status").read_text().splitlines())
    directory = (proc / "cwd").readlink()
    for line in proc.joinpath("cgroup").read_text().splitlines():
        _join(*line.split(":", 2)[1:])
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(os.pidfd_open(pid), NAMESPACES):
        raise OSError(ctypes.get_errno(), "cannot join the container's namespaces")
    os.chdir(directory)
    os.setgroups([])
    os.setgid(int(status["Gid"].split()[0]))
    os.setuid(int(status["Uid"].split()[0]))
    os.set_inheritable(closed, False)  # noqa: FBT003 - it takes no names
    os.execve(words[0], words, environment)  # noqa: S606 - the server's own command line


def _join(controllers: str, path: str) -> None:
    tasks = Path(f"/sys/fs/cgroup/{controllers.removeprefix('name=')}{path}/cgroup.procs")
    if tasks.exists():
        tasks.write_text(str(os.getpid()))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:4]))
