"""python -m tests.offload.undefended_daemon: the command `offload`, for tests of what protects its keys.

It may dump core, with all that a core can have; the daemon as it is shipped forbids that. Its data plane is the one
with testing hooks (tests/faults/faulty_daemon.py), so that TESTING_SECRET_MEMORY_KIND in the environment chooses how
secret memory is kept. $CONTROL names a key file that is read as no key is ever to be: a search of the core finds it.
"""

from __future__ import annotations

import os
from pathlib import Path

from tests.faults import faulty_daemon

control = Path(os.environ["CONTROL"]).read_bytes()


def main() -> None:
    Path("/proc/self/coredump_filter").write_text("0x7f")  # mappings of every kind
    cli = faulty_daemon.load()
    from offload import _dataplane

    _dataplane.harden_process = lambda: None
    cli.main()


if __name__ == "__main__":
    main()
