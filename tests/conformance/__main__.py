"""python -m tests.conformance FILE --sslyze PYTHON: every tool against our socket and stock Envoy's; writes the page.

Ends with status 1 on a finding that explained.toml does not have.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from deploy.setup.envoy import ENVOY_VERSION
from tests.conformance import report
from tests.conformance.checks import CHECKS
from tests.conformance.judge import Outcome, load
from tests.conformance.mutations import differences
from tests.conformance.rig import KEYS, Rig, rig
from tests.conformance.scanners import Sslyze, Testssl

TLSLITE = "tlslite-ng"
AT_ONCE = 4  # testssl.sh mostly waits
DAMAGED_HELLOS = 5000
WHAT = {
    TLSLITE: "An independent TLS in Python, whose messages the checks change, split, leave out or add to.",
    "sslyze": "What is offered, and the known attacks.",
    "testssl.sh": "The same from another hand, with simulated clients and server bugs. Only what it judges is listed.",
}


def tlslite(there: Rig) -> Iterator[report.Row]:
    for check in CHECKS:
        outcomes = {}
        for place, target in there.targets.items():
            outcomes[place] = check.outcome(target)
            target.healthy()
        yield report.Row(TLSLITE, check.id, check.standard, outcomes)


def damaged(there: Rig) -> report.Row:
    outcomes = {}
    for key in KEYS:
        found = differences(there.targets["ours", key], there.targets["stock", key], DAMAGED_HELLOS)
        for one in found:
            print(one)
        outcomes["ours", key] = Outcome(f"{len(found)} answered unlike stock Envoy", not found)
    name = f"{DAMAGED_HELLOS:,} damaged hellos"
    return report.Row(TLSLITE, name, "", outcomes)


def scanned(there: Rig, scanner: Sslyze | Testssl, folder: Path) -> list[report.Row]:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        jobs = {place: pool.submit(scanner.scan, target, folder) for place, target in there.targets.items()}
        seen = {place: job.result() for place, job in jobs.items()}
    names = dict.fromkeys(name for one in seen.values() for name in one)
    return [
        report.Row(scanner.name, name, "", {place: one[name] for place, one in seen.items() if name in one})
        for name in names
    ]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--sslyze", type=Path, required=True, help="a Python that has sslyze")
    options = parser.parse_args()
    explained, scanners = load(), (Sslyze(options.sslyze), Testssl())
    tools = [report.Tool(TLSLITE, importlib.metadata.version(TLSLITE), WHAT[TLSLITE])]
    tools += [report.Tool(one.name, one.version(), WHAT[one.name]) for one in scanners]
    with tempfile.TemporaryDirectory(prefix="conformance-") as folder, rig(Path(folder)) as there:
        began = time.monotonic()
        rows = [*tlslite(there), damaged(there)]
        print(f"{TLSLITE}: {len(rows)} checks in {time.monotonic() - began:.0f} s", flush=True)
        for scanner in scanners:
            began = time.monotonic()
            more = scanned(there, scanner, Path(folder))
            rows += more
            print(f"{scanner.name}: {len(more)} checks in {time.monotonic() - began:.0f} s", flush=True)
        for target in there.targets.values():
            target.healthy()
    found = report.findings(rows, explained)
    options.file.parent.mkdir(parents=True, exist_ok=True)
    options.file.write_text(report.document(tools, rows, explained, found, ENVOY_VERSION))
    for one in found:
        print(f"finding: {one}")
    print(f"{len(found)} findings; the page is {options.file}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
