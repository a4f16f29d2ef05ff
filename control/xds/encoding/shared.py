"""Configuration that many proxies of one view have in common: made once, and serialised once."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

from control.xds.encoding import encode
from control.xds.encoding.encode import Encoded
from envoy_ext.render import Config

T = TypeVar("T")


class SharedConfigs:
    """Of one view, which is immutable; used by several threads. At worst two make the same, and one of them is used."""

    def __init__(self) -> None:
        self._made: dict[Hashable, Any] = {}
        # By the identity of a configuration, which is kept with it; without bytes until they are needed.
        self._encoded: dict[int, tuple[Any, Encoded | None]] = {}

    def made(self, key: Hashable, make: Callable[[], T]) -> T:
        """What `make` gave first; `key` has all that it depends on beside the view. Nobody may change it.

        The bytes of a resource that was made here are shared as well.
        """
        found: T | None = self._made.get(key)
        if found is None:
            found = self._made.setdefault(key, make())
            self._encoded.setdefault(id(found), (found, None))
        return found

    def encode(self, type_url: str, name: str, config: Config) -> Encoded:
        """As encode.encode, which tells by the content what it made before; what is shared is not looked at again."""
        _, found = self._encoded.get(id(config), (None, None))
        if found is not None:
            return found
        made = encode.encode(type_url, name, config)
        if id(config) in self._encoded:
            self._encoded[id(config)] = (config, made)
        return made
