"""python -m benchmarks.profile [--keys KEY ...] [--modes MODE ...] --report DIR"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console

from benchmarks.handshake import plan
from benchmarks.handshake.rig import Rig, modes_of_this_host
from benchmarks.profile import flame, stacks
from deploy import output_paths
from deploy.load.tools import LoadToolError
from deploy.node.processes import NodeError, Processes, interruptible

SECONDS = 8.0
HERTZ = 1000
STACK_BYTES = 16384  # copied with each sample, and unwound later: the module and BoringSSL have no frame pointers
WARMUP_S = 1.0

TITLES = {
    ("envoy", "stock"): "stock Envoy",
    ("envoy", "ifma"): "Envoy with our module, keys on AVX-512 IFMA",
    ("envoy", "soft"): "Envoy with our module, keys in software",
    ("daemon", "ifma"): "the daemon, AVX-512 IFMA",
    ("daemon", "soft"): "the daemon, software",
}

console = Console(highlight=False)


class ProfileError(Exception):
    """perf is missing or not permitted; the message says the way out."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.profile",
        description="Flame graphs of Envoy and daemon under full handshakes (TLS 1.3, 64 at once), with perf.",
    )
    parser.add_argument(
        "--report", type=output_paths.folder, metavar="DIR", required=True, help="for the pictures, SVG and PNG"
    )
    parser.add_argument("--keys", nargs="+", choices=plan.KEYS, default=["rsa2048", "p256"], help="which key types")
    modes = modes_of_this_host()
    parser.add_argument("--modes", nargs="+", choices=modes, default=list(modes[:2]), help="whom (all: %(choices)s)")
    return parser.parse_args()


def record(rig: Rig, mode: str, load: plan.Load, folder: Path) -> Mapping[str, Path]:
    """perf's recordings of the contender's processes under the load, by name of the process."""
    contender = rig.contenders[mode]
    processes = {"envoy": contender.envoys[0].pid}
    if contender.daemon is not None:
        processes["daemon"] = contender.daemon.pid
    rig.run(mode, load, WARMUP_S, None)
    made, recorders = {}, []
    for name, pid in processes.items():
        made[name] = folder / f"{load.key}-{mode}-{name}.perf"
        # The clock of the CPU: virtual machines often have no hardware counters.
        what = ["-e", "cpu-clock" if _may_see_kernel() else "cpu-clock:u", "-F", str(HERTZ)]
        stack = ["--call-graph", f"dwarf,{STACK_BYTES}"]
        line = ["perf", "record", "--quiet", *what, *stack, "-o", str(made[name]), "-p", str(pid)]
        recorders.append(subprocess.Popen([*line, "--", "sleep", str(SECONDS)], stderr=subprocess.PIPE, text=True))
    rig.run(mode, load, SECONDS + 1, None)
    for recorder in recorders:
        _, errors = recorder.communicate(timeout=60)
        if recorder.returncode != 0:
            raise ProfileError(f"perf record ended with status {recorder.returncode}: {errors.strip()[-500:]}")
    return made


def _may_see_kernel() -> bool:
    if os.geteuid() == 0:
        return True
    setting = Path("/proc/sys/kernel/perf_event_paranoid")
    return setting.is_file() and int(setting.read_text()) < 2


def script(recording: Path) -> str:
    line = ["perf", "script", "--no-inline", "-F", "comm,tid,time,ip,sym,dso", "-i", str(recording)]
    done = subprocess.run(line, capture_output=True, text=True, errors="replace", check=False, timeout=600)
    if done.returncode != 0:
        raise ProfileError(f"perf script cannot read its recording: {done.stderr.strip()[-500:]}")
    return done.stdout


def profile(options: argparse.Namespace) -> None:
    options.report.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="tls-offload-profile-"))
    try:
        recordings: dict[tuple[str, str, str], Path] = {}
        with console.status("starting") as status, Processes(folder) as processes:
            rig = Rig(processes, folder, options.modes)
            for key in options.keys:
                for mode in options.modes:
                    status.update(f"{key}, {mode}: under load for {WARMUP_S + SECONDS + 1:.0f} seconds")
                    for name, made in record(rig, mode, plan.headline(key), folder).items():
                        recordings[key, mode, name] = made
        for (key, mode, name), recording in recordings.items():
            with console.status(f"unwinding the stacks of {name}: {key}, {mode}"):
                calls = stacks.read(script(recording))
            title = f"CPU time of {TITLES[name, mode]}: {key}, TLS 1.3, 64 handshakes at once"
            for ending in ("svg", "png"):
                path = options.report / f"flame_{key}_{mode}_{name}.{ending}"
                flame.draw(calls, title, path)
                console.print(path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main() -> int:
    options = arguments()
    if shutil.which("perf") is None:
        console.print("[bold red]perf is missing:[/] apt-get install linux-perf")
        return 1
    try:
        with interruptible():
            profile(options)
    except (ProfileError, NodeError, LoadToolError, ValueError) as error:
        console.print(f"[bold red]no profile:[/] {error}", soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        console.print("ended")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
