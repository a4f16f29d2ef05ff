"""All checks, by group."""

from tests.conformance.check import Check
from tests.conformance.checks import (
    after_handshake,
    change_cipher_spec,
    ciphers,
    closing,
    extensions,
    key_shares,
    messages,
    records,
    renegotiation,
    rsa,
    upstream,
    versions,
)

CHECKS: tuple[Check, ...] = (
    *versions.CHECKS,
    *extensions.CHECKS,
    *key_shares.CHECKS,
    *records.CHECKS,
    *messages.CHECKS,
    *change_cipher_spec.CHECKS,
    *after_handshake.CHECKS,
    *renegotiation.CHECKS,
    *closing.CHECKS,
    *ciphers.CHECKS,
    *rsa.CHECKS,
    *upstream.CHECKS,
)
