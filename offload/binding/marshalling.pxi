# Text and errors between C and Python. Error handling is defined here once: C returns false and why, Python raises.
import os


cdef str _text(const char *bytes_):
    return bytes_.decode("utf-8", "replace")


cdef int _check(bint done, const char *error, object kind) except -1:
    if not done:
        raise kind(_text(error))
    return 0


cdef int _check_file(bint done, const char *error, object path, object kind) except -1:
    """The same for a file, which the message names."""
    if not done:
        reason = _text(error)
        raise kind(reason if os.fspath(path) in reason else f"{os.fspath(path)}: {reason}")
    return 0


cdef int _check_errno(bint done, object where) except -1:
    """The same for what sets errno."""
    cdef int reason = errno
    if not done:
        raise OSError(reason, os.strerror(reason), where)
    return 0


cdef void *_allocate(size_t count, size_t size, str what) except NULL:
    """Zeroed memory, never of size zero. MemoryError."""
    cdef void *made = calloc(count + 1, size)
    if made == NULL:
        raise MemoryError(what)
    return made


cdef bytes _c_string(str what, object value):
    """The text encoded for C. A null byte in it is an error, since C would end the text there."""
    cdef bytes encoded = os.fsencode(value)
    if b"\0" in encoded:
        raise ValueError(f"{what} contains a null byte: {value!r}")
    return encoded
