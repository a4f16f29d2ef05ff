"""A program that reads a certificate request on its standard input and prints a chain: a way to use any CA.

It gets PEM, prints PEM (leaf first), and exits with 0; if it fails, its standard error is logged. Its environment is
empty except for PATH, the locale, and the subject of the certificate: OFFLOAD_IDENTITY, OFFLOAD_URIS,
OFFLOAD_DNS_NAMES (separated by spaces).
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from typing import IO

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from offload.config.issuers import ExecProgram
from offload.filesystem.trusted_paths import Trust, UntrustedPathError, Walk
from offload.identities.certificates import UNREADABLE
from offload.issuing.issuer import Issued, IssuerError, Wanted

OUTPUT_MAX = 256 * 1024  # a chain is a few KiB
COMPLAINT_MAX = 1000
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class ExecIssuer:
    settings: ExecProgram
    trust: Trust = field(default_factory=Trust.of)

    def issue(self, request: bytes, wanted: Wanted) -> Issued:
        program = self.settings.command[0]
        self._check(program)
        environment = {
            "PATH": PATH,
            "LANG": "C.UTF-8",
            "OFFLOAD_IDENTITY": wanted.identity,
            "OFFLOAD_URIS": " ".join(wanted.uris),
            "OFFLOAD_DNS_NAMES": " ".join(wanted.dns_names),
        }
        with tempfile.TemporaryFile() as given:
            given.write(x509.load_der_x509_csr(request).public_bytes(Encoding.PEM))
            given.seek(0)
            status, output, complaint = self._run(given, environment)
        if status != 0:
            said = complaint.decode(errors="replace").strip()[-COMPLAINT_MAX:]
            raise IssuerError(f"{program} ended with status {status}: {said or 'no output'}")
        return Issued(_chain(output, program))

    def _check(self, program: str) -> None:
        """It runs with our rights: nobody else may replace it. IssuerError."""
        try:
            with Walk(self.trust) as walk:
                walk.to(program)
        except OSError as error:
            raise IssuerError(f"cannot run {program}: {error.strerror}") from error
        except UntrustedPathError as error:
            raise IssuerError(f"{program} is not executed: {error}") from error

    def _run(self, given: IO[bytes], environment: dict[str, str]) -> tuple[int, bytes, bytes]:
        """Exit status and both outputs. IssuerError if it cannot run, is too slow, or prints too much."""
        program, deadline = self.settings.command[0], time.monotonic() + self.settings.timeout_seconds
        pipe = subprocess.PIPE
        try:
            # In a separate session, so that its children can be ended with it.
            process = subprocess.Popen(
                self.settings.command,
                env=environment,
                cwd="/",
                stdin=given,
                stdout=pipe,
                stderr=pipe,
                start_new_session=True,
            )
        except OSError as error:
            raise IssuerError(f"cannot run {program}: {error.strerror}") from error
        with process:
            try:
                output, complaint = _read_both(process, deadline)
                return process.wait(max(0.1, deadline - time.monotonic())), output, complaint
            except (TimeoutError, subprocess.TimeoutExpired):
                raise IssuerError(f"{program} did not end within {self.settings.timeout_seconds:g} s") from None
            except OverflowError:
                raise IssuerError(f"{program} printed more than {OUTPUT_MAX} bytes") from None
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)


def _read_both(process: subprocess.Popen[bytes], deadline: float) -> tuple[bytes, bytes]:
    """Reads until both outputs have ended. TimeoutError at the deadline; OverflowError if one is too large."""
    streams = [stream for stream in (process.stdout, process.stderr) if stream is not None]
    taken = {stream.fileno(): b"" for stream in streams}
    with selectors.DefaultSelector() as selector:
        for descriptor in taken:
            selector.register(descriptor, selectors.EVENT_READ)
        while selector.get_map():
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            for key, _ in selector.select(left):
                piece = os.read(key.fd, 65536)
                taken[key.fd] += piece
                if not piece:
                    selector.unregister(key.fd)
                if len(taken[key.fd]) > OUTPUT_MAX:
                    raise OverflowError
    output, complaint = taken.values()
    return output, complaint


def _chain(output: bytes, program: str) -> tuple[bytes, ...]:
    try:
        return tuple(one.public_bytes(Encoding.DER) for one in x509.load_pem_x509_certificates(output))
    except UNREADABLE:
        raise IssuerError(f"{program} printed no PEM certificates") from None
