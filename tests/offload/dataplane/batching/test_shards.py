"""Which of the sleeping kernel threads gets an operation that comes alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from deploy.node.waiting import wait_for
from offload.v1 import private_key_pb2 as pb
from tests.offload.dataplane.serving import SCHEMES, tls13_input

if TYPE_CHECKING:
    from collections.abc import Callable

    from offload._dataplane import Key
    from tests.offload.dataplane.serving import Server

OPERATIONS = 40


def statuses() -> dict[str, dict[str, str]]:
    """What /proc says of each kernel thread of this process."""
    found = {}
    for task in Path("/proc/self/task").iterdir():
        name = (task / "comm").read_text().strip()
        if name.startswith("offload-shard"):
            pairs = (line.split(":", 1) for line in (task / "status").read_text().splitlines())
            found[name] = {field: value.strip() for field, value in pairs}
    return found


def switches() -> dict[str, int]:
    """How often each has gone to sleep."""
    return {name: int(status["voluntary_ctxt_switches"]) for name, status in statuses().items()}


def all_asleep() -> bool:
    return all(status["State"].startswith("S") for status in statuses().values())


def test_lone_operations_go_to_the_thread_that_slept_last(
    make_server: Callable[..., Server], keys: dict[str, Key]
) -> None:
    """Its stack, its workspace and the code are in the caches of its core; the others' have gone cold."""
    server = make_server(shards=4, backend="software")  # longer than the front itself would run
    key = keys["rsa2048"]
    with server.stub() as stub:
        request = pb.SignRequest(key_id=key.key_id, signature_scheme=SCHEMES["rsa2048"], input=tls13_input(1))
        stub.Sign(request, timeout=20)
        before = switches()
        for _ in range(OPERATIONS):
            stub.Sign(request, timeout=20)
            wait_for("the thread that ran it to sleep again", all_asleep)
        slept = sorted(count - before[name] for name, count in switches().items())
    assert len(slept) == 4
    assert slept[-1] >= OPERATIONS / 2
    assert slept[-1] > 2 * sum(slept[:-1])  # in turns, each would have slept a quarter of the times
