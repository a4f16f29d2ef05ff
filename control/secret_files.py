"""Files with secrets that somebody else wrote: whether others can read them.

Such a file is used all the same, with a warning. Orchestrators mount secrets with mode 0644 into folders of one
container, and a proxy that stops at its next restart because of a mode is a worse morning than a warning is. What this
program makes itself it makes with mode 0600, and refuses where it finds it otherwise (store/sealing.py).
"""

from __future__ import annotations

from pathlib import Path

from offload.filesystem.exposure import exposure as judge


def exposure(path: Path) -> str | None:
    """That every user of this host can read the file, as a sentence with the way out; None where that is not so.

    A group that can read it was given it on purpose. Through a folder that is closed to others nobody comes to it.
    OSError.
    """
    real = path.resolve(strict=True)
    exposed = judge(str(path), real.stat(), (folder.stat() for folder in real.parents))
    return f"{path} is a secret and {exposed}" if exposed else None
