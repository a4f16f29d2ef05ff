"""Lists the keys directory; `identities` decides what is served from it.

Layouts, which may be mixed:

    <directory>/<name>/*.pem|crt|cer|key    any number of files; ca.crt or ca.pem is a trust bundle
    <directory>/<name>.crt + <name>.key     a pair
    <directory>/<name>.pem                  chain and key in one file

Names that begin with a dot are skipped: Kubernetes keeps the versions of a mounted secret there (..data). Private keys
are read natively; only certificates and handles come back.

A tenant that can write `keys/cart/` must not be able to sign with the key of `www`. So every path is walked as
`trusted_paths` describes, a private key is accepted only if its real path, after symlinks, lies in the folder of its
own identity, and a file is read through the descriptor that was checked.

Files can change while they are listed: Kubernetes removes the old version of a secret as soon as the new one is in
place. If a file of the last listing is missing or unusable, the directory is therefore listed again until two
consecutive listings agree.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from offload import _dataplane
from offload.filesystem.trusted_paths import Step, Trust, UntrustedPathError, Walk

SUFFIXES = frozenset({".pem", ".crt", ".cer", ".key"})
BUNDLE_NAMES = frozenset({"ca.crt", "ca.pem"})
# A file changed this recently may change again within the clock tick of its time stamp, so it is read again next time.
SETTLED_NS = 2_000_000_000
# A version of a secret is exchanged within a millisecond or two; a look takes about as long.
AGAIN_SECONDS = 0.02
LOOKS_MAX = 10  # then the last result counts: somebody who writes without end must not hold up the rest


@dataclass(frozen=True)
class KeyFile:
    """One file: its content, or why it cannot be used. `path` may also be a folder that cannot be listed."""

    path: str
    certificates: tuple[bytes, ...] = ()
    key: _dataplane.Key | None = None
    problem: str | None = None
    exposure: str | None = None  # for a private key: who else can read it, and the way out

    @property
    def is_bundle(self) -> bool:
        """Whether it holds a trust bundle, judging by its name."""
        return self.key is None and Path(self.path).name in BUNDLE_NAMES


@dataclass(frozen=True)
class Listing:
    """Everything that planning needs from the disk."""

    entries: Mapping[str, tuple[KeyFile, ...]] = field(default_factory=dict)  # by name, files sorted by path
    problem: str | None = None  # why the directory itself cannot be listed
    bundles: Mapping[str, KeyFile] = field(default_factory=dict)  # trust bundle files of the configuration, by path


Stamp = tuple[int, int, int, int, int, str | None]
Files = dict[str, tuple[Stamp, KeyFile]]  # by path


class KeysDirectory:
    """Lists the directory, rereading only the files that changed. `trust`: defaults to that of this process."""

    def __init__(self, directory: Path, trust: Trust | None = None) -> None:
        self.directory = directory
        self._trust = Trust.of() if trust is None else trust
        self._read: Files = {}
        self._good: frozenset[str] = frozenset()  # files of the last look
        self._refused: frozenset[str] = frozenset()

    def look(self, bundle_files: Iterable[Path] = ()) -> Listing:
        wanted = tuple(bundle_files)
        listing = self._look(wanted)
        for _ in range(LOOKS_MAX):
            if self._is_no_loss(listing):
                break
            time.sleep(AGAIN_SECONDS)
            before, listing = listing, self._look(wanted)
            if _shape(before) == _shape(listing):
                break
        if listing.problem is None:
            self._good, self._refused = _good(listing), _refused(listing)
        return listing

    def _is_no_loss(self, listing: Listing) -> bool:
        """Compared with the last look: no file is gone, and none is rejected that was not."""
        return listing.problem is None and self._good <= _good(listing) and _refused(listing) <= self._refused

    def _look(self, bundle_files: tuple[Path, ...]) -> Listing:
        """Lists once."""
        read_before, self._read = self._read, {}
        bundles = {str(path): self._bundle(path, read_before) for path in bundle_files}
        try:
            with Walk(self._trust) as walk:
                entries = self._entries(walk.to(self.directory), read_before)
        except UntrustedPathError as error:
            self._read = read_before | self._read
            return Listing(problem=f"is rejected: {error}", bundles=bundles)
        except OSError as error:
            self._read = read_before | self._read
            return Listing(problem=f"cannot be listed: {error.strerror}", bundles=bundles)
        return Listing(entries, None, bundles)

    def _bundle(self, path: Path, read_before: Files) -> KeyFile:
        """A file that the configuration names; its content is public."""
        try:
            with Walk(self._trust, read_only_is_enough=True) as walk:
                return self._file(str(path), walk.to(path), None, read_before, has_keys=False)
        except FileNotFoundError:
            return KeyFile("", problem="the file does not exist")
        except OSError as error:
            return KeyFile(_shown(str(path)), problem=f"cannot be examined: {error.strerror}")
        except UntrustedPathError as error:
            return KeyFile(_shown(str(path)), problem=str(error))

    def _entries(self, base: Step, read_before: Files) -> dict[str, tuple[KeyFile, ...]]:
        entries: dict[str, list[KeyFile]] = {}
        for name in sorted(os.listdir(base.again)):
            if name.startswith("."):
                continue
            path = os.path.join(self.directory, name)
            is_folder, (stem, suffix) = os.path.isdir(f"{base.again}/{name}"), os.path.splitext(name)
            if (shown := _shown(name)) != name:
                entries.setdefault(shown, []).append(KeyFile(_shown(path), problem="its name is not printable UTF-8"))
            elif is_folder:
                entries.setdefault(name, []).extend(self._folder(name, path, base, read_before))
            elif suffix in SUFFIXES:
                entries.setdefault(stem, []).extend(self._walked(stem, path, name, base, base, read_before))
        return {name: tuple(files) for name, files in entries.items()}

    def _folder(self, identity: str, folder: str, base: Step, read_before: Files) -> list[KeyFile]:
        """All of it from the same version, which was still in place after it was read: a version that is being removed
        loses its files one by one."""
        reason = "kept being replaced while it was read"
        for _ in range(LOOKS_MAX):
            try:
                with Walk(self._trust) as walk:
                    here = walk.to(identity, base)
                    found = self._files_of(here, identity, folder, base, read_before)
                    if walk.to(identity, base).is_same(here):
                        return found
            except UntrustedPathError as error:
                return [KeyFile(_shown(folder), problem=str(error))]
            except FileNotFoundError as error:
                reason = f"cannot be listed: {error.strerror}"
            except OSError as error:
                return [KeyFile(_shown(folder), problem=f"cannot be listed: {error.strerror}")]
        return [KeyFile(_shown(folder), problem=reason)]

    def _files_of(self, here: Step, identity: str, folder: str, base: Step, read_before: Files) -> list[KeyFile]:
        found: list[KeyFile] = []
        for name in sorted(os.listdir(here.again)):
            if not name.startswith(".") and os.path.splitext(name)[1] in SUFFIXES:
                found += self._walked(identity, os.path.join(folder, name), name, here, base, read_before)
        return found

    def _walked(
        self, identity: str, path: str, name: str, folder: Step, base: Step, read_before: Files
    ) -> list[KeyFile]:
        """The file of this name in `folder`; empty if it has gone since that was listed."""
        try:
            with Walk(self._trust) as walk:
                end = walk.to(name, folder)
                return [self._file(path, end, _not_its_own(identity, end, base, self._trust), read_before)]
        except FileNotFoundError:
            is_link = os.path.islink(f"{folder.again}/{name}")
            return [KeyFile(_shown(path), problem="a symlink to nothing")] if is_link else []
        except UntrustedPathError as error:
            return [KeyFile(_shown(path), problem=str(error))]
        except OSError as error:
            return [KeyFile(_shown(path), problem=f"cannot be examined: {error.strerror}")]

    def _file(self, path: str, file: Step, no_key: str | None, read_before: Files, has_keys: bool = True) -> KeyFile:
        """`no_key`: why no private key is accepted from there. Without `has_keys` none is looked for."""
        status = file.status
        stamp = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns, no_key)
        known = read_before.get(path)
        if known and known[0] == stamp:
            self._read[path] = known
            return known[1]
        read = _read_file(path, file, no_key, has_keys)
        if status.st_ctime_ns < time.time_ns() - SETTLED_NS:
            self._read[path] = (stamp, read)
        return read


def _not_its_own(identity: str, file: Step, base: Step, trust: Trust) -> str | None:
    """Why a private key of this identity must not be here; None if it may."""
    names = file.names_from(base)
    if names is None:
        return (
            f"its private key lies outside the keys directory, in {file.path}: keys are taken from their identity's "
            "own folder only; put the file itself there, not a symlink"
        )
    # The remaining names are the same as in the directory itself, below ..data or whatever the versions are called.
    visible = [name for name in names if not name.startswith(".")]
    is_beside = len(visible) == 1 and os.path.splitext(visible[0])[0] == identity
    if not is_beside and visible[:1] != [identity]:
        return (
            f"its private key is another identity's, in {file.path}: keys are taken from their identity's own folder "
            "only; put the file itself there, not a symlink"
        )
    if file.status.st_nlink > 1 and file.parent is not None and trust.is_open_to_others(file.parent):
        return (
            f"its private key has {file.status.st_nlink} hard links, and other users can create them in its folder: "
            "it could be another identity's; copy the file instead of linking it"
        )
    return None


def _read_file(path: str, file: Step, no_key: str | None, has_keys: bool) -> KeyFile:
    shown = _shown(path)
    if not stat.S_ISREG(file.status.st_mode):
        return KeyFile(shown, problem="not a regular file")
    try:
        certificates, private_keys = _dataplane.read_certificates(file.again)
        if private_keys > 1:
            return KeyFile(shown, problem=f"holds {private_keys} private keys; a file has at most one")
        if not certificates and not private_keys:
            return KeyFile(shown, problem="holds neither a certificate nor a private key in PEM form")
        if private_keys and no_key:
            return KeyFile(shown, problem=no_key)
        key = _dataplane.Key.load(file.again) if private_keys and has_keys else None
    except ValueError as error:
        problem = _shown(str(error)).removeprefix(f"{file.again}: ")
        if not os.access(file.again, os.R_OK, effective_ids=True):
            problem += f"; let the daemon's group read it: chgrp {os.getegid()} FILE && chmod g+r FILE"
        return KeyFile(shown, problem=problem)
    return KeyFile(shown, tuple(certificates), key, None, None if key is None else file.exposure())


def _all_files(listing: Listing) -> Iterable[KeyFile]:
    return (file for files in listing.entries.values() for file in files)


def _good(listing: Listing) -> frozenset[str]:
    return frozenset(file.path for file in _all_files(listing) if file.problem is None)


def _refused(listing: Listing) -> frozenset[str]:
    return frozenset(file.path for file in _all_files(listing) if file.problem is not None)


def _shape(listing: Listing) -> tuple[object, ...]:
    """The features in which two looks must agree."""
    files = (
        (file.path, file.certificates, file.key.key_id if file.key else None, file.problem)
        for file in _all_files(listing)
    )
    return (listing.problem, *files)


def _shown(name: str) -> str:
    """A form fit for logs and messages: file names are bytes, and some are not UTF-8, or would move a cursor."""
    text = os.fsencode(name).decode(errors="backslashreplace")
    return "".join(c if c.isprintable() else "?" for c in text)
