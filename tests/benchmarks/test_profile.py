"""Flame graphs: what perf prints is read as it is meant, and drawn."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.profile import flame, stacks
from benchmarks.profile.stacks import Frame

# As `perf script -F comm,tid,time,ip,sym,dso` prints it.
TEXT = """
wrk:worker_0 30863 16846.435612:
\t         57a5281 [unknown] (/cache/envoy/bin/envoy)
\t         552e002 [unknown] (/cache/envoy/bin/envoy)
\t           891f5 start_thread+0x305 (/usr/lib/x86_64-linux-gnu/libc.so.6)

wrk:worker_0 30863 16846.437133:
\tffffffff813a2313 finish_task_switch.isra.0+0x93 ([kernel.kallsyms])
\tffffffff821f8054 __schedule+0x3d4 ([kernel.kallsyms])
\t          108f36 epoll_wait+0x56 (/usr/lib/x86_64-linux-gnu/libc.so.6)
\t         5b4e368 [unknown] (/cache/envoy/bin/envoy)
\t           891f5 start_thread+0x305 (/usr/lib/x86_64-linux-gnu/libc.so.6)

offload-shard1 30864 16846.438302:
\t           d7e8f run_batch(int, std::vector<char>)+0x1 (/somewhere/_dataplane.cpython-311-x86_64-linux-gnu.so)
\t    7fb18c7f8500 [unknown] ([unknown])
"""


def test_stacks_are_read_from_the_outermost_frame() -> None:
    found = dict(stacks.samples(TEXT))
    assert [frame.name for frame in found["wrk:worker"]] == [
        "start_thread",
        "envoy",
        "epoll_wait",
        "__schedule",
        "finish_task_switch",
    ]
    assert found["wrk:worker"][-1].place == stacks.KERNEL
    # What no file holds is left out; so are parameters.
    assert found["offload-shard"] == [Frame("run_batch", "_dataplane.cpython-311-x86_64-linux-gnu.so")]


def test_samples_of_one_path_are_added() -> None:
    root = stacks.read(TEXT)
    assert root.samples == 3
    worker = root.below[Frame("wrk:worker", "")]
    assert worker.samples == 2
    [start] = worker.below.values()
    [envoy] = start.below.values()
    assert (envoy.frame.name, envoy.samples, root.depth()) == ("envoy", 2, 7)
    with pytest.raises(ValueError, match="no samples"):
        stacks.read("")


def test_boxes_lie_above_what_called_them() -> None:
    drawn = {(box.row, box.calls.frame.name): box for box in flame.boxes(stacks.read(TEXT))}
    assert drawn[0, "all"].width == 1
    worker, shard = drawn[1, "wrk:worker"], drawn[1, "offload-shard"]
    assert worker.start == 0
    assert shard.start == pytest.approx(2 / 3)
    assert drawn[4, "epoll_wait"].width == pytest.approx(1 / 3)
    assert flame.label(shard).startswith("offload-shard 33%")
    assert [
        flame.owner(place) for place in ("envoy", "libtls_offload.so", "_dataplane.x.so", "kernel", "libc.so.6")
    ] == [
        "Envoy",
        "our module",
        "our daemon",
        "kernel",
        "other libraries",
    ]


def test_a_graph_is_drawn_with_its_names(tmp_path: Path) -> None:
    flame.draw(stacks.read(TEXT), "a title", tmp_path / "flame.svg")
    text = (tmp_path / "flame.svg").read_text()
    assert "a title (3 samples)" in text
    assert "epoll_wait" in text
    assert "offload-shard" in text
