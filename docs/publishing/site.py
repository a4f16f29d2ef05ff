"""python -m docs.publishing.site --zensical PROGRAM: builds the site of all documents into build/site, strictly.

The documents are written for a forge: links lead to other documents, and out of docs/ to the code. For the site they
are copied to build/docs; a file of the code that a document names becomes a page with its text, so that the site needs
no other server. A link that leads nowhere ends the build, here or (with its anchor) in Zensical's strict mode.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
CONFIGURATION = DOCS / "zensical.toml"
# Documents whose place in the site is not that in docs/.
ELSEWHERE = {
    "CHANGELOG.md": "project/changelog.md",
    "CODE_OF_CONDUCT.md": "project/code-of-conduct.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "docs/decisions/README.md": "decisions/index.md",
    "SECURITY.md": "project/security.md",
    "kernels/README.md": "design/kernels.md",
    "offload/dataplane/README.md": "design/data-plane.md",
}
ALIASES = {"README.md": "index.md", "docs": "index.md", "docs/decisions": "decisions/index.md"}
PICTURES = (".png", ".svg")
LANGUAGES = {".h": "c", ".c": "c", ".cc": "cpp", ".py": "python", ".pyi": "python", ".yaml": "yaml", ".proto": "proto"}
_FENCE = re.compile(r"^ {0,3}(```|~~~)")
_AS_ROOT = re.compile(r"^(```sh) root$")  # for the tests that run the commands
_LINK = re.compile(r"(?<=\]\()([^)\s]+)(?=\))")
_ITEM = re.compile(r"(?:[-*]|\d+\.) ")


class Rejected(Exception):
    """A document, or the site, is not as it has to be."""


@dataclass
class Site:
    """The pages by their paths in the site."""

    pages: dict[str, str] = field(default_factory=dict)
    pictures: set[str] = field(default_factory=set)
    wanted: set[str] = field(default_factory=set)  # files of the code that documents name


def documents() -> dict[str, str]:
    """Path in the tree to path in the site, of everything that is written as a document."""
    own = {path.relative_to(ROOT).as_posix(): path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}
    return own | ELSEWHERE


def collect() -> Site:
    site = Site()
    places = documents()
    for source, place in sorted(places.items()):
        site.pages[place] = _page((ROOT / source).read_text(), source, place, places, site)
    done: set[str] = set()
    while site.wanted - done:  # a folder's page names its files
        for name in sorted(site.wanted - done):
            done.add(name)
            site.pages[source_page(name)] = _source(name, site)
    return site


def source_page(name: str) -> str:
    return f"source/{name}.md"


def _page(text: str, source: str, place: str, places: dict[str, str], site: Site) -> str:
    lines: list[str] = []
    fenced = False
    for line in text.splitlines():
        if _FENCE.match(line):
            fenced = not fenced
            line = _AS_ROOT.sub(r'\1 title="as root"', line)
        elif not fenced:
            line = _LINK.sub(lambda found: _target(found[1], source, place, places, site), line)
            # The parser of the site wants an empty line before a list, forges do not.
            if _ITEM.match(line) and lines and lines[-1].strip() and not _continues_list(lines):
                lines.append("")
        lines.append(line)
    return "\n".join(line for line in lines if not line.startswith("<!-- ")) + "\n"


def _continues_list(lines: Iterable[str]) -> bool:
    paragraph: list[str] = []
    for line in reversed(list(lines)):
        if not line.strip():
            break
        paragraph.append(line)
    return any(_ITEM.match(line) for line in paragraph)


def _target(link: str, source: str, place: str, places: dict[str, str], site: Site) -> str:
    """Where a link of the document `source` leads in the site, seen from its page."""
    if re.match(r"[a-z]+:", link) or link.startswith("#"):
        return link
    name, _, anchor = link.partition("#")
    named = os.path.normpath(Path(source).parent / name)
    found = ROOT / named
    if not found.exists():
        raise Rejected(f"{source}: {link} leads nowhere")
    if named in ALIASES:
        goal = ALIASES[named]
    elif named in places:
        goal = places[named]
    elif found.suffix in PICTURES:
        goal = os.path.relpath(found, DOCS)
        site.pictures.add(goal)
    else:
        site.wanted.add(named)
        goal, anchor = source_page(named), ""
    return os.path.relpath(goal, Path(place).parent) + (f"#{anchor}" if anchor else "")


def _source(name: str, site: Site) -> str:
    """A file of the code as a page, or a folder as a list of its files. Neither is in the search."""
    path = ROOT / name
    head = f"---\nsearch:\n  exclude: true\n---\n\n# `{name}`\n\n"
    if path.is_dir():
        listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", name]
        names = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()
        site.wanted |= set(names)
        place = Path(source_page(name)).parent
        return head + "".join(f"- [{one}]({os.path.relpath(source_page(one), place)})\n" for one in names)
    language = LANGUAGES.get(path.suffix, "text")
    return f"{head}````{language}\n{path.read_text().rstrip()}\n````\n"


def stage(site: Site, folder: Path) -> None:
    """Writes what Zensical reads: the pages, their pictures and the configuration."""
    shutil.rmtree(folder, ignore_errors=True)
    for place, text in site.pages.items():
        path = folder / "pages" / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for place in sorted(site.pictures):
        (folder / "pages" / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(DOCS / place, folder / "pages" / place)
    shutil.copytree(DOCS / "theme", folder / "pages" / "theme")
    shutil.copy(CONFIGURATION, folder / CONFIGURATION.name)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m docs.publishing.site", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--zensical", default="zensical", metavar="PROGRAM", help="Zensical's program")
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "site", metavar="FOLDER")
    options = parser.parse_args()
    staged = ROOT / "build" / "docs" / "staged"
    try:
        stage(collect(), staged)
        build(options.zensical, staged / CONFIGURATION.name)
        check_scripts(staged / "site")
    except Rejected as error:
        print(error, file=sys.stderr)
        return 1
    shutil.rmtree(options.output, ignore_errors=True)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(staged / "site", options.output)
    print(f"the site is in {options.output}; with its search: python3 -m http.server --directory {options.output}")
    return 0


def build(program: str, configuration: Path) -> None:
    """Zensical's own output says which link or heading does not exist."""
    line = [program, "build", "--strict", "--clean", "-f", str(configuration)]
    ran = subprocess.run(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if ran.returncode != 0:
        said = re.sub(r"\x1b\[[\d;]*m", "", ran.stdout).partition("Traceback (most recent call last)")[0]
        raise Rejected(said.strip())


def check_scripts(site: Path) -> None:
    """Pages load nothing from other servers."""
    for page in site.rglob("*.html"):
        for foreign in re.findall(r'<(?:script|img|iframe)[^>]*src="(https?:[^"]*)"', page.read_text()):
            raise Rejected(f"{page.relative_to(site)} would load {foreign}")
        for foreign in re.findall(
            r'<link[^>]*rel="(?:stylesheet|preconnect)"[^>]*href="(https?:[^"]*)"', page.read_text()
        ):
            raise Rejected(f"{page.relative_to(site)} would load {foreign}")


if __name__ == "__main__":
    sys.exit(main())
