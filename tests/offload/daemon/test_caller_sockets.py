"""Sockets of callers: dedicated ones come and go, lost files are made again, and files that were handed over stay."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from offload import _dataplane
from offload.config.sockets import Sockets
from offload.daemon.caller_sockets import CallerSockets
from offload.filesystem.trusted_paths import Trust


class Served:
    """The part of a data plane that has listeners."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def add_listener(self, name: str, descriptor: int) -> None:
        assert descriptor >= 0
        self.names.add(name)

    def remove_listener(self, name: str) -> None:
        self.names.remove(name)


def settings(folder: Path, *dedicated: str) -> Sockets:
    sockets = [{"name": name, "path": str(folder / f"{name}.sock")} for name in dedicated]
    return Sockets.model_validate({"main": {"path": str(folder / "main.sock")}, "dedicated": sockets})


@pytest.fixture
def data_plane() -> Served:
    return Served()


@pytest.fixture
def sockets(tmp_path: Path, data_plane: Served) -> Iterator[CallerSockets]:
    made = CallerSockets(Trust.of())
    made.open(settings(tmp_path, "cart"), {}, {})
    made.serve(cast(_dataplane.DataPlane, data_plane))
    yield made
    made.close()


def test_dedicated_sockets_come_and_go(tmp_path: Path, data_plane: Served, sockets: CallerSockets) -> None:
    served = sockets.change_dedicated(settings(tmp_path, "cart"), settings(tmp_path, "web"))
    assert [socket.name for socket in served.dedicated] == ["web"]
    assert data_plane.names == {"main", "web"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["main.sock", "web.sock"]


def test_a_dedicated_socket_that_cannot_be_made_is_left_out(
    tmp_path: Path, data_plane: Served, sockets: CallerSockets
) -> None:
    (tmp_path / "web.sock").write_text("in the way")
    served = sockets.change_dedicated(settings(tmp_path, "cart"), settings(tmp_path, "cart", "web"))
    assert [socket.name for socket in served.dedicated] == ["cart"]
    assert data_plane.names == {"main", "cart"}


def test_a_lost_file_is_made_again(tmp_path: Path, data_plane: Served, sockets: CallerSockets) -> None:
    (tmp_path / "cart.sock").unlink()
    sockets.remake_lost(settings(tmp_path, "cart"))
    assert (tmp_path / "cart.sock").is_socket()
    assert data_plane.names == {"main", "cart"}


def test_files_that_were_handed_over_stay(tmp_path: Path, sockets: CallerSockets) -> None:
    sockets.let_go({"main", "unknown"})
    sockets.close()
    assert [path.name for path in tmp_path.iterdir()] == ["main.sock"]
