"""Builds the data plane with sanitizers and runs its Python tests on that build.

    python tests/native/sanitized.py address,undefined [tests and arguments of pytest]
    python tests/native/sanitized.py thread [tests and arguments of pytest]

Sanitized are the C of offload/dataplane, the Cython extension, and kernels/certificate_request.c, which is called from
there; the other kernels, which have a run of their own, come from the ordinary build in build/native (`make build`).
The release build is not touched: the tests see a package `offload` of links to its files, whose extension is the
sanitized one. Any report of a sanitizer ends the run with an error.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NATIVE = ROOT / "build" / "native"
DATAPLANE = ROOT / "offload" / "dataplane"
sys.path.insert(0, str(ROOT / "deploy" / "setup"))

import boringssl  # noqa: E402

DEFAULT_TESTS = ["tests/offload/dataplane", "tests/offload/test_certificate_request.py"]
# Of the kernels, what only the data plane's extension calls.
KERNELS = (ROOT / "kernels" / "certificate_request.c",)
RUNTIMES = {"address,undefined": "libasan.so", "thread": "libtsan.so"}
SUPPRESSIONS = ROOT / "tests" / "native" / "tsan.supp"
OPTIONS = {
    # Python keeps much until it ends; leaks of the front are looked for by the fuzz target.
    "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=1:strict_string_checks=1:detect_stack_use_after_return=0",
    "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
    # Only the data plane is built with it: what other libraries lock is not seen, so their accesses are not counted.
    "TSAN_OPTIONS": f"halt_on_error=1:ignore_noninstrumented_modules=1:suppressions={SUPPRESSIONS}",
}
# The pure parts that the tests call through ctypes, as in tests/native/CMakeLists.txt.
PURE = (
    "wire",
    "wire_identity",
    "wire_watch",
    "batcher",
    "cost_model",
    "deadlines",
    "usage",
    "authorize",
    "header_values",
)


def run(*command: str | Path) -> None:
    subprocess.run([str(part) for part in command], check=True, cwd=ROOT)


class Build:
    def __init__(self, sanitizers: str, folder: Path) -> None:
        self.folder = folder
        self.flags = [f"-fsanitize={sanitizers}", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer", "-g", "-O1"]
        self.flags += ["-std=gnu11", "-fPIC", "-D_GNU_SOURCE", "-I.", f"-I{sysconfig.get_paths()['include']}"]
        self.flags += ["-isystem", f"{boringssl.installed_prefix() / 'include'}"]
        kernels = sorted((NATIVE / "kernels").glob("lib*.a"))
        self.libraries: list[str | Path] = [NATIVE / "kernels" / "libkernels.a", *kernels]
        boring = boringssl.installed_prefix() / "lib"
        self.libraries += [boring / "libssl.a", boring / "libcrypto.a", "-l:libnghttp2.so.14"]
        self.libraries += ["-lstdc++", "-lpthread"]
        folder.mkdir(parents=True, exist_ok=True)

    def compile(self, source: Path) -> Path:
        made = self.folder / f"{source.stem}.o"
        # What Cython writes has unused parts.
        warnings = [] if source.name == "_dataplane.c" else ["-Wall", "-Wextra", "-Wno-unused-parameter", "-Werror"]
        run("cc", *self.flags, *warnings, "-c", source, "-o", made)
        return made

    def link(self, name: str, objects: list[Path]) -> Path:
        made = self.folder / name
        run("cc", *self.flags, "-shared", *objects, *self.libraries, "-o", made)
        return made

    def program(self, name: str, objects: list[Path]) -> Path:
        made = self.folder / name
        run("cc", *self.flags, *objects, *self.libraries, "-o", made)
        return made

    def make(self) -> tuple[Path, Path, Path]:
        """The extension, the library of the pure parts, and front_shares."""
        extension = self.folder / "_dataplane.c"
        run(sys.executable, "-m", "cython", "-3", "offload/_dataplane.pyx", "-o", extension)
        shim = ROOT / "tests" / "native" / "dataplane" / "batching" / "batcher_shim.c"
        shares = ROOT / "tests" / "native" / "dataplane" / "grpc" / "shares.c"
        keys = NATIVE / "offload" / "dataplane" / "calibration_keys.c"
        sources = [*DATAPLANE.glob("*.c"), *DATAPLANE.glob("*/*.c"), *KERNELS, keys, extension, shim, shares]
        with ThreadPoolExecutor(2) as pool:
            objects = {source.stem: made for source, made in zip(sources, pool.map(self.compile, sources), strict=True)}
        pure = [objects[name] for name in PURE]
        of_extension = [made for name, made in objects.items() if name not in (shim.stem, shares.stem)]
        of_shares = [made for name, made in objects.items() if name not in (shim.stem, extension.stem)]
        return (
            self.link(f"_dataplane{sysconfig.get_config_var('EXT_SUFFIX')}", of_extension),
            self.link("libdataplane_testing.so", [objects[shim.stem], *pure]),
            self.program("front_shares", of_shares),
        )


def overlay(extension: Path, folder: Path) -> Path:
    """A folder with a package `offload` like the one in the tree, except for the extension."""
    package = folder / "overlay" / "offload"
    shutil.rmtree(package.parent, ignore_errors=True)
    package.mkdir(parents=True)
    for entry in (ROOT / "offload").iterdir():
        if not entry.name.startswith("_dataplane.cpython") and entry.name != "__pycache__":
            (package / entry.name).symlink_to(entry)
    (package / extension.name).symlink_to(extension)
    return package.parent


def runtime(name: str) -> str:
    found = subprocess.run(["cc", f"-print-file-name={name}"], capture_output=True, text=True, check=True)
    return found.stdout.strip()


def main() -> int:
    if len(sys.argv) < 2 or sys.argv[1] not in RUNTIMES:
        print(f"usage: sanitized.py {' | '.join(RUNTIMES)} [pytest arguments]", file=sys.stderr)
        return 2
    sanitizers, arguments = sys.argv[1], sys.argv[2:]
    if not any(argument.startswith("tests") for argument in arguments):
        arguments += DEFAULT_TESTS
    folder = ROOT / "build" / ("sanitized-" + sanitizers.replace(",", "-"))
    print(f"== building the data plane with -fsanitize={sanitizers}", flush=True)
    extension, testing_library, shares = Build(sanitizers, folder).make()
    environment = {
        **os.environ,
        # libstdc++ too: the runtime has to find the function that throws before the extension is loaded.
        "LD_PRELOAD": f"{runtime(RUNTIMES[sanitizers])}:{runtime('libstdc++.so.6')}",
        "PYTHONPATH": f"{overlay(extension, folder)}{os.pathsep}{ROOT}",
        "DATAPLANE_TESTING_LIBRARY": str(testing_library),
        "FRONT_SHARES": str(shares),
        "SANITIZED": sanitizers,
        "PYTHONMALLOC": "malloc",
    }
    # Reports go to files: pytest holds back what a process that is ended has written.
    report = folder / "report"
    for old in folder.glob("report.*"):
        old.unlink()
    for name in OPTIONS:
        environment[name] = f"{OPTIONS[name]}:log_path={report}"
    command = [sys.executable, "-P", "-m", "pytest", "-p", "no:cacheprovider", "--timeout=600", *arguments]
    status = subprocess.run(command, env=environment, cwd=ROOT, check=False).returncode
    reports = sorted(folder.glob("report.*"))
    for found in reports:
        print(f"== {found.name}\n{found.read_text(errors='replace')}", file=sys.stderr)
    return 1 if reports else status


if __name__ == "__main__":
    sys.exit(main())
