# Certificates judged by BoringSSL, as the Envoy module will.


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
