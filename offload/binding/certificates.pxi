# Certificates: read from PEM, and judged by BoringSSL as the Envoy module will.
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


def check_chain(ders):
    cdef list chain = [bytes(der) for der in ders]
    cdef size_t count = len(chain)
    cdef certificate_der *views = <certificate_der *>_allocate(count, sizeof(certificate_der), "chain")
    cdef char error[CERTIFICATE_ERROR_MAX]
    cdef bint good
    for i in range(count):
        views[i].data = <const uint8_t *><const char *><bytes>chain[i]
        views[i].size = len(chain[i])
    with nogil:
        good = certificate_check_chain(views, count, error)
    free(views)
    _check(good, error, ValueError)


def check_certificate(der):
    cdef bytes given = bytes(der)
    cdef certificate_der view
    cdef char error[CERTIFICATE_ERROR_MAX]
    cdef bint good
    view.data = <const uint8_t *><const char *>given
    view.size = len(given)
    with nogil:
        good = c_certificate_check(view, error)
    _check(good, error, ValueError)
