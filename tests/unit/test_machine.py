"""The machine: what fits on it."""

import pytest

from gatehouse.render import Machine
from tests.given import settings


@pytest.mark.parametrize(
    ("cores", "memory_mib", "expected"),
    [(8, 32768, 4), (2, 32768, 2), (8, 4096, 1), (8, 6144, 2), (1, 512, 1), (64, 524288, 4)],
    ids=["as set", "cores", "half of the memory", "memory for two", "never none", "never more"],
)
def test_workers_fit(cores: int, memory_mib: int, expected: int) -> None:
    """Workers are as many as set, as cores, and as half of the memory holds; at least one."""
    assert Machine(cores, memory_mib).workers(settings()) == expected


def test_machine_of_the_settings_wins_over_the_measured() -> None:
    """host_cpu_cores and host_memory_mib plan for another machine."""
    machine = Machine(64, 524288)
    assert machine.workers(settings(host_cpu_cores=2)) == 2
    assert machine.workers(settings(host_memory_mib=4096)) == 1


def test_memory_limit_grows_with_the_workers() -> None:
    """Each worker adds its share to the container's limit."""
    one, four = Machine(1, 32768), Machine(4, 32768)
    assert four.proxy_memory_mib(settings()) - one.proxy_memory_mib(settings()) == 3 * 1024
    assert four.proxy_memory_mib(settings()) <= 32768 // 2


@pytest.mark.parametrize(("wanted", "expected"), [(0.5, "0.5"), (2.0, "2"), (16.0, "4")])
def test_cpu_limit_is_one_that_docker_takes(wanted: float, expected: str) -> None:
    """Docker refuses a limit above the machine's cores."""
    assert Machine(4, 32768).cpus(wanted) == expected
