"""python -m tests.faults.faulty_daemon: the command `offload` over kernels with testing hooks, whose lanes can err.

The data plane that is loaded is another (setup.py, link_faulty_data_plane); all else is as it is shipped.
TESTING_FAULTS in the environment says which lanes (kernels/testing_hooks.h).
"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import offload

TESTING = Path(__file__).resolve().parents[2] / "build" / "native-testing" / "offload"


def load() -> ModuleType:
    """The module with the command."""
    offload.__path__.insert(0, str(TESTING))
    from offload import _dataplane, cli

    loaded = _dataplane.__file__
    if loaded is None or Path(loaded).parent != TESTING:
        raise SystemExit(f"{loaded} is not the data plane with testing hooks: make build with TLS_OFFLOAD_TESTING=1")
    return cli


def main() -> None:
    load().main()


if __name__ == "__main__":
    main()
