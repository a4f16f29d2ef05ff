"""What every request must pass before its body is read and its route is called, so that no route can forget it.

The host that it names is this one (else another site's page has sent a browser here, by DNS rebinding). A change does
not come from another site's page. The sender is an administrator. And a change is JSON, or YAML where allowed: a form
is neither, and for anything else a browser asks before it sends it to another origin, which nobody here permits.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Sequence

from fastapi import FastAPI
from starlette.datastructures import Headers
from starlette.routing import Match

from control.rest import errors
from control.rest.authentication import Authenticator
from control.rest.limits import READS, App, Message, Receive, Scope, Send
from control.store.errors import StoreError
from control.tokens.tokens import InvalidToken

# Paths that need no administrator: probes use whatever address they know.
OPEN = ("/healthy", "/ready", "/metrics", "/openapi.json")
JSON = ("application/json",)
YAML = ("application/yaml", "application/x-yaml", "text/yaml", "text/x-yaml")
# Values by which browsers mark a request that no page of another origin has made: `none` is the user himself.
OWN_SITES = ("same-origin", "none")
# Headers of every response. Nothing here is for a page: no scripts, frames, cached copies or guessed content types.
HEADERS = (
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
)
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::([0-9]{1,5}))?")


class Refused(Exception):
    def __init__(self, status: int, title: str, detail: str) -> None:
        super().__init__(detail)
        self.status, self.title = status, title


class Api(FastAPI):
    """Adds the headers to responses of the framework itself, too, including those to internal errors."""

    def build_middleware_stack(self) -> App:
        app = super().build_middleware_stack()

        async def with_headers(scope: Scope, receive: Receive, send: Send) -> None:
            async def sending(message: Message) -> None:
                if message["type"] == "http.response.start":
                    message = {**message, "headers": [*message.get("headers", ()), *HEADERS]}
                await send(message)

            await app(scope, receive, sending)

        return with_headers


class Guard:
    """ASGI middleware. `names`: host names of the control plane; addresses are always accepted."""

    def __init__(self, app: App, api: FastAPI, authenticator: Authenticator, names: Collection[str]) -> None:
        self._app, self._api, self._authenticator = app, api, authenticator
        self._names = {name.lower() for name in (*names, "localhost")}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return  # there are no WebSockets, and lifespan events need nothing
        try:
            headers, is_change = Headers(scope=scope), scope["method"] not in READS
            is_open = scope["path"] in OPEN and not is_change
            if not is_open:
                self._check_host(headers)
            if is_change:
                _check_site(headers, scope["scheme"])
            if not is_open:
                await self._authenticator.check(scope, headers)
            if is_change and self._has_route(scope):
                _check_type(headers, scope["method"])
        except Refused as refused:
            await errors.body(refused.status, refused.title, str(refused))(scope, receive, send)
        except (InvalidToken, StoreError) as error:
            await errors.answer(error)(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _check_host(self, headers: Headers) -> None:
        """An address cannot be another site's name."""
        host = headers.get("host", "")
        found = _HOST.fullmatch(host)
        name = found[1].lower().rstrip(".") if found else ""
        if name not in self._names and not _is_address(name.strip("[]")):
            known = ", ".join(sorted(self._names))
            raise Refused(
                421, "Wrong host", f"{host!r} is not a name of this control plane, which has {known} (--name)"
            )

    def _has_route(self, scope: Scope) -> bool:
        """Whether the path has a route; if not, the router reports why."""
        return any(route.matches(scope)[0] is Match.FULL for route in self._api.router.routes)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _check_site(headers: Headers, scheme: str) -> None:
    site = headers.get("sec-fetch-site", "same-origin")
    if site not in OWN_SITES:
        raise Refused(403, "Cross-site request", f"sent by a page of another site (Sec-Fetch-Site: {site})")
    own = _normal(f"{scheme}://{headers.get('host', '')}")
    for origin in headers.getlist("origin"):
        if _normal(origin) != own:
            raise Refused(403, "Cross-site request", f"sent by a page of another origin: {origin!r}, not {own!r}")


def _normal(origin: str) -> str:
    """The origin without its default port."""
    return re.sub(r"^(https://[^/]*?):443$|^(http://[^/]*?):80$", r"\1\2", origin.lower())


def _check_type(headers: Headers, method: str) -> None:
    sent = headers.getlist("content-type")
    has_body = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
    if not sent and not has_body and method == "DELETE":
        return  # no form sends one
    taken: Sequence[str] = (*JSON, *YAML) if method == "PUT" else JSON
    if len(sent) != 1 or sent[0].partition(";")[0].strip().lower() not in taken:
        what = " and ".join(repr(one) for one in sent) or "nothing"
        wanted = " or ".join((JSON[0], *YAML[:1]) if method == "PUT" else JSON)
        raise Refused(415, "Not JSON", f"changes require Content-Type: {wanted}; got {what}")
