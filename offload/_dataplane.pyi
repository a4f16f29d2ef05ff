"""The native data plane as Python sees it: handles, public material, and plain numbers; never key bytes.

Contract between `offload/dataplane` (C) and the daemon (Python). All calls are cheap and thread-safe; none runs an
operation on the calling thread except `calibrate` and `benchmark`, which release the GIL.
"""

from collections.abc import Mapping, Sequence
from typing import NotRequired, TypedDict

class InvalidKey(ValueError):
    """A key file that cannot be used; the message names the file and the reason."""

class Key:
    """A private key in secret memory. Only public material ever leaves it."""

    @staticmethod
    def load(path: str) -> Key: ...
    @staticmethod
    def generate(algorithm: str) -> Key: ...
    @property
    def algorithm(self) -> str: ...  # "rsa2048", "rsa3072", "rsa4096", "p256", "p384", "ed25519"
    @property
    def key_id(self) -> bytes: ...  # SHA-256 of the SubjectPublicKeyInfo
    @property
    def public_key_der(self) -> bytes: ...
    def certificate_request(self, uris: Sequence[str], dns_names: Sequence[str]) -> bytes:
        """A PKCS#10 request (DER) for these names, signed by the key. ValueError. C: kernels/certificate_request.h."""

def read_certificates(path: str) -> tuple[Sequence[bytes], int]:
    """The DER certificates of a PEM file, in its order, and how many private keys it holds (which stay in C).

    ValueError with file and reason if the file is not readable, regular, small enough, and well-formed.
    C: dataplane/certificates/pem_certificates.h.
    """

def check_chain(ders: Sequence[bytes]) -> None:
    """Checks that the Envoy module can load this chain (DER, leaf first): by BoringSSL, with the module's own calls.

    ValueError with the certificate and the reason. C: dataplane/certificates/certificate_check.h.
    """

def check_certificate(der: bytes) -> None:
    """The same check for one certificate of a trust bundle."""

class Selector(TypedDict, total=False):
    """Matches a caller if every given field matches; a caller is allowed if any selector of the identity matches."""

    uid: int
    gid: int  # primary or supplementary
    executable: str  # absolute path, compared with /proc/PID/exe
    cgroup: str  # prefix of the cgroup path, on a path-component boundary
    socket: str  # connected through the dedicated listener of that name

class KeyRule(TypedDict):
    key: Key
    usage: str  # "tls13", "tls12+13", "any"
    decrypt: bool  # RSA key exchange of TLS 1.2

class IdentityRule(TypedDict):
    """One identity: who may use it, its keys, and its public message."""

    name: str
    number: NotRequired[int]  # reported as KeyUse.identity, always the same for the same name; 0 unless given
    selectors: Sequence[Selector]  # empty: nobody
    keys: Sequence[KeyRule]
    message: bytes  # serialized offload.v1.Identity, sent to watchers when it differs from the last one

class Settings(TypedDict):
    shards: int  # kernel threads
    # A class waits for more operations while on average at least two arrive in this time, and at most this long; an
    # operation that arrives alone never waits. 0: nothing waits while a shard is idle.
    max_wait_us: int
    queue_limit: int  # operations queued, all connections
    connection_queue_limit: int  # operations queued and running, one connection
    # A user is the uid behind connections of the listener "main", or another listener as a whole, whoever uses it.
    user_queue_limit: int  # operations queued and running, one user
    max_connections: int
    max_connections_per_user: int
    max_connections_without_identity: int  # of all callers that no selector of any identity matches
    max_streams_per_connection: int
    user_memory_mib: int  # held for one user, and for all callers without an identity together
    idle_timeout_ms: int  # for a connection without any call; it gets a GOAWAY
    stalled_timeout_ms: int  # for a connection that reads none of its pending output
    drain_timeout_ms: int
    backend: str  # "auto", "software", "ifma8"

class ClassStatistics(TypedDict):
    """One algorithm. Histograms are lists of counts; bounds are the module constants of the same name."""

    algorithm: str
    operations: Mapping[tuple[str, str], int]  # (gRPC status name, backend, "none" if it was not run) -> count
    batches: Mapping[tuple[str, str, int], int]  # (backend, "full" | "idle_shard" | "max_wait", size) -> count
    queue_seconds: Sequence[int]
    queue_seconds_sum: float
    run_seconds: Sequence[int]  # per batch
    run_seconds_sum: float
    faults: int  # lanes redone in software
    queued: int
    crossover: int  # smallest batch that goes to the vector backend; 9 when none does
    backend_us: Mapping[str, Sequence[float]]  # calibrated time of a batch of 1..8 per backend that runs the class

class Statistics(TypedDict):
    classes: Sequence[ClassStatistics]
    refusals: Mapping[str, int]  # reason -> count
    connections: int
    connections_total: int
    streams: int
    watchers: int
    queued: int
    draining: bool
    backends: list[str]  # in the order of the native side's numbers
    backend: str
    secret_memory: Mapping[str, int | str]  # kind, used, reserved

class Refusal(TypedDict):
    """Why something was rejected, for the log; drained from a bounded ring."""

    reason: str
    pid: int
    uid: int
    gid: int
    listener: str
    key_id: bytes
    scheme: int | None  # the requested TLS SignatureScheme, any number; None if there was no operation
    decrypt: bool
    identity: str  # requested by name; any text, truncated when long
    count: int  # equal refusals folded into this one

class KeyUse(TypedDict):
    """Operations of one caller with one key and the same result: for the audit log, and counts per identity."""

    count: int
    pid: int
    uid: int
    gid: int
    scheme: int  # TLS SignatureScheme; 0 for a decryption
    status: str  # gRPC status name
    decrypt: bool
    backend: int  # index in the order of `backend_us`
    identity: int  # the rule's number
    key_id: bytes
    listener: str
    executable: str  # empty if it could not be read

LANES: int  # maximum number of operations in a batch
QUEUE_SECONDS_BOUNDS: Sequence[float]
RUN_SECONDS_BOUNDS: Sequence[float]

class DataPlane:
    def __init__(self, settings: Settings) -> None: ...
    def add_listener(self, name: str, descriptor: int) -> None:
        """Serve a listening Unix stream socket; the descriptor is duplicated. Allowed while running."""
    def remove_listener(self, name: str) -> None: ...
    def set_identities(self, identities: Sequence[IdentityRule]) -> None:
        """Replace the whole set at once. Operations already accepted finish with the key they were accepted with."""
    def set_limits(self, max_wait_us: int, queue_limit: int) -> None:
        """Replaces the limits of the settings, which remain the upper bounds. ValueError. Allowed while running."""
    def calibrate(self) -> None:
        """Measures the backends and sets the crossovers (tens of ms). start does it if this was not called."""
    def start(self) -> None: ...
    def drain(self) -> None:
        """Begin the two-phase graceful shutdown; returns at once."""
    def wait_drained(self, timeout_seconds: float) -> bool: ...
    def stop(self) -> None: ...
    def statistics(self) -> Statistics: ...
    def take_refusals(self) -> tuple[Sequence[Refusal], int]:
        """The refusals since the last call, and how many were of more kinds than the ring distinguishes."""
    def count_key_uses(self, count: bool) -> None:
        """Whether to count uses of keys from now on."""
    def take_key_uses(self) -> tuple[Sequence[KeyUse], int]:
        """The uses since the last call, and the number of operations that did not fit into the table."""
    def benchmark(self, algorithm: str, batch: int, backend: str, rounds: int) -> Sequence[float]:
        """Seconds of each of `rounds` batches on fresh keys, on the calling thread."""

def change_owner(descriptor: int, uid: int, gid: int) -> None:
    """Changes the owner of the file that the descriptor (O_PATH suffices) refers to; -1 leaves an id. OSError."""

def harden_process() -> None:
    """Sets PR_SET_DUMPABLE to 0 and disables core dumps."""

def drop_privileges() -> None:
    """Drops all capabilities of this thread and its future threads, for good. C: dataplane/host/sandbox.h."""

def landlock_version() -> int:
    """The version of Landlock; 0 if the kernel does not have it."""

def confine(sockets: Sequence[str], files: Sequence[str], anything: Sequence[str]) -> None:
    """Landlock: this thread, and those it creates later, change only sockets, files, or anything in these folders,
    and trace, read and signal no other process. OSError. C: dataplane/host/landlock.h."""

def filter_calls(programs: bool) -> None:
    """Makes system calls that the daemon does not need fail with EPERM, in all threads; `programs` allows execve."""

def filter_allows(call: int, programs: bool) -> bool:
    """Whether the list has this call; clone and prctl have further restrictions."""

def secret_memory_kind() -> str: ...
