"""Files with secrets that somebody else wrote: whether others can read them.

Such a file is used all the same, with a warning. Orchestrators mount secrets with mode 0644 into folders of one
container, and a proxy that fails at its next restart because of a mode is worse than a warning. The files that this
program creates have mode 0600, and are rejected with any other (store/sealing.py).
"""

from __future__ import annotations

from pathlib import Path

from offload.filesystem.exposure import exposure as judge


def exposure(path: Path) -> str | None:
    """A sentence that every user of this host can read the file, with the way out; None if that is not so.

    A group that can read it was given access on purpose. Through a folder that is closed to others nobody reaches it.
    Raises OSError.
    """
    real = path.resolve(strict=True)
    exposed = judge(str(path), real.stat(), (folder.stat() for folder in real.parents))
    return f"{path} is a secret and {exposed}" if exposed else None
