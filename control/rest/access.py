"""Tokens and their signing keys, certificates of administrators, rotation of CAs."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from fastapi import FastAPI, HTTPException
from pydantic_core import PydanticCustomError

from control.ca.rotation import WAITS_FOR, Event, Rotation
from control.model.base import parse_duration
from control.plane import ControlPlane
from control.rest import errors
from control.rest.admin_certificates import AdminCertificates
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


def add_tokens(app: FastAPI, plane: ControlPlane, tokens: Tokens) -> None:
    common: dict[str, Any] = {"tags": ["tokens"]}

    async def check_mesh(kind: TokenKind, mesh: str) -> None:
        """Each mesh has signing keys of its own; none is made for a mesh that is not there. Raises NotFound."""
        if (kind == "dataplane") != bool(mesh):
            raise HTTPException(400, "mesh: is needed for dataplane tokens, and for no others")
        if mesh:
            await asyncio.to_thread(plane.store.get, "Mesh", "", mesh)

    @app.post("/tokens/revocations", responses=errors.responses(400, 401), **common)
    async def revoke(revocation: Revocation) -> Revoked:
        """From now on the token opens nothing; nor does a certificate that was got with it."""
        try:
            return Revoked(jti=await asyncio.to_thread(tokens.revoke, revocation.token, revocation.reason))
        except InvalidToken as error:
            raise HTTPException(400, str(error)) from None

    @app.post("/tokens/{kind}", responses=errors.responses(400, 401, 404, 409), **common)
    async def issue(kind: TokenKind, wanted: TokenRequest) -> Token:
        await check_mesh(kind, wanted.mesh)
        seconds, labels = int(_duration(wanted.valid_for).total_seconds()), dict(wanted.labels)
        return Token(token=await asyncio.to_thread(tokens.issue, kind, seconds, wanted.mesh, wanted.name, labels))

    path, answers = "/tokens/{kind}/keys", errors.responses(400, 401, 404, 409)

    @app.get(path, responses=answers, **common)
    async def keys(kind: TokenKind, mesh: str = "") -> SigningKeys:
        """The last one signs, all of them verify."""
        await check_mesh(kind, mesh)
        return SigningKeys(keys=await asyncio.to_thread(tokens.key_ids, kind, mesh))

    @app.post(path, responses=answers | errors.responses(429), **common)
    async def add_key(kind: TokenKind, mesh: str = "") -> SigningKey:
        """A new key, which signs from now on."""
        await check_mesh(kind, mesh)
        return SigningKey(key=await asyncio.to_thread(tokens.add_key, kind, mesh))

    @app.delete(path + "/{key}", responses=answers, **common)
    async def remove_key(kind: TokenKind, key: str, mesh: str = "") -> Status:
        """Every token that it signed is void from now on."""
        await check_mesh(kind, mesh)
        await asyncio.to_thread(tokens.remove_key, key, kind, mesh)
        return Status(status="removed")


def add_certificates(app: FastAPI, certificates: AdminCertificates) -> None:
    @app.post("/certificates/admin", responses=errors.responses(400, 401), tags=["tokens"])
    async def issue(wanted: CertificateRequest) -> Certificate:
        """A client certificate for an administrator, instead of a token; the key stays with who asks."""
        try:
            request = x509.load_pem_x509_csr(wanted.request.encode()).public_bytes(Encoding.DER)
        except ValueError:
            raise HTTPException(400, "request: is no certificate request (PKCS#10) in PEM form") from None
        valid = _duration(wanted.valid_for)
        made = await asyncio.to_thread(certificates.issue, request, wanted.name, valid)
        return Certificate(certificate=made.pem, jti=made.jti, not_after=made.not_after.isoformat())


def add_rotation(app: FastAPI, plane: ControlPlane) -> None:
    path = "/meshes/{mesh}/meshidentities/{name}/rotation"
    common: dict[str, Any] = {"tags": ["MeshIdentity"]}

    def state(rotation: Rotation) -> RotationState:
        return RotationState(
            stage=rotation.stage.value,
            waits_for=WAITS_FOR[rotation.stage],
            issuer=rotation.issuer.fingerprint,
            bundle=[authority.fingerprint for authority in rotation.bundle],
            issuer_not_after=rotation.issuer.certificate.not_valid_after_utc.isoformat(),
            problem=rotation.issuer.problem_at(plane.identities.now()),
        )

    @app.get(path, responses=errors.responses(400, 401, 404, 409), **common)
    async def show(mesh: str, name: str) -> RotationState:
        """The stage of the rotation of its CA, and what it waits for."""
        identity = await asyncio.to_thread(plane.store.get, "MeshIdentity", mesh, name)
        return state(await asyncio.to_thread(plane.identities.authorities.rotation, identity))

    @app.post(path, responses=errors.responses(400, 401, 404, 409), **common)
    async def step(mesh: str, name: str, wanted: RotationRequest) -> RotationState:
        """Refused as long as what the stage waits for has not happened.

        `reset` puts another CA in the place of one that has ended, or with `force` of one that could still sign.
        """
        identity = await asyncio.to_thread(plane.store.get, "MeshIdentity", mesh, name)
        return state(await plane.rotate(identity, Event(wanted.action), wanted.force))
