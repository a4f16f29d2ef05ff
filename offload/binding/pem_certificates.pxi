# Certificates from PEM files.
from libc.string cimport memset


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
        _check_file(read, error, path, ValueError)
        certificates = []
        for i in range(found.count):
            certificates.append(PyBytes_FromStringAndSize(<const char *>found.der + start, found.ends[i] - start))
            start = found.ends[i]
        return certificates, found.private_keys
    finally:
        pem_certificates_free(&found)
