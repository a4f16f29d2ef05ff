"""The native load tools and what their load costs: used by the demo, the tests and the benchmarks."""
