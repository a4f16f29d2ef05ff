"""What a reload adopts from a new configuration, and what needs a restart. Pure."""

from __future__ import annotations

from offload.config.settings import Config
from offload.config.sockets import Sockets

# Everything else needs a restart. Dedicated sockets can change too; the daemon handles them.
LIVE_SECTIONS = frozenset({"identities", "issuers", "logging"})
LIVE_KEYS = frozenset({"trust_bundles", "warn_before_expiry_days"})


def taken_over(running: Config, loaded: Config, sockets: Sockets) -> Config:
    """The running configuration with what can change while running; `sockets` are the ones served now."""
    keys = running.keys.model_copy(update={f: getattr(loaded.keys, f) for f in LIVE_KEYS})
    sections = {section: getattr(loaded, section) for section in LIVE_SECTIONS}
    return running.model_copy(update=sections | {"keys": keys, "sockets": sockets})


def differences(running: Config, loaded: Config) -> list[str]:
    """The fields, two levels deep, in which the two differ."""
    found = []
    for section in Config.model_fields:
        old, new = getattr(running, section), getattr(loaded, section)
        if old == new:
            continue
        fields = getattr(type(old), "model_fields", None)
        if fields is None or type(new) is not type(old):
            found.append(section)
        else:
            found += [f"{section}.{f}" for f in fields if getattr(old, f) != getattr(new, f)]
    return found
