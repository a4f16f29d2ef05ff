"""Writes the seeds of the fuzz targets into corpus/: a few well-formed inputs per kind, from which the fuzzer starts.

python -m tests.native.fuzz.make_corpus
"""

from __future__ import annotations

import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding

from deploy.node.certificates import named, unsigned, uri_names
from offload.v1 import private_key_pb2 as pb

CORPUS = Path(__file__).resolve().parent / "corpus"


def wire_seeds() -> dict[str, bytes]:
    """The first byte chooses the reader."""
    operation = pb.Operation(
        id=7, key_id=b"k" * 32, signature_scheme=0x0403, input=b" " * 64, timeout_us=5, kind=pb.Operation.DECRYPT
    )
    batch = pb.OperationBatch(operations=[operation, operation], cancelled=[1, 300, 2**63])
    result = pb.Result(
        id=7, status=3, output=b"o" * 70, message="why", backend=pb.BACKEND_IFMA8, batch_size=8, queue_us=1, run_us=900
    )
    identity = pb.Identity(name="www", version=9)
    identity.credentials.add(
        key_id=b"k" * 32, certificate_chain=[b"leaf", b"ca"], signature_schemes=[0x0403, 0x0804], tls12=True,
        dns_names=["a.example"], not_after=-5,
    )  # fmt: skip
    identity.trust_bundles.add(trust_domain="mesh.example", authorities=[b"ca"])
    messages = {
        "batch": batch,
        "results": pb.ResultBatch(results=[result, result]),
        "identity": identity,
        "sign": pb.SignRequest(key_id=b"k" * 32, signature_scheme=0x0804, input=b"data", prehashed=True),
        "decrypt": pb.DecryptRequest(key_id=b"k" * 32, ciphertext=b"c" * 256),
        "watch": pb.WatchIdentityRequest(identity="spiffe://mesh.example/ns/shop"),
        "watches": pb.WatchIdentitiesRequest(watch=["www", "", "spiffe://mesh.example/ns/shop"], unwatch=["www"]),
        "news": pb.WatchIdentitiesResponse(name="www", identity=identity),
    }
    return {name: bytes([i]) + m.SerializeToString() for i, (name, m) in enumerate(messages.items())}


def front_seeds() -> dict[str, bytes]:
    """Steps of fuzz_front.c: 0 turn, 1 open call, 2 batch, 3 message, 4 frame, 5 run, 6 read, 7 rules, 9 drain."""
    watch = pb.WatchIdentityRequest(identity="www").SerializeToString()
    many = pb.WatchIdentitiesRequest(watch=["www", "www", "other"]).SerializeToString()
    fewer = pb.WatchIdentitiesRequest(unwatch=["www", "none"]).SerializeToString()
    sign = pb.SignRequest(key_id=b"k" * 32, signature_scheme=0x0403, input=b"x").SerializeToString()
    turn, run, read = b"\0", b"\5\0", b"\6"
    stream, half_closed = b"\1\2" + turn, b"\2\0\0\1"
    return {
        "stream": b"\0" + stream + b"\2\x14\0\0" + turn + run + run + turn + read + half_closed + turn,
        "tiny_window": b"\2" + stream + b"\2\x10\0\1" + turn + 3 * (run + turn) + 20 * (b"\x0b\1" + turn + read),
        "cancelled": b"\0" + stream + b"\2\x10\x61\0" + turn + run + b"\2\x05\x21\1" + turn + run + turn + read,
        "unary": b"\0" + 3 * (b"\1\0" + b"\3" + bytes([len(sign)]) + sign + b"\1" + turn) + read,
        "watch": b"\0\1\3\3"
        + bytes([len(watch)])
        + watch
        + b"\1"
        + turn
        + 4 * (b"\7\2" + turn + b"\7\4" + turn + read),
        "watches": b"\0\1\5\3"
        + bytes([len(many)])
        + many
        + b"\0"
        + turn
        + 3 * (b"\7\2" + turn + b"\7\5" + turn + read)
        + b"\3"
        + bytes([len(fewer)])
        + fewer
        + b"\0"
        + turn
        + b"\7\2"
        + turn
        + b"\x09"
        + 3 * (turn + read),
        "refused": b"\0\1\2\7\1\2\x10\0\1" + turn + read + b"\1\x84" + turn + b"\1\x80" + turn,
        "drain": b"\0" + stream + b"\2\x14\0\0" + turn + b"\x09" + turn + 4 * (run + turn + read),
        "reset": b"\0" + 4 * (stream + b"\2\x14\0\0" + turn + b"\x0a" + turn) + run + turn,
        "frames": b"\0\4\6\0\0\x08pingping"
        + turn
        + b"\4\4\0\0\6\0\3\0\0\0\5"
        + turn
        + b"\4\x09\0\1\3abc"
        + turn
        + read,
        "failed": b"\0" + stream + b"\2\x08\0\1" + turn + b"\5\1" + turn + read,
        "raw": b"\1\x08\x20" + b"GET / HTTP/1.1\r\nHost: localhost\r\n" + turn + read,
    }


def peer_seeds() -> dict[str, bytes]:
    """0 an id, 1 the content of a subjectAltName, 2 a certificate (fuzz_peer.cc)."""
    ids = ("spiffe://mesh.example/ns/shop/sa/cart", "spiffe://a", "SPIFFE://A:1/b?c#d", "spiffe://a/../%41")
    seeds = {f"id{i}": b"\0" + text.encode() for i, text in enumerate(ids)}
    lists = {"one": ids[:1], "two": ids[:2], "mixed": ("https://a/", ids[0]), "domain": ids[1:2]}
    key = Ed25519PrivateKey.from_private_bytes(b"k" * 32)  # the same certificates each time
    name = named("a")
    now = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    end = now + datetime.timedelta(days=1)
    for each, uris in lists.items():
        names = [*uri_names(uris), x509.DNSName("a")]
        seeds[f"names_{each}"] = b"\1" + x509.SubjectAlternativeName(names).public_bytes()
        builder = unsigned(
            name, name, key.public_key(), begins=now, ends=end, serial=1, is_ca=each == "domain", names=names
        )
        seeds[f"certificate_{each}"] = b"\2" + builder.sign(key, None).public_bytes(Encoding.DER)
    return seeds


def main() -> None:
    for target, seeds in (("wire", wire_seeds()), ("front", front_seeds()), ("peer", peer_seeds())):
        folder = CORPUS / target
        folder.mkdir(parents=True, exist_ok=True)
        for name, seed in seeds.items():
            (folder / name).write_bytes(seed)


if __name__ == "__main__":
    main()
