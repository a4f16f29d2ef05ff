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
        "The command failed, or part of its input was rejected; the message says what, and what to do. "
        "Also when the reader of the output went away (`\\| head`).",
    ),
    (
        USAGE,
        "all",
        "Invalid options or values; nothing was attempted. `--help` shows what is accepted.",
    ),
    (
        STOPPED_EARLY,
        "`offload serve`",
        "Stopped with clients connected: the drain timeout expired, or a second signal arrived.",
    ),
    (
        MESH_UNREACHABLE,
        "`mesh`",
        "The control plane does not answer, does not verify with this CA, or no token for it was found.",
    ),
    (UNAVAILABLE, "`offload`", "The daemon does not answer on that socket."),
    (FAULT, "all", "Internal error: please report it with the traceback above it."),
    (NO_PERMISSION, "`offload`", "The daemon denies this to the caller, or has no such key for it."),
    (
        CONFIGURATION,
        "all",
        "The configuration, the host or the installation prevents the start. A restart does not help, and the "
        "systemd units do not try.",
    ),
    (INTERRUPTED, "all", "Interrupted by Ctrl-C. `serve` and `--watch` end with 0: that is how they are ended."),
)


def table() -> str:
    """All exit codes as a Markdown table."""
    rows = [f"| {code} | {command} | {meaning} |" for code, command, meaning in MEANINGS]
    return "\n".join(["| exit code | of | means |", "|---|---|---|", *rows, ""])
