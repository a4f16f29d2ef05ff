"""Uses of keys, which the audit log gets."""

from __future__ import annotations

import os

from offload.v1 import private_key_pb2 as pb
from tests.offload.dataplane.serving import (
    SCHEMES,
    Server,
    tls13_input,
)


def test_uses_are_counted_by_caller_key_scheme_and_result(server: Server) -> None:
    server.data_plane.count_key_uses(True)
    with server.stub() as stub:
        for algorithm, count in (("p256", 3), ("rsa2048", 2)):
            key = server.keys[algorithm]
            for number in range(count):
                request = pb.SignRequest(
                    key_id=key.key_id, signature_scheme=SCHEMES[algorithm], input=tls13_input(number)
                )
                assert stub.Sign(request, timeout=20).signature
    uses, unlisted = server.data_plane.take_key_uses()
    found = {(use["key_id"], use["scheme"], use["status"]): use["count"] for use in uses}
    assert found == {
        (server.keys["p256"].key_id, SCHEMES["p256"], "OK"): 3,
        (server.keys["rsa2048"].key_id, SCHEMES["rsa2048"], "OK"): 2,
    }
    assert {(use["pid"], use["uid"], use["listener"]) for use in uses} == {(os.getpid(), os.getuid(), "main")}
    assert unlisted == 0
    assert server.data_plane.take_key_uses() == ([], 0)
    server.data_plane.count_key_uses(False)
    with server.stub() as stub:
        request = pb.SignRequest(
            key_id=server.keys["p256"].key_id, signature_scheme=SCHEMES["p256"], input=tls13_input(9)
        )
        assert stub.Sign(request, timeout=20).signature
    assert server.data_plane.take_key_uses() == ([], 0)
