"""Where results are written, checked before minutes are spent on them: types for options of argparse."""

from __future__ import annotations

import argparse
import os
from pathlib import Path


def file(text: str) -> Path:
    """A file that can be written, in a folder that exists or can be created."""
    path = Path(text)
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"{path} is a folder; a file is expected")
    if path.exists() and not os.access(path, os.W_OK):
        raise argparse.ArgumentTypeError(f"{path} is not writable for you")
    folder(str(path.parent))
    return path


def folder(text: str) -> Path:
    """A folder that exists or is created now, and is writable."""
    path = nearest = Path(text)
    while not nearest.exists() and nearest != nearest.parent:
        nearest = nearest.parent
    if not nearest.is_dir():
        raise argparse.ArgumentTypeError(f"{nearest} is a file; a folder is expected")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise argparse.ArgumentTypeError(f"{nearest} is not writable for you")
    try:
        path.mkdir(parents=True, exist_ok=True)  # for root, only an attempt shows whether something can be created
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{nearest} is not writable for you: {error.strerror}") from error
    return path
