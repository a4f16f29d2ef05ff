"""Minimal Debian roots: made by debootstrap once, copied for each use, entered in namespaces of their own.

    with fresh_root("own-envoy", ["python3", "python3-venv"]) as root:
        root.run("useradd --create-home alice")
        root.run("python3 -m venv try && try/bin/pip install /source", user="alice", binds=[(project, "/source")])

Needs to be root, and debootstrap. Every `run` has mount, process, host name and IPC namespaces of its own: what it
mounts and starts ends with it, whatever happens. The network is the host's, as packages come from there. Archives of
apt, and for each user pip's cache and the native libraries that the build makes, are kept in the host's cache folder.
A root is no sandbox: its user root is the host's. That user's libraries are given to the others, never theirs to him.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from deploy.setup import boringssl
from tests.fresh import host

BASE_DAYS = 14  # then it is made anew: installing on top of old packages would upgrade more each time
APT_FOLDERS = {"archives": "/var/cache/apt/archives", "lists": "/var/lib/apt/lists"}
PIP_CACHE, NATIVE = "/var/cache/pip", "/var/cache/tls-offload"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
NAMESPACES = ("--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--uts", "--ipc")
RECIPE = Path(boringssl.__file__)

Bind = tuple[Path | str, str] | tuple[Path | str, str, str]  # host's path, path in the root, "ro" (default) or "rw"


def missing() -> str | None:
    """Why no root can be made here; None when one can."""
    if os.geteuid() != 0:
        return "a fresh root needs root"
    if shutil.which("debootstrap") is None:
        return "debootstrap is missing: apt-get install debootstrap"
    mount = "mount -t tmpfs test /mnt && mount -t proc proc /mnt"
    done = subprocess.run(["unshare", *NAMESPACES, "sh", "-c", mount], capture_output=True, text=True, check=False)
    return f"namespaces cannot be made and mounted in here: {done.stderr.strip()}" if done.returncode else None


def cache() -> Path:
    """Folder of what roots share and keep."""
    root: Path = boringssl.cache_root()
    return root / "fresh"


class FreshRoot:
    """A root folder and how commands run in it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def command(
        self,
        command: str | Sequence[str],
        user: str | None = None,
        binds: Sequence[Bind] = (),
        environment: Mapping[str, str] | None = None,
        folder: str | None = None,
    ) -> list[str]:
        """The command line, for the host, that runs `command` in the root.

        Text is a script of `sh -e`. `user` is one of the root's users (root unless given); the working folder is its
        home unless `folder` is given. The environment has what a login gives, what the network needs, and
        `environment`.
        """
        line = ["sh", "-e", "-c", command] if isinstance(command, str) else list(command)
        entry = self._user(user or "root")
        variables = {
            "PATH": PATH,
            "HOME": entry.home,
            "USER": entry.name,
            "LOGNAME": entry.name,
            "LANG": "C.UTF-8",
            "TERM": os.environ.get("TERM", "dumb"),
            "TLS_OFFLOAD_CACHE": NATIVE,
            **host.environment(),
            **(environment or {}),
        }
        inside = ["cd", folder or entry.home, "&&", "exec", "setpriv", f"--reuid={entry.uid}", f"--regid={entry.gid}"]
        inside += ["--init-groups", "env", "-i", *(f"{name}={value}" for name, value in variables.items()), *line]
        words = [word if word == "&&" else shlex.quote(word) for word in inside]
        enter = ["chroot", str(self.path), "/bin/sh", "-c", " ".join(words)]
        # Not by exec: the first process of a namespace ignores signals without a handler, and has to reap orphans.
        script = "\n".join(["set -e", *self._mounts(entry, binds), "set +e", shlex.join(enter), "exit $?"])
        # Whoever kills us ends what runs in the root, too.
        return ["setpriv", "--pdeathsig", "KILL", "unshare", *NAMESPACES, "--", "sh", "-c", script]

    def run(
        self,
        command: str | Sequence[str],
        user: str | None = None,
        binds: Sequence[Bind] = (),
        environment: Mapping[str, str] | None = None,
        folder: str | None = None,
        timeout: float = 600,
        check: bool = True,
        show: bool = False,
    ) -> subprocess.CompletedProcess[str]:
        """Run `command` (see `command`) to its end; with `show`, output goes to this process's own.

        Raises subprocess.CalledProcessError, with the output, when it fails and `check` is set, and TimeoutExpired.
        Processes that it leaves in the background end with it.
        """
        line = self.command(command, user, binds, environment, folder)
        output = None if show else subprocess.PIPE
        error = None if show else subprocess.STDOUT
        done = subprocess.run(
            line, stdin=subprocess.DEVNULL, stdout=output, stderr=error, text=True, timeout=timeout, check=False
        )
        if check and done.returncode:
            failed = subprocess.CalledProcessError(done.returncode, command, done.stdout)
            failed.add_note(done.stdout or "")
            raise failed
        return done

    def install(self, packages: Sequence[str]) -> None:
        """Install Debian packages, without what they only recommend."""
        quiet = "apt-get install --yes --quiet=2 --no-install-recommends -o Dpkg::Use-Pty=0 "
        self.run(
            "apt-get update --quiet=2\n" + quiet + shlex.join(packages),
            environment={"DEBIAN_FRONTEND": "noninteractive"},
            timeout=900,
        )
        self.keep_archives()

    def keep_archives(self) -> None:
        """Keep what apt has downloaded, for the next root. Not a shared folder, as apt locks its folders."""
        for name, folder in APT_FOLDERS.items():
            for file in (self.path / folder.lstrip("/")).iterdir():
                kept = cache() / name / file.name
                if file.is_file() and file.name != "lock" and not _same(file, kept):
                    with tempfile.TemporaryDirectory(prefix=".keep-", dir=cache()) as scratch:
                        staged = Path(shutil.copy2(file, scratch))
                        staged.replace(kept)

    def seed_archives(self) -> None:
        for name, folder in APT_FOLDERS.items():
            shutil.copytree(cache() / name, self.path / folder.lstrip("/"), dirs_exist_ok=True)

    def _user(self, name: str) -> _User:
        for line in (self.path / "etc/passwd").read_text().splitlines():
            fields = line.split(":")
            if fields[0] == name:
                return _User(name, int(fields[2]), int(fields[3]), fields[5])
        raise KeyError(f"{self.path} has no user {name}: useradd makes one")

    def _mounts(self, user: _User, binds: Sequence[Bind]) -> list[str]:
        """Shell lines that mount what a running system has, the caches, and `binds`."""
        own = {PIP_CACHE: cache() / f"pip-{user.uid}", NATIVE: _native_libraries(user)}
        for folder in own.values():
            folder.mkdir(parents=True, exist_ok=True)
            os.chown(folder, user.uid, user.gid)
        wanted: list[Bind] = [
            ("/sys", "/sys"),
            *((folder, target, "rw") for target, folder in own.items()),
            *((path, str(path)) for path in host.pip_paths() if not (self.path / path.relative_to("/")).is_file()),
        ]
        wanted += [(f"/dev/{name}", f"/dev/{name}", "rw") for name in DEVICES]
        lines = [
            f"mount -t tmpfs -o mode=755,nosuid dev {self._quoted('/dev')}",
            f"mkdir {self._quoted('/dev/pts')} {self._quoted('/dev/shm')}",
            f"mount -t devpts -o newinstance,ptmxmode=666 devpts {self._quoted('/dev/pts')}",
            f"mount -t tmpfs -o mode=1777,nosuid,nodev shm {self._quoted('/dev/shm')}",
            f"ln -s pts/ptmx {self._quoted('/dev/ptmx')}",
            f"ln -s /proc/self/fd {self._quoted('/dev/fd')}",
            f"mount -t proc proc {self._quoted('/proc')}",
        ]
        for source, target, *mode in [*wanted, *binds]:
            lines += self._bind(Path(source), target, mode[0] if mode else "ro")
        return lines

    def _bind(self, source: Path, target: str, mode: str) -> list[str]:
        at, text = self._quoted(target), shlex.quote(str(source))
        folder = shlex.quote(str((self.path / target.lstrip("/")).parent))
        make = f"mkdir -p {at}" if source.is_dir() else f"mkdir -p {folder}; touch {at}"
        read_only = [f"mount -o remount,bind,ro {at}"] if mode == "ro" else []
        return [make, f"mount --{'rbind' if target == '/sys' else 'bind'} {text} {at}", *read_only]

    def _quoted(self, target: str) -> str:
        return shlex.quote(str(self.path / target.lstrip("/")))


def _same(one: Path, other: Path) -> bool:
    if not other.is_file():
        return False
    first, second = one.stat(), other.stat()
    return (first.st_size, int(first.st_mtime)) == (second.st_size, int(second.st_mtime))


class _User:
    def __init__(self, name: str, uid: int, gid: int, home: str) -> None:
        self.name, self.uid, self.gid, self.home = name, uid, gid, home


def _native_libraries(user: _User) -> Path:
    """Where a user's native libraries are kept: apart for each recipe, as a change of it has to be tried."""
    files = (RECIPE, RECIPE.parent / "boringssl_build" / "CMakeLists.txt")
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:12]
    folder, of_root = (cache() / f"native-{digest}-{uid}" for uid in (user.uid, 0))
    if not folder.exists() and of_root.exists():
        with tempfile.TemporaryDirectory(prefix=".native-", dir=cache()) as scratch:
            staged = shutil.copytree(of_root, Path(scratch) / "libraries", ignore=shutil.ignore_patterns(".*"))
            for path in (staged, *staged.rglob("*")):
                os.chown(path, user.uid, user.gid)
            staged.rename(folder)
    return folder


def _base() -> Path:
    """The archive of the minimal root, made by debootstrap when there is none or it is old."""
    source = host.apt_source()
    digest = hashlib.sha256(f"{host.SUITE} {source}".encode()).hexdigest()[:12]
    archive = cache() / f"{host.SUITE}-{digest}.tar"
    if archive.is_file() and time.time() - archive.stat().st_mtime < BASE_DAYS * 86400:
        return archive
    (cache() / "debootstrap").mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".base-", dir=cache()) as scratch:
        folder, log = Path(scratch) / "root", Path(scratch) / "log"
        line = ["debootstrap", "--variant=minbase", f"--cache-dir={cache() / 'debootstrap'}", host.SUITE, str(folder)]
        line += [source] if source else []
        # In a mount namespace of its own, so that the /proc it mounts ends with it.
        made = ["unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", *line]
        with log.open("w") as output:
            done = subprocess.run(made, stdout=output, stderr=subprocess.STDOUT, check=False)
        if done.returncode:
            raise RuntimeError(f"debootstrap failed with {done.returncode}:\n{log.read_text()[-3000:]}")
        staged = Path(scratch) / "tar"
        subprocess.run(
            [
                "tar",
                "--create",
                "--file",
                str(staged),
                "--directory",
                str(folder),
                "--numeric-owner",
                "--one-file-system",
                ".",
            ],
            check=True,
        )
        staged.rename(archive)
    return archive


def make_root(name: str, packages: Sequence[str] = (), folder: Path | None = None) -> FreshRoot:
    """A new minimal root with `packages`, in a new folder within `folder` (the temporary folder unless given).

    Whoever calls removes it with `remove`, or uses `fresh_root`.
    """
    for kept in APT_FOLDERS:
        (cache() / kept).mkdir(parents=True, exist_ok=True)
    base = _base()
    path = Path(tempfile.mkdtemp(prefix=f"fresh-{name}-", dir=folder))
    try:
        path.chmod(0o755)
        subprocess.run(
            ["tar", "--extract", "--file", str(base), "--directory", str(path), "--numeric-owner"], check=True
        )
        host.configure(path, PIP_CACHE)
        root = FreshRoot(path)
        root.seed_archives()
        if packages:
            root.install(packages)
    except BaseException:
        remove(FreshRoot(path))
        raise
    return root


def remove(root: FreshRoot) -> None:
    """Delete the root's folder. Nothing is mounted in it on the host, so nothing else can be deleted."""
    shutil.rmtree(root.path)


@contextlib.contextmanager
def fresh_root(name: str, packages: Sequence[str] = (), folder: Path | None = None) -> Iterator[FreshRoot]:
    """`make_root`, removed in the end."""
    root = make_root(name, packages, folder)
    try:
        yield root
    finally:
        remove(root)
