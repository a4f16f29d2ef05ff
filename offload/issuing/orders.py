"""What is to be generated: for which identity, by which issuer."""

from __future__ import annotations

from dataclasses import dataclass

from offload.config.identities import SPIFFE_SCHEME, GenerateSource
from offload.config.issuers import Issuer as IssuerSettings
from offload.config.settings import Config
from offload.filesystem.trusted_paths import Trust
from offload.issuing.exec_program import ExecIssuer
from offload.issuing.issuer import Issuer, Wanted
from offload.issuing.local_ca import LocalCaIssuer


@dataclass(frozen=True)
class Order:
    """The order for one identity; a different order means another certificate. Issuers compare by their settings."""

    source: GenerateSource
    issuer: Issuer
    wanted: Wanted


def order(name: str, source: GenerateSource, issuer: Issuer) -> Order:
    uris = (name,) if name.startswith(SPIFFE_SCHEME) else ()
    return Order(source, issuer, Wanted(name, uris, source.dns_names))


def orders_of(config: Config) -> dict[str, Order]:
    """The orders of the configuration file."""
    trust = config.security.trust()
    return {
        name: order(name, identity.generate, make_issuer(config.issuers[identity.generate.issuer], trust))
        for name, identity in config.identities.items()
        if identity.generate is not None
    }


def make_issuer(settings: IssuerSettings, trust: Trust) -> Issuer:
    if settings.local_ca is not None:
        return LocalCaIssuer(settings.local_ca, trust)
    if settings.exec is not None:
        return ExecIssuer(settings.exec, trust)
    raise ValueError("an issuer without a kind")  # the configuration rejects that earlier
