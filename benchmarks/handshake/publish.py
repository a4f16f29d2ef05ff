"""python -m benchmarks.handshake.publish RESULTS.json: puts a run's figures and charts into docs/performance/index.md.

The prose there is written by hand; the part between the two markers is written by this program, from the run's own
JSON. The documents keep each chart once, as PNG: an SVG of hatched bars has 25,000 lines of paths that nobody reads.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.handshake import charts, page, plan, prediction, results

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "docs" / "performance" / "index.md"
BEGIN = "<!-- results: written by python -m benchmarks.handshake.publish -->"
END = "<!-- end of results -->"

TITLES = {
    "cpu_per_handshake": "CPU per handshake, Envoy and daemon",
    "rate_at_saturation": "Handshakes per second at saturation",
    "latency_against_rate": "Handshake latency at fixed rates",
    "batches_against_sidecars": "Batch fill against sidecars",
    "cpu_ratio_against_concurrency": "CPU saved against connections at once",
    "cpu_between_envoys": "CPU per mTLS handshake between two Envoys",
    "operations_against_threads": "Scaling with kernel threads",
}


def section(found: Mapping[str, Any], drawn: Mapping[str, str]) -> str:
    """The Markdown between the markers."""
    machine = found["machine"]
    kind = "a virtual machine" if machine["virtual_machine"] else "a machine"
    lines = [
        f"{'Quick' if found['quick'] else 'Full'} run of {found['date'][:10]} on {kind} with {machine['cores']} cores "
        f"of {machine['cpu']}, Linux {machine['kernel']}, commit `{found['versions']['commit']}`, "
        f"{found['elapsed_s'] / 60:.0f} minutes: `{found['command'].strip()}`. {_disturbance(found)}",
        "",
        "CPU per handshake of the whole Envoy and daemon processes: one Envoy worker as a TLS 1.3 server, 64 "
        "connections at once, each new:",
        "",
        "| key | stock | offload (of it daemon) | stock / offload | goal | batch | rate, offload / stock | failures |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for key, entry in found["summary"].items():
        stock, ifma = (results.find(found["cells"], mode, plan.headline(key)) for mode in ("stock", "ifma"))
        if stock and ifma:
            lines.append(
                f"| {key} | {stock['total_cpu_us']:.0f} us "
                f"| {ifma['total_cpu_us']:.0f} us ({ifma['daemon_cpu_us']:.0f}) "
                f"| {entry['cpu_ratio_stock_over_ifma']:.2f} | {entry['required_cpu_ratio']:g} "
                f"| {ifma['mean_batch'] or 0:.2f} | {entry['rate_ratio_ifma_over_stock']:.2f} | {entry['failures']} |"
            )
    lines += [
        "",
        *_between_envoys(found),
        "",
        *prediction.markdown(found.get("prediction", [])),
        page.generator_sentence(found["cells"]),
        "",
        *_losses(found),
    ]
    for name in drawn:
        lines += ["", f"![{TITLES[name]}]({name}.png)"]
    return "\n".join(lines)


def _between_envoys(found: Mapping[str, Any]) -> list[str]:
    """The mTLS cells with an Envoy at each end."""
    rows = []
    for load in (plan.between_envoys(key, tls) for tls in ("1.3", "1.2") for key in plan.KEYS):
        stock, ifma = (results.find(found["cells"], mode, load) for mode in ("stock", "ifma"))
        if stock and ifma:
            rows.append(
                f"| {load.key}, TLS {load.tls} | {stock['total_cpu_us']:.0f} us ({stock['caller_cpu_us']:.0f}) "
                f"| {ifma['total_cpu_us']:.0f} us ({ifma['caller_cpu_us']:.0f}, {ifma['daemon_cpu_us']:.0f}) "
                f"| {stock['total_cpu_us'] / ifma['total_cpu_us']:.2f} | {ifma['mean_batch'] or 0:.2f} "
                f"| {ifma['handshakes_per_s'] / stock['handshakes_per_s']:.2f} "
                f"| {stock['failures'] + ifma['failures']} |"
            )
    if not rows:
        return []
    return [
        "mTLS between two Envoys, a new connection for each request, 64 at once. A handshake takes two signatures, and "
        "the figures include the proxying of the request by both Envoys:",
        "",
        "| keys of both ends | stock (of it the client's Envoy) | offload (of it the client's Envoy, daemon) "
        "| stock / offload | batch | rate, offload / stock | failures |",
        "|---|---|---|---|---|---|---|",
        *rows,
    ]


def _disturbance(found: Mapping[str, Any]) -> str:
    load = found["load_average_before"]
    if load < found["machine"]["cores"] / 4:
        return "Nothing else ran on it."
    return (
        f"Other work ran on it (load average {load:.1f} before the start), so rates and latencies are worse than they "
        "need be; the ratios are of interleaved slices and suffer less."
    )


def _losses(found: Mapping[str, Any]) -> list[str]:
    """The loads for which stock Envoy used less CPU than the offload, in this run."""
    rows = []
    for stock in (one for one in found["cells"] if one["mode"] == "stock"):
        ours = next((c for c in found["cells"] if c["mode"] == "ifma" and c["name"] == stock["name"]), None)
        if ours and ours["total_cpu_us"] > stock["total_cpu_us"]:
            rows.append(f"| {stock['name']} | {stock['total_cpu_us']:.0f} us | {ours['total_cpu_us']:.0f} us |")
    if not rows:
        return ["In no load of this run did stock Envoy use less CPU."]
    return [
        "Loads of this run in which stock Envoy used less CPU:",
        "",
        "| load | stock | offload |",
        "|---|---|---|",
        *rows,
    ]


def replace_section(document: str, new: str) -> str:
    """Raises ValueError unless each marker occurs once and in order."""
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in after:
        raise ValueError(f"the document has to have one '{BEGIN}' and after it one '{END}'")
    return f"{before}{BEGIN}\n\n{new}\n\n{END}{after}"


def publish(found: Mapping[str, Any], document: Path) -> None:
    drawn = charts.draw_all(found, document.parent)
    document.write_text(replace_section(document.read_text(), section(found, drawn)))


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.handshake.publish", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("results", type=Path, metavar="RESULTS.json")
    parser.add_argument("--document", type=Path, default=DOCUMENT)
    options = parser.parse_args()
    publish(json.loads(options.results.read_text()), options.document)
    print(f"{options.document} and the charts beside it are new")
    return 0


if __name__ == "__main__":
    sys.exit(main())
