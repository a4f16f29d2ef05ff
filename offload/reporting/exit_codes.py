"""Exit codes of every command of `offload` and `mesh`; the larger ones are those of sysexits.h and of shells.

docs/reference/exit-codes.md is generated from MEANINGS, and a test compares them.
"""

OK = 0
FAILED = 1
USAGE = 2
STOPPED_EARLY = 3  # `offload serve`
MESH_UNREACHABLE = 3  # `mesh`
UNAVAILABLE = 69
FAULT = 70
NO_PERMISSION = 77
CONFIGURATION = 78
INTERRUPTED = 130

# (code, command, its meaning and what to do)
MEANINGS = (
    (OK, "all", "Done."),
    (
        FAILED,
        "all",
        "It was tried and did not work, or something was refused; the message says what, and what to do. "
        "Also when the reader of the output went away (`\\| head`).",
    ),
    (
        USAGE,
        "all",
        "Wrong options, or a value that cannot be; nothing was tried. `--help` shows what there is.",
    ),
    (
        STOPPED_EARLY,
        "`offload serve`",
        "Stopped with clients connected: the drain timeout passed, or a second signal came.",
    ),
    (
        MESH_UNREACHABLE,
        "`mesh`",
        "The control plane does not answer, is not to be trusted with this CA, or there is no token for it here.",
    ),
    (UNAVAILABLE, "`offload`", "The daemon does not answer on that socket."),
    (FAULT, "all", "A fault of the program: the traceback above it is worth a report."),
    (NO_PERMISSION, "`offload`", "The daemon does not let this caller do that, or has no such key for it."),
    (
        CONFIGURATION,
        "all",
        "The configuration, the host or the installation forbids to start. Starting again does not help, and the "
        "systemd units do not try.",
    ),
    (INTERRUPTED, "all", "Ended by Ctrl-C. `serve` and `--watch` end with 0: that is how they are ended."),
)


def table() -> str:
    """All exit codes as a Markdown table."""
    rows = [f"| {code} | {command} | {meaning} |" for code, command, meaning in MEANINGS]
    return "\n".join(["| exit code | of | means |", "|---|---|---|", *rows, ""])
