"""The audit log: who used which key for what, and who was turned away, as JSON lines in a file.

Equal events of a second are one line with a count. Nothing is lost silently: what does not fit into the bounds is
counted in a line of its own, and what cannot be written (a full disk) in `lost`, which is a metric; signing goes on in
any case. The file may be renamed or removed at any time (logrotate): the next line goes to a new one.
"""

from __future__ import annotations

import errno
import json
import os
import stat
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from offload.config import Audit
from offload.logs import get_logger
from offload.signature_schemes import BY_CODE
from offload.trusted_paths import Trust, UntrustedPathError, check_place

if TYPE_CHECKING:
    from offload import _dataplane

FILE_MODE = 0o600
Names = Callable[[bytes], list[str]]  # of the identities that have a key


class AuditLog:
    """Used by one thread. `clock` gives seconds since 1970."""

    def __init__(
        self,
        settings: Audit,
        path: Path,
        names: Names,
        clock: Callable[[], float] = time.time,
        trust: Trust | None = None,
    ) -> None:
        self._settings, self._path, self._names, self._clock = settings, path, names, clock
        self._trust = Trust.of() if trust is None else trust
        self._log = get_logger()
        self._file: int | None = None
        self._failure = ""
        self._torn = False  # the file ends within a line
        self.written = 0
        self.lost = 0  # events, by their counts

    @property
    def of_key_use(self) -> bool:
        """Whether it is to have the uses of keys, too."""
        return self._settings.key_use

    def write(
        self,
        refusals: Sequence[_dataplane.Refusal],
        uses: Sequence[_dataplane.KeyUse] = (),
        refusals_unlisted: int = 0,
        uses_unlisted: int = 0,
    ) -> None:
        """What happened since the last time."""
        entries = [*map(self._refusal, refusals), *map(self._use, uses)]
        bound = self._settings.lines_per_second
        left_out = entries[bound:]
        if left_out:
            entries[bound:] = [self._summary("more lines than lines_per_second", left_out)]
        for unlisted, what in ((refusals_unlisted, "refusals"), (uses_unlisted, "uses of keys")):
            if unlisted:
                why = f"more kinds of {what} at once than are told apart"
                entries.append(self._event("left_out", why=why, count=unlisted))
        if entries:
            self._append(entries)

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    # ---- events ----

    def _event(self, event: str, **fields: Any) -> dict[str, Any]:
        moment = datetime.fromtimestamp(self._clock(), UTC).isoformat(timespec="milliseconds")
        return {"time": moment, "event": event} | fields

    def _refusal(self, refusal: _dataplane.Refusal) -> dict[str, Any]:
        return self._event(
            "refused",
            **_caller(refusal),
            identities=self._names(refusal["key_id"]) if refusal["key_id"] else [],
            identity_asked=refusal["identity"] or None,
            key_id=refusal["key_id"].hex() or None,
            scheme=None if refusal["scheme"] is None else _scheme(refusal["scheme"], refusal["decrypt"]),
            result=refusal["reason"],
            count=refusal["count"],
        )

    def _use(self, use: _dataplane.KeyUse) -> dict[str, Any]:
        return self._event(
            "key_used",
            **_caller(use),
            executable=use["executable"] or None,
            identities=self._names(use["key_id"]),
            key_id=use["key_id"].hex(),
            scheme=_scheme(use["scheme"], use["decrypt"]),
            result=use["status"],
            count=use["count"],
        )

    def _summary(self, why: str, entries: Iterable[dict[str, Any]]) -> dict[str, Any]:
        return self._event("left_out", why=why, count=sum(entry["count"] for entry in entries))

    # ---- the file ----

    def _append(self, entries: Sequence[dict[str, Any]]) -> None:
        lines = [json.dumps(entry, separators=(",", ":")).encode() + b"\n" for entry in entries]
        whole = 0  # of the lines, how many are in the file
        try:
            file = self._open()
            before = b"\n" if self._torn else b""
            data = before + b"".join(lines)
            taken = data[: os.write(file, data)]
            if taken:
                self._torn = not taken.endswith(b"\n")
            whole = taken[len(before) :].count(b"\n")
            if len(taken) < len(data):
                raise OSError(errno.ENOSPC, "only a part of the lines could be written")
        except OSError as error:
            self.written += whole
            self.lost += sum(entry["count"] for entry in entries[whole:])
            if self._failure != str(error.strerror):
                self._failure = str(error.strerror)
                self._log.error(
                    "the audit log cannot be written; signing goes on", file=str(self._path), reason=self._failure
                )
            return
        self.written += len(entries)
        if self._failure:
            self._failure = ""
            self._log.info("the audit log is written again", file=str(self._path), events_lost=self.lost)

    def _open(self) -> int:
        """The file at the path, which may be another than last time. OSError."""
        if self._file is not None and _is_at(self._file, self._path):
            return self._file
        self.close()
        try:
            check_place(self._path.parent, self._trust, groups_may_write=True)
        except UntrustedPathError as error:
            raise OSError(errno.EPERM, str(error)) from error
        # Not blocking: a pipe without a reader, put there by mistake, must not stop the daemon.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        file = os.open(self._path, flags, FILE_MODE)
        try:
            self._check(file)
        except OSError:
            os.close(file)
            raise
        self._file = file
        self._torn = _ends_within_a_line(self._path)
        return self._file

    def _check(self, file: int) -> None:
        """Text that callers chose is not written to whatever somebody has put, or linked, at the path. OSError."""
        there = os.fstat(file)
        if there.st_uid not in self._trust.own:
            raise OSError(errno.EPERM, f"the file there belongs to uid {there.st_uid}, not to the daemon: remove it")
        if stat.S_ISREG(there.st_mode) and there.st_nlink != 1:
            raise OSError(errno.EPERM, "the file there has another name, a hard link: remove it")


def _caller(event: _dataplane.Refusal | _dataplane.KeyUse) -> dict[str, Any]:
    return {"pid": event["pid"], "uid": event["uid"], "gid": event["gid"], "socket": event["listener"]}


def _scheme(code: int, decrypt: bool) -> str:
    known = BY_CODE.get(code)
    return "rsa_decrypt" if decrypt else known.name if known else f"0x{code:04x}"


def _ends_within_a_line(path: Path) -> bool:
    """As a daemon leaves it that ran out of disk and was ended then. False where that cannot be told (a pipe)."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        there = os.fstat(file)
        return stat.S_ISREG(there.st_mode) and there.st_size > 0 and os.pread(file, 1, there.st_size - 1) != b"\n"
    finally:
        os.close(file)


def _is_at(file: int, path: Path) -> bool:
    try:
        there = os.lstat(path)
    except OSError:
        return False
    ours = os.fstat(file)
    return (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino) and not stat.S_ISLNK(there.st_mode)
