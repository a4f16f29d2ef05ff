"""The report page: one file, no script, no external requests; light and dark. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from benchmarks.handshake import plan
from benchmarks.handshake.charts import MODE_NAMES
from benchmarks.handshake.results import Cell

STYLE = """
:root { color-scheme: light dark; --ink: #111827; --soft: #6b7280; --line: #e5e7eb; --page: #fff; --good: #0b6e4f; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e5e7eb; --soft: #9ca3af; --line: #374151; --page: #111827; --good: #34d399; }
}
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--page); margin: 0 auto; padding: 2rem;
  max-width: 72rem; }
h1 { font-size: 1.9rem; margin-bottom: .2rem; } h2 { margin-top: 2.5rem; }
p, figcaption { color: var(--soft); max-width: 48rem; } p strong { color: var(--ink); }
.cards { display: flex; flex-wrap: wrap; gap: 1rem; margin: 1.5rem 0; }
.card { border: 1px solid var(--line); border-radius: .6rem; padding: .8rem 1.1rem; min-width: 9rem; }
.card b { display: block; font-size: 1.8rem; } .card .met b { color: var(--good); }
.card span { color: var(--soft); font-size: .85rem; }
figure { margin: 1.5rem 0; background: #fff; border-radius: .6rem; padding: .5rem; border: 1px solid var(--line); }
figure svg { width: 100%; height: auto; max-height: 32rem; }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; display: block;
  overflow-x: auto; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th { color: var(--soft); font-weight: 500; } th:first-child, td:first-child, td.text { text-align: left; }
code { font-size: .9em; overflow-wrap: anywhere; } tr.stock td { color: var(--soft); }
"""

GENERATOR_LIMIT = 0.9  # if its one thread is busier, it may be what limits the rate

CAPTIONS = {
    "cpu_per_handshake": "All CPU time of the Envoy process and of the daemon process, divided by handshakes. Lower is "
    "better. TLS 1.3, no resumption, 64 connections at once.",
    "rate_at_saturation": "One Envoy worker under as many connections as it takes. Load generator, Envoy and daemon "
    "share the host's cores, so on a small host this shows what is left for Envoy, not what Envoy could do alone.",
    "latency_against_rate": "Handshake latency at 30, 60 and 90 % of what stock Envoy could take, the same arrivals "
    "for all. Open loop: a connection's latency counts from when it was due.",
    "batches_against_sidecars": "The same total rate, from one Envoy and from many: what a node-wide service can batch "
    "and a batcher inside each Envoy cannot.",
    "cpu_between_envoys": "Each request goes from one Envoy to another through a new mTLS connection; both have a "
    "certificate of this key type. Both Envoys also proxy the request, with the offload and without.",
    "operations_against_threads": "A daemon alone, asked by a load generator as by many sidecars. Generator and the "
    "daemon's front thread need cores too, so the last doubling gives less.",
    "cpu_ratio_against_concurrency": "Few connections at once cannot fill batches, and each pays for waking another "
    "process.",
}

COLUMNS: Sequence[tuple[str, str, str]] = (
    ("handshakes_per_s", "per s", "{:,.0f}"),
    ("envoy_cpu_us", "Envoys µs", "{:.1f}"),
    ("caller_cpu_us", "of it caller µs", "{:.1f}"),
    ("daemon_cpu_us", "daemon µs", "{:.1f}"),
    ("total_cpu_us", "total µs", "{:.1f}"),
    ("p50_ms", "p50 ms", "{:.2f}"),
    ("p90_ms", "p90 ms", "{:.2f}"),
    ("p99_ms", "p99 ms", "{:.2f}"),
    ("p99_9_ms", "p99.9 ms", "{:.2f}"),
    ("mean_batch", "batch", "{:.2f}"),
    ("envoy_switches", "Envoy switches", "{:.1f}"),
    ("daemon_switches", "daemon switches", "{:.1f}"),
    ("envoy_cpu_share", "Envoy busy", "{:.0%}"),
    ("client_cpu_share", "generator busy", "{:.0%}"),
    ("failures", "failures", "{:,}"),
)


def page(document: Mapping[str, Any], charts: Mapping[str, str]) -> str:
    """The whole page from the run's JSON and the charts' SVG."""
    summary = document["summary"]
    body = [
        "<h1>TLS handshakes with and without the offload</h1>",
        f"<p>{escape(_sentence(document))}</p>",
        '<div class="cards">' + "".join(_card(key, entry) for key, entry in summary.items()) + "</div>",
        "<p>The cards: CPU time per handshake of stock Envoy divided by that of Envoy and daemon together. Above 1 the "
        "offload saves CPU, below 1 it costs CPU.</p>",
        *(_figure(name, svg) for name, svg in charts.items()),
        "<h2>Where it does not pay</h2>",
        _where_it_does_not_pay(document["cells"]),
        "<h2>The load generator</h2>",
        f"<p>{escape(generator_sentence(document['cells']))}</p>",
        "<h2>All cells</h2>",
        _table(document["cells"]),
        "<h2>How this was measured</h2>",
        _conditions(document),
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" '
        f'content="width=device-width"><title>TLS handshakes with and without the offload</title><style>{STYLE}</style>'
        f"</head><body>{''.join(body)}</body></html>\n"
    )


def _sentence(document: Mapping[str, Any]) -> str:
    machine = document["machine"]
    kind = "virtual machine" if machine["virtual_machine"] else "machine"
    return (
        f"{document['date'][:10]}, {machine['cores']} cores of {machine['cpu']} ({kind}), {document['envoy']}. "
        f"{'Quick' if document['quick'] else 'Full'} run, {document['elapsed_s'] / 60:.1f} minutes."
    )


def generator_sentence(cells: Sequence[Cell]) -> str:
    """Whether the load generator was the bottleneck of the loads that should saturate Envoy."""
    saturating = [one for one in cells if one["loop"] == "closed" and one["concurrency"] >= plan.USUAL_CONCURRENCY]
    if not saturating:
        return "No load of this run was one of saturation."
    busiest = max(saturating, key=lambda one: float(one["client_cpu_share"]))
    return (
        f"tlsload has one thread, and in the {len(saturating)} cells of saturation that thread was busy at most "
        f"{busiest['client_cpu_share']:.0%} of the time ({busiest['mode']}: {busiest['name']}). "
        + (
            "So it was never what limited a rate."
            if busiest["client_cpu_share"] < GENERATOR_LIMIT
            else "Near 100% the generator limits the rate: such a cell shows less than Envoy could do."
        )
    )


def _card(key: str, entry: Mapping[str, Any]) -> str:
    met = "met" if entry["met"] else "missed"
    ratio = f"<b>{entry['cpu_ratio_stock_over_ifma']:.2f}&times;</b>"
    return (
        f'<div class="card"><div class="{met}">{ratio}</div>{escape(key)}<br>'
        f"<span>goal {entry['required_cpu_ratio']:g}, {met}; {entry['failures']} failures</span></div>"
    )


def _figure(name: str, svg: str) -> str:
    drawing = re.sub(r"^.*?(?=<svg)", "", svg, flags=re.DOTALL)  # XML declaration and doctype are not allowed in HTML
    return f"<figure>{drawing}<figcaption>{escape(CAPTIONS[name])}</figcaption></figure>"


def _where_it_does_not_pay(cells: Sequence[Cell]) -> str:
    """Every load where stock used less CPU per handshake than the offload with IFMA."""
    items = []
    for stock in (one for one in cells if one["mode"] == "stock"):
        ours = next((c for c in cells if c["mode"] == "ifma" and c["name"] == stock["name"]), None)
        if ours and ours["total_cpu_us"] > stock["total_cpu_us"]:
            items.append(
                f"<li>{escape(stock['name'])}: {ours['total_cpu_us']:.0f} µs with the offload, "
                f"{stock['total_cpu_us']:.0f} µs without (p50 {ours['p50_ms']:.2f} and {stock['p50_ms']:.2f} ms)</li>"
            )
    if not items:
        return "<p>In no cell of this run did stock Envoy use less CPU.</p>"
    return (
        "<p>In these cells stock Envoy used less CPU. What remains there is that the key is not in Envoy; if that does "
        f"not matter to you, leave these to stock Envoy.</p><ul>{''.join(items)}</ul>"
    )


def _table(cells: Sequence[Cell]) -> str:
    head = "<th>load</th><th>mode</th>" + "".join(f"<th>{escape(label)}</th>" for _, label, _ in COLUMNS)
    rows = []
    for one in cells:
        values = "".join(
            f"<td>{'' if one[name] is None else template.format(one[name])}</td>" for name, _, template in COLUMNS
        )
        name = escape(one["name"])
        rows.append(f'<tr class="{one["mode"]}"><td>{name}</td><td class="text">{one["mode"]}</td>{values}</tr>')
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _conditions(document: Mapping[str, Any]) -> str:
    facts = {
        "command": document["command"],
        **{name: str(value) for name, value in document["machine"].items()},
        **document["versions"],
        **{f"memory of {mode}": f"{_memory(sizes)} (PSS)" for mode, sizes in document["memory_kib"].items()},
        "rounds": f"{document['rounds']} of {document['slice_s']} s per cell, {document['headline_rounds']} for those "
        "of the table; modes in turn; medians over the rounds",
    }
    rows = "".join(
        f'<tr><td>{escape(name)}</td><td class="text">{escape(value)}</td></tr>' for name, value in facts.items()
    )
    modes = ", ".join(f"{mode}: {text}" for mode, text in MODE_NAMES.items())
    return (
        f"<p>{escape(modes)}. Each Envoy has one worker. Connections are new for each handshake, X25519, without a "
        "request; the load generator's own CPU is not in any figure. Raw data: results.json beside this page.</p>"
        f"<table><tbody>{rows}</tbody></table>"
    )


def _memory(sizes: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {kib / 1024:.0f} MiB" for name, kib in sizes.items())
