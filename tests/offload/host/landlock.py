"""Whether this kernel confines processes by Landlock."""

from __future__ import annotations

from offload import _dataplane


def landlocked() -> bool:
    return _dataplane.landlock_version() >= 6  # signals are of version 6
