"""The handshake benchmark: stock Envoy, and the same Envoy with the offload, interleaved in one run.

    python -m benchmarks.handshake --json FILE --report DIR [--quick]

plan.py defines what is measured, rig.py runs the parts, measure.py reads /proc, results.py aggregates, charts.py and
page.py present.
"""
