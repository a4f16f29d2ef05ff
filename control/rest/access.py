"""Tokens and their signing keys, certificates of administrators, rotation of CAs."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from fastapi import FastAPI, HTTPException
from pydantic_core import PydanticCustomError

from control.audit import moment
from control.ca.rotation import WAITS_FOR, Event, Rotation
from control.model.base import parse_duration
from control.own_certificates.administrators import AdminCertificates
from control.own_certificates.client_authority import NAME_MAX
from control.reconcile.control_plane import ControlPlane
from control.rest import errors
from control.rest.auditing import tell
from control.rest.shapes import (
    Certificate,
    CertificateRequest,
    Revocation,
    Revoked,
    RotationRequest,
    RotationState,
    SigningKey,
    SigningKeys,
    Status,
    Token,
    TokenKind,
    TokenRequest,
)
from control.tokens.tokens import InvalidToken, Tokens


def _duration(text: str) -> timedelta:
    try:
        valid = parse_duration(text)
    except PydanticCustomError as error:
        raise HTTPException(400, f"validFor: {error}") from None
    if valid < timedelta(seconds=1):
        raise HTTPException(400, "validFor: must be at least 1s")
    return valid


def _check_subject(kind: TokenKind, wanted: TokenRequest) -> None:
    """Checks whom it is for. A dataplane token may be for any dataplane of its mesh; an administrator needs no name."""
    if kind != "dataplane" and wanted.labels:
        raise HTTPException(400, "labels: only valid for dataplane tokens")
    if kind == "node" and not wanted.name:
        raise HTTPException(400, "name: of the node is required: a daemon cannot join with a token that names no node")
    if kind != "dataplane" and (len(wanted.name) > NAME_MAX or not wanted.name.isprintable()):
        raise HTTPException(400, f"name: must have at most {NAME_MAX} characters, all printable")


def add_tokens(app: FastAPI, control_plane: ControlPlane, tokens: Tokens) -> None:
    common: dict[str, Any] = {"tags": ["tokens"]}

    async def check_mesh(kind: TokenKind, mesh: str) -> None:
        """Each mesh has its own signing keys; none is created for a mesh that does not exist. Raises NotFound."""
        if (kind == "dataplane") != bool(mesh):
            raise HTTPException(400, "mesh: is required for dataplane tokens, and not valid for others")
        if mesh:
            await asyncio.to_thread(control_plane.state.store.get, "Mesh", "", mesh)

    @app.post("/tokens/revocations", responses=errors.responses(400, 401, 404), **common)
    async def revoke(revocation: Revocation) -> Revoked:
        """From now on the token is rejected, and so is a certificate that was obtained with it.

        Rejected if nothing would be revoked.
        """
        tell("token_revoked", reason=revocation.reason, forced=revocation.force)
        try:
            wanted = revocation.token, revocation.reason, revocation.force
            found = await asyncio.to_thread(tokens.revoke, *wanted)
        except InvalidToken as error:
            raise HTTPException(400, str(error)) from None
        tell("token_revoked", id=found.jti, what=found.what)
        return Revoked(jti=found.jti, what=found.what)

    @app.post("/tokens/{kind}", responses=errors.responses(400, 401, 404, 409), **common)
    async def issue(kind: TokenKind, wanted: TokenRequest) -> Token:
        labels = dict(wanted.labels)
        tell("token_issued", kind=kind, mesh=wanted.mesh, name=wanted.name, labels=labels, valid_for=wanted.valid_for)
        await check_mesh(kind, wanted.mesh)
        _check_subject(kind, wanted)
        seconds = int(_duration(wanted.valid_for).total_seconds())
        made = await asyncio.to_thread(tokens.make, kind, seconds, wanted.mesh, wanted.name, labels)
        tell("token_issued", id=made.claims.jti, until=moment(made.claims.expires_at))
        return Token(token=made.token)

    path, answers = "/tokens/{kind}/keys", errors.responses(400, 401, 404, 409)

    @app.get(path, responses=answers, **common)
    async def keys(kind: TokenKind, mesh: str = "") -> SigningKeys:
        """The last one signs, all of them verify."""
        await check_mesh(kind, mesh)
        return SigningKeys(keys=await asyncio.to_thread(tokens.key_ids, kind, mesh))

    @app.post(path, responses=answers | errors.responses(429), **common)
    async def add_key(kind: TokenKind, mesh: str = "") -> SigningKey:
        """A new key, which signs from now on."""
        tell("signing_key_added", kind=kind, mesh=mesh)
        await check_mesh(kind, mesh)
        key = await asyncio.to_thread(tokens.add_key, kind, mesh)
        tell("signing_key_added", key=key)
        return SigningKey(key=key)

    @app.delete(path + "/{key}", responses=answers, **common)
    async def remove_key(kind: TokenKind, key: str, mesh: str = "") -> Status:
        """Every token that it signed is void from now on."""
        tell("signing_key_removed", kind=kind, mesh=mesh, key=key)
        await check_mesh(kind, mesh)
        await asyncio.to_thread(tokens.remove_key, key, kind, mesh)
        return Status(status="removed")


def add_certificates(app: FastAPI, certificates: AdminCertificates) -> None:
    @app.post("/certificates/admin", responses=errors.responses(400, 401), tags=["tokens"])
    async def issue(wanted: CertificateRequest) -> Certificate:
        """A client certificate for an administrator, instead of a token; the key stays with the requester."""
        tell("certificate_issued", name=wanted.name, valid_for=wanted.valid_for)
        try:
            request = x509.load_pem_x509_csr(wanted.request.encode()).public_bytes(Encoding.DER)
        except ValueError:
            raise HTTPException(400, "request: not a certificate request (PKCS#10) in PEM form") from None
        valid = _duration(wanted.valid_for)
        made = await asyncio.to_thread(certificates.issue, request, wanted.name, valid)
        tell("certificate_issued", id=made.jti, until=made.not_after.isoformat())
        return Certificate(certificate=made.pem, jti=made.jti, not_after=made.not_after.isoformat())


def add_rotation(app: FastAPI, control_plane: ControlPlane) -> None:
    path = "/meshes/{mesh}/meshidentities/{name}/rotation"
    common: dict[str, Any] = {"tags": ["MeshIdentity"]}

    def state(rotation: Rotation) -> RotationState:
        return RotationState(
            stage=rotation.stage.value,
            waits_for=WAITS_FOR[rotation.stage],
            issuer=rotation.issuer.fingerprint,
            bundle=[authority.fingerprint for authority in rotation.bundle],
            issuer_not_after=rotation.issuer.certificate.not_valid_after_utc.isoformat(),
            problem=rotation.issuer.problem_at(control_plane.state.identities.now()),
        )

    @app.get(path, responses=errors.responses(400, 401, 404, 409), **common)
    async def show(mesh: str, name: str) -> RotationState:
        """The stage of the rotation of its CA, and what it waits for."""
        identity = await asyncio.to_thread(control_plane.state.store.get, "MeshIdentity", mesh, name)
        return state(await asyncio.to_thread(control_plane.state.identities.authorities.rotation, identity))

    @app.post(path, responses=errors.responses(400, 401, 404, 409), **common)
    async def step(mesh: str, name: str, wanted: RotationRequest) -> RotationState:
        """Rejected until what the stage waits for has happened.

        `reset` replaces a CA that has expired or, with `force`, one that could still sign.
        """
        tell("ca_rotated", mesh=mesh, identity=name, action=wanted.action, forced=wanted.force)
        identity = await asyncio.to_thread(control_plane.state.store.get, "MeshIdentity", mesh, name)
        rotation = await control_plane.rotations.rotate(identity, Event(wanted.action), wanted.force)
        tell("ca_rotated", stage=rotation.stage.value, issuer=rotation.issuer.fingerprint)
        return state(rotation)
