"""The envelope of every resource (`type, name, mesh, labels, spec`), and how one is read from plain data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from pydantic import ValidationError

from control.model import base, kuma_labels, legacy
from control.model.base import Labels, Model, NonEmpty, SpecModel
from control.model.explain import explain
from control.model.target_ref import DISPLAY_NAME
from control.model.violation import InvalidResource, Violation


@dataclass(frozen=True)
class Kind:
    """The properties of one type of resource."""

    type: str
    # The name in paths of the REST API and for `mesh get`, and its short form.
    plural: str
    short: str
    spec: SpecModel
    validate: Callable[[Any], Iterable[Violation]]
    in_mesh: bool = True
    is_policy: bool = False
    # The name becomes part of host names.
    dns_label: bool = False
    # Documents may have the fields of `spec` at the top level, as Kuma writes Dataplanes.
    flat: bool = False
    # What has to stay in force of a spec that this version cannot read (unreadable.py); without it, nothing.
    keep: Callable[[Mapping[str, Any]], Any] | None = None


class Kinds:
    """The types of resources that a control plane knows."""

    def __init__(self, kinds: Iterable[Kind]) -> None:
        self._by_type = {kind.type: kind for kind in kinds}
        self._by_name = {
            name: kind
            for kind in self._by_type.values()
            for name in (kind.type.lower(), kind.plural, kind.short, kind.plural.removesuffix("s"))
        }

    def __iter__(self) -> Iterator[Kind]:
        return iter(self._by_type.values())

    def of_type(self, type_name: str) -> Kind | None:
        return self._by_type.get(type_name)

    def named(self, name: str) -> Kind | None:
        """Looks a kind up by type, plural or short name, in any case."""
        return self._by_name.get(name.lower())

    @property
    def types(self) -> list[str]:
        return list(self._by_type)


class Envelope(Model):
    """The outside of a document; `spec` is read by its kind."""

    type: NonEmpty
    name: NonEmpty
    mesh: NonEmpty | None = None
    labels: Labels = {}  # noqa: RUF012 (frozen, and pydantic copies defaults)
    spec: dict[str, Any] = {}  # noqa: RUF012


@dataclass(frozen=True)
class Resource:
    """A valid resource. `mesh` is empty for a Mesh itself. `version` and times are the store's; 0 is not stored yet."""

    kind: Kind
    mesh: str
    name: str
    spec: Any
    labels: Mapping[str, str] = field(default_factory=dict)
    version: int = 0
    creation_time: str = ""
    modification_time: str = ""

    @property
    def key(self) -> tuple[str, str, str]:
        return (self.kind.type, self.mesh, self.name)

    @cached_property
    def effective_labels(self) -> Mapping[str, str]:
        """Its labels and, unless overridden, its name as kuma.io/display-name."""
        return {DISPLAY_NAME: self.name, **self.labels}

    def stored(self, version: int, creation_time: str, modification_time: str) -> Resource:
        return replace(self, version=version, creation_time=creation_time, modification_time=modification_time)

    def to_data(self, with_times: bool = False) -> dict[str, Any]:
        """The document; with_times adds the store's metadata."""
        data: dict[str, Any] = {"type": self.kind.type, "name": self.name}
        if self.kind.in_mesh:
            data["mesh"] = self.mesh
        if self.labels:
            data["labels"] = dict(self.labels)
        if with_times:
            data |= {"creationTime": self.creation_time, "modificationTime": self.modification_time}
            data["version"] = self.version
        data["spec"] = self.spec.to_data()
        return data


# Written by the store; a document that was read from it can be applied again unchanged.
_READ_ONLY = ("creationTime", "modificationTime", "version", "kri", "status", "problem")


def parse(data: object, kinds: Kinds, default_mesh: str | None = None) -> Resource:
    """Makes a Resource from plain data (parsed YAML or JSON). Raises InvalidResource with every violation found."""
    if not isinstance(data, dict) or not all(isinstance(key, str) for key in data):
        raise InvalidResource("the document", [Violation("(document)", "must be a mapping", "type: Mesh")])
    document = {key: value for key, value in data.items() if key not in _READ_ONLY}
    subject = f"{document.get('type', 'resource')} {document.get('name', '(without name)')}"
    violations = list(legacy.violations(document))
    if violations:
        raise InvalidResource(subject, violations)
    kind = kinds.of_type(document["type"]) if isinstance(document.get("type"), str) else None
    if kind is None:
        raise InvalidResource(subject, [_unknown_type(document.get("type"), kinds)])
    if kind.flat and "spec" not in document:
        spec_fields = {info.alias or name for name, info in kind.spec.model_fields.items()}
        moved = {key: document.pop(key) for key in spec_fields & document.keys()}
        document["spec"] = moved
    if default_mesh is not None and kind.in_mesh:
        document.setdefault("mesh", default_mesh)
    return _parse_as(kind, document, subject)


def _unknown_type(given: object, kinds: Kinds) -> Violation:
    allowed = f"must be one of {', '.join(kinds.types)}"
    return Violation("type", allowed if given is None else f"{allowed}; got {given!r}", "type: Dataplane")


def _parse_as(kind: Kind, document: dict[str, Any], subject: str) -> Resource:
    try:
        envelope = Envelope.model_validate(document)
    except ValidationError as error:
        raise InvalidResource(subject, explain(error, Envelope)) from None
    violations = list(_check_envelope(kind, envelope))
    violations += kuma_labels.violations(envelope.labels, envelope.mesh, kind.is_policy)
    try:
        spec = kind.spec.model_validate(envelope.spec)
    except ValidationError as error:
        raise InvalidResource(subject, [*violations, *explain(error, kind.spec, ("spec",))]) from None
    violations += kind.validate(spec)
    if violations:
        raise InvalidResource(subject, violations)
    return Resource(kind, envelope.mesh or "", envelope.name, spec, envelope.labels)


def _check_envelope(kind: Kind, envelope: Envelope) -> Iterator[Violation]:
    if kind.dns_label and not base.is_rfc1035_label(envelope.name):
        yield Violation("name", f"{base.RFC1035_RULE}; got {envelope.name!r}", "backend")
    elif not kind.dns_label and not base.is_rfc1123_subdomain(envelope.name):
        yield Violation("name", f"{base.RFC1123_RULE}; got {envelope.name!r}", "backend-1")
    if kind.in_mesh and envelope.mesh is None:
        yield Violation("mesh", "is required", "mesh: default")
    elif kind.in_mesh and not base.is_rfc1035_label(envelope.mesh or ""):
        yield Violation("mesh", f"{base.RFC1035_RULE}; got {envelope.mesh!r}", "default")
    elif not kind.in_mesh and envelope.mesh is not None:
        yield Violation("mesh", f"must not be set: a {kind.type} does not belong to a mesh", "")
