"""Issues and checks tokens. A token alone says who its bearer may be.

Each audience (the dataplanes of one mesh, nodes, administrators) has its own signing keys, numbered; the largest number
signs, all of them verify. To rotate: add a key, hand out new tokens, then remove the old key.
"""

from __future__ import annotations

import re
import secrets as random
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Literal, get_args

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from control.model.resource import Resource
from control.store.errors import Conflict, NotFound
from control.store.store import FORGOTTEN_AFTER_S, KEPT_AFTER_S, Store

Kind = Literal["dataplane", "node", "admin"]
ALGORITHM = "ES256"
MAX_TOKEN_BYTES = 8192
# Limit per audience. A rotation needs two, for as long as it takes to hand out new tokens.
MAX_KEYS = 8
# Limit per hour, including the first: each is work for everybody who has a token.
MAX_NEW_KEYS = 5
NEW_S = 3600


class InvalidToken(Exception):
    """The token is rejected; the message says why, and may be shown to its bearer."""


class TooManyKeys(Exception):
    """No signing key can be added now; the message says what to do."""


@dataclass(frozen=True)
class Claims:
    """The content of a token. For a dataplane: its name, or labels that it must have, or neither (any of the mesh)."""

    kind: Kind
    expires_at: int
    jti: str
    mesh: str = ""
    name: str = ""
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    # Id of the key that signed it.
    key_id: str = ""

    def refusal(self, dataplane: Resource) -> str | None:
        """Why the bearer may not be this dataplane; None if it may."""
        if dataplane.mesh != self.mesh:
            return f"the token is for the mesh {self.mesh!r}, not {dataplane.mesh!r}"
        if self.name and dataplane.name != self.name:
            return f"the token is for the dataplane {self.name!r}, not {dataplane.name!r}"
        for key, value in self.labels.items():
            has = dataplane.labels.get(key)
            if has != value:
                return (
                    f"the token is for dataplanes with {key}: {value}; {dataplane.name!r} has {has or 'no such label'}"
                )
        return None

    @property
    def what(self) -> str:
        """A description in words."""
        whose = f" of {self.name!r}" if self.name else ""
        if self.kind == "dataplane":
            labels = ", ".join(f"{key}: {value}" for key, value in self.labels.items())
            whose = whose or (f" of dataplanes with {labels}" if labels else " of any dataplane")
            whose += f" in mesh {self.mesh!r}"
        return f"{self.kind} token{whose}"


@dataclass(frozen=True)
class Issued:
    token: str = field(repr=False)
    claims: Claims


@dataclass(frozen=True)
class Revoked:
    """`what`: a description of what is no longer valid."""

    jti: str
    what: str


# The form of random.token_hex(16), for tokens and for administrators' certificates.
_JTI = re.compile(r"[0-9a-f]{32}")


class Tokens:
    def __init__(self, store: Store, clock: Callable[[], float] = time.time) -> None:
        self._store, self._clock = store, clock
        # The keys by prefix, with marks of their stored form: another replica may add and remove keys, and a mesh that
        # is created again has new ones of the same names.
        self._keys: dict[str, tuple[Mapping[str, tuple[int, str]], dict[str, ec.EllipticCurvePrivateKey]]] = {}
        self._watchers: list[Callable[[], None]] = []
        # When keys were added here, by prefix, including those that were removed again.
        self._added: dict[str, list[float]] = {}

    def watch(self, changed: Callable[[], None]) -> None:
        """`changed` is called, on any thread, when tokens have become void here."""
        self._watchers.append(changed)

    # --- keys ---------------------------------------------------------------------------------------------------------

    @staticmethod
    def _prefix(kind: Kind, mesh: str) -> str:
        return f"mesh/{mesh}/token-keys/" if kind == "dataplane" else f"token-keys/{kind}/"

    def _read_keys(self, kind: Kind, mesh: str) -> dict[str, ec.EllipticCurvePrivateKey]:
        prefix = self._prefix(kind, mesh)
        marks, cached = self._store.secret_marks(prefix), self._keys.get(prefix)
        if cached is not None and cached[0] == marks:
            return cached[1]
        keys = {}
        for name in marks:
            pem = self._store.secret(name)
            if pem is None:
                continue  # it was removed in between
            key = serialization.load_pem_private_key(pem, password=None)
            assert isinstance(key, ec.EllipticCurvePrivateKey)
            keys[name.removeprefix(prefix)] = key
        # Caches only existing keys: anybody can ask for meshes that do not exist.
        if keys:
            self._keys[prefix] = (marks, keys)
        else:
            self._keys.pop(prefix, None)
        return keys

    def key_ids(self, kind: Kind, mesh: str = "") -> list[str]:
        """The newest last."""
        return sorted(self._read_keys(kind, mesh), key=int)

    def add_key(self, kind: Kind, mesh: str = "") -> str:
        """Adds a key, which signs from now on; returns its id. Raises TooManyKeys; existing keys are never dropped."""
        existing = self.key_ids(kind, mesh)
        self._check_rate(kind, mesh, existing)
        key_id = str(int(existing[-1]) + 1 if existing else 1)
        form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        pem = ec.generate_private_key(ec.SECP256R1()).private_bytes(*form)
        self._store.put_secret(self._prefix(kind, mesh) + key_id, pem, only_new=True)
        self._added.setdefault(self._prefix(kind, mesh), []).append(self._clock())
        return key_id

    def _check_rate(self, kind: Kind, mesh: str, existing: Sequence[str]) -> None:
        prefix, now = self._prefix(kind, mesh), self._clock()
        if not existing:
            # The last key is never removed: this is the first of a mesh, which may have been deleted and created again.
            self._added.pop(prefix, None)
            return
        if len(existing) >= MAX_KEYS:
            raise TooManyKeys(
                f"there are {len(existing)} signing keys; at most {MAX_KEYS} are allowed: remove an older one first"
            )
        stored = [datetime.fromisoformat(at).timestamp() for _, at in self._store.secret_marks(prefix).values()]
        here = self._added[prefix] = [at for at in self._added.get(prefix, ()) if abs(now - at) < NEW_S]
        if max(sum(abs(now - at) < NEW_S for at in stored), len(here)) >= MAX_NEW_KEYS:
            raise TooManyKeys(f"{MAX_NEW_KEYS} signing keys were added within an hour: add the next one later")

    def remove_key(self, key_id: str, kind: Kind, mesh: str = "") -> None:
        """Every token that it signed is void from now on. Raises Conflict for the signing key, or an unknown one."""
        existing = self.key_ids(kind, mesh)
        if key_id not in existing:
            raise Conflict(f"there is no signing key {key_id}; there are {', '.join(existing) or 'none'}")
        if key_id == existing[-1]:
            raise Conflict(f"{key_id} is the key that signs: add a new one first, and hand out new tokens")
        self._store.delete_secret(self._prefix(kind, mesh) + key_id)
        self._tell()

    # --- tokens -------------------------------------------------------------------------------------------------------

    def issue(
        self, kind: Kind, valid_s: int, mesh: str = "", name: str = "", labels: Mapping[str, str] | None = None
    ) -> str:
        """`valid_s`: seconds from now."""
        return self.make(kind, valid_s, mesh, name, labels).token

    def make(
        self, kind: Kind, valid_s: int, mesh: str = "", name: str = "", labels: Mapping[str, str] | None = None
    ) -> Issued:
        """Like `issue`. The id is stored, so that `mesh revoke` knows it."""
        existing = self.key_ids(kind, mesh) or [self.add_key(kind, mesh)]
        key = self._read_keys(kind, mesh)[existing[-1]]
        now = int(self._clock())
        made = Claims(kind, now + valid_s, random.token_hex(16), mesh, name, dict(labels or {}), existing[-1])
        claims: dict[str, Any] = {
            "kind": kind,
            "iat": now,
            "nbf": now - 60,  # clocks differ a little
            "exp": made.expires_at,
            "jti": made.jti,
        }
        claims |= {key: value for key, value in (("mesh", mesh), ("name", name), ("labels", labels)) if value}
        token = jwt.encode(claims, key, ALGORITHM, headers={"kid": existing[-1]})
        # A node renews its certificates long after the token that they were obtained with.
        keep_s = FORGOTTEN_AFTER_S if kind == "node" else KEPT_AFTER_S
        self._store.record_issued(made.jti, made.expires_at, made.what, now, keep_s)
        return Issued(token, made)

    def check(self, token: str, kind: Kind, mesh: str = "") -> Claims:
        """Raises InvalidToken. `mesh` is the bearer's claim; the token is checked with that mesh's keys."""
        if len(token) > MAX_TOKEN_BYTES:
            raise InvalidToken(f"the token has more than {MAX_TOKEN_BYTES} bytes")
        try:
            key_id = str(jwt.get_unverified_header(token).get("kid", ""))
        except jwt.InvalidTokenError:
            raise InvalidToken("this is not a token") from None
        key = self._read_keys(kind, mesh).get(key_id)
        if key is None:
            raise InvalidToken(f"the token was signed with a key that is not (or no longer) in force: {key_id[:16]!r}")
        claims = replace(self._decode(token, key), key_id=key_id)
        if claims.kind != kind or (kind == "dataplane" and claims.mesh != mesh):
            raise InvalidToken(f"this is a {claims.kind} token" + (f" of mesh {claims.mesh!r}" if claims.mesh else ""))
        if self._store.is_revoked(claims.jti):
            raise InvalidToken("the token was revoked")
        return claims

    def check_dataplane(self, token: str) -> Claims:
        """Checks the token of a proxy that has not named its mesh yet: the token names it. Raises InvalidToken."""
        if len(token) > MAX_TOKEN_BYTES:
            raise InvalidToken(f"the token has more than {MAX_TOKEN_BYTES} bytes")
        try:
            mesh = jwt.decode(token, options={"verify_signature": False}).get("mesh", "")
        except jwt.InvalidTokenError:
            raise InvalidToken("this is not a token") from None
        if not isinstance(mesh, str) or not mesh:
            raise InvalidToken("the token is for no mesh: generate a dataplane token")
        return self.check(token, "dataplane", mesh)

    def _decode(self, token: str, key: ec.EllipticCurvePrivateKey) -> Claims:
        claims, not_before = self._verified(token, key)
        now = self._clock()
        if now >= claims.expires_at:
            raise InvalidToken("the token has expired: generate a new one")
        if now < not_before:
            raise InvalidToken("the token is not valid yet: is this host's clock right?")
        return claims

    @staticmethod
    def _verified(token: str, key: ec.EllipticCurvePrivateKey) -> tuple[Claims, int]:
        """The content of the token, and its start, whatever the time is now. Raises InvalidToken."""
        options: Any = {"require": ["exp", "jti", "nbf"], "verify_exp": False, "verify_nbf": False, "verify_iat": False}
        try:
            data = jwt.decode(token, key.public_key(), algorithms=[ALGORITHM], options=options)
            claims = Claims(
                kind=data["kind"],
                expires_at=int(data["exp"]),
                jti=str(data["jti"]),
                mesh=str(data.get("mesh", "")),
                name=str(data.get("name", "")),
                labels=dict(data.get("labels", {})),
            )
            return claims, int(data["nbf"])
        except (jwt.InvalidTokenError, KeyError, ValueError, TypeError):
            raise InvalidToken("the token is not valid") from None

    def revoke(self, token_or_jti: str, reason: str = "", force: bool = False) -> Revoked:
        """Revokes a token, or the id of a token or an administrator's certificate.

        Raises InvalidToken for anything else, and NotFound for an id that was not issued here; with `force` that is
        revoked all the same, since version 0.1 did not keep the ids.
        """
        if token_or_jti.count(".") == 2:
            claims = self._signed_here(token_or_jti)
            found = Revoked(claims.jti, claims.what)
            self._store.revoke(claims.jti, claims.expires_at, reason[:512])
        else:
            if not _JTI.fullmatch(token_or_jti):
                raise InvalidToken(
                    f"{token_or_jti[:64]!r} is neither a token nor the id of one, which has 32 hexadecimal digits"
                )
            issued = self._store.issued(token_or_jti)
            if issued is None and not force and not self._store.is_revoked(token_or_jti):
                raise NotFound(
                    f"no token or certificate with the id {token_or_jti} was issued here, or it expired long ago: "
                    "nothing was revoked. If version 0.1 may have issued it, which recorded no ids, use --force"
                )
            expires_at, what = issued or (2**62, "whatever has that id")
            found = Revoked(token_or_jti, what)
            self._store.revoke(token_or_jti, expires_at, reason[:512])
        self._tell()
        return found

    def _signed_here(self, token: str) -> Claims:
        """Also accepts an expired token: a node's certificates outlive theirs. Raises InvalidToken."""
        if len(token) > MAX_TOKEN_BYTES:
            raise InvalidToken(f"the token has more than {MAX_TOKEN_BYTES} bytes")
        try:
            key_id = str(jwt.get_unverified_header(token).get("kid", ""))
            said = jwt.decode(token, options={"verify_signature": False})
            kind, mesh = said["kind"], str(said.get("mesh", ""))
            if kind not in get_args(Kind):
                raise KeyError(kind)
        except (jwt.InvalidTokenError, KeyError, TypeError):
            raise InvalidToken("this is not a token of a control plane") from None
        key = self._read_keys(kind, mesh).get(key_id)
        if key is None:
            raise InvalidToken(
                f"this {kind} token was signed with a key that is not (or no longer) in force here: it is not valid"
            )
        return self._verified(token, key)[0]

    def _tell(self) -> None:
        for changed in self._watchers:
            changed()

    def void(self, bearers: Collection[Claims]) -> dict[Claims, str]:
        """Those of them whose token is no longer valid although it has not expired, and why."""
        revoked = self._store.revoked(claims.jti for claims in bearers)
        in_force: dict[str, set[str]] = {}
        found = {}
        for claims in bearers:
            prefix = self._prefix(claims.kind, claims.mesh)
            if claims.jti in revoked:
                found[claims] = "the token was revoked"
            elif claims.key_id:
                if prefix not in in_force:
                    in_force[prefix] = {name.removeprefix(prefix) for name in self._store.secret_names(prefix)}
                if claims.key_id not in in_force[prefix]:
                    found[claims] = "the key that signed the token is no longer in force"
        return found
