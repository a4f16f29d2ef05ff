"""Builds the native parts: CMake makes the C libraries and the Envoy module, Cython the Python extensions.

BoringSSL is built first where it is missing (deploy/setup/boringssl.py), into the user's cache folder.
TLS_OFFLOAD_TESTING=1 also builds the extensions with testing hooks (known nonces, fault injection); never set it for a
release. TLS_OFFLOAD_WERROR=1 makes every warning in our C and C++ an error (CI sets it).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.modified import newer_group

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT / "deploy" / "setup"))

import boringssl  # noqa: E402  (found by the line above: the build must not need an installed package)

PROTO_ROOT = ROOT / "offload" / "proto"
TESTING = os.environ.get("TLS_OFFLOAD_TESTING") == "1"
WARNINGS_ARE_ERRORS = os.environ.get("TLS_OFFLOAD_WERROR") == "1"
# Package, folder in the build, files.
COPIED = (
    ("envoy_ext", "envoy_ext/module", ("libtls_offload.so", "libnghttp2.so.14")),
    ("offload", "benchmarks/native", ("keyload",)),
)


def native_extensions() -> list[Extension]:
    """The Cython extensions; what they link is filled in once CMake has made it."""
    extensions = [
        Extension("kernels._kernels", ["kernels/_kernels.pyx"]),
        Extension("offload._dataplane", ["offload/_dataplane.pyx"]),
    ]
    if TESTING:
        extensions.append(Extension("kernels._testing", ["kernels/_testing.pyx"]))
    return [e for e in extensions if (ROOT / e.sources[0]).is_file()]


class BuildNative(build_ext):
    """`build_ext` that first runs CMake and the protocol compiler."""

    def run(self) -> None:
        self.boringssl_prefix = boringssl.install()  # once per user and pin; then it is there
        # Of the tools of tests and benchmarks only keyload is installed: `offload bench` loads a service with it.
        native = self.cmake("native", [], ["all"] if TESTING else ["kernels", "dataplane", "tls_offload", "keyload"])
        testing = self.cmake("native-testing", ["-DTESTING_HOOKS=ON"], ["kernels"]) if TESTING else native
        self.compile_protocols()
        for extension in self.extensions:
            self.link(extension, testing if extension.name.endswith("._testing") else native)
        super().run()
        if TESTING:
            self.link_faulty_data_plane(native, testing)
        self.copy_built(native)

    def cmake(self, folder: str, options: list[str], targets: list[str]) -> Path:
        build = ROOT / "build" / folder
        self.announce(f"building the native libraries in build/{folder}", level=2)
        # Every time: pip brings a Ninja of its own for each build, and CMake would go on with the one that is gone.
        ninja = [f"-DCMAKE_MAKE_PROGRAM={path}"] if (path := shutil.which("ninja")) else []
        subprocess.run(
            ["cmake", "-G", "Ninja", "-S", str(ROOT), "-B", str(build), f"-DPython3_EXECUTABLE={sys.executable}"]
            + [f"-DBORINGSSL_PREFIX={self.boringssl_prefix}", *ninja, *options]
            + [f"-DWARNINGS_ARE_ERRORS={'ON' if WARNINGS_ARE_ERRORS else 'OFF'}"],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        subprocess.run(["cmake", "--build", str(build), *(f"--target={t}" for t in targets)], check=True)
        return build

    def compile_protocols(self) -> None:
        """offload/proto/offload/v1/*.proto become the package offload.v1."""
        from grpc_tools import protoc

        for output in {ROOT, Path(self.build_lib) if not self.inplace else ROOT}:
            (output / "offload" / "v1").mkdir(parents=True, exist_ok=True)
            arguments = [f"--{kind}_out={output}" for kind in ("python", "pyi", "grpc_python")]
            protos = sorted(str(p) for p in PROTO_ROOT.glob("offload/v1/*.proto"))
            if protoc.main(["protoc", f"-I{PROTO_ROOT}", *arguments, *protos]) != 0:
                raise SystemExit("error: the protocol definitions in offload/proto do not compile")

    def link(self, extension: Extension, build: Path) -> None:
        libraries = [build / "kernels" / "libkernels.a", self.boringssl_prefix / "lib" / "libcrypto.a"]
        if extension.name == "offload._dataplane":
            libraries.insert(0, build / "offload" / "dataplane" / "libdataplane.a")
            libraries.insert(-1, self.boringssl_prefix / "lib" / "libssl.a")
            extension.libraries += [":libnghttp2.so.14"]
        import numpy

        extension.include_dirs += [str(ROOT), numpy.get_include()]
        extension.define_macros += [("_GNU_SOURCE", "1"), ("NPY_NO_DEPRECATED_API", "NPY_1_7_API_VERSION")]
        extension.define_macros += [("TESTING_HOOKS", "1")] if extension.name.endswith("._testing") else []
        extension.extra_objects += [str(path) for path in libraries]
        extension.depends += [str(path) for path in libraries]
        extension.libraries += ["stdc++", "pthread"]
        extension.extra_compile_args += ["-O2", "-fvisibility=hidden"]
        extension.extra_link_args += ["-Wl,--exclude-libs,ALL"]

    def link_faulty_data_plane(self, native: Path, testing: Path) -> None:
        """The data plane over the kernels with testing hooks, for a daemon whose lanes go wrong (tests/faults).

        Not in a package, but in build/native-testing/offload: only who puts that first gets it.
        """
        name = "offload._dataplane"
        target = testing / self.get_ext_filename(name)
        archives = [native / "offload/dataplane/libdataplane.a", testing / "kernels/libkernels.a"]
        archives += [self.boringssl_prefix / "lib" / name for name in ("libssl.a", "libcrypto.a")]
        inputs = [str(Path(self.build_temp) / "offload" / "_dataplane.o"), *(str(path) for path in archives)]
        if newer_group(inputs, str(target)):
            libraries = [":libnghttp2.so.14", "stdc++", "pthread"]
            self.compiler.link_shared_object(
                inputs, str(target), libraries=libraries, extra_postargs=["-Wl,--exclude-libs,ALL"]
            )

    def copy_built(self, build: Path) -> None:
        """What is no Python extension goes into its package."""
        for package, folder, names in COPIED:
            destination = (ROOT if self.inplace else Path(self.build_lib)) / package
            destination.mkdir(parents=True, exist_ok=True)
            for name in names:
                # Renamed into place: a process that has the old file mapped keeps it.
                shutil.copy2(build / folder / name, destination / f".{name}.new")
                (destination / f".{name}.new").rename(destination / name)


setup(
    ext_modules=cythonize(native_extensions(), language_level=3, quiet=True, nthreads=2),
    cmdclass={"build_ext": BuildNative},
)
