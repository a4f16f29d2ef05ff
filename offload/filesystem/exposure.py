"""Secrets in files that every user of the host can read.

They are used all the same, with a warning: orchestrators mount secrets with mode 0644 into folders of one container. A
group that can read a file was given it on purpose.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable


def exposure(path: str, file: os.stat_result, folders: Iterable[os.stat_result]) -> str | None:
    """The end of a sentence that every user can read the file, with the way out; None if that is not so.

    `folders` are those on the path to it: nobody gets through one that is closed to others.
    """
    if not file.st_mode & stat.S_IROTH or any(not folder.st_mode & stat.S_IXOTH for folder in folders):
        return None
    return f"can be read by every user: chmod o-r {path}"
