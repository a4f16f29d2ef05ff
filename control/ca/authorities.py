"""The CAs of MeshIdentities: generates them, keeps them sealed in the store, publishes MeshTrust, rotates, signs.

All state here belongs to one MeshIdentity since its creation: one that is deleted and created again is a different one,
with a different CA.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import structlog

from control.ca.authority import Authority, UnusableAuthority, begun_now, from_pem, generate
from control.ca.rotation import Event, Rotation, Stage, WrongStage
from control.ca.throttle import Throttle, Trouble
from control.kinds import KINDS
from control.model.mesh_identity import MeshIdentitySpec, zone_of
from control.model.resource import Resource, parse
from control.model.violation import InvalidResource, Violation
from control.secret_files import exposure
from control.store.errors import Conflict, NotFound, WrongStoreKey
from control.store.store import Store, ca_secret

log = structlog.get_logger(__name__)

MANAGED_BY = {"kuma.io/managed-by": "mesh-identity"}
ISSUER_FRESH_S = 2.0


@dataclass(frozen=True)
class Issuing:
    """What certificates are made with, and how long they live."""

    rotation: Rotation
    expiry: timedelta


@dataclass(frozen=True, order=True)
class Key:
    """One MeshIdentity; `made_at` comes from the store and tells apart two that had the same name in succession."""

    mesh: str
    name: str
    made_at: str

    @staticmethod
    def of(identity: Resource) -> Key:
        return Key(identity.mesh, identity.name, identity.creation_time)


class Authorities:
    """`steady`: a monotonic clock in seconds, for pauses. `clock`: the time that certificates are checked against."""

    def __init__(
        self,
        store: Store,
        zone: str,
        clock: Callable[[], datetime],
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store, self._zone, self._now, self._steady = store, zone, clock, steady
        self._issuing: dict[Key, tuple[float, Issuing]] = {}
        # MeshIdentities that have, or had, a CA: they stay in force whatever happens to it.
        self._had: set[Key] = set()
        self._throttle: Throttle[Key] = Throttle()

    # --- stored CAs ---------------------------------------------------------------------------------------------------

    def rotation(self, identity: Resource) -> Rotation:
        """The stored CAs of a MeshIdentity; creates nothing. Raises UnusableAuthority."""
        kept = self._read(identity)
        if kept is None:
            raise UnusableAuthority(f"MeshIdentity {identity.name!r} in mesh {identity.mesh!r} has no CA yet")
        return Rotation.from_json(kept.decode())

    def _read(self, identity: Resource) -> bytes | None:
        try:
            return self._store.secret(ca_secret(identity.mesh, identity.name))
        except WrongStoreKey as error:
            raise UnusableAuthority(f"the stored CA is damaged: {error}") from error

    def ensure(self, identity: Resource) -> Rotation:
        """Like `rotation`, but creates and publishes a CA if there is none yet. Raises UnusableAuthority."""
        kept, name = self._read(identity), ca_secret(identity.mesh, identity.name)
        if kept is None:
            fresh = Rotation(Stage.STABLE, self._new_authority(identity))
            try:
                self._store.put_secret(name, fresh.to_json().encode(), only_new=True)
            except Conflict:
                kept = self._read(identity)  # another replica was faster
            else:
                self._had.add(Key.of(identity))
                self._publish(identity, fresh)
                return fresh
        self._had.add(Key.of(identity))
        rotation = Rotation.from_json((kept or b"").decode())
        begun = self._begun(identity, rotation)
        if begun is not rotation:
            self._store.put_secret(name, begun.to_json().encode(), expected=kept)
            log.warning(
                "reissued a CA that a clock ahead of time had issued: it is valid from now on",
                mesh=identity.mesh,
                identity=identity.name,
            )
            self._publish(identity, begun)
        return begun

    def _begun(self, identity: Resource, rotation: Rotation) -> Rotation:
        """Reissues a CA that was generated here and is not valid yet: the clock has been set back since."""
        if identity.spec.provider.bundled.ca is not None:
            return rotation  # its validity is for its owner to decide
        now = self._now()

        def mended(authority: Authority | None) -> Authority | None:
            late = authority is not None and now < authority.certificate.not_valid_before_utc
            return begun_now(authority, now) if authority is not None and late else authority

        current, other = mended(rotation.current), mended(rotation.other)
        assert current is not None
        if current is rotation.current and other is rotation.other:
            return rotation
        return Rotation(rotation.stage, current, other)

    def _trust_domain(self, identity: Resource) -> str:
        spec: MeshIdentitySpec = identity.spec
        return spec.trust_domain(identity.mesh, zone_of(identity.labels, self._zone))

    def _new_authority(self, identity: Resource) -> Authority:
        spec: MeshIdentitySpec = identity.spec
        files = spec.provider.bundled.ca
        if files is None:
            return generate(self._trust_domain(identity), self._now())
        certificate, key = files.certificate.file.path, files.private_key.file.path
        try:
            pem, key_pem = Path(certificate).read_text(), Path(key).read_text()
            exposed = exposure(Path(key))
        except (OSError, UnicodeDecodeError) as error:
            raise UnusableAuthority(f"cannot read the CA files of the MeshIdentity: {error}") from error
        if exposed:
            log.warning("other users can read the key of a CA", mesh=identity.mesh, identity=identity.name, why=exposed)
        return from_pem(pem, key_pem, f"{certificate} and {key}", self._now())

    # --- before and after a MeshIdentity is stored --------------------------------------------------------------------

    def check(self, identity: Resource) -> None:
        """Checks, before a MeshIdentity is stored, that the CA it names can be used. Raises InvalidResource."""
        files = identity.spec.provider.bundled.ca
        if files is None:
            return
        try:
            before: Resource | None = self._store.get("MeshIdentity", identity.mesh, identity.name)
        except NotFound:
            before = None
        # A stored CA stays in use whatever happens to its files; other files are for the next rotation.
        if before is not None and before.spec.provider.bundled.ca == files and self._is_kept(before):
            return
        try:
            self._new_authority(identity)
        except UnusableAuthority as error:
            place = "spec.provider.bundled.ca"
            example = "{certificate: {type: File, file: {path: /etc/mesh/ca.pem}}, privateKey: ...}"
            violation = Violation(place, f"cannot be used by the control plane: {error}", example)
            raise InvalidResource(f"MeshIdentity {identity.name}", [violation]) from None

    def _is_kept(self, identity: Resource) -> bool:
        """Whether the store has a CA for this MeshIdentity, good or damaged."""
        name = ca_secret(identity.mesh, identity.name)
        return name in self._store.secret_names(name)

    def without(self, identities: Iterable[Resource]) -> Mapping[str, str]:
        """MeshIdentities that never had a CA and cannot get one, and why. They are not in force."""
        found = {}
        for identity in identities:
            key = Key.of(identity)
            if key in self._had:
                continue
            trouble = self._throttle.trouble(key) if self._throttle.holds(key, self._steady()) else None
            if trouble is None:
                try:
                    self.ensure(identity)
                    self._worked(key)
                    continue
                except UnusableAuthority as error:
                    if self._is_kept(identity):
                        self._had.add(key)
                        continue
                    trouble = self._failed(key, str(error))
            found[identity.name] = trouble.reason
        return found

    def forget(self, mesh: str, name: str | None = None) -> None:
        """To be called when a MeshIdentity is deleted, or a mesh with all of its own."""

        def is_it(key: Key) -> bool:
            return key.mesh == mesh and name in (None, key.name)

        self._had = {key for key in self._had if not is_it(key)}
        for key in [key for key in self._issuing if is_it(key)]:
            self._issuing.pop(key, None)
        for key in self._throttle.failing():
            if is_it(key):
                self._throttle.worked(key)

    # --- rotation -----------------------------------------------------------------------------------------------------

    def begin(self, identity: Resource) -> Rotation:
        """Begins with a new CA, generated or reread from the files. Raises WrongStage, UnusableAuthority, Conflict."""
        self.rotation(identity).check(Event.BEGIN, self._now())
        return self.step(identity, Event.BEGIN, self._another(identity))

    def _another(self, identity: Resource) -> Authority:
        """Raises WrongStage, UnusableAuthority."""
        new = self._new_authority(identity)
        if new.fingerprint == self.rotation(identity).current.fingerprint:
            raise WrongStage("the files still contain the CA in force: put the new one there first")
        return new

    def step(self, identity: Resource, event: Event, new: Authority | None = None) -> Rotation:
        """Raises WrongStage, Conflict, UnusableAuthority."""
        return self._store_step(identity, self.rotation(identity).step(event, self._now(), new))

    def reset(self, identity: Resource, force: bool) -> Rotation:
        """Replaces the CA at once, even a damaged one. Raises WrongStage, UnusableAuthority, Conflict."""
        try:
            before = self.rotation(identity)
        except UnusableAuthority:
            return self._store_step(identity, Rotation(Stage.RETIRING, self._new_authority(identity)))
        now = self._now()
        before.check(Event.RESET, now, force)
        waiting = before.handed_out
        fits = waiting is not None and waiting.problem_at(now) is None
        new = waiting if fits else self._another(identity)
        return self._store_step(identity, before.step(Event.RESET, now, new, force))

    def _store_step(self, identity: Resource, after: Rotation) -> Rotation:
        name = ca_secret(identity.mesh, identity.name)
        try:
            self._store.put_secret(name, after.to_json().encode(), expected=self._store.secret(name))
        except WrongStoreKey:  # it is damaged: there is nothing to compare with
            self._store.delete_secret(name)
            self._store.put_secret(name, after.to_json().encode(), only_new=True)
        self.forget(identity.mesh, identity.name)
        self._had.add(Key.of(identity))
        self._publish(identity, after)
        return after

    # --- trust --------------------------------------------------------------------------------------------------------

    def publish_trust(self, identity: Resource) -> Resource | None:
        """Creates or updates the MeshTrust of a MeshIdentity; None if it wants none. Raises UnusableAuthority."""
        try:
            return self._publish(identity, self.ensure(identity))
        except UnusableAuthority as error:
            self._failed(Key.of(identity), str(error))
            raise

    def _publish(self, identity: Resource, rotation: Rotation) -> Resource | None:
        spec: MeshIdentitySpec = identity.spec
        if spec.provider.bundled.mesh_trust_creation == "Disabled":
            return None
        # Sorted by age: swapping the two CAs in the middle of a rotation does not change the bundle.
        authorities = sorted(rotation.bundle, key=lambda a: (a.certificate.not_valid_before_utc, a.fingerprint))
        bundles = [{"type": "Pem", "pem": {"value": authority.certificate_pem}} for authority in authorities]
        document = {
            "type": "MeshTrust",
            "name": identity.name,
            "mesh": identity.mesh,
            "labels": MANAGED_BY,
            "spec": {"trustDomain": self._trust_domain(identity), "caBundles": bundles},
        }
        return self._store.put(parse(document, KINDS))

    # --- signing ------------------------------------------------------------------------------------------------------

    def issuing(self, mesh: str, name: str, made_at: str = "") -> Issuing:
        """The CA and expiry for signing, refreshed regularly, since another replica may have rotated.

        `made_at`: creation time of the MeshIdentity that is meant. After a failure the next attempt is delayed. Raises
        NotFound, UnusableAuthority.
        """
        key, now = Key(mesh, name, made_at), self._steady()
        kept = self._issuing.get(key)
        if (
            kept is not None
            and now - kept[0] <= ISSUER_FRESH_S
            and kept[1].rotation.issuer.problem_at(self._now()) is None
        ):
            return kept[1]
        if self._throttle.holds(key, now):
            trouble = self._throttle.trouble(key)
            raise UnusableAuthority(trouble.reason if trouble is not None else "")
        try:
            found = self._ask(mesh, name)
        except UnusableAuthority as error:
            self._failed(key, str(error))
            raise
        self._worked(key)
        self._issuing[key] = (now, found)
        return found

    def issuer_fingerprint(self, identity: Resource) -> str | None:
        """Fingerprint of the issuing CA, even if it cannot sign now; None if there is none, or it is damaged."""
        try:
            return self.issuing(identity.mesh, identity.name, identity.creation_time).rotation.issuer.fingerprint
        except UnusableAuthority:
            try:
                return self.rotation(identity).issuer.fingerprint
            except UnusableAuthority:
                return None

    def _ask(self, mesh: str, name: str) -> Issuing:
        resource = self._store.get("MeshIdentity", mesh, name)
        rotation = self.ensure(resource)
        problem = rotation.issuer.problem_at(self._now())
        if problem is not None:
            raise UnusableAuthority(
                f"the CA of MeshIdentity {name!r}: {problem}; mesh ca rotate {name} reset replaces it"
            )
        return Issuing(rotation, resource.spec.provider.expiry)

    def _failed(self, key: Key, reason: str) -> Trouble:
        if self._throttle.failed(key, self._steady(), reason):
            log.error("the CA of a MeshIdentity is unusable", mesh=key.mesh, identity=key.name, reason=reason)
        trouble = self._throttle.trouble(key)
        assert trouble is not None
        return trouble

    def _worked(self, key: Key) -> None:
        if self._throttle.worked(key):
            log.info("the CA of a MeshIdentity is usable again", mesh=key.mesh, identity=key.name)

    def is_throttled(self, mesh: str, name: str) -> bool:
        """Whether the CA failed recently, so that it must not be tried yet."""
        return any(self._throttle.holds(key, self._steady()) for key in self._keys(mesh, name))

    def trouble(self, mesh: str, name: str) -> str | None:
        """Why the CA cannot sign, for people; None if it can, as far as is known."""
        for trouble in map(self._throttle.trouble, self._keys(mesh, name)):
            if trouble is not None:
                seconds = max(0, round(trouble.again_at - self._steady()))
                return f"{trouble.reason} (failed {trouble.failures} times in a row; next attempt in {seconds} s)"
        return None

    def _keys(self, mesh: str, name: str) -> list[Key]:
        return [key for key in self._throttle.failing() if (key.mesh, key.name) == (mesh, name)]

    def troubles(self) -> list[tuple[str, str]]:
        """The failing CAs, as (mesh, MeshIdentity)."""
        return sorted({(key.mesh, key.name) for key in self._throttle.failing()})

    def retry(self) -> set[str]:
        """Retries the failed CAs that are due; returns the meshes of those that can sign now."""
        recovered = set()
        for key in self._throttle.due(self._steady()):
            try:
                self.issuing(key.mesh, key.name, key.made_at)
                recovered.add(key.mesh)
            except NotFound:
                self._throttle.worked(key)
            except UnusableAuthority:
                continue
        return recovered
