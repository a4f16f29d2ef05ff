"""Which paths the daemon relies on: real folders and files of real users, so root is needed to make them."""

from __future__ import annotations

import errno
import grp
import os
import pwd
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from offload.config.settings import Config
from offload.filesystem.trusted_paths import Trust, UntrustedPathError, Walk, check_place, read_trusted

STRANGER, FRIEND = 12345, 23456
TRUST = Config.model_validate({"security": {"trusted_users": [FRIEND]}}).security.trust()


@pytest.fixture
def folder() -> Iterator[Path]:
    """Outside pytest's folder, which is closed to others."""
    with tempfile.TemporaryDirectory(prefix="offload-test-") as name:
        made = Path(name)
        made.chmod(0o755)
        (made / "deep").mkdir(mode=0o755)
        (made / "deep" / "file").write_text("content")
        yield made


def test_what_root_or_the_daemons_user_owns_is_good(folder: Path) -> None:
    assert read_trusted(folder / "deep" / "file", TRUST) == b"content"
    check_place(folder / "deep", TRUST)


def test_symlinks_lead_where_the_kernel_leads(folder: Path) -> None:
    (folder / "way").symlink_to("deep/../deep")
    (folder / "deep" / "absolute").symlink_to(folder / "way" / "file")
    with Walk(TRUST) as walk:
        end = walk.to(folder / "way" / "absolute")
        start = walk.to(folder)
        assert end.path == str((folder / "deep" / "file").resolve())
        assert end.names_from(start) == ("deep", "file")
        assert walk.to("../deep/file", walk.to("deep", start)).names_from(start) == ("deep", "file")
        assert walk.to("/etc").names_from(start) is None


def test_a_circle_of_symlinks_ends(folder: Path) -> None:
    (folder / "a").symlink_to("b")
    (folder / "b").symlink_to("a")
    with pytest.raises(OSError, match="too many symlinks"):
        read_trusted(folder / "a", TRUST)


def own(path: str, uid: int = STRANGER) -> Callable[[Path], None]:
    return lambda folder: os.chown(folder / path, uid, uid, follow_symlinks=False)


def mode(path: str, bits: int, gid: int = 0) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        os.chown(folder / path, -1, gid)
        (folder / path).chmod(bits)

    return change


def a_strangers_symlink(folder: Path) -> None:
    (folder / "deep" / "file").rename(folder / "deep" / "other")
    (folder / "deep" / "file").symlink_to("other")
    own("deep/file")(folder)


@pytest.mark.root
@pytest.mark.parametrize(
    ("change", "says"),
    [
        (own("."), "belongs to uid 12345, who could replace it: change its owner to root"),
        (own("deep"), "security.trusted_users"),
        (own("deep/file"), "deep/file belongs to uid 12345"),
        (a_strangers_symlink, "deep/file belongs to uid 12345"),
        (mode("deep", 0o777), "every user can write in "),
        (mode("deep/file", 0o646), "every user can write /"),
        (mode("deep", 0o775, STRANGER), "the group with gid 12345 can write in "),
        (mode("deep/file", 0o664, STRANGER), "chmod g-w /"),
    ],
)
def test_what_others_can_bend_is_refused(folder: Path, change: Callable[[Path], None], says: str) -> None:
    change(folder)
    with pytest.raises(UntrustedPathError, match=says):
        read_trusted(folder / "deep" / "file", TRUST)


@pytest.mark.root
@pytest.mark.parametrize(
    "change",
    [
        own(".", FRIEND),
        own("deep/file", FRIEND),
        mode("deep", 0o1777),  # the sticky bit: as Kubernetes mounts secrets
        mode(".", 0o1777),
        mode("deep", 0o775),  # root's own group
    ],
)
def test_what_nobody_else_can_bend_is_good(folder: Path, change: Callable[[Path], None]) -> None:
    change(folder)
    assert read_trusted(folder / "deep" / "file", TRUST) == b"content"


@pytest.mark.root
def test_a_strangers_file_in_a_sticky_folder_is_a_strangers(folder: Path) -> None:
    mode("deep", 0o1777)(folder)
    own("deep/file")(folder)
    with pytest.raises(UntrustedPathError, match="uid 12345"):
        read_trusted(folder / "deep" / "file", TRUST)


@pytest.mark.root
def test_an_acl_is_no_private_group(folder: Path) -> None:
    """The rights of a named user show as those of the group, which is root's here (linux/posix_acl_xattr.h)."""
    none = 2**32 - 1
    entries = ((0x01, 7, none), (0x02, 7, STRANGER), (0x04, 5, none), (0x10, 7, none), (0x20, 5, none))
    packed = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
    os.setxattr(folder / "deep", "system.posix_acl_access", packed)
    with pytest.raises(UntrustedPathError, match="can write in"):
        read_trusted(folder / "deep" / "file", TRUST)


@pytest.mark.root
def test_who_joins_a_private_group_is_seen_at_the_next_look(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The daemon has one Trust as long as it runs. The test says what the user database says; files are real."""
    gid = 34567
    mode("deep", 0o775, gid)(folder)
    stranger = pwd.struct_passwd(("stranger", "x", STRANGER, STRANGER, "", "/", "/bin/false"))
    members: list[str] = []
    looked: list[int] = []

    def group(of: int) -> grp.struct_group:
        looked.append(of)
        return grp.struct_group(("private", "x", of, list(members)))

    monkeypatch.setattr(grp, "getgrgid", group)
    monkeypatch.setattr(pwd, "getpwnam", lambda _: stranger)
    assert read_trusted(folder / "deep" / "file", TRUST) == b"content"
    looked.clear()
    with Walk(TRUST) as walk:
        for _ in range(3):
            walk.to(folder / "deep" / "file")
    assert looked == [gid], "one question in a look, however many files it has"
    members.append("stranger")
    with pytest.raises(UntrustedPathError, match="can write in"):
        read_trusted(folder / "deep" / "file", TRUST)


@pytest.mark.root
@pytest.mark.parametrize(
    ("error", "is_good"), [(errno.ENODATA, True), (errno.ENOTSUP, True), (errno.EACCES, False), (errno.EIO, False)]
)
def test_an_acl_that_cannot_be_read_may_be_one(
    folder: Path, error: int, is_good: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    mode("deep", 0o775)(folder)

    def fails(path: str, _: str) -> bytes:
        raise OSError(error, os.strerror(error), path)

    monkeypatch.setattr(os, "getxattr", fails)
    if is_good:
        assert read_trusted(folder / "deep" / "file", TRUST) == b"content"
        return
    with pytest.raises(UntrustedPathError, match="can write in"):
        read_trusted(folder / "deep" / "file", TRUST)


@pytest.mark.root
@pytest.mark.parametrize("bits", [0o777, 0o1777])
def test_no_socket_is_made_where_everybody_can_make_files(folder: Path, bits: int) -> None:
    mode("deep", bits)(folder)
    with pytest.raises(UntrustedPathError, match="every user can"):
        check_place(folder / "deep", TRUST)


def test_a_place_for_sockets_is_a_folder(folder: Path) -> None:
    with pytest.raises(NotADirectoryError):
        check_place(folder / "deep" / "file", Trust.of())


@pytest.mark.root
def test_a_read_only_mount_is_good_for_what_is_public(folder: Path) -> None:
    """Kubernetes gives the folder of a config map mode 0777, and mounts it read-only."""
    mode("deep", 0o777)(folder)
    script = (
        f"mount --bind {folder} {folder} && mount -o remount,ro,bind {folder} && {sys.executable} -c '"
        "import sys; from pathlib import Path; from offload.filesystem.trusted_paths import Trust, Walk, read_trusted; "
        "path = Path(sys.argv[1]); print(read_trusted(path, Trust.of()).decode()); "
        f"Walk(Trust.of()).to(path)' {folder}/deep/file"
    )
    tried = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[3],
    )
    assert tried.stdout.strip() == "content", tried.stderr
    assert "UntrustedPathError" in tried.stderr, "but not for keys"
