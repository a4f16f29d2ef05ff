"""Exit codes of every command; the larger ones are those of sysexits.h."""

OK = 0
FAILED = 1  # it was tried and did not work; the message says what
USAGE = 2  # wrong options
STOPPED_EARLY = 3  # the drain timeout passed, or a second signal came, with operations in flight
UNAVAILABLE = 69  # the daemon does not answer
NO_PERMISSION = 77  # the daemon does not let this caller do that
CONFIGURATION = 78  # the configuration or the host forbids to start; restarting does not help
