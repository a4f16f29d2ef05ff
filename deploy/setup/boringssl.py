"""Builds BoringSSL from the pinned source distribution of grpcio into a cache folder.

The compiler is clang where the host has it, as for Envoy's own BoringSSL: P-256 and Ed25519 are then twice as fast as
with gcc (decision 0066). The cache folder is named for the compiler and for the SHA-256 of the source archive, so a new
pin builds beside the old one and nothing is ever rebuilt by accident. The result is static, position-independent and
has BoringSSL's assembly:

    <cache>/include/openssl/*.h
    <cache>/lib/libcrypto.a, libssl.a
    <cache>/compiler.txt              the compiler's name and version, one line

Run as a script it builds what is missing and prints the folder. `setup.py` imports `installed_prefix` to find it.
"""

from __future__ import annotations

import ast
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

GRPCIO_VERSION = "1.85.1"
GRPCIO_SHA256 = "5f530287d5de5f7f66089ead81de44f6787162944dab3922efa65dfdff108a1d"
BORINGSSL_FOLDER = "third_party/boringssl-with-bazel"

HERE = Path(__file__).resolve().parent
STATIC_LIBRARIES = ("libcrypto.a", "libssl.a")


class NativeLibraryMissing(RuntimeError):
    """BoringSSL has not been built yet; the message says how to build it."""


def cache_root() -> Path:
    """Folder of all native libraries: $TLS_OFFLOAD_CACHE, else the user's cache folder."""
    configured = os.environ.get("TLS_OFFLOAD_CACHE")
    if configured:
        return Path(configured)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "tls-offload"


@dataclass(frozen=True)
class Compiler:
    name: str  # in the cache folder's name
    c: str
    cxx: str


CLANG = Compiler("clang", "clang", "clang++")
DEFAULT = Compiler("cc", "cc", "c++")


def compiler() -> Compiler:
    """clang, or what the system calls cc."""
    return CLANG if shutil.which(CLANG.c) and shutil.which(CLANG.cxx) else DEFAULT


def prefix(built_by: Compiler) -> Path:
    """Where the pinned BoringSSL is, or would be, installed."""
    return cache_root() / f"boringssl-{GRPCIO_SHA256[:16]}-{built_by.name}"


def is_installed(built_by: Compiler) -> bool:
    return all((prefix(built_by) / "lib" / name).is_file() for name in STATIC_LIBRARIES)


def installed_prefix() -> Path:
    """The prefix of an existing build, clang's first; raises NativeLibraryMissing with the way out."""
    for built_by in (CLANG, DEFAULT):
        if is_installed(built_by):
            return prefix(built_by)
    raise NativeLibraryMissing(
        f"BoringSSL is not built: {prefix(compiler())} has no {' and '.join(STATIC_LIBRARIES)}.\n"
        "Build it once with:  python deploy/setup/boringssl.py   (or: make native)"
    )


def compiler_version() -> str:
    """What built the installed BoringSSL, for reports: "Debian clang version 14.0.6"."""
    return (installed_prefix() / "compiler.txt").read_text().strip()


def say(message: str) -> None:
    print(f"[boringssl] {message}", file=sys.stderr, flush=True)


def download(folder: Path) -> Path:
    """Fetches the grpcio source distribution with pip and checks its hash."""
    say(f"downloading the source distribution of grpcio {GRPCIO_VERSION}")
    subprocess.run(
        [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary=grpcio"]
        + [f"--dest={folder}", f"grpcio=={GRPCIO_VERSION}"],
        check=True,
    )
    archives = list(folder.glob("grpcio-*.tar.gz"))
    if len(archives) != 1:
        raise RuntimeError(f"pip left {len(archives)} source archives in {folder}, expected one")
    digest = hashlib.sha256(archives[0].read_bytes()).hexdigest()
    if digest != GRPCIO_SHA256:
        raise RuntimeError(
            f"{archives[0].name}: SHA-256 is {digest}, the pin is {GRPCIO_SHA256}.\n"
            "The archive is not the one this project was tested with; nothing was built."
        )
    return archives[0]


def unpack(archive: Path, folder: Path) -> Path:
    """Extracts only BoringSSL and grpcio's list of its sources."""
    wanted = (BORINGSSL_FOLDER + "/", "src/python/grpcio/grpc_core_dependencies.py")
    with tarfile.open(archive) as tar:
        top = tar.getnames()[0].split("/")[0]
        members = [m for m in tar.getmembers() if m.name.removeprefix(top + "/").startswith(wanted)]
        # The hash was checked, so the archive is trusted; Debian 12's Python has no `filter` argument yet.
        tar.extractall(folder, members=members)  # noqa: S202
    return folder / top


def source_lists(tree: Path) -> dict[str, list[str]]:
    """The sources of libcrypto and libssl, read from grpcio's own build lists without running them."""
    text = (tree / "src/python/grpcio/grpc_core_dependencies.py").read_text()
    lists: dict[str, Any] = {}
    for node in ast.parse(text).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            lists[node.targets[0].id] = ast.literal_eval(node.value)
    core: list[str] = [s for s in lists["CORE_SOURCE_FILES"] if s.startswith(BORINGSSL_FOLDER)]
    assembly = [s for s in lists["ASM_SOURCE_FILES"]["crypto_asm"] if s.startswith(BORINGSSL_FOLDER)]
    ssl = [s for s in core if s.startswith(BORINGSSL_FOLDER + "/ssl/")]
    crypto = [s for s in core if s not in ssl] + assembly
    return {"crypto": crypto, "ssl": ssl}


def compile_into(tree: Path, destination: Path, work: Path, built_by: Compiler) -> None:
    lists = source_lists(tree)
    asked = subprocess.run([built_by.c, "--version"], check=True, capture_output=True, text=True)
    version = asked.stdout.splitlines()[0]
    files = f"{len(lists['crypto'])} files of libcrypto and {len(lists['ssl'])} of libssl"
    say(f"building {files} with {version} (about 90 s on 2 cores)")
    if built_by is not CLANG:
        say("clang is missing: P-256 and Ed25519 in software take about twice as long (apt-get install clang)")
    for name, sources in lists.items():
        (work / f"{name}.list").write_text(";".join(str(tree / s) for s in sources))
    build = work / "build"
    subprocess.run(
        ["cmake", "-G", "Ninja", "-S", str(HERE / "boringssl_build"), "-B", str(build)]
        + [f"-DBORINGSSL_SOURCE={tree / BORINGSSL_FOLDER}", f"-DLISTS={work}"]
        + [f"-DCMAKE_INSTALL_PREFIX={destination}"]
        + [f"-DCMAKE_C_COMPILER={built_by.c}", f"-DCMAKE_CXX_COMPILER={built_by.cxx}"],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    subprocess.run(["cmake", "--build", str(build), "--target", "install"], check=True, stdout=sys.stderr)
    (destination / "compiler.txt").write_text(version + "\n")


def install() -> Path:
    """Builds BoringSSL unless it exists; returns its prefix."""
    built_by = compiler()
    destination = prefix(built_by)
    if is_installed(built_by):
        return destination
    destination.parent.mkdir(parents=True, exist_ok=True)
    # Built in a scratch folder and renamed, so that an interrupted build never looks finished.
    with tempfile.TemporaryDirectory(prefix="tls-offload-boringssl-") as scratch:
        work = Path(scratch)
        staged = Path(tempfile.mkdtemp(prefix=".staged-", dir=destination.parent))
        try:
            compile_into(unpack(download(work), work), staged, work, built_by)
            shutil.rmtree(destination, ignore_errors=True)
            staged.rename(destination)
        finally:
            shutil.rmtree(staged, ignore_errors=True)
    say(f"installed in {destination}")
    return destination


if __name__ == "__main__":
    print(install())
