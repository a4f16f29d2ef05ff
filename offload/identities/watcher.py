"""Watches the keys directory, and says when to look at it again."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

from watchfiles import watch

from offload.reporting.logs import get_logger


class DirectoryWatcher(threading.Thread):
    """Calls back when something in a directory changed, and every `rescan_seconds` in any case.

    inotify sees changes at once but not everywhere (network file systems, symlinks that lead out of the directory), and
    it can run out of watches; only the periodic call is reliable, and the only one without `debounce_ms`.
    """

    def __init__(
        self, directory: Path, debounce_ms: int | None, rescan_seconds: int, changed: Callable[[], None]
    ) -> None:
        super().__init__(name="keys-watcher", daemon=True)
        self._directory = directory
        self._debounce_ms = debounce_ms
        self._rescan_seconds = rescan_seconds
        self._changed = changed
        self._stop_event = threading.Event()

    def run(self) -> None:
        log = get_logger()
        told = ""
        while self._debounce_ms is None and not self._stop_event.wait(self._rescan_seconds):
            self._changed()
        while not self._stop_event.is_set():
            try:
                self._watch(self._debounce_ms or 0)
                told = ""
            except OSError as error:
                if told != str(error):
                    told = str(error)
                    log.warning(
                        "cannot watch the keys directory; scanning it periodically",
                        directory=str(self._directory),
                        reason=told,
                        seconds=self._rescan_seconds,
                    )
                self._stop_event.wait(self._rescan_seconds)
                self._changed()

    def _watch(self, debounce_ms: int) -> None:
        """Runs until told to stop, or until the watched directory is replaced by another."""
        watched = self._inode()
        for _ in watch(
            self._directory,
            watch_filter=None,
            debounce=max(1600, debounce_ms),
            step=debounce_ms,
            stop_event=self._stop_event,
            rust_timeout=self._rescan_seconds * 1000,
            yield_on_timeout=True,
            raise_interrupt=False,
        ):
            self._changed()
            if self._inode() != watched:
                return

    def _inode(self) -> tuple[int, int]:
        status = os.stat(self._directory)
        return status.st_dev, status.st_ino

    def stop(self) -> None:
        self._stop_event.set()
        self.join(timeout=5)
