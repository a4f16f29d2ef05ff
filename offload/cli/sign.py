"""`offload sign`: one signature by hand, through the same socket and the same rules as everybody else."""

from __future__ import annotations

import base64
import sys
from enum import StrEnum
from hashlib import sha256, sha384
from pathlib import Path
from typing import Annotated, Any

import typer
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from rich.table import Table

from offload.cli.output import (
    CALL_SECONDS,
    DEFAULT_SOCKET,
    Format,
    Output,
    SocketPath,
    channel_to,
    err,
    fail,
    out,
    print_json,
)
from offload.identities.schemes import BY_CODE, BY_NAME, Scheme
from offload.reporting import exit_codes
from offload.v1 import private_key_pb2, private_key_pb2_grpc

_HASHES: dict[str, hashes.HashAlgorithm] = {
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
    "sha512": hashes.SHA512(),
}
INPUT_MAX = 512 * 1024


class Encoding(StrEnum):
    base64 = "base64"
    hex = "hex"
    raw = "raw"


class Handshake(StrEnum):
    server = "server"
    client = "client"


def sign(
    identity: Annotated[
        str, typer.Option("--identity", "-i", help="Sign with this identity's key, and verify with its certificate.")
    ] = "",
    key_id: Annotated[str, typer.Option("--key-id", help="Sign with the key of this id: 64 hexadecimal digits.")] = "",
    scheme: Annotated[
        str, typer.Option("--scheme", help="TLS name or code, like rsa_pss_rsae_sha256 or 0x0804. Unset: the best one.")
    ] = "",
    input_file: Annotated[Path, typer.Option("--input", help="What to sign; - is standard input.")] = Path("-"),
    handshake: Annotated[
        Handshake | None,
        typer.Option(
            help="Sign it as a TLS 1.3 handshake transcript: the only input that a key with usage tls13 signs."
        ),
    ] = None,
    encoding: Annotated[Encoding, typer.Option(help="Output format of the signature.")] = Encoding.base64,
    socket: SocketPath = DEFAULT_SOCKET,
    output: Output = Format.table,
) -> None:
    """Get one signature from the daemon.

    Example: `echo hello | offload sign --identity www --handshake server`

    Exit code 77: the daemon does not know the key, or does not let you use it for this.
    """
    if bool(identity) == bool(key_id):
        fail("give either --identity or --key-id", exit_codes.USAGE)
    data = sys.stdin.buffer.read() if str(input_file) == "-" else _read(input_file)
    with channel_to(socket) as channel:
        stub: Any = private_key_pb2_grpc.PrivateKeyServiceStub(channel)  # type: ignore[no-untyped-call]
        credential = _credential(stub, identity, scheme) if identity else None
        chosen = _scheme(scheme, credential)
        signed = certificate_verify(data, handshake.value, chosen) if handshake else data
        if len(signed) > INPUT_MAX:
            fail(f"the daemon signs at most {INPUT_MAX} bytes; the input has {len(signed)}", exit_codes.USAGE)
        request = private_key_pb2.SignRequest(
            key_id=credential.key_id if credential else _key_id(key_id), signature_scheme=chosen.code, input=signed
        )
        answer = stub.Sign(request, timeout=CALL_SECONDS)
    checked = _check(credential.certificate_chain[0], chosen, answer.signature, signed) if credential else None
    _show(request.key_id, chosen, answer, checked, encoding, output)
    if checked is False:
        fail("the signature does not verify with the certificate", exit_codes.FAILED)


def certificate_verify(transcript: bytes, side: str, scheme: Scheme) -> bytes:
    """What a TLS 1.3 CertificateVerify signs (RFC 8446, 4.4.3), over the hash of these bytes."""
    transcript_hash = sha384(transcript) if scheme.hash == "sha384" else sha256(transcript)
    return b" " * 64 + f"TLS 1.3, {side} CertificateVerify".encode() + b"\0" + transcript_hash.digest()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        fail(f"{path} cannot be read: {error.strerror}", exit_codes.USAGE)


def _credential(stub: Any, identity: str, scheme: str) -> private_key_pb2.Credential:
    """The first credential of the identity that can sign with the scheme."""
    watch = stub.WatchIdentity(private_key_pb2.WatchIdentityRequest(identity=identity), timeout=CALL_SECONDS)
    message: private_key_pb2.Identity = next(iter(watch))
    watch.cancel()
    wanted = parse_scheme(scheme).code if scheme else None
    found = [c for c in message.credentials if wanted is None or wanted in c.signature_schemes]
    if not found:
        can = {BY_CODE[code].name for c in message.credentials for code in c.signature_schemes}
        fail(f"no key of '{identity}' signs with {scheme}; available: {', '.join(sorted(can))}", exit_codes.FAILED)
    return found[0]


def _scheme(text: str, credential: private_key_pb2.Credential | None) -> Scheme:
    if text:
        return parse_scheme(text)
    if credential is None:
        fail("--key-id needs --scheme: the key's type is not known here", exit_codes.USAGE)
    return BY_CODE[credential.signature_schemes[0]]


def parse_scheme(text: str) -> Scheme:
    try:
        return BY_NAME[text] if text in BY_NAME else BY_CODE[int(text, 0)]
    except (ValueError, KeyError):
        fail(f"'{text}' is not a known scheme; available: {', '.join(BY_NAME)}", exit_codes.USAGE)


def _key_id(text: str) -> bytes:
    try:
        value = bytes.fromhex(text)
    except ValueError:
        value = b""
    if len(value) != 32:
        fail("--key-id takes 64 hexadecimal digits, as `offload keys list` shows them", exit_codes.USAGE)
    return value


def _check(leaf: bytes, scheme: Scheme, signature: bytes, signed: bytes) -> bool:
    key = x509.load_der_x509_certificate(leaf).public_key()
    try:
        if isinstance(key, ed25519.Ed25519PublicKey):
            key.verify(signature, signed)
        elif isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature, signed, ec.ECDSA(_HASHES[scheme.hash or ""]))
        elif isinstance(key, rsa.RSAPublicKey):
            digest = _HASHES[scheme.hash or ""]
            pss = padding.PSS(padding.MGF1(digest), padding.PSS.DIGEST_LENGTH)
            key.verify(signature, signed, pss if "pss" in scheme.name else padding.PKCS1v15(), digest)
        else:
            return False
    except InvalidSignature:
        return False
    return True


def _show(
    key_id: bytes,
    scheme: Scheme,
    answer: private_key_pb2.SignResponse,
    checked: bool | None,
    encoding: Encoding,
    output: Format,
) -> None:
    text = answer.signature.hex() if encoding is Encoding.hex else base64.b64encode(answer.signature).decode()
    backend = private_key_pb2.Backend.Name(answer.backend).removeprefix("BACKEND_").lower()
    if output is Format.json:
        print_json(
            {
                "key_id": key_id.hex(),
                "scheme": scheme.name,
                "signature": text,
                "backend": backend,
                "batch_size": answer.batch_size,
                "verified": checked,
            }
        )
        return
    table = Table(show_header=False, box=None)
    table.add_row("key", key_id.hex())
    table.add_row("scheme", f"{scheme.name} (0x{scheme.code:04x})")
    table.add_row("backend", f"{backend}, in a batch of {answer.batch_size}")
    table.add_row(
        "checked", {True: "[green]verified with the certificate[/]", False: "[red]wrong[/]", None: "no"}[checked]
    )
    err.print(table)
    if encoding is Encoding.raw:
        sys.stdout.buffer.write(answer.signature)
    else:
        out.print(text, soft_wrap=True, highlight=False)
