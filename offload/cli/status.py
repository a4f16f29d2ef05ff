"""`offload status`: queues, batches and crossovers, once or live."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from offload.backends import LANES
from offload.cli.keys import callers_in_words, done_in_words
from offload.cli.output import (
    CALL_SECONDS,
    DEFAULT_ADMIN,
    AdminPath,
    Format,
    Output,
    admin,
    message_as_json,
    out,
    print_json,
)
from offload.reporting.untrusted_text import escaped
from offload.v1 import admin_pb2

IDENTITIES_SHOWN = 8  # offload keys list shows all
BARS = " ▁▂▃▄▅▆▇█"
UNSHOWN_WHEN_EMPTY = ("failed", "per s", "redone")
# The help of the command explains them.
COLUMNS = ("algorithm", "lanes", "done", "failed", "per s", "queue", "batch", "sizes 1-8", "waited", "run", "redone")


def status(
    admin_socket: AdminPath = DEFAULT_ADMIN,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Refresh until Ctrl-C.")] = False,
    interval: Annotated[float, typer.Option(help="Seconds between refreshes with --watch.", min=0.1, max=60)] = 1.0,
    count: Annotated[int, typer.Option(help="With --watch: stop after this many refreshes; 0: never.", min=0)] = 0,
    output: Output = Format.table,
) -> None:
    """Show what the daemon is doing: queues, batches, times, crossovers, refusals.

    Examples: `offload status`, `offload status --watch`, `offload status -o json | jq .backend`

    lanes: smallest batch that goes to the vector kernels. sizes 1-8: number of batches of each size. waited: median and
    99th percentile of the time in the queue. run: mean time of a batch. redone: vector results that failed their check
    and were recomputed. With --watch, -o json prints one object after the other.
    """
    with admin(admin_socket) as stub:
        if not watch:
            _print(stub.GetStatistics(admin_pb2.GetStatisticsRequest(), timeout=CALL_SECONDS), output)
            return
        stream = stub.WatchStatistics(admin_pb2.WatchStatisticsRequest(interval_ms=int(interval * 1000)))
        try:
            _follow(stream, count, output)
        except KeyboardInterrupt:
            return
        finally:
            stream.cancel()


def _print(now: admin_pb2.StatisticsResponse, output: Format) -> None:
    if output is Format.json:
        print_json(message_as_json(now))
    else:
        out.print(render(now, None))


def _follow(stream: Any, count: int, output: Format) -> None:
    before: admin_pb2.StatisticsResponse | None = None
    seen = 0
    with Live(console=out, auto_refresh=False, transient=False) as live:
        for now in stream:
            if output is Format.json:
                print_json(message_as_json(now))
            else:
                live.update(render(now, before), refresh=True)
            before = now
            seen += 1
            if seen == count:
                return


def render(now: admin_pb2.StatisticsResponse, before: admin_pb2.StatisticsResponse | None) -> RenderableType:
    """The whole view; with the numbers of `before`, rates are shown too."""
    parts: list[RenderableType] = [_header(now), _classes(now, before)]
    if now.identities:
        parts.append(_identities(now))
    if any(now.refusals.values()):
        parts.append(_refusals(now))
    return Group(*parts)


def _header(now: admin_pb2.StatisticsResponse) -> Text:
    state = Text("draining", style="yellow") if now.draining else Text("serving", style="green")
    hours, rest = divmod(int(now.uptime_seconds), 3600)
    mebibytes = now.secret_memory_used_bytes / 2**20
    return Text.assemble(
        ("offload ", "bold"), now.version, "  ", state, f" for {hours}:{rest // 60:02}:{rest % 60:02}\n",
        f"backend      {now.backend} ({now.backend_reason})\n",
        f"callers      {now.connections} connected ({now.connections_total} since the start), ",
        f"{now.streams} calls open, {now.watchers} watch identities\n",
        f"queue        {now.queued} operations waiting, at most {now.limits.queue_limit} ",
        f"(set by {now.limits.queue_limit_set_by})\n",
        f"batches      RSA operations wait for others for at most {now.limits.max_wait_us} us ",
        f"(set by {now.limits.max_wait_set_by})\n",
        f"key memory   {now.secret_memory_kind}, {mebibytes:.1f} MiB used\n",
        *([f"sandbox      {now.sandbox}\n"] if now.sandbox else []),
        *_mesh(now),
    )  # fmt: skip


def _mesh(now: admin_pb2.StatisticsResponse) -> list[str | tuple[str, str]]:
    if not now.HasField("mesh"):
        return []
    mesh = now.mesh
    state = (
        ("connected by mutual TLS" if mesh.mutual_tls else "connected by token", "green")
        if mesh.connected
        else ("not connected", "yellow")
    )
    version = f", configuration {mesh.version}" if mesh.version else ", no configuration yet"
    parts: list[str | tuple[str, str]] = ["mesh         ", state, f" to {mesh.control_plane}{version}\n"]
    if mesh.reason:
        parts.append(f"             {escaped(mesh.reason)}\n")
    parts += [(f"             {escaped(problem)}\n", "red") for problem in mesh.problems]
    return parts


def _identities(now: admin_pb2.StatisticsResponse) -> Table:
    """The busiest identities. One that is not listed is used by nobody, whatever the configuration says."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in ("identity", "done", "for"):
        table.add_column(column, overflow="fold")
    for one in now.identities[:IDENTITIES_SHOWN]:
        table.add_row(escape(one.identity), "\n".join(done_in_words(one)), escape("\n".join(callers_in_words(one))))
    return table


def _classes(now: admin_pb2.StatisticsResponse, before: admin_pb2.StatisticsResponse | None) -> Table:
    rows: list[list[str]] = []
    earlier = {c.algorithm: c for c in before.classes} if before else {}
    seconds = now.time_seconds - before.time_seconds if before else 0.0
    for one in now.classes:
        good, failed = _done(one)
        if not good and not failed and not one.queued and one.crossover == 0:
            continue
        last = earlier.get(one.algorithm)
        rate = f"{(good - _done(last)[0]) / seconds:.0f}" if last and seconds > 0 else ""
        sizes = batch_sizes(one)
        batches = sum(sizes)
        mean = sum(size * n for size, n in enumerate(sizes, 1)) / batches if batches else 0.0
        row = [
            one.algorithm,
            "never" if one.crossover > LANES else f"{one.crossover}+",
            str(good),
            str(failed) if not failed else f"[red]{failed}[/]",
            rate,
            str(one.queued),
            f"{mean:.2f}" if batches else "",
            bars(sizes),
            f"{_time(quantile(one.queue_seconds, 0.5))} {_time(quantile(one.queue_seconds, 0.99))}",
            _time(one.run_seconds.sum / batches if batches else None),
            str(one.faults) if not one.faults else f"[red]{one.faults}[/]",
        ]
        rows.append(row)
    return _table(rows)


def _table(rows: Sequence[Sequence[str]]) -> Table:
    """Drops columns without information, so that it fits into 80 characters."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    shown = [
        number
        for number, column in enumerate(COLUMNS)
        if column not in UNSHOWN_WHEN_EMPTY or any(row[number] not in ("", "0") for row in rows)
    ]
    for column in (COLUMNS[number] for number in shown):
        table.add_column(column, justify="left" if column in ("algorithm", "sizes 1-8") else "right", no_wrap=True)
    for row in rows:
        table.add_row(*(row[number] for number in shown))
    return table


def _done(one: admin_pb2.ClassStatistics) -> tuple[int, int]:
    good = sum(o.count for o in one.operations if o.status == "OK")
    return good, sum(o.count for o in one.operations) - good


def batch_sizes(one: admin_pb2.ClassStatistics) -> list[int]:
    """The number of batches of 1, 2, ... 8 operations."""
    sizes = [0] * LANES
    for batch in one.batches:
        if 1 <= batch.size <= LANES:
            sizes[batch.size - 1] += batch.count
    return sizes


def bars(counts: Sequence[int]) -> str:
    most = max(counts, default=0)
    if most == 0:
        return ""
    return "".join(BARS[0] if n == 0 else BARS[max(1, round(n / most * (len(BARS) - 1)))] for n in counts)


def quantile(histogram: admin_pb2.Histogram, share: float) -> float | None:
    """Interpolated within its bucket; None if nothing was counted, the last bound if it is above all."""
    total = sum(histogram.counts)
    if total == 0:
        return None
    wanted, below, lower = share * total, 0, 0.0
    for bound, count in zip(histogram.bounds, histogram.counts, strict=False):
        if count and below + count >= wanted:
            return lower + (bound - lower) * (wanted - below) / count
        below += count
        lower = bound
    return lower


def _time(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return f"{seconds * 1e6:.0f}us" if seconds < 1e-3 else f"{seconds * 1e3:.1f}ms"


def _refusals(now: admin_pb2.StatisticsResponse) -> Table:
    table = Table(title="Refused", title_justify="left", title_style="bold red")
    table.add_column("reason")
    table.add_column("count", justify="right")
    for reason, count in sorted(now.refusals.items()):
        if count:
            table.add_row(reason, str(count))
    return table
