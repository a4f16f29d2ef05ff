"""Secrets that every user of the host could read: named, with the command that closes them, and used all the same."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from control.secret_files import exposure
from control.store.engine import shown
from offload.filesystem.trusted_paths import Trust, Walk


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that every user reaches, unlike those that pytest makes."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        if any(not one.stat().st_mode & 0o001 for one in folder.resolve().parents):
            pytest.skip("the temporary folder is closed to other users: nothing in it is exposed")
        yield folder


def by_the_daemon(path: Path) -> str | None:
    with Walk(Trust.of()) as walk:
        return walk.to(path).exposure()


@pytest.mark.parametrize("judge", [exposure, by_the_daemon])
def test_who_can_read_a_secret(public: Path, judge: object) -> None:
    assert callable(judge)
    secret = public / "token"
    secret.write_text("x")
    for mode in (0o600, 0o640, 0o660):
        secret.chmod(mode)
        assert judge(secret) is None, oct(mode)
    for mode in (0o644, 0o604):
        secret.chmod(mode)
        found = judge(secret)
        assert found is not None
        assert "can be read by every user" in found
        assert f"chmod o-r {secret}" in found
    public.chmod(0o750)
    assert judge(secret) is None, "nobody comes to it"


def test_a_symlink_is_judged_by_what_it_leads_to(public: Path, tmp_path: Path) -> None:
    link, secret = tmp_path / "token", public / "token"
    secret.write_text("x")
    secret.chmod(0o644)
    link.symlink_to(secret)
    for judge in (exposure, by_the_daemon):
        assert judge(link) is not None


def test_a_database_is_shown_without_its_password() -> None:
    assert shown("postgresql://mesh:geheim@db.example/mesh") == "postgresql://mesh:***@db.example/mesh"
