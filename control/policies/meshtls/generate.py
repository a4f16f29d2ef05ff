"""MeshTLS and the mutual TLS of Envoy itself: transport sockets whose key and trust come by SDS (mode EnvoyTLS).

The sockets of mode Offload are rendered by MeshOffload; the versions and ciphers that both use come from here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from control.policies.meshtls.schema import Conf, TlsVersion
from envoy_ext.render import Config

_TLS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3."
# The default without a policy: what a key of usage tls13 supports, and every client of the mesh speaks.
DEFAULT_VERSION = TlsVersion(min="TLS13", max="TLS13")

# Names of the two secrets in every proxy's snapshot; if a mesh trusts several domains there are more (`trust_of`).
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
    """(lowest, highest) version. An unset bound, or TLSAuto, means the lowest and the highest that exist.

    Merged policies may contradict each other: then the higher bound wins.
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


def trust_of(trust_domain: str) -> str:
    """Name of the secret with the CAs of one trust domain only."""
    return f"{TRUST_SECRET}/{trust_domain}"


def _validation(sans: Sequence[Config], trust: str = TRUST_SECRET) -> Config:
    """The trust bundle by SDS; the SPIFFE validator in it checks that a peer's domain goes with its CA."""
    return {
        "combined_validation_context": {
            "default_validation_context": {"match_typed_subject_alt_names": list(sans)},
            "validation_context_sds_secret_config": _sds(trust),
        }
    }


def _uri(matcher: Config) -> Config:
    return {"san_type": "URI", "matcher": matcher}


def downstream_socket(conf: Conf | None, trust_domains: Sequence[str]) -> Config:
    """Accepts callers of these trust domains; MeshTrafficPermission decides what each of them may do."""
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


def upstream_socket(
    conf: Conf | None, sni: str, spiffe_ids: Sequence[str], alpn: Sequence[str], trust_domains: Sequence[str]
) -> Config:
    """Accepts only a server with one of `spiffe_ids`, by the CAs of their trust domain if that is a single one.

    Envoy selects the CAs by the first URI of a certificate but compares all of them: the CA of another trusted domain
    could put an id of this domain second.
    """
    domains = {spiffe_id.removeprefix("spiffe://").partition("/")[0] for spiffe_id in spiffe_ids}
    # Envoy would wait for a secret that does not exist.
    is_one_of_several = len(domains) == 1 and domains < set(trust_domains)
    trust = trust_of(next(iter(domains))) if is_one_of_several else TRUST_SECRET
    context: Config = {
        "tls_params": parameters(conf),
        "tls_certificate_sds_secret_configs": [_sds(IDENTITY_SECRET)],
        **_validation([_uri({"exact": spiffe_id}) for spiffe_id in spiffe_ids], trust),
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


def trust_secrets(bundles: Sequence[tuple[str, str]], clusters: Iterable[Config], is_server: bool) -> dict[str, Config]:
    """`bundles`: (trust domain, PEM). Returns the secrets that clusters and, for a server, listeners refer to, by name.

    Never more, since a proxy that has not subscribed to a secret has not accepted its snapshot
    (xds/protocol/stream.py).
    """
    named = {TRUST_SECRET: bundles} | {trust_of(domain): [(domain, pem)] for domain, pem in bundles}
    asked = {name for cluster in clusters for name in _trust_asked(cluster)} | ({TRUST_SECRET} if is_server else set())
    return {name: _trust_secret(name, named[name]) for name in sorted(asked or {TRUST_SECRET})}


def _trust_asked(cluster: Config) -> Iterator[str]:
    typed = cluster.get("transport_socket", {}).get("typed_config", {})
    validation = typed.get("common_tls_context", {}).get("combined_validation_context")
    if validation is not None:
        yield validation["validation_context_sds_secret_config"]["name"]


def _trust_secret(name: str, bundles: Sequence[tuple[str, str]]) -> Config:
    """Each domain's peers are checked against its own CAs only."""
    domains = [{"name": domain, "trust_bundle": {"inline_string": pem}} for domain, pem in bundles]
    validator = {"@type": _TLS + "SPIFFECertValidatorConfig", "trust_domains": domains}
    return {
        "name": name,
        "validation_context": {
            "custom_validator_config": {"name": "envoy.tls.cert_validator.spiffe", "typed_config": validator}
        },
    }
