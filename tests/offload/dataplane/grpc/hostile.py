"""What tests of hostile clients share: bounds, requests, and the proof that others are still served."""

from __future__ import annotations

import os
import resource
from pathlib import Path

from hypothesis import HealthCheck, settings

from offload.v1 import private_key_pb2 as pb
from tests.offload.dataplane.raw_http2 import RawClient, grpc_frame
from tests.offload.dataplane.serving import ECDSA_P256, Server, tls13_input, verify

ENHANCE_YOUR_CALM = 11
NO_ERROR = 0
IN_CLASS = settings(
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", "100")),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def request_bytes(server: Server, seed: int = 0) -> bytes:
    key = server.keys["p256"]
    return pb.SignRequest(key_id=key.key_id, signature_scheme=ECDSA_P256, input=tls13_input(seed)).SerializeToString()


def batch(server: Server, numbers: range, algorithm: str = "p256") -> bytes:
    key, scheme = server.keys[algorithm], {"p256": ECDSA_P256, "rsa2048": 0x0804}[algorithm]
    operations = [pb.Operation(id=n, key_id=key.key_id, signature_scheme=scheme, input=tls13_input(n)) for n in numbers]
    return grpc_frame(pb.OperationBatch(operations=operations).SerializeToString())


def serves(server: Server) -> None:
    """Others are served as ever."""
    with RawClient(server.connect()) as other:
        answer = other.call("Sign", request_bytes(server))
        assert answer.status == "0"
        (message,) = answer.messages()
        verify(
            server.keys["p256"].public_key_der, ECDSA_P256, pb.SignResponse.FromString(message).signature, tls13_input()
        )


def memory_mib() -> float:
    """Resident memory; 0 under a sanitizer, which keeps what is freed."""
    if "SANITIZED" in os.environ:
        return 0
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20
