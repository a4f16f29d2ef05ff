# Python's face of the data plane: marshals, releases the GIL, and nothing else. Types and meaning: _dataplane.pyi.
# One extension, because the C libraries in it have state of their own; so its files are included, not imported.
from libc.errno cimport errno
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free

include "binding/marshalling.pxi"
include "binding/keys.pxi"
include "binding/pem_certificates.pxi"
include "binding/certificate_check.pxi"
include "binding/keyring.pxi"
include "binding/statistics.pxi"
include "binding/host.pxi"

LANES = KERNEL_LANES  # operations in a batch, at most


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
        _check(done, error, ValueError)

    def remove_listener(self, name):
        cdef bytes encoded = _c_string("the name of a listener", name)
        cdef const char *text = encoded
        cdef char error[KERNEL_ERROR_MAX]
        cdef bint done
        with nogil:
            done = dataplane_remove_listener(self.plane, text, error)
        _check(done, error, ValueError)

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
        _check(done, error, RuntimeError)

    def set_limits(self, max_wait_us, queue_limit):
        cdef char error[KERNEL_ERROR_MAX]
        cdef uint32_t wait = max_wait_us, limit = queue_limit
        cdef bint done
        with nogil:
            done = dataplane_set_limits(self.plane, wait, limit, error)
        _check(done, error, ValueError)

    def calibrate(self):
        cdef char error[KERNEL_ERROR_MAX]
        cdef bint done
        with nogil:
            done = dataplane_calibrate(self.plane, error)
        _check(done, error, RuntimeError)

    def start(self):
        cdef char error[KERNEL_ERROR_MAX]
        cdef bint done
        with nogil:
            done = dataplane_start(self.plane, error)
        _check(done, error, RuntimeError)

    def drain(self):
        cdef char error[KERNEL_ERROR_MAX]
        cdef bint done
        with nogil:
            done = dataplane_drain(self.plane, error)
        _check(done, error, RuntimeError)

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
        return _statistics(self.plane)

    def take_refusals(self):
        cdef refusal *taken = <refusal *>_allocate(REFUSAL_RING, sizeof(refusal), "refusals")
        cdef uint64_t unlisted = 0
        cdef unsigned count
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
        _check(done, error, RuntimeError)

    def take_key_uses(self):
        cdef key_use *taken = <key_use *>_allocate(KEY_USES_MAX, sizeof(key_use), "key uses")
        cdef uint64_t unlisted = 0
        cdef unsigned count
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
        seconds = <double *>_allocate(times, sizeof(double), "seconds")
        try:
            with nogil:
                done = calibrate_benchmark(runs, which, operations, times, seconds, error)
            _check(done, error, RuntimeError)
            return [seconds[i] for i in range(times)]
        finally:
            free(seconds)
