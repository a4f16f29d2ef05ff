"""Client hellos that are not as they should be. An edit changes tlslite-ng's message, or gives the bytes to send."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

from tlslite.constants import ContentType
from tlslite.extensions import TLSExtension

from tests.conformance.check import Run
from tests.conformance.client import Client, talk
from tests.conformance.rig import Target

Edit = Callable[[Any], bytes | None]

SERVER_NAME, GROUPS, POINT_FORMATS, SIGNATURE_ALGORITHMS, HEARTBEAT, ALPN = 0, 10, 11, 13, 15, 16
MASTER_SECRET, TICKET, PRE_SHARED_KEY, EARLY_DATA, VERSIONS = 23, 35, 41, 42, 43
PSK_MODES, KEY_SHARE, RENEGOTIATION_INFO = 45, 51, 0xFF01
X25519, P256 = 29, 23


def u16(value: int) -> bytes:
    return value.to_bytes(2, "big")


def vector(data: bytes, width: int = 2) -> bytes:
    """Data behind its length."""
    return len(data).to_bytes(width, "big") + data


def message(kind: int, body: bytes) -> bytes:
    return bytes([kind]) + vector(body, 3)


def plain_record(content_type: int, data: bytes, version: int = 0x0303, length: int | None = None) -> bytes:
    """A record that nothing protects; `length` is what its header claims."""
    return bytes([content_type]) + u16(version) + u16(len(data) if length is None else length) + data


def share(group: int, key: bytes) -> bytes:
    """An entry of the key_share extension."""
    return u16(group) + vector(key)


def extension(kind: int, data: bytes = b"") -> TLSExtension:
    return TLSExtension(extType=kind).create(bytearray(data))


def drop(hello: Any, *kinds: int) -> None:
    hello.extensions = [one for one in hello.extensions if one.extType not in kinds]


def put(hello: Any, kind: int, data: bytes) -> None:
    """In place of the extension of this type, or at the end where there is none."""
    fresh = extension(kind, data)
    kinds = [one.extType for one in hello.extensions]
    if kind in kinds:
        hello.extensions[kinds.index(kind)] = fresh
    else:
        hello.extensions.append(fresh)


def edited(version: str, edit: Edit, which: str = "client_hello", **more: Any) -> Run:
    """A handshake with a hello that was edited on its way: the client takes it to be what it was."""

    def hook(client: Client, hello: Any) -> None:
        fresh = copy.deepcopy(hello)
        data = edit(fresh)
        client.handshake(bytes(fresh.write() if data is None else data))

    return lambda target: talk(target, version, {which: hook}, **more)


def setting(version: str, **fields: Any) -> Run:
    """Fields of the hello, which the client knows of."""

    def hook(client: Client, hello: Any) -> None:
        for name, value in fields.items():
            setattr(hello, name, value)
        client.handshake(bytes(hello.write()))

    return lambda target: talk(target, version, {"client_hello": hook})


def putting(version: str, kind: int, data: bytes, **more: Any) -> Run:
    return edited(version, lambda hello: put(hello, kind, data), **more)


def appending(version: str, *added: TLSExtension) -> Run:
    return edited(version, lambda hello: hello.extensions.extend(added))


def prepending(version: str, *added: TLSExtension) -> Run:
    def edit(hello: Any) -> None:
        hello.extensions[:0] = added

    return edited(version, edit)


def dropping(version: str, *kinds: int, **more: Any) -> Run:
    return edited(version, lambda hello: drop(hello, *kinds), **more)


def offering(version: str, suites: Sequence[int]) -> Run:
    """These cipher suites and no others."""
    return setting(version, cipher_suites=list(suites))


def sending(make: Callable[[bytes], bytes], version: str = "1.3") -> Run:
    """These bytes in place of the record that holds the hello, which is given."""

    def hook(client: Client, hello: Any) -> None:
        data = bytes(hello.write())
        client._handshake_hash.update(bytearray(data))
        client.raw(make(data))

    def run(target: Target) -> str:
        return talk(target, version, {"client_hello": hook})

    return run


def cut(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


def in_records(size: int, version: str) -> Run:
    """The hello in records of `size` bytes."""
    return sending(
        lambda data: b"".join(plain_record(ContentType.handshake, piece, 0x0301) for piece in cut(data, size)), version
    )
