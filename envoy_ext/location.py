"""Where the module's shared object is."""

from __future__ import annotations

from pathlib import Path

MODULE_NAME = "tls_offload"
LIBRARY_NAME = f"lib{MODULE_NAME}.so"
# Envoy looks for `lib<name>.so` in this folder when the configuration names a module instead of a file.
SEARCH_PATH_VARIABLE = "ENVOY_DYNAMIC_MODULES_SEARCH_PATH"


class ModuleMissing(RuntimeError):
    """The module has not been built; the message says how to build it."""


def module_directory() -> Path:
    """The folder with the module and its libnghttp2, for $ENVOY_DYNAMIC_MODULES_SEARCH_PATH. ModuleMissing."""
    folder = Path(__file__).resolve().parent
    missing = [name for name in (LIBRARY_NAME, "libnghttp2.so.14") if not (folder / name).is_file()]
    if missing:
        raise ModuleMissing(f"{folder} has no {' and no '.join(missing)}; build it with: make build")
    return folder


def module_library() -> Path:
    """The shared object itself, for configurations that name the file. ModuleMissing."""
    return module_directory() / LIBRARY_NAME
