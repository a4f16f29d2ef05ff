"""How the control plane copes with many proxies: `python -m benchmarks.control --json FILE`."""
