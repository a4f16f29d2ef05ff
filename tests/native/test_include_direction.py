"""Which folder of the C and C++ knows which, computed from the includes: each only those below it, so no loops.

Every include of ours names its file from the repository's root, so that a reader sees what a file depends on; only
the kernels, whose insides are one piece, also include relative to their own folder.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ARCHITECTURE = ROOT / "docs" / "design" / "architecture.md"
INCLUDE = re.compile(r'^#include "([^"]+)"', re.MULTILINE)
SUFFIXES = (".c", ".cc", ".h")
DATAPLANE = "offload/dataplane"
MODULE = "envoy_ext/module"


def rooms(parent: str, *names: str) -> frozenset[str]:
    return frozenset(f"{parent}/{name}" for name in names)


# What each folder may know besides itself. The order of the lines is that of the floors: a folder knows only those
# above it.
NOBODY: frozenset[str] = frozenset()
KERNELS = frozenset({"kernels"})
KNOWS: dict[str, frozenset[str]] = {
    "kernels": NOBODY,
    f"{DATAPLANE}/host": NOBODY,
    f"{DATAPLANE}/certificates": KERNELS,
    f"{DATAPLANE}/wire": NOBODY,
    f"{DATAPLANE}/access": KERNELS,
    f"{DATAPLANE}/batching": KERNELS | rooms(DATAPLANE, "host", "wire", "access"),
    f"{DATAPLANE}/grpc": KERNELS | rooms(DATAPLANE, "host", "wire", "access", "batching"),
    f"{DATAPLANE}/service": KERNELS | rooms(DATAPLANE, "wire", "access", "batching", "grpc"),
    DATAPLANE: KERNELS | rooms(DATAPLANE, "host", "access", "batching", "grpc", "service"),
    f"{MODULE}/envoy": NOBODY,
    f"{MODULE}/spiffe": NOBODY,
    f"{MODULE}/config": rooms(MODULE, "spiffe"),
    f"{MODULE}/client": rooms(DATAPLANE, "wire") | rooms(MODULE, "envoy", "spiffe"),
    f"{MODULE}/peer": rooms(MODULE, "envoy", "spiffe", "config", "client"),
    f"{MODULE}/tls": KERNELS | rooms(MODULE, "envoy", "spiffe", "config", "client", "peer"),
    f"{MODULE}/hooks": rooms(MODULE, "envoy", "config", "client", "tls"),
}


def floor_of(path: str) -> str | None:
    """The innermost folder of the table that holds the file."""
    inside = [folder for folder in KNOWS if path.startswith(f"{folder}/")]
    return max(inside, key=len, default=None)


def sources(root: Path) -> Iterator[Path]:
    for top in ("kernels", DATAPLANE, MODULE):
        for path in sorted((root / top).rglob("*")):
            # Cython writes its C beside the .pyx.
            if path.suffix in SUFFIXES and not path.name.startswith("_"):
                yield path


def includes(root: Path) -> Iterator[tuple[str, str]]:
    """Each file with each of ours that it includes, both from the root."""
    for path in sources(root):
        name = path.relative_to(root).as_posix()
        for included in INCLUDE.findall(path.read_text()):
            relative = floor_of(name) == "kernels" and floor_of(included) is None
            yield name, (Path(name).parent / included).as_posix() if relative else included


def edges(root: Path) -> dict[tuple[str, str], list[str]]:
    """Which folder knows which other, and by which include."""
    found: dict[tuple[str, str], list[str]] = {}
    for name, included in includes(root):
        above, below = floor_of(name), floor_of(included)
        assert above is not None
        if below is not None and above != below:
            found.setdefault((above, below), []).append(f"{name} includes {included}")
    return found


def faults(root: Path) -> list[str]:
    order = list(KNOWS)
    wrong = []
    for (above, below), lines in edges(root).items():
        if below not in KNOWS[above]:
            reason = "which lies above it" if order.index(below) > order.index(above) else "which it need not know"
            wrong += [f"{line}: {above} knows {below}, {reason}" for line in lines]
    return wrong


def unknown(root: Path) -> list[str]:
    """Includes of files that are not there under that name; generated ones stand beside their includer in the build."""
    return [
        f"{name} includes {included}"
        for name, included in includes(root)
        if floor_of(name) != "kernels" and not (root / included).is_file()
    ]


def test_table_has_no_loop() -> None:
    order = list(KNOWS)
    for folder, known in KNOWS.items():
        assert all(order.index(below) < order.index(folder) for below in known), folder


def test_table_names_every_folder() -> None:
    folders = {path.parent.relative_to(ROOT).as_posix() for path in sources(ROOT)}
    inside = {folder for folder in folders if not folder.startswith("kernels")}
    assert inside == {folder for folder in KNOWS if folder != "kernels"}


def test_architecture_describes_every_folder_in_this_order() -> None:
    described = re.findall(r"^\| `([^`]+)` \| [A-Z][^|]+\. \|$", ARCHITECTURE.read_text(), re.MULTILINE)
    assert [folder for folder in described if folder in KNOWS] == list(KNOWS)


def test_files_of_the_walk_are_there() -> None:
    walk = ARCHITECTURE.read_text().partition("## A walk: an operation")[2].partition("\n## ")[0]
    named = re.findall(r"`((?:kernels|grpc|service|wire|access|batching)/\w+(?:\.c|/))`", walk)
    missing = [name for name in named if not any((ROOT / top / name).exists() for top in (".", DATAPLANE))]
    assert len(named) > 15
    assert missing == []
    assert [name for name in named if named.count(name) > 1] == []  # each is entered once


def test_no_folder_knows_one_above_it() -> None:
    assert faults(ROOT) == []


def test_table_allows_nothing_that_is_not_used() -> None:
    used = edges(ROOT)
    assert [(above, below) for above, known in KNOWS.items() for below in known if (above, below) not in used] == []


def test_includes_name_files_from_the_root() -> None:
    assert unknown(ROOT) == []


@pytest.mark.parametrize(
    ("file", "include", "fault"),
    [
        (f"{DATAPLANE}/wire/wire.c", f"{DATAPLANE}/grpc/call.h", "which lies above it"),
        (f"{DATAPLANE}/grpc/loop.c", f"{DATAPLANE}/service/admission.h", "which lies above it"),
        (f"{MODULE}/client/reconnect.cc", f"{MODULE}/tls/handshake.h", "which lies above it"),
        (f"{DATAPLANE}/access/usage.c", f"{DATAPLANE}/host/sandbox.h", "which it need not know"),
        ("kernels/ifma8/rsa.c", f"{DATAPLANE}/wire/wire.h", "which lies above it"),
    ],
)
def test_wrong_include_is_found(tmp_path: Path, file: str, include: str, fault: str) -> None:
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).write_text(f'#include "{include}"\n')
    (found,) = faults(tmp_path)
    assert fault in found
    assert unknown(tmp_path) == ([f"{file} includes {include}"] if not file.startswith("kernels") else [])
