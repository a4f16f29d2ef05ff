"""MeshTLS and the mutual TLS of Envoy itself: transport sockets whose key and trust come by SDS (mode EnvoyTLS).

The sockets of mode Offload are rendered by MeshOffload; the versions and ciphers that both use come from here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from control.policies.meshtls.schema import Conf, TlsVersion

Config = dict[str, Any]

_TLS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3."
# Without a policy: what a key of usage tls13 can do, and every client of the mesh speaks.
DEFAULT_VERSION = TlsVersion(min="TLS13", max="TLS13")

# Names of the two secrets in every proxy's snapshot.
IDENTITY_SECRET = "identity"  # noqa: S105 (a name)
TRUST_SECRET = "trust"  # noqa: S105 (a name)

# Never TLS_AUTO, which is 1.2 at most where Envoy is the client.
_VERSIONS = {1.2: "TLSv1_2", 1.3: "TLSv1_3"}
_NUMBERS = {"TLS12": 1.2, "TLS13": 1.3}
LOWEST, HIGHEST = 1.2, 1.3


def is_permissive(conf: Conf | None) -> bool:
    return conf is not None and conf.mode == "Permissive"


def resumes(conf: Conf | None) -> bool:
    return conf is None or conf.session_resumption != "Disabled"


def versions(conf: Conf | None) -> tuple[float, float]:
    """(lowest, highest) version. What is not set, or TLSAuto, is the lowest and the highest that there are.

    Policies that are merged may contradict each other: then the higher bound counts.
    """
    version = (conf.tls_version if conf else None) or DEFAULT_VERSION
    least = _NUMBERS.get(version.min or "", LOWEST)
    return least, max(least, _NUMBERS.get(version.max or "", HIGHEST))


def parameters(conf: Conf | None) -> Config:
    """envoy.extensions.transport_sockets.tls.v3.TlsParameters."""
    least, most = versions(conf)
    result: Config = {
        "tls_minimum_protocol_version": _VERSIONS[least],
        "tls_maximum_protocol_version": _VERSIONS[most],
    }
    if conf is not None and conf.tls_ciphers:
        result["cipher_suites"] = list(conf.tls_ciphers)
    return result


def _sds(name: str) -> Config:
    return {"name": name, "sds_config": {"ads": {}, "resource_api_version": "V3"}}


def _validation(sans: Sequence[Config]) -> Config:
    """The trust bundle by SDS; the SPIFFE validator in it checks that a peer's domain goes with its CA."""
    return {
        "combined_validation_context": {
            "default_validation_context": {"match_typed_subject_alt_names": list(sans)},
            "validation_context_sds_secret_config": _sds(TRUST_SECRET),
        }
    }


def _uri(matcher: Config) -> Config:
    return {"san_type": "URI", "matcher": matcher}


def downstream_socket(conf: Conf | None, trust_domains: Sequence[str]) -> Config:
    """Takes callers of these trust domains; who of them may do what is MeshTrafficPermission's."""
    context: Config = {
        "tls_params": parameters(conf),
        "alpn_protocols": ["h2", "http/1.1"],
        "tls_certificate_sds_secret_configs": [_sds(IDENTITY_SECRET)],
        **_validation([_uri({"prefix": f"spiffe://{domain}/"}) for domain in trust_domains]),
    }
    typed = {"@type": _TLS + "DownstreamTlsContext", "common_tls_context": context, "require_client_certificate": True}
    if not resumes(conf):
        # Without tickets (TLS 1.3, and 1.2 by tickets) and without session ids (TLS 1.2).
        typed |= {"disable_stateless_session_resumption": True, "disable_stateful_session_resumption": True}
    return {"name": "envoy.transport_sockets.tls", "typed_config": typed}


def upstream_socket(conf: Conf | None, sni: str, spiffe_ids: Sequence[str], alpn: Sequence[str]) -> Config:
    """Takes only a server that is one of `spiffe_ids`."""
    context: Config = {
        "tls_params": parameters(conf),
        "tls_certificate_sds_secret_configs": [_sds(IDENTITY_SECRET)],
        **_validation([_uri({"exact": spiffe_id}) for spiffe_id in spiffe_ids]),
    }
    if alpn:
        context["alpn_protocols"] = list(alpn)
    typed = {"@type": _TLS + "UpstreamTlsContext", "common_tls_context": context, "sni": sni}
    return {"name": "envoy.transport_sockets.tls", "typed_config": typed}


def identity_secret(chain_pem: str, key_pem: str) -> Config:
    return {
        "name": IDENTITY_SECRET,
        "tls_certificate": {
            "certificate_chain": {"inline_string": chain_pem},
            "private_key": {"inline_string": key_pem},
        },
    }


def trust_secret(bundles: Sequence[tuple[str, str]]) -> Config:
    """`bundles`: (trust domain, PEM). Each domain's peers are checked against its own CAs only."""
    domains = [{"name": domain, "trust_bundle": {"inline_string": pem}} for domain, pem in bundles]
    validator = {"@type": _TLS + "SPIFFECertValidatorConfig", "trust_domains": domains}
    return {
        "name": TRUST_SECRET,
        "validation_context": {
            "custom_validator_config": {"name": "envoy.tls.cert_validator.spiffe", "typed_config": validator}
        },
    }
