# What the process gives up, and how the kernel keeps its memory.


def change_owner(descriptor, uid, gid):
    cdef int file = descriptor
    cdef int failed
    # -1 leaves it, as for chown(2).
    cdef uid_t owner = <uid_t><long long>uid
    cdef gid_t group = <gid_t><long long>gid
    with nogil:
        failed = fchownat(file, b"", owner, group, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW)
    _check_errno(failed == 0, None)


def harden_process():
    """Sets PR_SET_DUMPABLE to 0 and disables core dumps."""
    _check_errno(dataplane_harden_process(), "harden_process")


def drop_privileges():
    _check_errno(sandbox_drop_privileges(), "drop_privileges")


def landlock_version():
    return c_landlock_version()


def confine(sockets, files, anything):
    cdef list folders = [os.fsencode(folder) for folder in (*sockets, *files, *anything)]
    cdef size_t count = len(folders), socket_count = len(sockets), file_count = len(files)
    cdef landlock_place *places = <landlock_place *>_allocate(count, sizeof(landlock_place), "places")
    cdef const char *failed = NULL
    cdef bint done
    cdef int reason
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
    _check_errno(sandbox_filter_calls(programs), "filter_calls")


def filter_allows(call, programs):
    return bool(sandbox_allows(call, programs))


def secret_memory_kind():
    return _text(c_secret_memory_kind())
