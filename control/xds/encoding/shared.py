"""Configuration that many proxies of one view have in common: made once, and serialised once."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

from control.xds.encoding import encode
from control.xds.encoding.encode import Encoded
from envoy_ext.render import Config

T = TypeVar("T")


class SharedConfigs:
    """For one view, which is immutable; used by several threads. At worst two make the same, and one result is used."""

    def __init__(self) -> None:
        self._made: dict[Hashable, Any] = {}
        # Keyed by the identity of a configuration, which is kept alive here; bytes are added when they are needed.
        self._encoded: dict[int, tuple[Any, Encoded | None]] = {}

    def made(self, key: Hashable, make: Callable[[], T]) -> T:
        """The first result of `make`; `key` contains all that it depends on besides the view. Nobody may modify it.

        The bytes of a resource that was made here are shared as well.
        """
        found: T | None = self._made.get(key)
        if found is None:
            found = self._made.setdefault(key, make())
            self._encoded.setdefault(id(found), (found, None))
        return found

    def encode(self, type_url: str, name: str, config: Config) -> Encoded:
        """Like encode.encode, which recognises content by its hash; shared configuration is recognised by identity."""
        _, found = self._encoded.get(id(config), (None, None))
        if found is not None:
            return found
        made = encode.encode(type_url, name, config)
        if id(config) in self._encoded:
            self._encoded[id(config)] = (config, made)
        return made
