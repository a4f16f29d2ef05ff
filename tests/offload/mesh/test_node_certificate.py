"""The node's own certificate: what is taken, and what is shown next."""

from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from hypothesis import given
from hypothesis import strategies as st

from offload.mesh.node_certificate import Credential, NodeCertificate, make_request, take
from tests.offload.key_files import Authority

AUTHORITY = Authority.make()


def certificate(renew_at: float = 50, not_after: float = 100) -> NodeCertificate:
    return NodeCertificate(b"", b"", "control.example:5679", renew_at, not_after)


def test_a_request_names_nobody_and_has_a_key_of_its_own() -> None:
    one, two = make_request(), make_request()
    parsed = x509.load_der_x509_csr(one.der)
    assert parsed.is_signature_valid
    assert (len(parsed.subject), len(parsed.extensions)) == (0, 0)
    assert parsed.public_key() != x509.load_der_x509_csr(two.der).public_key()
    assert "key" not in repr(one)


def test_what_is_taken() -> None:
    request = make_request()
    leaf = AUTHORITY.issue(request.key, "node").public_bytes(Encoding.DER)
    got = take(request, [leaf], 10, "[::1]:5678", 5679)
    assert got.address == "[::1]:5679"
    assert got.renew_at == 10
    assert load_pem_private_key(got.key_pem, None).public_key() == request.key.public_key()
    assert "PRIVATE" not in repr(got)
    for never in (0, 1e12):
        found = take(request, [leaf], never, "control:1", 5679)
        assert found.renew_at < found.not_after, "whatever the control plane says, it is renewed before its end"
    with pytest.raises(ValueError, match="for another key"):
        take(make_request(), [leaf], 10, "control:1", 5679)
    with pytest.raises(ValueError, match="no certificate"):
        take(request, [], 10, "control:1", 5679)
    with pytest.raises(ValueError, match="invalid port 0"):
        take(request, [leaf], 10, "control:1", 0)
    with pytest.raises(ValueError):  # noqa: PT011  (the library's words)
        take(request, [b"nonsense"], 10, "control:1", 5679)


@given(st.lists(st.sampled_from(["got", "failed", "wait"]), max_size=30))
def test_token_and_certificate_take_turns(events: list[str]) -> None:
    """Never one that has ended; after the certificate failed comes the token, and never two tries without a pause."""
    one, now = Credential(), 0.0
    for event in events:
        shown = one.to_show(now)
        assert shown is None or now < shown.not_after
        if event == "got":
            one.got(certificate(now + 50, now + 100))
            assert one.to_show(now) is one.certificate
        elif event == "failed":
            at_once = one.failed(now)
            assert at_once == (shown is not None), "only after the certificate"
            if at_once:
                assert one.to_show(now) is None, "the token's turn"
            elif one.certificate is not None and now < one.certificate.not_after:
                assert one.to_show(now) is one.certificate, "the certificate's turn"
        else:
            now += 30
