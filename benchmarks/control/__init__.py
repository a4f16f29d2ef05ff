"""How the control plane bears many proxies: `python -m benchmarks.control --json FILE`."""
