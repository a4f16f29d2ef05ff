"""What the kernel says of a process that we keep busy, or idle."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from deploy.load import usage

BUSY = "import time\nprint('go', flush=True)\nwhile True: time.perf_counter()"
IDLE = "import time\nprint('go', flush=True)\ntime.sleep(600)"


@pytest.fixture(params=[BUSY, IDLE], ids=["busy", "idle"])
def child(request: pytest.FixtureRequest) -> Iterator[tuple[int, bool]]:
    with subprocess.Popen([sys.executable, "-c", request.param], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process.pid, request.param == BUSY
        process.kill()


def test_cpu_time_of_a_span(child: tuple[int, bool]) -> None:
    pid, busy = child
    before = usage.usage(pid)
    time.sleep(0.4)
    used = usage.usage(pid) - before
    if busy:
        assert used.cpu_ns > 10_000_000
        assert sum(used.thread_ns.values()) == pytest.approx(used.cpu_ns, rel=0.2)
    else:
        assert used.cpu_ns < 10_000_000


def test_memory_is_that_of_a_python_process(child: tuple[int, bool]) -> None:
    assert 1_000 < usage.memory_kib(child[0]) < 500_000


def test_usages_add_up() -> None:
    one = usage.Usage(10, {"a": 7, "b": 3}, 2)
    assert one + one == usage.Usage(20, {"a": 14, "b": 6}, 4)
    assert (one + one) - one == one


def test_a_process_that_is_gone() -> None:
    with subprocess.Popen(["true"]) as process:
        process.wait()
    with pytest.raises((ProcessLookupError, FileNotFoundError, OSError)):
        usage.usage(process.pid)
