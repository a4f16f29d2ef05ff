"""Encryption of secrets at rest: AES-256-GCM with a key from a file, or from a passphrase by scrypt."""

from __future__ import annotations

import os
import secrets as random
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from control.store.errors import WrongStoreKey

KEY_SIZE = 32
NONCE_SIZE = 12
SALT_SIZE = 16
# About 0.1 s and 64 MiB, once at start: passphrases are guessable, keys are not.
SCRYPT_N, SCRYPT_R, SCRYPT_P = 2**16, 8, 1
MIN_PASSPHRASE = 12


class Sealer:
    """Seals and opens secrets. The name is bound to the ciphertext: one secret cannot be passed off as another."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)

    def seal(self, name: str, secret: bytes) -> bytes:
        nonce = random.token_bytes(NONCE_SIZE)
        return nonce + self._cipher.encrypt(nonce, secret, name.encode())

    def open(self, name: str, sealed: bytes) -> bytes:
        try:
            return self._cipher.decrypt(sealed[:NONCE_SIZE], sealed[NONCE_SIZE:], name.encode())
        except InvalidTag:
            raise WrongStoreKey(
                f"the secret {name!r} cannot be opened: the store's key is not the one it was sealed with, "
                "or the database was changed by hand"
            ) from None


def key_from_file(path: Path) -> bytes:
    """The key in `path`; created, readable for its owner only, if there is no such file."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return _read_key(path)
    except OSError as error:
        raise WrongStoreKey(f"cannot create the key file {path}: {error.strerror}") from error
    key = random.token_bytes(KEY_SIZE)
    with os.fdopen(descriptor, "wb") as file:
        file.write(key)
        file.flush()
        os.fsync(file.fileno())
    return key


def _read_key(path: Path) -> bytes:
    try:
        status, key = path.stat(), path.read_bytes()
    except OSError as error:
        raise WrongStoreKey(f"the key file {path} cannot be read: {error.strerror}") from error
    if status.st_mode & 0o077:
        raise WrongStoreKey(f"the key file {path} can be read by others: chmod 600 {path}")
    if len(key) != KEY_SIZE:
        raise WrongStoreKey(f"the key file {path} has {len(key)} bytes instead of {KEY_SIZE}: it is not a key file")
    return key


def key_from_passphrase(passphrase: str, salt: bytes) -> bytes:
    if len(passphrase) < MIN_PASSPHRASE:
        raise WrongStoreKey(f"the passphrase has {len(passphrase)} characters; at least {MIN_PASSPHRASE} are needed")
    return Scrypt(salt=salt, length=KEY_SIZE, n=SCRYPT_N, r=SCRYPT_R, p=SCRYPT_P).derive(passphrase.encode())
