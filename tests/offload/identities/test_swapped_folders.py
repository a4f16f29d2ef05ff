"""Folders of keys that are exchanged while they are listed, as Kubernetes does it: nothing is lost by it."""

from __future__ import annotations

import shutil
import threading
import time
from pathlib import Path

import pytest

from offload.identities import directory as keys_directory
from offload.identities.directory import KeyFile, KeysDirectory, Listing
from tests.offload.daemon_process import DaemonProcess
from tests.offload.key_files import Authority, key_pem, pem, shared_key

KEY = shared_key("p256")
SWAPS = 3000


class Volume:
    """A projected volume with the folder of one identity, written as the kubelet's AtomicWriter writes it."""

    def __init__(self, folder: Path, certificate: bytes, key: bytes) -> None:
        self.folder, self.number = folder, 0
        self.files = {"tls.crt": certificate, "tls.key": key}
        folder.mkdir()
        self.swap()
        (folder / "www").symlink_to("..data/www")

    def swap(self) -> None:
        before = self.folder / f"..{self.number}"
        self.number += 1
        version = self.folder / f"..{self.number}"
        (version / "www").mkdir(parents=True)
        for name, content in self.files.items():
            (version / "www" / name).write_bytes(content)
            (version / "www" / name).chmod(0o600)
        (self.folder / "..data_tmp").symlink_to(version.name)
        (self.folder / "..data_tmp").rename(self.folder / "..data")
        if before.exists():
            shutil.rmtree(before)


@pytest.fixture
def volume(tmp_path: Path, authority: Authority) -> Volume:
    return Volume(tmp_path / "volume", pem(authority.issue(KEY)), key_pem(KEY))


@pytest.mark.slow(seconds=4)
def test_no_look_misses_a_key_that_is_always_there(volume: Volume) -> None:
    """Looks without a pause against swaps without a pause."""
    directory = KeysDirectory(volume.folder)
    done = threading.Event()

    def swap() -> None:
        for _ in range(SWAPS):
            volume.swap()
        done.set()

    swapping = threading.Thread(target=swap)
    swapping.start()
    looks, bad = 0, []
    while not done.is_set():
        listing = directory.look()
        looks += 1
        files = listing.entries.get("www", ())
        if listing.problem or len(files) != 2 or not any(file.key for file in files):
            bad.append((listing.problem, files))
    swapping.join()
    assert looks > 30
    assert bad == []


@pytest.mark.slow(seconds=17)
def test_the_daemon_keeps_an_identity_through_all_swaps(daemon: DaemonProcess, volume: Volume) -> None:
    daemon.configure(
        keys={"directory": str(volume.folder), "debounce_ms": 10, "rescan_seconds": 1},
        identities={"www": {"selectors": [{"uid": 0}]}},
    )
    daemon.start()
    end = time.monotonic() + 15
    while time.monotonic() < end:
        volume.swap()
    time.sleep(1)
    assert daemon.events("identity in force")
    assert daemon.events("identity removed") == []
    assert daemon.events("key file rejected") == []


class Scripted(KeysDirectory):
    """Each look gives the next of these."""

    def __init__(self, *looks: str) -> None:
        super().__init__(Path("/"))
        self.looks = list(looks)

    def _look(self, bundle_files: tuple[Path, ...]) -> Listing:
        del bundle_files
        files = self.looks.pop(0)
        if files == "!":
            return Listing(problem="cannot be listed")
        return Listing({"www": tuple(KeyFile(c.lower(), problem="broken" if c.isupper() else None) for c in files)})


@pytest.mark.parametrize(
    ("looks", "seen", "left"),
    [
        (["ab"], "ab", 0),
        (["ab", "abc"], "abc", 0),  # more needs no second look
        (["ab", "a", "ab"], "ab", 0),
        (["ab", "", "ab"], "ab", 0),
        (["ab", "a", "a", "ab"], "a", 1),  # gone twice: gone
        (["ab", "a", "b", "ab"], "ab", 0),
        (["ab", "a", "b", "b", "ab"], "b", 1),
        (["ab", "aB", "ab"], "ab", 0),  # refused once
        (["ab", "aB", "aB", "ab"], "aB", 1),
        (["ab", "!", "ab"], "ab", 0),
    ],
)
def test_gone_needs_to_be_seen_twice(looks: list[str], seen: str, left: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys_directory, "AGAIN_SECONDS", 0)
    directory = Scripted(*looks)
    listing = directory.look()
    if len(looks) > 1 + left:
        listing = directory.look()
    found = "".join(f.path.upper() if f.problem else f.path for f in listing.entries["www"])
    assert (found, len(directory.looks)) == (seen, left)


def test_what_changes_for_ever_does_not_hold_up_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys_directory, "AGAIN_SECONDS", 0)
    directory = Scripted("ab", *(["a", "b"] * 50))
    directory.look()
    directory.look()
    assert len(directory.looks) >= 100 - keys_directory.LOOKS_MAX - 1
