"""Who may use the API: administrators, by a token or by a client certificate. Nobody else, for reading or writing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from starlette.datastructures import Headers

from control.audit import Who
from control.own_certificates.administrators import AdminCertificates
from control.rest.limits import Scope
from control.tokens.checks import TokenChecks
from control.tokens.tokens import InvalidToken, Tokens


class Authenticator:
    """A token, if sent, takes precedence: a certificate does not make up for an invalid one."""

    def __init__(self, tokens: Tokens, certificates: AdminCertificates | None = None) -> None:
        self._tokens, self._certificates = tokens, certificates
        self._checks = TokenChecks()

    async def check(self, scope: Scope, headers: Headers) -> None:
        """Checks headers and connection of a request before any of its body is read. Raises InvalidToken."""
        state = scope.setdefault("state", {})
        shown: bytes | None = state.get("client_certificate")
        authorization = headers.get("authorization", "")
        if not authorization and shown is not None and self._certificates is not None:
            holder = await asyncio.to_thread(self._certificates.check, shown)
            who = Who("certificate", holder.name, holder.jti)
        else:
            scheme, _, token = authorization.partition(" ")
            if scheme.lower() != "bearer" or not token:
                raise InvalidToken(
                    "an administrator's token or client certificate is required: authorization: Bearer <token>"
                )
            claims = await self._checks.run(self._tokens.check, token.strip(), "admin")
            who = Who("token", claims.name, claims.jti)
        state["administrator"] = who  # for the audit log
        authenticated: Callable[[], None] | None = state.get("authenticated")
        if authenticated is not None:
            authenticated()
