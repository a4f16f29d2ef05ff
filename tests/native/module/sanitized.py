"""Builds module_tests with sanitizers and runs tests/envoy_ext/test_native.py with it.

    python tests/native/module/sanitized.py address,undefined
    python tests/native/module/sanitized.py thread

BoringSSL and libnghttp2 are not instrumented. The daemon at the other end is the ordinary one.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
SANITIZERS = ("address,undefined", "thread")
OPTIONS = {
    "ASAN_OPTIONS": "detect_leaks=1:abort_on_error=1:strict_string_checks=1",
    "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
    "TSAN_OPTIONS": "halt_on_error=1",
}


def main() -> int:
    if len(sys.argv) != 2 or sys.argv[1] not in SANITIZERS:
        print(f"usage: sanitized.py {' | '.join(SANITIZERS)}", file=sys.stderr)
        return 2
    folder = ROOT / "build" / ("module-" + sys.argv[1].replace(",", "-"))
    configure: list[str | Path] = ["cmake", "-G", "Ninja", "-S", ROOT, "-B", folder, f"-DSANITIZE={sys.argv[1]}"]
    configure += ["-DCMAKE_BUILD_TYPE=RelWithDebInfo", f"-DPython3_EXECUTABLE={sys.executable}"]
    subprocess.run(configure, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    subprocess.run(["cmake", "--build", folder, "-j2", "--target", "module_tests"], check=True, cwd=ROOT)
    environment = {**os.environ, **OPTIONS, "MODULE_TESTS": str(folder / "tests/native/module/module_tests")}
    tests = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "tests/envoy_ext/test_native.py"]
    return subprocess.run(tests, env=environment, cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
