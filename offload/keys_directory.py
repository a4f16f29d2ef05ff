"""The keys directory as it is on disk now; what to make of it is decided in `identities`.

Layouts, which may be mixed:

    <directory>/<name>/*.pem|crt|cer|key    any number of files; ca.crt or ca.pem is a trust bundle
    <directory>/<name>.crt + <name>.key     a pair
    <directory>/<name>.pem                  chain and key in one file

Names that begin with a dot are skipped: Kubernetes keeps the versions of a mounted secret there (..data). Private keys
are read natively; only certificates and handles come back.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from offload import _dataplane

SUFFIXES = frozenset({".pem", ".crt", ".cer", ".key"})
# A file changed this recently may change again within the clock tick of its time stamp, so it is read again next time.
SETTLED_NS = 2_000_000_000


@dataclass(frozen=True)
class KeyFile:
    """One file: what is in it, or why it cannot be used. `path` may also be a folder that cannot be listed."""

    path: str
    certificates: tuple[bytes, ...] = ()
    key: _dataplane.Key | None = None
    problem: str | None = None
    world_readable: bool = False


@dataclass(frozen=True)
class Listing:
    """Everything there is to plan with."""

    entries: Mapping[str, tuple[KeyFile, ...]] = field(default_factory=dict)  # by name, files sorted by path
    problem: str | None = None  # why the directory itself cannot be listed
    bundles: Mapping[str, KeyFile] = field(default_factory=dict)  # trust bundle files of the configuration, by path


Stamp = tuple[int, int, int, int, int]


class KeysDirectory:
    """Lists the directory, reading again only the files that changed."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._read: dict[str, tuple[Stamp, KeyFile]] = {}

    def look(self, bundle_files: Iterable[Path] = ()) -> Listing:
        read_before, self._read = self._read, {}
        bundles = {str(path): self._file(str(path), read_before, key_allowed=False) for path in bundle_files}
        absent = KeyFile("", problem="there is no such file")
        found_bundles = {path: found or absent for path, found in bundles.items()}
        try:
            entries = self._entries(read_before)
        except OSError as error:
            self._read = read_before | self._read
            return Listing(problem=f"cannot be listed: {error.strerror}", bundles=found_bundles)
        return Listing(entries, None, found_bundles)

    def _entries(self, read_before: Mapping[str, tuple[Stamp, KeyFile]]) -> dict[str, tuple[KeyFile, ...]]:
        entries: dict[str, list[KeyFile]] = {}
        for entry in sorted(os.scandir(self.directory), key=lambda e: e.name):
            if entry.name.startswith("."):
                continue
            if (shown := _shown(entry.name)) != entry.name:
                entries.setdefault(shown, []).append(
                    KeyFile(_shown(entry.path), problem="its name is not printable UTF-8")
                )
            elif entry.is_dir():
                entries.setdefault(entry.name, []).extend(self._folder(entry.path, read_before))
            elif (name_and_suffix := os.path.splitext(entry.name))[1] in SUFFIXES:
                found = self._file(entry.path, read_before)
                if found:
                    entries.setdefault(name_and_suffix[0], []).append(found)
        return {name: tuple(files) for name, files in entries.items()}

    def _folder(self, folder: str, read_before: Mapping[str, tuple[Stamp, KeyFile]]) -> list[KeyFile]:
        try:
            names = sorted(os.listdir(folder))
        except OSError as error:
            return [KeyFile(_shown(folder), problem=f"cannot be listed: {error.strerror}")]
        paths = [os.path.join(folder, n) for n in names if not n.startswith(".") and os.path.splitext(n)[1] in SUFFIXES]
        return [found for path in paths if (found := self._file(path, read_before))]

    def _file(
        self, path: str, read_before: Mapping[str, tuple[Stamp, KeyFile]], key_allowed: bool = True
    ) -> KeyFile | None:
        """None when the file has gone since its folder was listed."""
        try:
            status = os.stat(path)
        except FileNotFoundError:
            return KeyFile(_shown(path), problem="a symlink to nothing") if os.path.islink(path) else None
        except OSError as error:
            return KeyFile(_shown(path), problem=f"cannot be examined: {error.strerror}")
        stamp = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        known = read_before.get(path)
        if known and known[0] == stamp:
            self._read[path] = known
            return known[1]
        read = _read_file(path, bool(status.st_mode & stat.S_IROTH), key_allowed)
        if status.st_ctime_ns < time.time_ns() - SETTLED_NS:
            self._read[path] = (stamp, read)
        return read


def _read_file(path: str, world_readable: bool, key_allowed: bool) -> KeyFile:
    shown = _shown(path)
    try:
        certificates, private_keys = _dataplane.read_certificates(path)
        if private_keys > 1:
            return KeyFile(shown, problem=f"holds {private_keys} private keys; a file has at most one")
        if not certificates and not private_keys:
            return KeyFile(shown, problem="holds neither a certificate nor a private key in PEM form")
        key = _dataplane.Key.load(path) if private_keys and key_allowed else None
    except ValueError as error:
        return KeyFile(shown, problem=_shown(str(error)).removeprefix(f"{shown}: "))
    return KeyFile(shown, tuple(certificates), key, None, world_readable and key is not None)


def _shown(name: str) -> str:
    """As it can be logged and sent: file names are bytes, and some are not UTF-8, or would move a terminal's cursor."""
    text = os.fsencode(name).decode(errors="backslashreplace")
    return "".join(c if c.isprintable() else "?" for c in text)
