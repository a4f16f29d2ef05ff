"""What callers did, and why they were rejected: from the data plane into the log, the audit log and the totals."""

from __future__ import annotations

import time

from offload import _dataplane
from offload.identities.keyring import Keyring
from offload.identities.uses import IdentityUses
from offload.interfaces.audit import AuditLog
from offload.reporting.folded_log import FoldedLog

UNLISTED = "more refusals than are listed one by one"


class Accounting:
    """For one thread, which calls `collect` at least once a second; other threads read `uses` and `audit`."""

    def __init__(
        self, data_plane: _dataplane.DataPlane, keyring: Keyring, audit: AuditLog | None, folded: FoldedLog
    ) -> None:
        self._data_plane, self._keyring, self._folded = data_plane, keyring, folded
        self._backends = tuple(data_plane.statistics()["backends"])  # as the data plane numbers them
        self.audit = audit
        self.uses = IdentityUses()

    def start(self) -> None:
        """To be called before the data plane starts, so that the first operation is counted."""
        self._data_plane.count_key_uses(True)

    def collect(self) -> None:
        """Collects what happened since the last call: refusals into the log, folded; these and the uses of keys into
        the audit log, which has its own bound."""
        refusals, refusals_unlisted = self._data_plane.take_refusals()
        uses, uses_unlisted = self._data_plane.take_key_uses()
        self.uses.add(uses, uses_unlisted, self._keyring.names, self._backends, time.time())
        self.uses.keep(self._keyring.current.identities.keys())
        if self.audit is not None:
            audited = (uses, uses_unlisted) if self.audit.of_key_use else ((), 0)
            self.audit.write(refusals, audited[0], refusals_unlisted, audited[1])
        if refusals_unlisted:
            self._folded.warning("unlisted", UNLISTED, count=refusals_unlisted)
        for refusal in refusals:
            self._log_refusal(refusal)
        self._folded.flush()

    def close(self) -> None:
        if self.audit is not None:
            self.audit.close()

    def _log_refusal(self, refusal: _dataplane.Refusal) -> None:
        self._folded.warning(
            (refusal["reason"], refusal["uid"], refusal["listener"]),
            "caller refused",
            reason=refusal["reason"],
            pid=refusal["pid"],
            uid=refusal["uid"],
            gid=refusal["gid"],
            socket=refusal["listener"],
            key_id=refusal["key_id"].hex() or None,
            identities=self._keyring.names_of(refusal["key_id"]) or None,
            identity_asked=refusal["identity"] or None,
            count=refusal["count"],
        )
