"""What is read out of the code for the reference, and what becomes of a document on its way to the site."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from docs.publishing import log_events, metrics, reference, site

CODE = """
NO_ROOM = "no room"
class Metrics:
    def __init__(self):
        self.open = Gauge("x_open", "Open doors.", ["floor"])
        self.knocks = Counter("x_knocks", "Knocks", registry=self.registry)
        for name, text, value in (("x_rooms", "Rooms.", 3),):
            gauge(name, text)
def serve(log, folded):
    log.info("a door opens", door=1, **others)
    self._log.exception("a door jams", exc_info=True)
    folded.warning(("door", 1), NO_ROOM, uid=2)
    log.info(computed)
"""


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "code.py").write_text(CODE)

    def files(*folders: str) -> Iterator[Path]:
        assert folders == ("x",)
        yield tmp_path / "code.py"

    monkeypatch.setattr(metrics, "python_files", files)
    monkeypatch.setattr(log_events, "python_files", files)


@pytest.mark.usefixtures("code")
def test_metrics_are_read_from_their_definitions() -> None:
    assert metrics.table("x_", "x").splitlines()[2:] == [
        "| `x_knocks_total` | counter |  | Knocks. |",
        "| `x_open` | gauge | `floor` | Open doors. |",
        "| `x_rooms` | gauge |  | Rooms. |",
    ]


@pytest.mark.usefixtures("code")
def test_log_events_are_read_from_their_calls() -> None:
    assert log_events.table("x").splitlines()[2:] == [
        "| `a door jams` | error |  |",
        "| `a door opens` | info | `door` |",
        "| `no room` | warning | `uid` |",
    ]


def test_a_table_is_divided_by_section() -> None:
    table = "| field |\n|---|\n| `a.b` |\n| `a` |\n| `c.d` |\n"
    assert (
        reference.by_section(table)
        == "## a\n\n| field |\n|---|\n| `a.b` |\n| `a` |\n\n## c\n\n| field |\n|---|\n| `c.d` |"
    )


def page(text: str, found: site.Site) -> str:
    """As it would be in the site, of a document in docs/guide."""
    return site._page(text, "docs/guide/keys.md", "guide/keys.md", site.documents(), found)


def test_links_lead_to_pages_of_the_site() -> None:
    found = site.Site()
    assert (
        page("[a](callers.md#b) [c](../../CHANGELOG.md)", found) == "[a](callers.md#b) [c](../project/changelog.md)\n"
    )
    assert page("[d](../../kernels/key.h)", found) == "[d](../source/kernels/key.h.md)\n"
    assert page("[e](https://x.example/) [f](#g)", found) == "[e](https://x.example/) [f](#g)\n"
    assert found.wanted == {"kernels/key.h"}


def test_a_link_that_leads_nowhere_is_named() -> None:
    with pytest.raises(site.Rejected, match=r"docs/guide/keys\.md: nowhere\.md leads nowhere"):
        page("[a](nowhere.md)", site.Site())


def test_links_in_code_are_left_alone() -> None:
    text = "```sh root\n[a](nowhere.md)\n```\n"
    assert page(text, site.Site()) == '```sh title="as root"\n[a](nowhere.md)\n```\n'


def test_a_list_gets_the_empty_line_that_the_parser_wants() -> None:
    text = "A text:\n- one\n  goes on\n- two\n\nAnother:\n1. three\n"
    assert page(text, site.Site()) == "A text:\n\n- one\n  goes on\n- two\n\nAnother:\n\n1. three\n"


def test_a_page_that_loads_from_another_server_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text('<a href="https://x.example/">x</a><img src="b.png">')
    site.check_scripts(tmp_path)
    (tmp_path / "b.html").write_text('<script async src="https://cdn.example/x.js"></script>')
    with pytest.raises(site.Rejected, match=r"b\.html would load https://cdn\.example/x\.js"):
        site.check_scripts(tmp_path)
