# Python's face of the data plane: marshals, releases the GIL, and nothing else. Types and meaning: _dataplane.pyi.
import os

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.errno cimport errno
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memset

QUEUE_SECONDS_BOUNDS = tuple(2**k / 1e6 for k in range(COUNTER_BOUNDS))
RUN_SECONDS_BOUNDS = QUEUE_SECONDS_BOUNDS

_USAGES = {"tls13": USAGE_TLS13, "tls12+13": USAGE_TLS12_AND_13, "any": USAGE_ANY}
_SELECTOR_FIELDS = frozenset({"uid", "gid", "executable", "cgroup", "socket"})
_ALGORITHMS = {kernel_algorithm_name(<kernel_algorithm>i).decode(): i for i in range(KERNEL_ALGORITHMS)}
_UNAVAILABLE = 2**64 - 1


class KeyError_(ValueError):
    """A key file that cannot be used; the message names the file and the reason."""


cdef str _text(const char *bytes_):
    return bytes_.decode("utf-8", "replace")


cdef kernel_algorithm _algorithm(str name) except *:
    if name not in _ALGORITHMS:
        raise ValueError(f"algorithm {name!r} is not one of {', '.join(_ALGORITHMS)}")
    return <kernel_algorithm><int>_ALGORITHMS[name]


cdef bytes _c_string(str what, object value):
    """Encoded for C, which would end it at a null byte."""
    cdef bytes encoded = os.fsencode(value)
    if b"\0" in encoded:
        raise ValueError(f"{what} contains a null byte: {value!r}")
    return encoded


cdef class Key:
    """A private key in secret memory. The only things that leave it are public."""

    cdef kernel_key *key

    def __init__(self):
        raise TypeError("a Key is made by Key.load(path) or Key.generate(algorithm)")

    def __dealloc__(self):
        kernel_key_release(self.key)

    @staticmethod
    def load(path):
        cdef bytes encoded = _c_string("the path of a key file", path)
        cdef const char *name = encoded
        cdef char error[KERNEL_ERROR_MAX]
        cdef Key self = Key.__new__(Key)
        error[0] = 0
        with nogil:
            self.key = kernel_key_read(name, error)
        if self.key == NULL:
            reason = _text(error)
            raise KeyError_(reason if os.fspath(path) in reason else f"{os.fspath(path)}: {reason}")
        return self

    @staticmethod
    def generate(algorithm):
        cdef kernel_algorithm which = _algorithm(algorithm)
        cdef char error[KERNEL_ERROR_MAX]
        cdef Key self = Key.__new__(Key)
        error[0] = 0
        with nogil:
            self.key = kernel_key_generate(which, error)
        if self.key == NULL:
            raise KeyError_(f"cannot generate a key of type {algorithm}: {_text(error)}")
        return self

    @property
    def algorithm(self):
        return _text(kernel_algorithm_name(kernel_key_algorithm(self.key)))

    @property
    def key_id(self):
        return PyBytes_FromStringAndSize(<const char *>kernel_key_id(self.key), KERNEL_KEY_ID_SIZE)

    @property
    def public_key_der(self):
        cdef size_t size = 0
        cdef const uint8_t *der = kernel_key_public(self.key, &size)
        return PyBytes_FromStringAndSize(<const char *>der, size)

    def certificate_request(self, uris, dns_names):
        cdef list encoded = [_c_string("a name", name) for name in (*uris, *dns_names)]
        cdef size_t uri_count = len(uris), count = len(encoded), size = 0
        cdef const char **texts = <const char **>malloc((count + 1) * sizeof(char *))
        cdef certificate_request_names names
        cdef char error[KERNEL_ERROR_MAX]
        cdef uint8_t *request = NULL
        cdef bytes one
        cdef bint made
        if texts == NULL:
            raise MemoryError("names")
        for i in range(count):
            one = encoded[i]
            texts[i] = one
        names.uris, names.uri_count = texts, uri_count
        names.dns_names, names.dns_name_count = texts + uri_count, count - uri_count
        error[0] = 0
        with nogil:
            made = certificate_request_make(self.key, &names, &request, &size, error)
        free(texts)
        if not made:
            raise ValueError(f"no certificate request: {_text(error)}")
        try:
            return PyBytes_FromStringAndSize(<const char *>request, size)
        finally:
            certificate_request_free(request)

    def __repr__(self):
        return f"<Key {self.algorithm} {self.key_id.hex()[:16]}>"


def read_certificates(path):
    """The DER certificates of a PEM file, in its order, and how many private keys it holds."""
    cdef bytes encoded = _c_string("the path of a certificate file", path)
    cdef const char *name = encoded
    cdef char error[PEM_ERROR_MAX]
    cdef pem_certificates found
    cdef bint read
    cdef size_t start = 0
    error[0] = 0
    memset(&found, 0, sizeof(found))
    with nogil:
        read = pem_certificates_read(name, &found, error)
    try:
        if not read:
            reason = _text(error)
            raise ValueError(reason if os.fspath(path) in reason else f"{os.fspath(path)}: {reason}")
        certificates = []
        for i in range(found.count):
            certificates.append(PyBytes_FromStringAndSize(<const char *>found.der + start, found.ends[i] - start))
            start = found.ends[i]
        return certificates, found.private_keys
    finally:
        pem_certificates_free(&found)


cdef class _KeyringBuilder:
    """A keyring under construction; freed unless it was handed over."""

    cdef keyring *ring

    def __cinit__(self):
        self.ring = keyring_new()
        if self.ring == NULL:
            raise MemoryError("keyring")

    def __dealloc__(self):
        keyring_release(self.ring)

    cdef keyring *hand_over(self):
        cdef keyring *ring = self.ring
        self.ring = NULL
        return ring

    cdef int add_identity(self, object rule) except -1:
        cdef bytes name = rule["name"].encode()
        cdef bytes message = rule["message"]
        cdef const char *text = name
        cdef const uint8_t *data = message
        if not name or b"\0" in name:
            raise ValueError(f"not a name for an identity: {rule['name']!r}")
        if not keyring_add_identity(self.ring, text, len(name), data, len(message)):
            raise MemoryError("keyring")
        keyring_number_identity(self.ring, rule.get("number", 0))
        for given in rule["selectors"]:
            self.add_selector(rule["name"], given)
        for key_rule in rule["keys"]:
            self.add_key(rule["name"], key_rule)
        return 0

    cdef int add_selector(self, str name, object given) except -1:
        cdef selector made
        cdef bytes executable, cgroup, socket
        memset(&made, 0, sizeof(made))
        unknown = set(given) - _SELECTOR_FIELDS
        if unknown:
            raise ValueError(f"identity {name!r}: unknown selector {', '.join(sorted(unknown))}")
        if not given:
            raise ValueError(f"identity {name!r}: a selector without any field; leave it out to allow nobody")
        if "uid" in given:
            made.has_uid, made.uid = True, given["uid"]
        if "gid" in given:
            made.has_gid, made.gid = True, given["gid"]
        if "executable" in given:
            executable = _c_string("selector executable", given["executable"])
            made.executable = executable
        if "cgroup" in given:
            cgroup = _c_string("selector cgroup", given["cgroup"])
            made.cgroup = cgroup
        if "socket" in given:
            socket = _c_string("selector socket", given["socket"])
            made.socket = socket
        if not keyring_add_selector(self.ring, &made):
            raise MemoryError("keyring")
        return 0

    cdef int add_key(self, str name, object rule) except -1:
        cdef Key key = rule["key"]
        cdef str usage = rule["usage"]
        if usage not in _USAGES:
            raise ValueError(f"identity {name!r}: usage {usage!r} is not one of {', '.join(_USAGES)}")
        if not keyring_add_key(self.ring, key.key, <key_usage><int>_USAGES[usage], bool(rule["decrypt"])):
            raise MemoryError("keyring")
        return 0

    cdef int seal(self) except -1:
        cdef const char *duplicate = NULL
        if not keyring_seal(self.ring, &duplicate):
            if duplicate == NULL:
                raise MemoryError("keyring")
            raise ValueError(f"two identities have the name {_text(duplicate)!r}")
        return 0


cdef list _counts(const histogram *it):
    return [counter_read(&it.buckets[i]) for i in range(COUNTER_BUCKETS)]


cdef dict _operations(const counters *all_, unsigned algorithm, list backends):
    """Backends are shifted by one in C: 0 is what was not run."""
    cdef uint64_t count
    found = {}
    names = ["none", *backends]
    for status in range(RPC_STATUSES):
        for ran_on in range(len(names)):
            count = counters_operations(all_, algorithm, status, ran_on)
            if count:
                found[_text(rpc_status_name(status)), names[ran_on]] = count
    return found


cdef dict _batches(const counters *all_, unsigned algorithm, list backends):
    cdef uint64_t count
    found = {}
    for backend in range(len(backends)):
        for reason in range(BATCH_REASONS):
            for size in range(1, KERNEL_LANES + 1):
                count = counters_batches(all_, algorithm, backend, reason, size)
                if count:
                    found[backends[backend], _text(batch_reason_name(<batch_reason><int>reason)), size] = count
    return found


cdef dict _backend_us(const cost_model *costs, unsigned algorithm, list backends):
    found = {}
    for backend, name in enumerate(backends):
        times = [cost_model_ns(costs, backend, <kernel_algorithm>algorithm, n) for n in range(1, KERNEL_LANES + 1)]
        if _UNAVAILABLE not in times:
            found[name] = [t / 1e3 for t in times]
    return found


cdef dict _class_statistics(const counters *all_, const dataplane_numbers *numbers, unsigned algorithm, list backends):
    cdef const class_counters *it = &all_.classes[algorithm]
    return {
        "algorithm": _text(kernel_algorithm_name(<kernel_algorithm>algorithm)),
        "operations": _operations(all_, algorithm, backends),
        "batches": _batches(all_, algorithm, backends),
        "queue_seconds": _counts(&it.queue),
        "queue_seconds_sum": counter_read(&it.queue.sum_ns) / 1e9,
        "run_seconds": _counts(&it.run),
        "run_seconds_sum": counter_read(&it.run.sum_ns) / 1e9,
        "faults": kernel_faults(<kernel_algorithm>algorithm),
        "queued": numbers.queued_by_class[algorithm],
        "crossover": numbers.crossover[algorithm],
        "backend_us": _backend_us(&numbers.costs, algorithm, backends),
    }


cdef class DataPlane:
    cdef c_dataplane *plane

    def __cinit__(self, settings):
        cdef dataplane_settings given
        cdef char error[KERNEL_ERROR_MAX]
        cdef bytes backend = _c_string("setting backend", settings["backend"])
        memset(&given, 0, sizeof(given))
        given.shards = settings["shards"]
        given.max_wait_us = settings["max_wait_us"]
        given.queue_limit = settings["queue_limit"]
        given.connection_queue_limit = settings["connection_queue_limit"]
        given.max_connections = settings["max_connections"]
        given.user_queue_limit = settings["user_queue_limit"]
        given.max_connections_per_user = settings["max_connections_per_user"]
        given.max_connections_without_identity = settings["max_connections_without_identity"]
        given.user_memory_mib = settings["user_memory_mib"]
        given.idle_timeout_ms = settings["idle_timeout_ms"]
        given.stalled_timeout_ms = settings["stalled_timeout_ms"]
        given.max_streams_per_connection = settings["max_streams_per_connection"]
        given.drain_timeout_ms = settings["drain_timeout_ms"]
        given.backend = backend
        error[0] = 0
        self.plane = dataplane_new(&given, error)
        if self.plane == NULL:
            raise ValueError(f"cannot make the data plane: {_text(error)}")

    def __dealloc__(self):
        with nogil:
            dataplane_free(self.plane)

    def add_listener(self, name, descriptor):
        cdef bytes encoded = _c_string("the name of a listener", name)
        cdef const char *text = encoded
        cdef int number = descriptor
        cdef char error[KERNEL_ERROR_MAX]
        cdef bint done
        with nogil:
            done = dataplane_add_listener(self.plane, text, number, error)
        if not done:
            raise ValueError(_text(error))

    def remove_listener(self, name):
        cdef bytes encoded = _c_string("the name of a listener", name)
        cdef const char *text = encoded
        cdef char error[KERNEL_ERROR_MAX]
        cdef bint done
        with nogil:
            done = dataplane_remove_listener(self.plane, text, error)
        if not done:
            raise ValueError(_text(error))

    def set_identities(self, identities):
        cdef _KeyringBuilder builder = _KeyringBuilder()
        cdef char error[KERNEL_ERROR_MAX]
        cdef keyring *ring
        cdef bint done
        for rule in identities:
            builder.add_identity(rule)
        builder.seal()
        ring = builder.hand_over()
        with nogil:
            done = dataplane_set_keyring(self.plane, ring, error)
        if not done:
            raise RuntimeError(_text(error))

    def set_limits(self, max_wait_us, queue_limit):
        cdef char error[KERNEL_ERROR_MAX]
        cdef uint32_t wait = max_wait_us, limit = queue_limit
        cdef bint done
        with nogil:
            done = dataplane_set_limits(self.plane, wait, limit, error)
        if not done:
            raise ValueError(_text(error))

    def calibrate(self):
        cdef char error[KERNEL_ERROR_MAX]
        cdef bint done
        with nogil:
            done = dataplane_calibrate(self.plane, error)
        if not done:
            raise RuntimeError(_text(error))

    def start(self):
        cdef char error[KERNEL_ERROR_MAX]
        cdef bint done
        with nogil:
            done = dataplane_start(self.plane, error)
        if not done:
            raise RuntimeError(_text(error))

    def drain(self):
        cdef char error[KERNEL_ERROR_MAX]
        cdef bint done
        with nogil:
            done = dataplane_drain(self.plane, error)
        if not done:
            raise RuntimeError(_text(error))

    def wait_drained(self, timeout_seconds):
        cdef double timeout = timeout_seconds
        cdef bint drained
        with nogil:
            drained = dataplane_wait_drained(self.plane, timeout)
        return bool(drained)

    def stop(self):
        with nogil:
            dataplane_stop(self.plane)

    def statistics(self):
        cdef dataplane_numbers numbers
        cdef const counters *all_ = dataplane_counters(self.plane)
        cdef refusal_log *refusals = dataplane_refusals(self.plane)
        with nogil:
            dataplane_read(self.plane, &numbers)
        backends = [_text(numbers.backend_names[i]) for i in range(numbers.backends)]
        return {
            "classes": [_class_statistics(all_, &numbers, i, backends) for i in range(KERNEL_ALGORITHMS)],
            "refusals": {
                _text(refusal_reason_name(<refusal_reason>i)): refusals_count(refusals, <refusal_reason>i)
                for i in range(REFUSAL_REASONS)
            },
            "connections": counter_read(&all_.connections),
            "connections_total": counter_read(&all_.connections_total),
            "streams": counter_read(&all_.streams),
            "watchers": counter_read(&all_.watchers),
            "queued": numbers.queued,
            "draining": bool(numbers.draining),
            "backend": backends[-1],
            "backends": backends,
            "secret_memory": {
                "kind": secret_memory_kind(),
                "used": secret_memory_used(),
                "reserved": secret_memory_reserved(),
            },
        }

    def take_refusals(self):
        cdef refusal *taken = <refusal *>calloc(REFUSAL_RING, sizeof(refusal))
        cdef uint64_t unlisted = 0
        cdef unsigned count
        if taken == NULL:
            raise MemoryError("refusals")
        try:
            count = refusals_take(dataplane_refusals(self.plane), taken, &unlisted)
            refusals = [
                {
                    "reason": _text(refusal_reason_name(taken[i].reason)),
                    "pid": taken[i].pid,
                    "uid": taken[i].uid,
                    "gid": taken[i].gid,
                    "listener": _text(taken[i].listener),
                    "key_id": PyBytes_FromStringAndSize(<const char *>taken[i].key_id, taken[i].key_id_size),
                    "scheme": taken[i].scheme if taken[i].operation else None,
                    "decrypt": bool(taken[i].decrypt),
                    "identity": _text(taken[i].identity),
                    "count": taken[i].count,
                }
                for i in range(count)
            ]
            return refusals, unlisted
        finally:
            free(taken)

    def count_key_uses(self, count):
        cdef bint wanted = count
        cdef char error[KERNEL_ERROR_MAX]
        cdef bint done
        with nogil:
            done = dataplane_count_key_uses(self.plane, wanted, error)
        if not done:
            raise RuntimeError(_text(error))

    def take_key_uses(self):
        cdef key_use *taken = <key_use *>calloc(KEY_USES_MAX, sizeof(key_use))
        cdef uint64_t unlisted = 0
        cdef unsigned count
        if taken == NULL:
            raise MemoryError("key uses")
        try:
            with nogil:
                count = dataplane_take_key_uses(self.plane, taken, &unlisted)
            uses = [
                {
                    "count": taken[i].count,
                    "pid": taken[i].pid,
                    "uid": taken[i].uid,
                    "gid": taken[i].gid,
                    "scheme": taken[i].scheme,
                    "status": _text(rpc_status_name(taken[i].status)),
                    "decrypt": bool(taken[i].decrypt),
                    "backend": taken[i].backend,
                    "identity": taken[i].identity,
                    "key_id": PyBytes_FromStringAndSize(<const char *>taken[i].key_id, KEY_USE_KEY_ID),
                    "listener": _text(taken[i].listener),
                    "executable": _text(taken[i].executable),
                }
                for i in range(count)
            ]
            return uses, unlisted
        finally:
            free(taken)

    def benchmark(self, algorithm, batch, backend, rounds):
        cdef kernel_algorithm which = _algorithm(algorithm)
        cdef bytes encoded = _c_string("a backend's name", backend)
        cdef const kernel_backend *runs = kernel_backend_by_name(encoded)
        cdef unsigned operations = batch
        cdef unsigned times = rounds
        cdef char error[KERNEL_ERROR_MAX]
        cdef bint done
        cdef double *seconds
        if runs == NULL:
            raise ValueError(f"backend {backend!r} does not exist or cannot run on this host")
        if not 1 <= operations <= KERNEL_LANES:
            raise ValueError(f"a batch has 1 to {KERNEL_LANES} operations, not {batch}")
        seconds = <double *>calloc(times + 1, sizeof(double))
        if seconds == NULL:
            raise MemoryError("benchmark")
        try:
            with nogil:
                done = calibrate_benchmark(runs, which, operations, times, seconds, error)
            if not done:
                raise RuntimeError(_text(error))
            return [seconds[i] for i in range(times)]
        finally:
            free(seconds)


def check_chain(ders):
    cdef list chain = [bytes(der) for der in ders]
    cdef size_t count = len(chain)
    cdef certificate_der *views = <certificate_der *>calloc(count + 1, sizeof(certificate_der))
    cdef char error[CERTIFICATE_ERROR_MAX]
    cdef bint good
    if views == NULL:
        raise MemoryError("chain")
    for i in range(count):
        views[i].data = <const uint8_t *><const char *><bytes>chain[i]
        views[i].size = len(chain[i])
    with nogil:
        good = certificate_check_chain(views, count, error)
    free(views)
    if not good:
        raise ValueError(_text(error))


def check_certificate(der):
    cdef bytes given = bytes(der)
    cdef certificate_der view
    cdef char error[CERTIFICATE_ERROR_MAX]
    cdef bint good
    view.data = <const uint8_t *><const char *>given
    view.size = len(given)
    with nogil:
        good = c_certificate_check(view, error)
    if not good:
        raise ValueError(_text(error))


def change_owner(descriptor, uid, gid):
    cdef int file = descriptor
    cdef int failed
    # -1 leaves it, as for chown(2).
    cdef uid_t owner = <uid_t><long long>uid
    cdef gid_t group = <gid_t><long long>gid
    with nogil:
        failed = fchownat(file, b"", owner, group, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW)
    if failed:
        raise OSError(errno, os.strerror(errno))


def harden_process():
    """PR_SET_DUMPABLE 0 and no core dumps."""
    if not dataplane_harden_process():
        raise OSError(errno, os.strerror(errno), "harden_process")


def drop_privileges():
    if not sandbox_drop_privileges():
        raise OSError(errno, os.strerror(errno), "drop_privileges")


def landlock_version():
    return c_landlock_version()


def confine(sockets, files, anything):
    cdef list folders = [os.fsencode(folder) for folder in (*sockets, *files, *anything)]
    cdef size_t count = len(folders), socket_count = len(sockets), file_count = len(files)
    cdef landlock_place *places = <landlock_place *>calloc(count + 1, sizeof(landlock_place))
    cdef const char *failed = NULL
    cdef bint done
    cdef int reason
    if places == NULL:
        raise MemoryError("places")
    for i in range(count):
        places[i].folder = <bytes>folders[i]
        places[i].use = (
            LANDLOCK_SOCKETS if i < socket_count else LANDLOCK_FILES if i < socket_count + file_count else LANDLOCK_ALL
        )
    with nogil:
        done = landlock_confine(places, count, &failed)
    reason = errno
    where = "Landlock" if failed == NULL else os.fsdecode(<bytes>failed)
    free(places)
    if not done:
        raise OSError(reason, os.strerror(reason), where)


def filter_calls(programs):
    if not sandbox_filter_calls(programs):
        raise OSError(errno, os.strerror(errno), "filter_calls")


def filter_allows(call, programs):
    return bool(sandbox_allows(call, programs))


def secret_memory_kind():
    return _text(c_secret_memory_kind())
