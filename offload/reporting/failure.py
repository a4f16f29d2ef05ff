"""How a command fails: with a sentence that names the thing and the way out, and an exit code of `exit_codes`.

`offload` and `mesh` go through `ended`, so that no mistake of their users shows a traceback.
"""

from __future__ import annotations

import errno
import re
import ssl
import sys
import traceback
from collections.abc import Callable, Mapping
from typing import NoReturn

from offload.reporting import exit_codes

# What to do, by the system's reason.
_WAYS_OUT = {
    errno.ENOENT: "no such file or folder; check the path",
    errno.ENOTDIR: "a part of its path is a file, not a folder; check the path",
    errno.EISDIR: "it is a folder; a file is expected",
    errno.EACCES: "permission denied; become a user who has it, or use sudo",
    errno.EPERM: "permission denied; become a user who has it, or use sudo",
    errno.EEXIST: "it already exists; choose another, or remove it",
    errno.ENOSPC: "the disk is full",
    errno.EROFS: "the file system is read-only",
    errno.EADDRINUSE: "another process uses this address; stop it, or choose another port",
    errno.EADDRNOTAVAIL: "this host has no such address; choose one that it has",
    errno.EMFILE: "too many open files; raise `ulimit -n`",
    errno.ENOMEM: "not enough memory, or the limit of locked memory is reached (`ulimit -l`)",
    errno.EAGAIN: "a limit of this user or host is reached (`ulimit -a`)",
}
_LIBRARIES = {"libnghttp2.so.14": "apt-get install libnghttp2-14"}


def of_system(error: OSError) -> str:
    """An OSError in words, without its number: file, reason, way out. An error with our own text keeps it."""
    if error.errno is None or error.strerror is None or isinstance(error, ssl.SSLError):
        return str(error)
    names = [str(name) for name in (error.filename, error.filename2) if name is not None]
    said = _WAYS_OUT.get(error.errno, f"{error.strerror[:1].lower()}{error.strerror[1:]}")
    return f"{' and '.join(names)}: {said}" if names else said


def of_import(error: ImportError) -> str:
    """A missing library or package, in words."""
    if found := re.match(
        r"(?:\S*/)?(?P<library>[\w.+-]+\.so[\w.]*): (?:cannot open|file too short|invalid)", str(error)
    ):
        library = found["library"]
        way_out = f"install it: {_LIBRARIES[library]}" if library in _LIBRARIES else "install the package that has it"
        return f"the library {library} cannot be loaded on this host; {way_out}"
    if isinstance(error, ModuleNotFoundError):
        return f"the Python package '{error.name}' is not installed here; install this project again: pip install ."
    return f"a part of this program cannot be loaded: {error}; rebuild or reinstall it"


def ended(
    run: Callable[[], object], complain: Callable[[str], None], expected: Mapping[type[BaseException], int]
) -> NoReturn:
    """Runs a command and ends the process. `expected`: errors with their own texts, and their exit codes."""
    try:
        run()
    except SystemExit:
        raise
    except KeyboardInterrupt:
        sys.exit(exit_codes.INTERRUPTED)
    except tuple(expected) as error:
        complain(of_system(error) if isinstance(error, OSError) else str(error))
        sys.exit(next(code for kind, code in expected.items() if isinstance(error, kind)))
    except ImportError as error:
        complain(of_import(error))
        sys.exit(exit_codes.CONFIGURATION)
    except UnicodeDecodeError as error:
        complain(f"the input is not UTF-8 text (byte {error.start}): {error.reason}")
        sys.exit(exit_codes.FAILED)
    except OSError as error:
        complain(of_system(error))
        sys.exit(exit_codes.FAILED)
    except MemoryError as error:
        complain(f"memory is exhausted: {error or 'raise the limit, or free some'}")
        sys.exit(exit_codes.FAILED)
    except Exception:  # noqa: BLE001 (whatever it is, it is ours)
        traceback.print_exc()
        complain("this is a bug in the program: please report it with all of the above")
        sys.exit(exit_codes.FAULT)
    sys.exit(exit_codes.OK)
