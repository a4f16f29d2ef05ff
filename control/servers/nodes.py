"""The gRPC service for daemons: one stream per node; its token says who the node is."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import grpc
import structlog
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from control.audit import Audit, Who, moment
from control.ca.authority import UnusableAuthority
from control.ca.identities import RENEWAL_JITTER
from control.ca.issue import RefusedRequest
from control.mesh.facts import NodeKnown
from control.mesh.node_configuration import NodeConfiguration, configuration
from control.mesh.view import MeshView
from control.mesh.wanted import digest_of
from control.own_certificates.nodes import NodeCertificates, NodeClaims
from control.reconcile.control_plane import ControlPlane
from control.servers.ads import HELLO_TIMEOUT_S, Welcome, unbounded
from control.servers.node_messages import to_message
from control.servers.node_session import UNANSWERED_MAX, NodeSession, leaving, usable, woken
from control.servers.requests import Refused, parsed, read
from control.servers.strangers import Strangers, TooManyStrangers
from control.store.errors import StoreError
from control.tokens.bearers import Bearers
from control.tokens.checks import TokenChecks
from control.tokens.tokens import Claims, InvalidToken, Tokens
from offload.reporting.folded_log import FoldedLog
from offload.v1 import node_pb2

log = structlog.get_logger(__name__)

SERVICE = "offload.v1.NodeService"

REQUESTS_WAITING = 256


async def _first(requests: AsyncIterator[bytes]) -> Any:
    """Raises RefusedRequest, Refused."""
    try:
        return parsed(node_pb2.JoinRequest, await asyncio.wait_for(anext(requests), HELLO_TIMEOUT_S))
    except (TimeoutError, StopAsyncIteration):
        raise RefusedRequest("no join request arrived") from None


class NodeServer:
    """`folded` logs what a peer can cause as often as it likes. `welcome` is told the peer of each call that has shown
    a certificate or token."""

    def __init__(
        self,
        control_plane: ControlPlane,
        tokens: Tokens,
        certificates: NodeCertificates | None = None,
        folded: FoldedLog | None = None,
        welcome: Welcome = unbounded,
        audit: Audit | None = None,
    ) -> None:
        """`audit`: None means the server's log."""
        self._audit = audit or Audit()
        self._control_plane, self._tokens, self._certificates = control_plane, tokens, certificates
        self._folded, self._welcome, self._strangers = folded or FoldedLog(log), welcome, Strangers()
        self._bearers, self._checks = Bearers(tokens), TokenChecks()
        # The port for nodes with their certificates; 0: there is none.
        self.port = 0
        self._sessions: set[NodeSession] = set()
        control_plane.pusher.watch(self._changed)
        control_plane.state.daemons.ask(self)

    def add_to(self, server: grpc.aio.Server) -> None:
        """Join is a stream of one request, the same on the wire: else gRPC would read it before it is authorized."""
        connect = grpc.stream_stream_rpc_method_handler(self._connect, None, node_pb2.ControlMessage.SerializeToString)
        join = grpc.stream_unary_rpc_method_handler(self._join, None, node_pb2.JoinAnswer.SerializeToString)
        handlers = {"Join": join, "Connect": connect}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))

    def sessions(self, name: str) -> list[NodeSession]:
        return [session for session in self._sessions if session.name == name]

    def _changed(self) -> None:
        for session in self._sessions:
            session.look_again()

    async def has_bundle(self, node: str) -> bool:
        """Whether every daemon of that name has applied what it should have now."""
        sessions = self.sessions(node)
        wanted = [(await self._configuration(session)).version for session in sessions]
        return bool(sessions) and [session.applied_version for session in sessions] == wanted

    def known(self, mesh: str) -> dict[str, NodeKnown]:
        """What the daemons of connected nodes can do now; if a node has several, what all of them can."""
        found: dict[str, NodeKnown] = {}
        for session in self._sessions:
            trusts = frozenset[tuple[str, str]]()
            if session.applied is not None:
                trusted = session.applied.trusted
                trusts = frozenset((domain, digest_of(ders)) for of, domain, ders in trusted if of == mesh)
            before = found.get(session.name)
            one = NodeKnown(session.serving, trusts)
            if before is not None:
                one = NodeKnown(before.serves & one.serves, before.trusts & one.trusts)
            found[session.name] = one
        return found

    def word(self, node: str, spiffe_id: str, socket: str) -> str | None:
        """Why the daemon of a node cannot sign for an identity now; None if it can."""
        sessions = self.sessions(node)
        if not sessions:
            return "its daemon is not connected"
        for session in sessions:
            if (spiffe_id, socket) not in session.serving:
                said = [problem for problem in session.problems if spiffe_id in problem]
                return said[0] if said else "its daemon has no key with a certificate for it yet (offload status)"
        return None

    async def _configuration(self, session: NodeSession) -> NodeConfiguration:
        views = await self._control_plane.views.all_views()
        wanted = configuration(views, session.name, await asyncio.to_thread(self._issuers, views))
        there = {(view.mesh, dataplane.name) for view in views for dataplane in view.dataplanes}
        return replace(wanted, identities=(*wanted.identities, *leaving(session, wanted, there)))

    def _issuers(self, views: Sequence[MeshView]) -> dict[tuple[str, str], str]:
        """Includes CAs that cannot sign: what a node has of them stays until there is another."""
        found = {}
        for view in views:
            for identity in view.of_type("MeshIdentity"):
                fingerprint = self._control_plane.state.identities.authorities.issuer_fingerprint(identity)
                if fingerprint is not None:
                    found[view.mesh, identity.name] = fingerprint
        return found

    async def _claims(self, context: grpc.aio.ServicerContext) -> NodeClaims:
        """Reads the certificate, if TLS has verified one, else the token. Raises InvalidToken."""
        shown = list(context.auth_context().get("x509_pem_cert", ()))
        if shown and self._certificates is not None:
            return await asyncio.to_thread(self._certificates.check, shown[0])
        metadata = dict(context.invocation_metadata() or ())
        scheme, _, token = str(metadata.get("authorization", "")).partition(" ")
        if scheme.lower() != "bearer":
            raise InvalidToken("no node token: send it as the metadata authorization: Bearer <token>")
        claims = await self._checks.run(self._tokens.check, token.strip(), "node")
        if not claims.name:
            raise InvalidToken("the token names no node: generate one with --name")
        return NodeClaims(claims.name, claims.jti, key_id=claims.key_id)

    async def _who(self, context: grpc.aio.ServicerContext) -> NodeClaims:
        """Aborts the call of a peer that is not a node."""
        try:
            return await self._claims(context)
        except InvalidToken as invalid:
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, str(invalid))
        except StoreError as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, f"the store is unavailable: {error}")
        raise AssertionError("abort raises")

    async def _join(self, requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext) -> Any:
        certificates, port = self._certificates, self.port
        if certificates is None or port == 0:
            await context.abort(
                grpc.StatusCode.UNIMPLEMENTED, "the node port is not served here: connect with the token"
            )
            raise AssertionError("abort raises")
        try:
            request, claims = await self._joining(requests, certificates, context)
            made = await asyncio.to_thread(certificates.issue, request.request, claims)
        except InvalidToken as invalid:
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, str(invalid))
        except StoreError as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, f"the store is unavailable: {error}")
        except TooManyStrangers as many:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, str(many))
        except (RefusedRequest, Refused) as refused:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(refused))
        log.info("issued a node's certificate", node=claims.name)
        self._audit.write(
            "node_certificate_issued", Who("node", claims.name, claims.jti), context.peer(), until=moment(made.ends_at)
        )
        return node_pb2.JoinAnswer(certificate_chain=[made.der], renew_at=int(made.renew_at), port=port)

    async def _joining(
        self, requests: AsyncIterator[bytes], certificates: NodeCertificates, context: grpc.aio.ServicerContext
    ) -> tuple[Any, NodeClaims]:
        """The request and its sender, by the expired certificate in it, if acceptable, else as for any other call."""
        try:
            claims, invalid = await self._claims(context), None
        except InvalidToken as error:
            claims, invalid = None, error
        # It may contain an expired certificate: so it is read even without a token, but only few at once.
        with self._welcome(context.peer()) if claims is not None else self._strangers.one(context.peer()):
            request = await _first(requests)
        if request.ended_certificate:
            ended = (request.ended_certificate, request.proof, request.request)
            try:
                claims = await asyncio.to_thread(certificates.check_ended, *ended)
                log.info("a node rejoined with its expired certificate", node=claims.name)
            except InvalidToken as error:
                text = "rejected a node's expired certificate; checking its token"
                self._folded.warning(("node", "expired certificate"), text, peer=context.peer(), reason=str(error))
        if claims is None:
            raise invalid or InvalidToken("not a node")
        return request, claims

    async def _connect(self, requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext) -> AsyncIterator[Any]:
        claims = await self._who(context)
        bearer = Claims("node", 0, claims.jti, key_id=claims.key_id)
        try:
            with (
                self._session(requests, claims) as (session, waiting),
                self._bearers.stream(bearer, session.is_void),
                self._welcome(context.peer()),
            ):
                async for answer in self._converse(session, waiting):
                    yield answer
        except InvalidToken as void:
            log.warning("the stream of a node ended", node=claims.name, reason=str(void))
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, str(void))
        except Refused as refused:
            kind = "node", claims.name, refused.reason
            self._folded.warning(kind, "the stream of a node ended", node=claims.name, reason=str(refused))
            await context.abort(refused.code, str(refused))
        except StoreError as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, f"the store is unavailable: {error}")
        except TimeoutError:
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "the node's certificate has expired")
        except Exception:
            log.exception("the stream of a node failed", node=claims.name, peer=context.peer())
            await context.abort(grpc.StatusCode.INTERNAL, "the control plane failed; its log says why")

    @contextlib.contextmanager
    def _session(
        self, requests: AsyncIterator[bytes], claims: NodeClaims
    ) -> Iterator[tuple[NodeSession, asyncio.Queue[Any]]]:
        """Ends before the node sees the end of the stream, and so never coexists with the next one."""
        session = NodeSession(claims.name, ends_at=claims.ends_at)
        waiting: asyncio.Queue[Any] = asyncio.Queue(REQUESTS_WAITING)
        self._sessions.add(session)
        reader = asyncio.create_task(read(requests, partial(parsed, node_pb2.NodeMessage), waiting, session.wake))
        try:
            yield session, waiting
        finally:
            reader.cancel()
            self._sessions.discard(session)
            if session.configuration is not None:
                self._control_plane.state.pending.mark_moved({one.mesh for one in session.configuration.identities})

    async def _converse(self, session: NodeSession, waiting: asyncio.Queue[Any]) -> AsyncIterator[Any]:
        while True:
            session.wake.clear()
            if session.void is not None:
                raise InvalidToken(session.void)
            if session.is_stale:
                session.is_stale = False
                wanted = await self._configuration(session)
                if session.configuration is None or wanted.version != session.configuration.version:
                    for problem in wanted.problems:
                        log.warning("of a node's configuration", node=session.name, problem=problem)
                    session.configuration = session.sent[wanted.version] = wanted
                    if len(session.sent) > UNANSWERED_MAX:
                        del session.sent[next(iter(session.sent))]
                    # The daemon may already be dropping what it is no longer to have.
                    session.serving &= usable(wanted)
                    yield node_pb2.ControlMessage(configuration=to_message(wanted))
            while not waiting.empty():
                message = waiting.get_nowait()
                if message is None:
                    return
                if isinstance(message, Refused):
                    raise message
                kind = message.WhichOneof("message")
                if kind == "hello":
                    hello = message.hello
                    log.info("a node joined", node=session.name, version=hello.daemon_version[:64])
                elif kind == "applied":
                    self._applied(session, message.applied)
                elif kind == "serving":
                    self._serving(session, message.serving)
                elif kind == "certificate_request":
                    answer = await asyncio.to_thread(self._sign, session, message.certificate_request)
                    yield node_pb2.ControlMessage(certificate_answer=answer)
            await woken(session)

    def _applied(self, session: NodeSession, applied: Any) -> None:
        session.problems = tuple(problem[:1000] for problem in applied.problems[:100])
        again = session.answered if session.answered and session.answered.version == applied.version else None
        answered = session.sent.get(applied.version, again)
        if answered is None:
            return  # not one of ours
        session.answered = answered
        if answered is not again:  # earlier configurations will get no response any more
            versions = list(session.sent)
            for version in versions[: versions.index(applied.version) + 1]:
                del session.sent[version]
        if session.problems:
            log.warning(
                "a node could not apply all of its configuration",
                node=session.name,
                version=applied.version,
                problems=session.problems,
            )
        else:
            session.applied_version, session.applied = applied.version, answered
        self._control_plane.state.pending.mark_moved({one.mesh for one in answered.identities})

    def _serving(self, session: NodeSession, serving: Any) -> None:
        """Accepts only the node's own identities: it must not report on those of another node."""
        if session.answered is None or session.configuration is None:
            return
        before, said = session.serving, frozenset(serving.spiffe_ids)
        can = usable(session.answered) & usable(session.configuration)
        session.serving = frozenset((spiffe_id, socket) for spiffe_id, socket in can if spiffe_id in said)
        if session.serving != before:
            self._control_plane.state.pending.mark_moved({one.mesh for one in session.answered.identities})

    def _sign(self, session: NodeSession, wanted: Any) -> Any:
        def refusal(status: grpc.StatusCode, message: str) -> Any:
            log.warning(
                "certificate request rejected",
                node=session.name,
                spiffe_id=wanted.spiffe_id[:2048],
                reason=message,
            )
            return node_pb2.CertificateAnswer(id=wanted.id, status=status.value[0], message=message)

        assert session.configuration is not None
        found = session.configuration.find(wanted.mesh, wanted.spiffe_id)
        if found is None or not found.dataplanes:
            message = f"no dataplane on node {session.name!r} has the identity {wanted.spiffe_id[:2048]!r}"
            return refusal(grpc.StatusCode.PERMISSION_DENIED, message)
        try:
            svid = self._control_plane.state.identities.sign(found.mesh, found.identity, wanted.request, session.name)
        except RefusedRequest as error:
            return refusal(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except (UnusableAuthority, StoreError) as error:
            return refusal(grpc.StatusCode.UNAVAILABLE, str(error))
        chain = x509.load_pem_x509_certificates(svid.chain_pem.encode())
        half = (svid.half_life - svid.issued_at).total_seconds()
        renew_at = svid.half_life.timestamp() + half * RENEWAL_JITTER * random.uniform(-1, 1)  # noqa: S311 (no secret)
        der = [certificate.public_bytes(serialization.Encoding.DER) for certificate in chain]
        return node_pb2.CertificateAnswer(id=wanted.id, certificate_chain=der, renew_at=int(renew_at))
