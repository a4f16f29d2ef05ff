"""Documents that are taken: what they become, and that what is written is what was read."""

from __future__ import annotations

import typing
from collections.abc import Iterator
from datetime import timedelta
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from control.kinds import KINDS
from control.model import documents
from control.model.base import format_duration, parse_duration
from control.model.documents import UnreadableDocument
from control.model.explain import example_of
from control.model.resource import Kind, parse
from control.model.violation import InvalidResource, dotted

DATAPLANE = """
type: Dataplane
name: cart-1
mesh: shop
labels: {app: cart, kuma.io/workload: cart}
networking:
  address: 10.0.0.5
  inbound: [{port: 8080, servicePort: 18080, name: http, protocol: http}]
  outbound: [{port: 3000, backendRef: {kind: MeshService, name: db, port: 5432}}]
"""


def test_a_dataplane_may_be_written_flat_as_kuma_does() -> None:
    [flat] = documents.read(DATAPLANE, "x", KINDS)
    nested = parse({**flat.to_data()}, KINDS)
    assert nested == flat
    assert flat.to_data()["spec"]["networking"]["inbound"][0]["servicePort"] == 18080
    assert flat.effective_labels["kuma.io/display-name"] == "cart-1"


@pytest.mark.parametrize("kind", list(KINDS), ids=lambda kind: kind.type)
def test_the_example_of_every_kind_is_taken_and_survives_a_round_trip(kind: Kind) -> None:
    document = {"type": kind.type, "name": "example", "spec": example_of(kind.spec)}
    if kind.in_mesh:
        document["mesh"] = "default"
    if kind.type == "MeshTrust":
        with pytest.raises(InvalidResource, match="certificates in PEM form"):
            parse(document, KINDS)
        return
    if kind.type == "MeshAccessLog":
        document["spec"] = {"rules": [{"default": {"backends": [{"type": "File", "file": {"path": "/dev/stdout"}}]}}]}
    resource = parse(document, KINDS)
    assert parse(resource.to_data(), KINDS) == resource


def fields_of(model: type[BaseModel], path: str) -> Iterator[tuple[str, FieldInfo]]:
    """Every field below a model, once for each model."""
    waiting, seen = [(path, model)], set[type[BaseModel]]()
    while waiting:
        place, current = waiting.pop()
        if current in seen:
            continue
        seen.add(current)
        for name, info in current.model_fields.items():
            yield f"{place}.{info.alias or name}", info
            waiting += [(f"{place}.{info.alias or name}", inner) for inner in models_in(info.annotation)]


def models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in typing.get_args(annotation) for model in models_in(argument)]


FIELDS = {place: info for kind in KINDS for place, info in fields_of(kind.spec, kind.type)}


def test_the_example_in_a_message_would_be_taken() -> None:
    """`example_of` is what messages show for a field; a wrong one would send its reader from one error to the next."""
    assert len(FIELDS) > 150
    for place, info in FIELDS.items():
        declared: Any = Annotated[info.annotation, *info.metadata] if info.metadata else info.annotation
        try:
            TypeAdapter(declared).validate_python(example_of(info))
        except ValidationError as error:
            raise AssertionError(f"{place}: {example_of(info)!r}: {error}") from error


def test_what_the_store_adds_may_be_applied_again() -> None:
    mesh = parse({"type": "Mesh", "name": "shop"}, KINDS).stored(7, "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z")
    again = parse(mesh.to_data(with_times=True), KINDS)
    assert (again.key, again.version) == (("Mesh", "", "shop"), 0)


def test_kinds_are_found_by_type_plural_and_short_name() -> None:
    assert {KINDS.named(name) for name in ("Dataplane", "dataplanes", "dp", "DP")} == {KINDS.of_type("Dataplane")}
    assert KINDS.named("pod") is None


def test_names_of_kinds_are_unique() -> None:
    names = [name for kind in KINDS for name in (kind.type, kind.plural, kind.short)]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("10s", 10), ("1m30s", 90), ("500ms", 0.5), ("1h", 3600), ("1.5s", 1.5), ("0", 0), ("7us", 7e-6)],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)
    assert parse_duration(format_duration(timedelta(seconds=seconds))) == timedelta(seconds=seconds)


def test_dotted_paths_quote_label_names() -> None:
    assert dotted(("spec", "to", 0, "labels", "kuma.io/zone")) == 'spec.to[0].labels["kuma.io/zone"]'


# --- files ------------------------------------------------------------------------------------------------------------


def test_several_documents_and_the_default_mesh() -> None:
    text = "type: Mesh\nname: shop\n---\n---\n" + DATAPLANE.replace("mesh: shop\n", "")
    mesh, dataplane = documents.read(text, "x", KINDS, default_mesh="shop")
    assert (mesh.name, dataplane.mesh) == ("shop", "shop")


def test_all_documents_are_judged_and_numbered() -> None:
    with pytest.raises(InvalidResource) as refused:
        documents.read("type: Mesh\nname: A\n---\ntype: Mesh\nname: ok\n---\ntype: Mesh\n", "file.yaml", KINDS)
    assert str(refused.value).startswith("file.yaml is not valid:")
    assert [v.path for v in refused.value.violations] == [
        "document 1, Mesh A: name",
        "document 3, Mesh (without name): name",
    ]


@pytest.mark.slow(seconds=5)
@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: [1", "x.yaml:1:6: "),
        ("a: &b [1]\nc: *b", "x.yaml:2:4: aliases are not allowed"),
        ("a: 1\nb: 2\na: 3", "x.yaml:3:1: the key 'a' is given twice"),
        ("? [1]\n: 2", "x.yaml:1:3: a key must be a string"),
        ("a: !!python/object:os.system x", "could not determine a constructor"),
        (b"\xff\xfe\xff", "x.yaml: is not YAML"),
        ("[" * 2000, "x.yaml"),
        (" " * (documents.MAX_BYTES + 1), "at most"),
    ],
)
def test_text_that_is_no_yaml_names_the_place(text: str | bytes, says: str) -> None:
    with pytest.raises(UnreadableDocument) as refused:
        documents.load(text, "x.yaml")
    assert says in str(refused.value)


def test_timestamps_stay_strings() -> None:
    assert documents.load("a: 2026-01-01", "x") == [{"a": "2026-01-01"}]
    assert documents.load('{"a": 1}', "x") == [{"a": 1}]
