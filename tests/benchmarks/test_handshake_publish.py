from __future__ import annotations

import pytest

from benchmarks.handshake import charts, page, publish


def test_only_the_part_between_the_markers_changes() -> None:
    before = f"# Title\n\n{publish.BEGIN}\nold\n{publish.END}\n\nProse.\n"
    after = publish.replace_section(before, "new")
    assert after == f"# Title\n\n{publish.BEGIN}\n\nnew\n\n{publish.END}\n\nProse.\n"
    assert publish.replace_section(after, "new") == after


@pytest.mark.parametrize("text", ["", publish.BEGIN, publish.END, f"{publish.END}{publish.BEGIN}"])
def test_a_document_without_markers_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="has to have one"):
        publish.replace_section(text, "new")


def test_every_chart_has_a_title() -> None:
    assert set(publish.TITLES) == set(page.CAPTIONS) == set(charts.NAMES)


def test_the_document_in_the_tree_has_its_markers() -> None:
    text = publish.DOCUMENT.read_text()
    assert publish.replace_section(text, "x") != text
