"""Checks that a control plane is reachable, is the right one, and accepts a proxy, before Envoy is started in vain.

Errors that retrying does not fix are fatal; an unreachable control plane is not, since Envoy keeps retrying.
"""

from __future__ import annotations

import socket
import ssl
import time

import grpc
from envoy.service.discovery.v3 import discovery_pb2

from control.cli.client import ApiError, Unreachable
from control.xds.render.bootstrap import ControlPlaneAddress, ProxyIdentity

SECONDS = 2.0  # a control plane of one's own network answers in milliseconds
_METHOD = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
_CLUSTERS = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
_NAMES_DIFFER = (62, 64)  # X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH
_FINAL = (
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.UNIMPLEMENTED,
)


def probe(proxy: ProxyIdentity, where: ControlPlaneAddress, seconds: float = SECONDS) -> str | None:
    """Returns None if all is well, else why that is unknown. Raises Unreachable if the server cannot be trusted,
    ApiError if it does not accept this proxy."""
    deadline = time.monotonic() + seconds
    return _look(where, seconds) or _ask(proxy, where, max(0.2, deadline - time.monotonic()))


def _look(where: ControlPlaneAddress, seconds: float) -> str | None:
    """Checks its certificate."""
    at = f"{where.host}:{where.port}"
    try:
        context = ssl.create_default_context(cadata=where.ca_pem)
    except ssl.SSLError as error:
        raise Unreachable(
            f"the CA file holds no certificates (PEM): use the control plane's ca.pem ({error.reason})"
        ) from error
    context.set_alpn_protocols(["h2"])
    try:
        with (
            socket.create_connection((where.host, where.port), timeout=seconds) as plain,
            context.wrap_socket(plain, server_hostname=where.host) as encrypted,
        ):
            protocol = encrypted.selected_alpn_protocol()
    except ssl.SSLCertVerificationError as error:
        if error.verify_code in _NAMES_DIFFER:
            raise Unreachable(
                f"the control plane at {at} has no certificate for '{where.host}': use a name in its "
                f"certificate, or start it with mesh serve --name {where.host}"
            ) from error
        raise Unreachable(
            f"the certificate at {at} is not issued by this CA ({error.verify_message}): is --ca-file the ca.pem of "
            "this control plane, and is --control-plane its address?"
        ) from error
    except ssl.SSLError as error:
        raise Unreachable(
            f"what answers at {at} does not speak TLS: --control-plane is the xDS port, 5678 unless it was changed"
        ) from error
    except socket.gaierror:
        return f"there is no host named '{where.host}'"
    except TimeoutError:
        return f"nothing answers at {at}"
    except OSError as error:
        return f"nothing answers at {at} ({(error.strerror or str(error)).lower()})"
    if protocol != "h2":
        raise Unreachable(
            f"what answers at {at} is not an xDS port (the API, perhaps): --control-plane is the xDS port, 5678 unless "
            "it was changed"
        )
    return None


def _ask(proxy: ProxyIdentity, where: ControlPlaneAddress, seconds: float) -> str | None:
    """Requests its clusters, as Envoy will."""
    request = discovery_pb2.DeltaDiscoveryRequest(type_url=_CLUSTERS)
    request.node.id, request.node.cluster = proxy.node_id, proxy.mesh
    host = f"[{where.host}]" if ":" in where.host else where.host
    options = [("grpc.enable_http_proxy", 0)]
    credentials = grpc.ssl_channel_credentials(where.ca_pem.encode())
    with grpc.secure_channel(f"{host}:{where.port}", credentials, options) as channel:
        call = channel.stream_stream(_METHOD)
        answers = call(
            iter([request.SerializeToString()]),
            metadata=(("authorization", f"Bearer {proxy.token_file.read_text().strip()}"),),
            timeout=seconds,
        )
        try:
            next(answers)
        except grpc.RpcError as error:
            if error.code() in _FINAL:
                raise ApiError(str(error.details())) from error
            return f"the control plane at {host}:{where.port} does not answer: {error.details()}"
        except StopIteration:
            return f"the control plane at {host}:{where.port} ended the stream"
        answers.cancel()
    return None
