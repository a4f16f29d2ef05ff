"""Who may use which key for what, over real sockets and with real processes at the other end."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest

from offload.v1 import private_key_pb2 as pb
from tests.offload.dataplane.raw_http2 import RawClient
from tests.offload.dataplane.serving import SCHEMES, Server, identity, tls13_input, verify

CLIENT = """
import os, sys, grpc
from offload.v1 import private_key_pb2 as pb, private_key_pb2_grpc as rpc
path, key_id, uid, gid, groups = sys.argv[1:6]
try:  # all that grpc imports late is imported now: the other user may not be able to read this Python
    with grpc.insecure_channel("unix:" + path + ".nobody") as channel:
        rpc.PrivateKeyServiceStub(channel).Sign(pb.SignRequest(), timeout=1)
except grpc.RpcError as error:
    error.code()
os.setgroups([int(g) for g in groups.split(",") if g])
os.setgid(int(gid)), os.setuid(int(uid))
data = b" " * 64 + b"TLS 1.3, server CertificateVerify\\0" + bytes(32)
with grpc.insecure_channel("unix:" + path) as channel:
    try:
        rpc.PrivateKeyServiceStub(channel).Sign(
            pb.SignRequest(key_id=bytes.fromhex(key_id), signature_scheme=0x0403, input=data), timeout=20)
        print("OK")
    except grpc.RpcError as error:
        print(error.code().name)
"""


def answer_to(server: Server, uid: int = 0, gid: int = 0, groups: str = "", listener: str = "main") -> str:
    """What another process of that user is told; OK or a status name."""
    os.chmod(server.path(listener), 0o777)  # noqa: S103  (the point is what the daemon says)
    result = subprocess.run(
        [
            sys.executable,
            "-c",
            CLIENT,
            server.path(listener),
            server.keys["p256"].key_id.hex(),
            str(uid),
            str(gid),
            groups,
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return result.stdout.strip()


@pytest.fixture
def public(make_server: Callable[..., Server]) -> Iterator[Server]:
    """A server whose socket every user can reach; pytest's own folders are private."""
    with tempfile.TemporaryDirectory(prefix="dataplane-") as folder:
        os.chmod(folder, 0o755)  # noqa: S103
        yield make_server(folder=Path(folder))


def only(server: Server, *selectors: dict[str, object]) -> None:
    server.data_plane.set_identities(
        [identity("www", [{"key": server.keys["p256"], "usage": "tls13", "decrypt": False}], list(selectors))]  # type: ignore[arg-type]
    )


@pytest.mark.root
def test_uid_and_gid(public: Server) -> None:
    server = public
    only(server, {"uid": 12345})
    assert answer_to(server) == "NOT_FOUND"
    assert answer_to(server, uid=12345) == "OK"
    only(server, {"gid": 54321})
    assert answer_to(server, uid=12345) == "NOT_FOUND"
    assert answer_to(server, uid=12345, gid=54321) == "OK"
    assert answer_to(server, uid=12345, groups="7,54321,8") == "OK"
    only(server, {"uid": 12345, "gid": 54321})
    assert answer_to(server, uid=12345) == "NOT_FOUND"
    assert answer_to(server, gid=54321) == "NOT_FOUND"
    assert answer_to(server, uid=12345, gid=54321) == "OK"


@pytest.mark.root
def test_refusals_name_the_caller(public: Server) -> None:
    server = public
    only(server, {"uid": 12345})
    server.data_plane.take_refusals()
    assert answer_to(server, uid=777, gid=778) == "NOT_FOUND"
    (refusal,), unlisted = server.data_plane.take_refusals()
    assert unlisted == 0
    assert refusal["pid"] > 1
    assert {**refusal, "pid": 0} == {
        "reason": "caller_not_allowed",
        "pid": 0,
        "uid": 777,
        "gid": 778,
        "listener": "main",
        "key_id": server.keys["p256"].key_id,
        "scheme": SCHEMES["p256"],
        "decrypt": False,
        "identity": "",
        "count": 1,
    }
    assert server.data_plane.take_refusals() == ([], 0)


def sign(server: Server, algorithm: str = "p256", listener: str = "main", **changes: object) -> pb.SignResponse:
    key = server.keys[algorithm]
    fields = {"key_id": key.key_id, "signature_scheme": SCHEMES[algorithm], "input": tls13_input()}
    with server.stub(listener) as stub:
        response = stub.Sign(pb.SignRequest(**{**fields, **changes}))  # type: ignore[arg-type]
    if not changes:
        verify(key.public_key_der, SCHEMES[algorithm], response.signature, tls13_input())
    return response


def refused(server: Server, **changes: object) -> grpc.StatusCode:
    with pytest.raises(grpc.RpcError) as caught:
        sign(server, **changes)  # type: ignore[arg-type]
    return caught.value.code()


def test_own_process_by_executable_and_cgroup(server: Server) -> None:
    executable = os.readlink("/proc/self/exe")
    only(server, {"executable": executable})
    sign(server)
    only(server, {"executable": executable + "x"})
    assert refused(server) is grpc.StatusCode.NOT_FOUND
    cgroup = Path("/proc/self/cgroup").read_text().splitlines()[0].split(":", 2)[2]
    only(server, {"cgroup": cgroup})
    sign(server)
    only(server, {"cgroup": cgroup.rstrip("/") + "/below"})
    assert refused(server) is grpc.StatusCode.NOT_FOUND


def test_other_executable(server: Server, tmp_path: Path) -> None:
    """A caller that runs another program is told from this one: a copy of Python connects, and only it is allowed."""
    program = tmp_path / "program"
    shutil.copy(os.readlink("/proc/self/exe"), program)
    only(server, {"executable": str(program)})
    assert refused(server) is grpc.StatusCode.NOT_FOUND
    script = "import socket,sys;s=socket.socket(1);s.connect(sys.argv[1]);s.sendall(sys.stdin.buffer.read());s.recv(1)"
    result = subprocess.run(
        [program, "-S", "-c", script, server.path()],
        input=b"not http2" * 5,
        env={"PYTHONHOME": sys.base_prefix, "PATH": os.environ["PATH"]},
        timeout=30,
        check=False,
    )
    assert result.returncode == 0


def test_a_caller_that_is_gone_has_no_executable(server: Server) -> None:
    """The process that connected has ended before the connection is accepted: its PID proves nothing any more."""
    only(server, {"executable": os.readlink("/proc/self/exe")})
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(server.path("late"))
    listener.listen()
    parent, child = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        connected = server.connect("late")
        socket.send_fds(child, [b"x"], [connected.fileno()])
        os._exit(0)
    _, (descriptor,), _, _ = socket.recv_fds(parent, 1, 1)
    os.waitpid(pid, 0)
    server.data_plane.add_listener("late", listener.fileno())
    request = pb.SignRequest(key_id=server.keys["p256"].key_id, signature_scheme=0x0403, input=tls13_input())
    for connection, expected in ((socket.socket(fileno=descriptor), "5"), (server.connect("late"), "0")):
        with RawClient(connection) as client:
            assert client.call("Sign", request.SerializeToString()).status == expected
    for used in (parent, child, listener):
        used.close()


def test_dedicated_socket(server: Server) -> None:
    server.listen("cart")
    only(server, {"socket": "cart"})
    assert refused(server) is grpc.StatusCode.NOT_FOUND
    sign(server, listener="cart")
    only(server, {"socket": "cart", "uid": os.getuid() + 1})
    assert refused(server, listener="cart") is grpc.StatusCode.NOT_FOUND


def test_listeners_come_and_go(server: Server) -> None:
    server.listen("extra")
    sign(server, listener="extra")
    with pytest.raises(ValueError, match=r"extra.*already exists"):
        server.listen("extra")
    server.data_plane.remove_listener("extra")
    server.listeners["extra"].close()
    with pytest.raises(OSError, match="refused"):
        server.connect("extra")
    with pytest.raises(ValueError, match="no listener 'extra'"):
        server.data_plane.remove_listener("extra")
    server.listen("extra")
    sign(server, listener="extra")


def test_not_a_listening_unix_socket(server: Server) -> None:
    tcp = socket.create_server(("127.0.0.1", 0))
    fresh = socket.socket(socket.AF_UNIX)
    for unsuitable in (tcp.fileno(), fresh.fileno(), 10**6):
        with pytest.raises(ValueError, match="not a listening Unix stream socket"):
            server.data_plane.add_listener("bad", unsuitable)
    tcp.close()
    fresh.close()


def test_rules_change_under_an_open_connection(server: Server) -> None:
    key = server.keys["p256"]
    request = pb.SignRequest(key_id=key.key_id, signature_scheme=0x0403, input=tls13_input())
    with server.stub() as stub:
        for _ in range(10):
            only(server, {"uid": os.getuid()})
            stub.Sign(request)
            only(server, {"uid": os.getuid() + 1})
            with pytest.raises(grpc.RpcError) as caught:
                stub.Sign(request)
            assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_nobody_is_allowed_without_selectors(server: Server) -> None:
    only(server)
    assert refused(server) is grpc.StatusCode.NOT_FOUND


def test_usage(make_server: Callable[..., Server], keys: dict[str, object]) -> None:
    server = make_server(
        [
            identity(
                "www",
                [
                    {"key": keys["p256"], "usage": "tls13", "decrypt": False},  # type: ignore[typeddict-item]
                    {"key": keys["rsa2048"], "usage": "tls12+13", "decrypt": False},  # type: ignore[typeddict-item]
                ],
            )
        ]
    )
    sign(server)
    denied = grpc.StatusCode.PERMISSION_DENIED
    assert refused(server, input=b"certificate request") is denied
    assert refused(server, input=bytes(32), prehashed=True) is denied
    assert refused(server, signature_scheme=0x0503) is grpc.StatusCode.INVALID_ARGUMENT
    exchange = bytes(64) + b"\x03\x00\x1d\x20" + bytes(32)
    sign(server, algorithm="rsa2048")
    sign(server, algorithm="rsa2048", signature_scheme=0x0401, input=exchange)
    assert refused(server, algorithm="rsa2048", signature_scheme=0x0401) is denied
    assert refused(server, algorithm="rsa2048", input=exchange + b"x") is denied
    with server.stub() as stub, pytest.raises(grpc.RpcError) as caught:
        stub.Decrypt(pb.DecryptRequest(key_id=server.keys["rsa2048"].key_id, ciphertext=bytes(256)))
    assert caught.value.code() is denied
    assert "lacks 'decrypt: true'" in str(caught.value.details())
    assert server.data_plane.statistics()["refusals"]["usage"] == 5


def why(server: Server, algorithm: str, **request: object) -> str:
    fields = {"key_id": server.keys[algorithm].key_id, "signature_scheme": SCHEMES[algorithm], "input": tls13_input()}
    asked = pb.SignRequest(**{**fields, **request})  # type: ignore[arg-type]
    with server.stub() as stub, pytest.raises(grpc.RpcError) as caught:
        stub.Sign(asked)
    return str(caught.value.details())


def test_refusals_name_the_usage_that_is_configured(
    make_server: Callable[..., Server], keys: dict[str, object]
) -> None:
    rules = {"p256": "tls13", "rsa2048": "tls12+13"}
    grants = [{"key": keys[algorithm], "usage": usage, "decrypt": False} for algorithm, usage in rules.items()]
    server = make_server([identity("www", grants)])  # type: ignore[arg-type]
    for algorithm, usage in rules.items():
        assert f"this key's usage {usage} signs only" in why(server, algorithm, input=b"certificate request")
        assert f"this key's usage {usage} signs no digests" in why(server, algorithm, input=bytes(32), prehashed=True)
    assert "the key's usage is tls13" in why(server, "p256", signature_scheme=0x0503)
    assert "where this key does not have the signature_scheme" in why(server, "rsa2048", signature_scheme=0x0401)


def test_of_several_usages_the_widest_is_named(make_server: Callable[..., Server], keys: dict[str, object]) -> None:
    grants = [[{"key": keys["p256"], "usage": usage, "decrypt": False}] for usage in ("tls13", "tls12+13", "tls13")]
    server = make_server([identity(f"one-{n}", grant) for n, grant in enumerate(grants)])  # type: ignore[arg-type]
    assert "this key's usage tls12+13" in why(server, "p256", input=b"certificate request")


def test_tls12_signs_with_the_hash_that_was_agreed(make_server: Callable[..., Server], keys: dict[str, object]) -> None:
    grant = {"key": keys["p256"], "usage": "tls12+13", "decrypt": False}
    server = make_server([identity("www", [grant])])  # type: ignore[list-item]
    exchange = bytes(64) + b"\x03\x00\x1d\x20" + bytes(32)
    for scheme in (0x0403, 0x0503, 0x0603):
        sign(server, signature_scheme=scheme, input=exchange)
    assert refused(server, signature_scheme=0x0503) is grpc.StatusCode.PERMISSION_DENIED, "TLS 1.3 binds the curve"


def test_one_key_of_two_identities(make_server: Callable[..., Server], keys: dict[str, object]) -> None:
    """The caller gets the most that any of the identities it may use allows."""
    strict = [{"key": keys["p256"], "usage": "tls13", "decrypt": False}]
    free = [{"key": keys["p256"], "usage": "any", "decrypt": False}]
    theirs = [{"uid": os.getuid() + 1}]
    server = make_server([identity("strict", strict), identity("free", free, theirs)])  # type: ignore[arg-type]
    sign(server)
    assert refused(server, input=b"x") is grpc.StatusCode.PERMISSION_DENIED
    server.data_plane.set_identities([identity("strict", strict), identity("free", free)])  # type: ignore[arg-type]
    sign(server, input=b"x")


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"selectors": [{}]}, "without any field"),
        ({"selectors": [{"user": 1}]}, "unknown selector user"),
        ({"selectors": [{"executable": "/a\0b"}]}, "null byte"),
        ({"name": ""}, "not a name"),
        ({"name": "a\0b"}, "not a name"),
        ({"keys": [{"key": None, "usage": "tls", "decrypt": False}]}, "usage 'tls'"),
    ],
)
def test_bad_rules_are_refused_and_the_old_ones_stay(server: Server, rule: dict[str, object], message: str) -> None:
    if rule.get("keys"):
        rule["keys"][0]["key"] = server.keys["p256"]  # type: ignore[index]
    with pytest.raises(ValueError, match=message):
        server.data_plane.set_identities([{**identity("www", []), **rule}])  # type: ignore[typeddict-item]
    sign(server)


def test_duplicate_names_are_refused(server: Server) -> None:
    with pytest.raises(ValueError, match="two identities have the name 'www'"):
        server.data_plane.set_identities([identity("www", []), identity("www", [])])
    sign(server)


def test_equal_refusals_are_folded(server: Server) -> None:
    key_id = b"?" * 32
    with server.stub() as stub:
        for _ in range(5):
            with pytest.raises(grpc.RpcError):
                stub.Sign(pb.SignRequest(key_id=key_id))
        for number in range(400):
            with pytest.raises(grpc.RpcError):
                stub.Sign(pb.SignRequest(key_id=number.to_bytes(32, "big")))
    refusals, unlisted = server.data_plane.take_refusals()
    assert len(refusals) == 256
    assert sum(refusal["count"] for refusal in refusals) + unlisted == 405, "nothing is lost silently"
    assert (refusals[0]["key_id"], refusals[0]["count"]) == (key_id, 5)
    assert server.data_plane.statistics()["refusals"]["unknown_key"] == 405
    assert json.dumps(server.data_plane.statistics()["refusals"])
