"""Builds the kernels with sanitizers and runs their Python tests on that build.

    python tests/kernels/sanitized.py address,undefined [pytest arguments]

As tests/native/sanitized.py does for the data plane: the tests see a copy of the package `kernels` whose extensions
are the sanitized ones. Secret memory comes from malloc there, so that each allocation is watched; the tests of locking
skip.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests" / "native"), str(ROOT / "deploy" / "setup")]

import boringssl  # noqa: E402
import sanitized as native  # noqa: E402

# These folders build programs of their own, with the flags that they need.
DEFAULT_TESTS = ["tests/kernels", "--ignore=tests/kernels/ifma8", "--ignore=tests/kernels/constant_time"]
SUFFIX = sysconfig.get_config_var("EXT_SUFFIX")
# The face without hooks is linked to the same library here: that is one build of the kernels less.
EXTENSIONS = ["_kernels", "_testing"]
# Debuggers follow variables less well; the straight-line kernels otherwise take the compiler a quarter of an hour.
FAST = ["-DCMAKE_BUILD_TYPE=Release", "-DCMAKE_C_FLAGS=-fno-var-tracking -fno-var-tracking-assignments"]


def build(sanitizers: str, folder: Path) -> None:
    native.run("cmake", "-G", "Ninja", "-S", ROOT, "-B", folder, f"-DSANITIZE={sanitizers}", "-DTESTING_HOOKS=ON",
               f"-DPython3_EXECUTABLE={sys.executable}", *FAST)  # fmt: skip
    native.run("cmake", "--build", folder, "-j2", "--target=kernels")
    libraries = [folder / "kernels/libkernels.a", boringssl.installed_prefix() / "lib" / "libcrypto.a"]
    for name in EXTENSIONS:
        source = folder / f"{name}.c"
        native.run(sys.executable, "-m", "cython", "-3", f"kernels/{name}.pyx", "--module-name", f"kernels.{name}",
                   "-I", "kernels", "-o", source)  # fmt: skip
        native.run("cc", f"-fsanitize={sanitizers}", "-g", "-O1", "-shared", "-fPIC", "-D_GNU_SOURCE",
                   "-DTESTING_HOOKS=1", "-I.", f"-I{sysconfig.get_paths()['include']}", source, *libraries, "-lstdc++",
                   "-lpthread", "-Wl,--exclude-libs,ALL", "-o", folder / f"{name}{SUFFIX}")  # fmt: skip


def overlay(folder: Path) -> Path:
    package = folder / "overlay" / "kernels"
    shutil.rmtree(package.parent, ignore_errors=True)
    package.mkdir(parents=True)
    (package / "__init__.py").symlink_to(ROOT / "kernels" / "__init__.py")
    for name in EXTENSIONS:
        (package / f"{name}{SUFFIX}").symlink_to(folder / f"{name}{SUFFIX}")
    return package.parent


def main() -> int:
    if len(sys.argv) < 2 or sys.argv[1] not in native.RUNTIMES:
        print(f"usage: sanitized.py {' | '.join(native.RUNTIMES)} [pytest arguments]", file=sys.stderr)
        return 2
    sanitizers, arguments = sys.argv[1], sys.argv[2:] or DEFAULT_TESTS
    folder = ROOT / "build" / ("sanitized-kernels-" + sanitizers.replace(",", "-"))
    build(sanitizers, folder)
    environment = {
        **os.environ,
        **native.OPTIONS,
        "LD_PRELOAD": f"{native.runtime(native.RUNTIMES[sanitizers])}:{native.runtime('libstdc++.so.6')}",
        "PYTHONPATH": f"{overlay(folder)}{os.pathsep}{ROOT}",
        "SANITIZED": sanitizers,
        "PYTHONMALLOC": "malloc",
    }
    command = [sys.executable, "-P", "-m", "pytest", "-p", "no:cacheprovider", "--timeout=1200", *arguments]
    return subprocess.run(command, env=environment, cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
