"""What can go wrong with the store, in words for the one who has to act."""

from __future__ import annotations


class StoreError(Exception):
    """The base of all of them."""


class StoreUnavailable(StoreError):
    """The database cannot be reached or does not answer; trying again later may help."""


class WrongStoreKey(StoreError):
    """The key file or passphrase is not the one that the secrets were encrypted with."""


class IncompatibleStore(StoreError):
    """The database is of another version of the control plane, or no database at all."""


class NotFound(StoreError):
    """There is no such resource."""


class Conflict(StoreError):
    """Somebody else changed the resource in between, or the change would break what refers to it."""
