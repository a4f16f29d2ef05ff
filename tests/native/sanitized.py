"""Builds the data plane with sanitizers and runs its Python tests on that build.

    python tests/native/sanitized.py address,undefined [pytest arguments]
    python tests/native/sanitized.py thread [pytest arguments]

The release build in the tree is not touched: the tests see a copy of the package `offload` (links to its files) whose
extension is the sanitized one. Any report of a sanitizer ends the process with an error.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "deploy" / "setup"))

import boringssl  # noqa: E402

DEFAULT_TESTS = ["tests/offload/dataplane"]
TARGETS = ["dataplane", "dataplane_testing"]
RUNTIMES = {"address,undefined": "libasan.so", "thread": "libtsan.so"}
OPTIONS = {
    # Python keeps much until it ends; leaks of the front are looked for by the fuzz target.
    "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=1:strict_string_checks=1:detect_stack_use_after_return=0",
    "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
    "TSAN_OPTIONS": f"halt_on_error=1:suppressions={ROOT / 'tests/native/tsan.supp'}:report_signal_unsafe=0",
}


def run(*command: str | Path) -> None:
    subprocess.run([str(part) for part in command], check=True, cwd=ROOT)


def build(sanitizers: str, folder: Path) -> Path:
    """The sanitized extension."""
    run("cmake", "-G", "Ninja", "-S", ROOT, "-B", folder, f"-DSANITIZE={sanitizers}", "-DCMAKE_BUILD_TYPE=RelWithDebInfo",
        f"-DPython3_EXECUTABLE={sys.executable}")  # fmt: skip
    run("cmake", "--build", folder, "-j2", *(f"--target={target}" for target in TARGETS))
    source = folder / "_dataplane.c"
    run(sys.executable, "-m", "cython", "-3", "offload/_dataplane.pyx", "-o", source)
    extension = folder / f"_dataplane{sysconfig.get_config_var('EXT_SUFFIX')}"
    libraries = [folder / "offload/dataplane/libdataplane.a", folder / "kernels/libkernels.a"]
    libraries.append(boringssl.installed_prefix() / "lib" / "libcrypto.a")
    run("cc", f"-fsanitize={sanitizers}", "-g", "-O1", "-shared", "-fPIC", "-D_GNU_SOURCE", "-I.",
        f"-I{sysconfig.get_paths()['include']}", source, *libraries, "-l:libnghttp2.so.14", "-lstdc++", "-lpthread",
        "-Wl,--exclude-libs,ALL", "-o", extension)  # fmt: skip
    return extension


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
    sanitizers, arguments = sys.argv[1], sys.argv[2:] or DEFAULT_TESTS
    folder = ROOT / "build" / ("sanitized-" + sanitizers.replace(",", "-"))
    package = overlay(build(sanitizers, folder), folder)
    environment = {
        **os.environ,
        **OPTIONS,
        # libstdc++ too: the runtime has to find the function that throws before the extension is loaded.
        "LD_PRELOAD": f"{runtime(RUNTIMES[sanitizers])}:{runtime('libstdc++.so.6')}",
        "PYTHONPATH": f"{package}{os.pathsep}{ROOT}",
        "DATAPLANE_TESTING_LIBRARY": str(folder / "tests/native/libdataplane_testing.so"),
        "SANITIZED": sanitizers,
        "PYTHONMALLOC": "malloc",
    }
    command = [sys.executable, "-P", "-m", "pytest", "-p", "no:cacheprovider", "--timeout=600", *arguments]
    return subprocess.run(command, env=environment, cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
