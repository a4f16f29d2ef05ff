"""Rooms know each other in one direction only: the contracts in pyproject.toml, computed from the imports.

`.venv/bin/lint-imports` says in words what is broken. Loops made on purpose show that one is found.
"""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LINT = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True, no_logo=True))"
CONTRACT = """
[tool.importlinter]
root_packages = ["house"]

[[tool.importlinter.contracts]]
name = "No loop"
type = "acyclic_siblings"
ancestors = ["house"]
"""
PACKAGES = ("kernels", "envoy_ext", "offload", "control", "deploy", "benchmarks")
# By the kind of loop: files with what they import, for types alone too.
LOOPS = {
    "of files": {"room/a.py": "from house.room import b", "room/b.py": "from house.room.a import c"},
    "of files, inside a function": {
        "room/a.py": "def f():\n    import house.room.b",
        "room/b.py": "import house.room.a",
    },
    "of folders": {
        "room/a.py": "import house.hall.a",
        "room/b.py": "",
        "hall/a.py": "",
        "hall/b.py": "import house.room.b",
    },
    "of a folder and a file beside it": {"room/a.py": "import house.door", "door.py": "import house.room.b"},
    "by types alone": {
        "room/a.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from house.room.b import B",
        "room/b.py": "import house.room.a",
    },
}


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", LINT], cwd=folder, capture_output=True, text=True, timeout=120)


def test_every_contract_is_kept() -> None:
    result = lint(ROOT)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "0 broken" in result.stdout


@pytest.mark.parametrize("loop", [None, *LOOPS])
def test_a_loop_is_found(loop: str | None, tmp_path: Path) -> None:
    files = {"room/a.py": "import house.hall.a", "room/b.py": "import house.room.a", "hall/a.py": ""}
    for name, text in (LOOPS[loop] if loop is not None else files).items():
        path = tmp_path / "house" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        for folder in (path.parent, tmp_path / "house"):
            (folder / "__init__.py").touch()
    (tmp_path / "house" / "room" / "b.py").touch()
    (tmp_path / "pyproject.toml").write_text(CONTRACT)
    result = lint(tmp_path)
    assert (result.returncode != 0) == (loop is not None), result.stdout + result.stderr
    assert loop is None or "No loop BROKEN" in result.stdout


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """The Python files of all packages, to be changed."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            to = tmp_path / path.relative_to(ROOT)
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, to)
    return tmp_path


@pytest.mark.parametrize(
    ("path", "module", "contract"),
    [
        ("offload/identities/in_force.py", "offload.identities.plan", "No loop of files or folders"),
        ("offload/filesystem/accounts.py", "offload.config.settings", "No loop of files or folders"),
        ("control/untrusted_text.py", "control.logs", "No loop of files or folders"),
        ("offload/host/systemd.py", "offload.daemon.events", "The rooms of offload know"),
        ("offload/reporting/logs.py", "control.logs", "Packages know"),
        ("deploy/load/usage.py", "benchmarks.machine", "Packages know"),
        ("deploy/node/processes.py", "deploy.node.daemon", "No loop of files or folders"),
        ("control/logs.py", "offload.identities.schemes", "The control plane knows no part"),
    ],
)
def test_an_import_against_a_contract_is_found(copied: Path, path: str, module: str, contract: str) -> None:
    with (copied / path).open("a") as file:
        file.write(f"\nimport {module}\n")
    result = lint(copied)
    assert result.returncode == 1, result.stdout + result.stderr
    broken = [line for line in result.stdout.splitlines() if line.endswith("BROKEN")]
    assert any(line.startswith(contract) for line in broken), result.stdout


def test_a_new_part_of_offload_is_open_to_the_control_plane_only_by_name() -> None:
    """The contract forbids rooms by their names; these are what both processes need, and the host's room in part."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    forbidden = next(each["forbidden_modules"] for each in contracts if each.get("source_modules") == ["control"])
    for room, shared in (("offload", {"filesystem", "host", "reporting", "v1"}), ("offload/host", {"systemd"})):
        parts = {path.stem for path in (ROOT / room).glob("*.py")} | {
            path.parent.name for path in (ROOT / room).glob("*/__init__.py")
        }
        prefix = room.replace("/", ".") + "."
        named = {module.removeprefix(prefix).partition(".")[0] for module in forbidden if module.startswith(prefix)}
        assert parts - {"__init__", "__main__"} - shared - named == set()


def test_a_new_part_of_offload_needs_its_place(copied: Path) -> None:
    (copied / "offload" / "helpers.py").touch()
    result = lint(copied)
    assert result.returncode == 1
    assert "offload.helpers" in result.stdout


def test_every_room_of_the_control_plane_is_described() -> None:
    text = (ROOT / "docs" / "design" / "architecture.md").read_text()
    section = text.partition("## The control plane\n")[2].partition("\n##")[0]
    rows = [line.split("|") for line in section.splitlines() if line.startswith("| `")]
    said = {name.removesuffix("<policy>/") for row in rows for name in re.findall(r"`([^`]+)`", row[1])}
    control = ROOT / "control"
    rooms = {f"{path.parent.name}/" for path in control.glob("*/__init__.py")}
    files = {path.name for path in control.glob("*.py")} - {"__init__.py"}
    assert rooms | files <= said, "a room that nobody describes"
    assert {name for name in said if not (control / name).exists()} == set(), "a room that is not there"
    assert all(row[2].strip() for row in rows)


def test_every_room_of_offload_is_described_by_its_own_sentence() -> None:
    document = (ROOT / "docs" / "design" / "architecture.md").read_text()
    for module in (ROOT / "offload").glob("*/__init__.py"):
        if module.parent.name == "v1":
            continue  # generated by the build
        sentence = (ast.get_docstring(ast.parse(module.read_text())) or "").partition("\n")[0]
        assert f"| `offload/{module.parent.name}/` | {sentence} |" in document
