"""Who may use the API: administrators, by a token or by a client certificate. Nobody else, for reading or writing."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import Depends, Header, Request

from control.rest.admin_certificates import AdminCertificates
from control.tokens.tokens import InvalidToken, Tokens


def administrator(tokens: Tokens, certificates: AdminCertificates | None = None) -> Any:
    """A dependency. A token, where one is sent, is what counts: a wrong one is not made good by a certificate."""

    async def check(request: Request, authorization: Annotated[str, Header(include_in_schema=False)] = "") -> None:
        shown: bytes | None = getattr(request.state, "client_certificate", None)
        if not authorization and shown is not None and certificates is not None:
            await asyncio.to_thread(certificates.check, shown)
            return
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise InvalidToken(
                "an administrator's token or client certificate is needed: authorization: Bearer <token>"
            )
        await asyncio.to_thread(tokens.check, token.strip(), "admin")

    return Depends(check)
