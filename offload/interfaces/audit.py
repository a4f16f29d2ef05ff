"""The audit log: who used which key for what, and who was rejected, as JSON lines in a file.

Equal events within a second are one line with a count. Nothing is lost silently: what exceeds the bounds is counted in
a separate line, and what cannot be written (a full disk) in `lost`, which is a metric; signing continues in any
case.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from offload.config.settings import Audit
from offload.filesystem.audit_file import AuditFile
from offload.filesystem.trusted_paths import Trust
from offload.identities.schemes import BY_CODE
from offload.reporting.logs import get_logger

if TYPE_CHECKING:
    from offload import _dataplane

Names = Callable[[bytes], list[str]]  # names of the identities that have a key


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
        self._settings, self._names, self._clock = settings, names, clock
        self._file = AuditFile(path, Trust.of() if trust is None else trust)
        self._log = get_logger()
        self._failure = ""
        self.written = 0
        self.lost = 0  # events, by their counts

    @property
    def of_key_use(self) -> bool:
        """Whether uses of keys are logged, too."""
        return self._settings.key_use

    def write(
        self,
        refusals: Sequence[_dataplane.Refusal],
        uses: Sequence[_dataplane.KeyUse] = (),
        refusals_unlisted: int = 0,
        uses_unlisted: int = 0,
    ) -> None:
        """Writes the events since the last call."""
        entries = [*map(self._refusal, refusals), *map(self._use, uses)]
        bound = self._settings.lines_per_second
        left_out = entries[bound:]
        if left_out:
            entries[bound:] = [self._summary("more lines than lines_per_second", left_out)]
        for unlisted, what in ((refusals_unlisted, "refusals"), (uses_unlisted, "uses of keys")):
            if unlisted:
                why = f"more kinds of {what} than are listed"
                entries.append(self._event("left_out", why=why, count=unlisted))
        if entries:
            self._append(entries)

    def close(self) -> None:
        self._file.close()

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

    def _append(self, entries: Sequence[dict[str, Any]]) -> None:
        lines = [json.dumps(entry, separators=(",", ":")).encode() + b"\n" for entry in entries]
        whole, error = self._file.append(lines)
        self.written += whole
        if error is not None:
            self.lost += sum(entry["count"] for entry in entries[whole:])
            if self._failure != str(error.strerror):
                self._failure = str(error.strerror)
                self._log.error(
                    "cannot write the audit log; signing continues", file=str(self._file.path), reason=self._failure
                )
        elif self._failure:
            self._failure = ""
            self._log.info("writing the audit log again", file=str(self._file.path), events_lost=self.lost)


def _caller(event: _dataplane.Refusal | _dataplane.KeyUse) -> dict[str, Any]:
    return {"pid": event["pid"], "uid": event["uid"], "gid": event["gid"], "socket": event["listener"]}


def _scheme(code: int, decrypt: bool) -> str:
    known = BY_CODE.get(code)
    return "rsa_decrypt" if decrypt else known.name if known else f"0x{code:04x}"
