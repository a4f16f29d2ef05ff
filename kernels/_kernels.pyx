"""The NumPy face of the kernels: checks shapes, lays out lanes, releases the GIL. Documented in _kernels.pyi."""

import threading
from typing import NamedTuple

import numpy

from libc.stdint cimport uint8_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy


class InvalidKey(ValueError):
    """A key that cannot be used; the message says why (and never shows key material)."""


class Backend(NamedTuple):
    name: str
    description: str
    usable: bool
    algorithms: tuple[str, ...]


class Outcome(NamedTuple):
    outputs: numpy.ndarray
    status: numpy.ndarray
    redone: numpy.ndarray


class Signatures(NamedTuple):
    outputs: numpy.ndarray
    sizes: numpy.ndarray
    status: numpy.ndarray
    redone: numpy.ndarray

    def as_bytes(self):
        return [self.outputs[i, : self.sizes[i]].tobytes() if self.status[i] == 0 else None
                for i in range(len(self.sizes))]


ALGORITHMS = tuple([kernel_algorithm_name(<kernel_algorithm><int>i).decode() for i in range(<int>KERNEL_ALGORITHMS)])
LANES = KERNEL_LANES


cdef kernel_algorithm algorithm_named(str name) except *:
    if name not in ALGORITHMS:
        raise ValueError(f"unknown algorithm {name!r}; there are {', '.join(ALGORITHMS)}")
    return <kernel_algorithm><int>ALGORITHMS.index(name)


cdef const kernel_backend *backend_named(object name, kernel_algorithm algorithm) except NULL:
    cdef const kernel_backend *backend
    if name is None:
        return kernel_backend_for(algorithm)
    backend = kernel_backend_by_name(name.encode())
    if backend == NULL:
        raise ValueError(f"no backend {name!r} that this host can run; see backends()")
    return backend


cdef class Key:
    cdef kernel_key *handle

    def __cinit__(self):
        self.handle = NULL

    def __init__(self):
        raise TypeError("use Key.load or Key.generate")

    def __dealloc__(self):
        kernel_key_release(self.handle)

    @staticmethod
    cdef Key wrap(kernel_key *handle):
        cdef Key key = Key.__new__(Key)
        key.handle = handle
        return key

    cdef kernel_key *use(self) except NULL:
        if self.handle == NULL:
            raise TypeError("use Key.load or Key.generate")
        if secret_is_lost(self.handle):
            raise InvalidKey("the key was made before this process was forked; its memory is the parent's alone")
        return self.handle

    @staticmethod
    def load(path):
        import os

        cdef char error[256]
        cdef bytes name = os.fsencode(path)
        cdef const char *c_name = name
        cdef kernel_key *handle
        with nogil:
            handle = kernel_key_read(c_name, error)
        if handle == NULL:
            raise InvalidKey(f"{os.fsdecode(path)}: {error.decode(errors='replace')}")
        return Key.wrap(handle)

    @staticmethod
    def generate(str algorithm):
        cdef char error[256]
        cdef kernel_algorithm which = algorithm_named(algorithm)
        cdef kernel_key *handle
        with nogil:
            handle = kernel_key_generate(which, error)
        if handle == NULL:
            raise InvalidKey(f"{algorithm}: {error.decode(errors='replace')}")
        return Key.wrap(handle)

    @property
    def algorithm(self):
        return ALGORITHMS[kernel_key_algorithm(self.use())]

    @property
    def key_id(self):
        return <bytes>kernel_key_id(self.use())[:KERNEL_KEY_ID_SIZE]

    @property
    def public_key_der(self):
        cdef size_t size
        cdef const uint8_t *der = kernel_key_public(self.use(), &size)
        return <bytes>der[:size]

    def __repr__(self):
        return f"<Key {self.algorithm} {self.key_id.hex()[:16]}>"

    def __reduce__(self):
        raise TypeError("a private key does not leave its process")


cdef class Workspace:
    """Scratch memory of one thread."""

    cdef kernel_workspace *handle

    def __cinit__(self):
        self.handle = kernel_workspace_new()
        if self.handle == NULL:
            raise MemoryError("secret memory is exhausted: raise the limit of locked memory (ulimit -l)")

    def __dealloc__(self):
        if not secret_is_lost(self.handle):
            kernel_workspace_free(self.handle)


thread_scratch = threading.local()


cdef Workspace workspace_of_thread():
    cdef Workspace workspace = getattr(thread_scratch, "workspace", None)
    if workspace is None or secret_is_lost(workspace.handle):
        workspace = Workspace()
        thread_scratch.workspace = workspace
    return workspace


cdef list key_list(object keys, Py_ssize_t count):
    """`count` keys: the sequence, or one key for all."""
    result = [keys] * count if isinstance(keys, Key) else list(keys)
    if len(result) != count:
        raise ValueError(f"{len(result)} keys for {count} operations")
    if count == 0:
        raise ValueError("no operations")
    for key in result:
        if not isinstance(key, Key):
            raise TypeError(f"expected a Key, not {type(key).__name__}")
    return result


cdef class Lanes:
    """Kernel lanes over arrays: keeps alive what they point to."""

    cdef kernel_lane *lanes
    cdef list keys
    cdef object outputs
    cdef uint8_t[:, ::1] output_view
    cdef kernel_algorithm algorithm
    cdef const kernel_backend *backend

    def __cinit__(self, object keys, Py_ssize_t count, object backend, object outputs, tuple wanted):
        cdef Py_ssize_t i
        self.lanes = NULL
        self.keys = key_list(keys, count)
        self.algorithm = kernel_key_algorithm((<Key>self.keys[0]).use())
        if ALGORITHMS[self.algorithm] not in wanted:
            raise ValueError(f"the first key is {ALGORITHMS[self.algorithm]}, not one of {', '.join(wanted)}")
        self.backend = backend_named(backend, self.algorithm)
        shape = (count, kernel_output_size(self.algorithm))
        self.outputs = numpy.zeros(shape, numpy.uint8) if outputs is None else outputs
        self.output_view = self.outputs
        if self.output_view.shape[0] != shape[0] or self.output_view.shape[1] != shape[1]:
            raise ValueError(f"outputs must have the shape {shape}")
        self.lanes = <kernel_lane *>calloc(count, sizeof(kernel_lane))
        if self.lanes == NULL:
            raise MemoryError
        for i in range(count):
            self.lanes[i].key = (<Key>self.keys[i]).use()
            self.lanes[i].output = &self.output_view[i, 0]

    def __dealloc__(self):
        free(self.lanes)

    cdef void set_rows(self, const uint8_t[:, ::1] inputs) except *:
        cdef Py_ssize_t i
        if inputs.shape[1] == 0:
            raise ValueError("inputs have no columns")
        for i in range(inputs.shape[0]):
            self.lanes[i].input = &inputs[i, 0]
            self.lanes[i].input_size = inputs.shape[1]

    cdef object run(self):
        cdef Workspace workspace = workspace_of_thread()
        cdef kernel_workspace *scratch = workspace.handle
        cdef size_t count = len(self.keys)
        cdef size_t start = 0
        with nogil:
            while start < count:
                kernel_batch(self.backend, self.algorithm, self.lanes + start, min(count - start, <size_t>KERNEL_LANES),
                             scratch)
                start += KERNEL_LANES
        return self.outcome()

    cdef object outcome(self):
        cdef Py_ssize_t i
        status = numpy.empty(len(self.keys), numpy.uint8)
        redone = numpy.empty(len(self.keys), numpy.bool_)
        for i in range(len(self.keys)):
            status[i] = self.lanes[i].status
            redone[i] = self.lanes[i].redone
        return Outcome(self.outputs, status, redone)


RSA_ALGORITHMS = tuple([name for name in ALGORITHMS if name.startswith("rsa")])


def rsa_private(keys, const uint8_t[:, ::1] inputs, backend=None, outputs=None):
    cdef Lanes lanes = Lanes(keys, inputs.shape[0], backend, outputs, RSA_ALGORITHMS)
    lanes.set_rows(inputs)
    return lanes.run()


def ecdsa_sign(keys, const uint8_t[:, ::1] digests, backend=None, outputs=None):
    cdef Lanes lanes = Lanes(keys, digests.shape[0], backend, outputs, ("p256", "p384"))
    lanes.set_rows(digests)
    return lanes.run()


cdef const uint8_t *nothing = <const uint8_t *>b""


cdef void point_at(const uint8_t[::1] view, const uint8_t **data, size_t *size) noexcept:
    data[0] = &view[0] if view.shape[0] > 0 else nothing
    size[0] = view.shape[0]


cdef list views_of(object messages):
    """Flat byte views, kept so that their buffers stay."""
    return [memoryview(m).cast("B") if not isinstance(m, numpy.ndarray) else m for m in messages]


def ed25519_sign(keys, messages, backend=None, outputs=None):
    cdef list views = views_of(messages)
    cdef Lanes lanes = Lanes(keys, len(views), backend, outputs, ("ed25519",))
    cdef Py_ssize_t i
    for i in range(len(views)):
        point_at(views[i], &lanes.lanes[i].input, &lanes.lanes[i].input_size)
    return lanes.run()


cdef object run_operations(object keys, list views, object backend, unsigned int scheme, bint prehashed, bint decrypt):
    cdef Py_ssize_t count = len(views)
    cdef list held = key_list(keys, count)
    cdef kernel_algorithm algorithm = kernel_key_algorithm((<Key>held[0]).use())
    cdef const kernel_backend *chosen = backend_named(backend, algorithm)
    cdef Workspace workspace = workspace_of_thread()
    cdef kernel_workspace *scratch = workspace.handle
    cdef sign_operation operations[KERNEL_LANES]
    cdef sign_operation *pointers[KERNEL_LANES]
    cdef size_t start, lanes, j, room = 48 if decrypt else SIGN_OUTPUT_MAX
    outputs = numpy.zeros((count, room), numpy.uint8)
    sizes = numpy.zeros(count, numpy.intp)
    status = numpy.zeros(count, numpy.uint8)
    redone = numpy.zeros(count, numpy.bool_)
    cdef uint8_t[:, ::1] output_view = outputs
    for start in range(0, count, KERNEL_LANES):
        lanes = min(<size_t>count - start, <size_t>KERNEL_LANES)
        for j in range(lanes):
            pointers[j] = &operations[j]
            operations[j].key = (<Key>held[start + j]).use()
            operations[j].scheme = scheme
            operations[j].prehashed = prehashed
            operations[j].decrypt = decrypt
            point_at(views[start + j], &operations[j].input, &operations[j].input_size)
        with nogil:
            sign_batch(chosen, algorithm, pointers, lanes, scratch)
        for j in range(lanes):
            memcpy(&output_view[start + j, 0], operations[j].output, operations[j].output_size)
            sizes[start + j] = operations[j].output_size
            status[start + j] = operations[j].status
            redone[start + j] = operations[j].redone
    return outputs, sizes, status, redone


def sign_messages(unsigned int scheme, keys, messages, backend=None, bint prehashed=False):
    if scheme > 0xffff:
        raise ValueError("a SignatureScheme has 16 bits")
    return Signatures(*run_operations(keys, views_of(messages), backend, scheme, prehashed, False))


def decrypt(keys, ciphertexts, backend=None):
    outputs, _, status, redone = run_operations(keys, views_of(ciphertexts), backend, 0, False, True)
    return Outcome(outputs, status, redone)


def scheme_fits(unsigned int scheme, str algorithm, bint tls12=False):
    return scheme <= 0xffff and sign_scheme_fits(scheme, algorithm_named(algorithm), tls12)


def backends():
    result = []
    cdef size_t i = 0
    cdef int a
    while kernel_backends[i] != NULL:
        algorithms = tuple([ALGORITHMS[a] for a in range(<int>KERNEL_ALGORITHMS) if kernel_backends[i].run[a] != NULL])
        result.append(Backend(kernel_backends[i].name.decode(), kernel_backends[i].description.decode(),
                              kernel_backends[i].usable(), algorithms))
        i += 1
    return result


def backend_for(str algorithm):
    return kernel_backend_for(algorithm_named(algorithm)).name.decode()


def faults(str algorithm):
    return kernel_faults(algorithm_named(algorithm))


def secret_memory():
    return {
        "kind": secret_memory_kind().decode(),
        "used": secret_memory_used(),
        "reserved": secret_memory_reserved(),
    }
