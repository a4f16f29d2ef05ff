"""What a client can do to its own messages: the parts that checks are made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tlslite.constants import ContentType

from tests.conformance.check import Row, Run
from tests.conformance.client import Client, answer, request, talk
from tests.conformance.hello import message, plain_record
from tests.conformance.scripted import Hook

HANDSHAKE, ALERT = ContentType.handshake, ContentType.alert
DATA, CCS = ContentType.application_data, ContentType.change_cipher_spec
UNEXPECTED, DECODE = "alert unexpected_message", "alert decode_error"
ILLEGAL, DECRYPT, BAD_MAC = "alert illegal_parameter", "alert decrypt_error", "alert bad_record_mac"
BOTH = ("1.2", "1.3")


def hooked(version: str, name: str, hook: Hook, then: Callable[[Client], str] = answer, mtls: bool = False) -> Run:
    """The hook ends the handshake; the request is for those servers that would go on."""

    def flushing(client: Client, sent: Any) -> None:
        hook(client, sent)
        client.flush()
        client.sock.buffer_writes = False

    return lambda target: talk(target, version, {name: flushing}, then, mtls=mtls)


def before(version: str, name: str, content_type: int, data: bytes, mtls: bool = False) -> Run:
    """A record that comes before this message of the client."""

    def hook(client: Client, sent: Any) -> None:
        client.record(content_type, data)
        if sent.contentType == HANDSHAKE:
            client.handshake(bytes(sent.write()))
        else:
            client.record(sent.contentType, bytes(sent.write()))

    return lambda target: talk(target, version, {name: hook}, mtls=mtls)


def nothing(_client: Client, _sent: Any) -> None:
    """The message is not sent."""


def left_out(version: str, *names: str, mtls: bool = False) -> Run:
    """As if these messages had never been made: they are missing in the transcript too."""

    return lambda target: talk(target, version, dict.fromkeys(names, nothing), mtls=mtls)


def changed(version: str, name: str, change: Callable[[bytes], bytes], mtls: bool = False, **more: Any) -> Run:
    """The message's bytes, changed; the transcript has what was sent."""

    def hook(client: Client, sent: Any) -> None:
        client.handshake(change(bytes(sent.write())))

    return lambda target: talk(target, version, {name: hook}, mtls=mtls, **more)


def last_bit(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


def one_less(data: bytes) -> bytes:
    return message(data[0], data[4:-1])


def one_more(data: bytes) -> bytes:
    return message(data[0], data[4:] + b"\x00")


def empty(data: bytes) -> bytes:
    return message(data[0], b"")


def twice(version: str, name: str, mtls: bool = False) -> Run:
    """In one record where it is the hello, as the second would be encrypted with keys of nobody."""

    def hook(client: Client, sent: Any) -> None:
        data = bytes(sent.write())
        if name == "client_hello":
            client.raw(plain_record(HANDSHAKE, data + data))
            return
        client.handshake(data)
        client.record(HANDSHAKE, data)

    return lambda target: talk(target, version, {name: hook}, mtls=mtls)


def after(version: str, content_type: int, *records: bytes) -> Run:
    """Records behind the handshake, then a request."""

    def then(client: Client) -> str:
        for data in records:
            client.record(content_type, data)
        return request(client)

    return lambda target: talk(target, version, then=then)


def both(name: str, standard: str, expected: str | tuple[str, ...], make: Callable[[str], Run]) -> list[Row]:
    return [(f"{name}, TLS {version}", standard, expected, make(version)) for version in BOTH]
