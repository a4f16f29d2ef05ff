"""Links of our documents lead somewhere, the site has every document, and the index of decisions is complete."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from docs.publishing import site

ROOT = Path(__file__).parents[1]
_LINK = re.compile(r"\]\(([^)\s]+)\)")  # the text before may go over two lines
_FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def documents() -> list[Path]:
    """All that are under version control, or will be."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()
    return [ROOT / name for name in listed if (ROOT / name).is_file()]


def anchors(text: str) -> set[str]:
    """Of the headings, as forges make them."""
    seen: Counter[str] = Counter()
    found = set()
    for heading in re.findall(r"^#+ (.+)$", _FENCED.sub("", text), re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").lower()
        anchor = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        found.add(anchor if not seen[anchor] else f"{anchor}-{seen[anchor]}")
        seen[anchor] += 1
    return found


@pytest.mark.parametrize("path", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_links(path: Path) -> None:
    for link in _LINK.findall(_FENCED.sub("", path.read_text())):
        if re.match(r"[a-z]+:", link):
            address = urlsplit(link)
            assert (address.scheme, bool(address.hostname)) == ("https", True), f"{link} is no address of a page"
            continue
        name, _, anchor = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        assert target.exists(), f"{path.relative_to(ROOT)}: {link} leads nowhere"
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target.read_text()), f"{path.relative_to(ROOT)}: {link}: no such heading"


@pytest.mark.parametrize("path", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_files_that_documents_name_exist(path: Path) -> None:
    """Not those of the changelog and of decisions, which tell of their time."""
    if path.name == "CHANGELOG.md" or path.parent.name == "decisions":
        return
    houses = "offload|control|kernels|envoy_ext|deploy|benchmarks|tests|docs"
    named = set(re.findall(rf"`((?:{houses})/[\w./-]+\.(?!so\b)[a-z]+)`", path.read_text()))  # libraries are built
    assert {name for name in named if not (ROOT / name).exists()} == set(), f"{path.relative_to(ROOT)} names them"


@pytest.mark.parametrize("page", sorted((ROOT / "docs" / "start").glob("*.md")), ids=lambda page: page.stem)
def test_the_commands_of_first_steps_run_in_a_test(page: Path) -> None:
    [runner] = re.findall(r"Every\s+command .*?`(tests/[\w/]+\.py)`", page.read_text(), re.DOTALL)
    assert page.name in (ROOT / runner).read_text(), f"{runner} does not run {page.name}"


def navigated(entries: list[Any]) -> Iterator[str]:
    """The pages that a part of the site's navigation names."""
    for entry in entries:
        for page in entry.values():
            yield from navigated(page) if isinstance(page, list) else [page]


def test_every_document_is_in_the_site() -> None:
    """But the one with which the forge greets, whose place the site's own first page takes."""
    names = {path.relative_to(ROOT).as_posix() for path in documents()}
    left_out = {name for name in names if name == "README.md" or name.startswith(".github/")}
    assert names - left_out == set(site.documents()), "docs/publishing/site.py has those outside of docs/"


def test_every_document_is_in_the_navigation_of_the_site() -> None:
    """But the decisions, which their index lists."""
    named = list(navigated(tomllib.loads(site.CONFIGURATION.read_text())["project"]["nav"]))
    documented = {place for place in site.documents().values() if not re.match(r"decisions/\d", place)}
    assert sorted(named) == sorted(documented), "docs/zensical.toml has the navigation"


def test_the_site_has_a_page_for_every_link() -> None:
    found = site.collect()
    for place, text in found.pages.items():
        if not place.startswith("source/"):
            for link in _LINK.findall(_FENCED.sub("", text)):
                if not re.match(r"[a-z]+:|#", link):
                    goal = (Path("/") / Path(place).parent / link.partition("#")[0]).resolve().relative_to("/")
                    assert str(goal) in found.pages or str(goal) in found.pictures, f"{place}: {link}"


def test_the_index_of_decisions() -> None:
    spec = importlib.util.spec_from_file_location("decisions_index", ROOT / "docs/decisions/index.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.INDEX.read_text() == module.index(), "python docs/decisions/index.py makes it anew"
    numbers = Counter(path.name[:4] for path in module.FOLDER.glob("[0-9]*.md"))
    assert {number: count for number, count in numbers.items() if count > 1} == {}
