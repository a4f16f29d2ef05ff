"""Errors of the store, in words for whoever has to act."""

from __future__ import annotations


class StoreError(Exception):
    """The base of all of them."""


class StoreUnavailable(StoreError):
    """The database cannot be reached or does not respond; a later retry may help."""


class WrongStoreKey(StoreError):
    """The key file or passphrase is not the one that the secrets were encrypted with."""


class IncompatibleStore(StoreError):
    """The database belongs to another version of the control plane, or is not a database at all."""


class NotFound(StoreError):
    """There is no such resource."""


class Conflict(StoreError):
    """Somebody else changed the resource in between, or the change would break what refers to it."""
