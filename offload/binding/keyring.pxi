# Identities: who may use which key, for what.
from libc.string cimport memset

_USAGES = {"tls13": USAGE_TLS13, "tls12+13": USAGE_TLS12_AND_13, "any": USAGE_ANY}
_SELECTOR_FIELDS = frozenset({"uid", "gid", "executable", "cgroup", "socket"})


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
