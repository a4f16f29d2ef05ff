"""Where the CPU time of a handshake goes: flame graphs of Envoy and daemon under load.

`stacks` reads what perf prints, `flame` draws it; both are pure. `__main__` runs the load and perf.
"""
