"""The pages of docs/reference say what the code says: generated parts are fresh, tables by hand are complete."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from docs.publishing import reference, sources

MAKE_ANEW = "`python -m docs.publishing.reference` writes it again"


@pytest.mark.slow(seconds=2)
@pytest.mark.parametrize("page", reference.pages(), ids=lambda page: page.stem)
def test_generated_parts_are_fresh(page: Path) -> None:
    text = page.read_text()
    assert text == reference.renewed(text), f"{page.relative_to(sources.ROOT)} differs from the code: {MAKE_ANEW}"


def test_every_generated_part_has_its_place() -> None:
    placed = [name for page in reference.pages() for name in reference.names(page.read_text())]
    assert sorted(placed) == sorted(reference.PARTS)


def first_column(page: str, heading: str = "") -> set[str]:
    """The names in backticks in the first column of the tables, of all the page or below one heading."""
    text = (sources.PAGES / page).read_text()
    if heading:
        text = text.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    cells = re.findall(r"^\| (`.*?) \|", text, re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}


def test_every_field_of_the_module_is_explained() -> None:
    text = (sources.PAGES / "module-configuration.md").read_text()
    assert first_column("module-configuration.md") == sources.module_fields()
    same_for_clusters = text.split("\n## Clusters\n", 1)[1].split("\n\n|", 1)[0]
    assert set(re.findall(r"`(\w+)`", same_for_clusters)) <= first_column("module-configuration.md", "Listeners")


def test_every_key_of_filter_state_is_explained() -> None:
    assert first_column("filter-state.md") == set(sources.module_filter_state())


def test_every_statistic_of_the_module_is_explained() -> None:
    explained = first_column("metrics.md", "The Envoy module")
    whole = {name for name in explained if not name.endswith("*")}
    begun = tuple(name.removesuffix("*") for name in explained if name.endswith("*"))
    existing = {name for names in sources.module_statistics().values() for name in names}
    assert whole <= existing
    assert {name for name in existing - whole if not name.startswith(begun)} == set()


def test_every_refusal_is_explained() -> None:
    assert first_column("refusals.md") == set(sources.refusal_reasons())


def test_failure_reasons_are_those_of_the_module() -> None:
    """Each one begins with a text of the module, up to what differs from one connection to the next."""
    source = re.sub(r'"\s+"', "", sources.module_source())
    begun = {re.split(r"<|\.\.\.|'|:| [A-Z_]+$", reason)[0].strip() for reason in first_column("failure-reasons.md")}
    assert {text for text in begun if text not in source} == set()
