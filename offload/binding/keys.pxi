# Private keys, as handles.
from cpython.bytes cimport PyBytes_FromStringAndSize

_ALGORITHMS = {kernel_algorithm_name(<kernel_algorithm>i).decode(): i for i in range(KERNEL_ALGORITHMS)}


class InvalidKey(ValueError):
    """A key file that cannot be used; the message names the file and the reason."""


cdef kernel_algorithm _algorithm(str name) except *:
    if name not in _ALGORITHMS:
        raise ValueError(f"algorithm {name!r} is not one of {', '.join(_ALGORITHMS)}")
    return <kernel_algorithm><int>_ALGORITHMS[name]


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
        _check_file(self.key != NULL, error, path, InvalidKey)
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
            raise InvalidKey(f"cannot generate a key of type {algorithm}: {_text(error)}")
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
        cdef const char **texts
        cdef certificate_request_names names
        cdef char error[KERNEL_ERROR_MAX]
        cdef uint8_t *request = NULL
        cdef bytes one
        cdef bint made
        texts = <const char **>_allocate(count, sizeof(char *), "names")
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
