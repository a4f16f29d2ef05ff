# The C interface of the data plane, declared once. What each call means stands in the headers.
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from posix.types cimport gid_t, pid_t, uid_t


cdef extern from "kernels/kernels.h" nogil:
    enum:
        KERNEL_LANES
        KERNEL_ALGORITHMS

    ctypedef enum kernel_algorithm:
        pass
    ctypedef struct kernel_key:
        pass
    ctypedef struct kernel_backend:
        const char *name

    const kernel_backend *kernel_backend_by_name(const char *name)
    const char *kernel_algorithm_name(kernel_algorithm algorithm)
    uint64_t kernel_faults(kernel_algorithm algorithm)


cdef extern from "kernels/key.h" nogil:
    enum:
        KERNEL_KEY_ID_SIZE
        KERNEL_ERROR_MAX

    kernel_key *kernel_key_read(const char *path, char *error)
    kernel_key *kernel_key_generate(kernel_algorithm algorithm, char *error)
    void kernel_key_release(kernel_key *key)
    kernel_algorithm kernel_key_algorithm(const kernel_key *key)
    const uint8_t *kernel_key_id(const kernel_key *key)
    const uint8_t *kernel_key_public(const kernel_key *key, size_t *size)


cdef extern from "kernels/certificate_request.h" nogil:
    ctypedef struct certificate_request_names:
        const char *const *uris
        size_t uri_count
        const char *const *dns_names
        size_t dns_name_count

    bint certificate_request_make(const kernel_key *key, const certificate_request_names *names, uint8_t **request,
                                  size_t *size, char *error)
    void certificate_request_free(uint8_t *request)


cdef extern from "kernels/secret_memory.h" nogil:
    const char *c_secret_memory_kind "secret_memory_kind"()
    size_t secret_memory_used()
    size_t secret_memory_reserved()


cdef extern from "offload/dataplane/certificates/pem_certificates.h" nogil:
    enum:
        PEM_CERTIFICATES_MAX
        PEM_ERROR_MAX

    ctypedef struct pem_certificates:
        uint8_t *der
        size_t count
        size_t *ends
        size_t private_keys

    bint pem_certificates_read(const char *path, pem_certificates *found, char *error)
    void pem_certificates_free(pem_certificates *found)


cdef extern from "offload/dataplane/certificates/certificate_check.h" nogil:
    enum:
        CERTIFICATE_ERROR_MAX

    ctypedef struct certificate_der:
        const uint8_t *data
        size_t size

    bint certificate_check_chain(const certificate_der *chain, size_t count, char *error)
    bint c_certificate_check "certificate_check"(certificate_der certificate, char *error)


cdef extern from "offload/dataplane/access/keyring.h" nogil:
    ctypedef struct selector:
        bint has_uid
        bint has_gid
        uid_t uid
        gid_t gid
        char *executable
        char *cgroup
        char *socket
    ctypedef enum key_usage:
        USAGE_TLS13
        USAGE_TLS12_AND_13
        USAGE_ANY
    ctypedef struct keyring:
        pass

    keyring *keyring_new()
    bint keyring_add_identity(keyring *ring, const char *name, size_t name_size, const uint8_t *message, size_t size)
    bint keyring_add_selector(keyring *ring, const selector *given)
    void keyring_number_identity(keyring *ring, uint32_t number)
    bint keyring_add_key(keyring *ring, const kernel_key *key, key_usage usage, bint decrypt)
    bint keyring_seal(keyring *ring, const char **duplicate)
    void keyring_release(keyring *ring)


cdef extern from "offload/dataplane/access/refusals.h" nogil:
    enum:
        REFUSAL_RING
        REFUSAL_REASONS

    ctypedef enum refusal_reason:
        pass
    ctypedef struct refusal:
        refusal_reason reason
        pid_t pid
        uid_t uid
        gid_t gid
        char *listener
        uint8_t *key_id
        uint8_t key_id_size
        bint operation
        bint decrypt
        uint32_t scheme
        char *identity
        uint64_t count
    ctypedef struct refusal_log:
        pass

    unsigned refusals_take(refusal_log *log, refusal *taken, uint64_t *unlisted)
    uint64_t refusals_count(const refusal_log *log, refusal_reason reason)
    const char *refusal_reason_name(refusal_reason reason)


cdef extern from "offload/dataplane/access/key_uses.h" nogil:
    enum:
        KEY_USES_MAX
        KEY_USE_KEY_ID

    ctypedef struct key_use:
        uint64_t count
        pid_t pid
        uid_t uid
        gid_t gid
        uint16_t scheme
        uint8_t status
        uint8_t backend
        bint decrypt
        uint32_t identity
        uint8_t *key_id
        char *listener
        char *executable


cdef extern from "offload/dataplane/batching/counters.h" nogil:
    enum:
        COUNTER_BOUNDS
        COUNTER_BUCKETS
        COST_BACKENDS_MAX
        BATCH_REASONS
        RPC_STATUSES

    ctypedef enum batch_reason:
        pass
    # C: _Atomic uint64_t; only ever read through counter_read.
    ctypedef struct counter:
        pass
    ctypedef struct histogram:
        counter *buckets
        counter sum_ns
    ctypedef struct class_counters:
        histogram queue
        histogram run
    ctypedef struct counters:
        class_counters *classes
        counter connections
        counter connections_total
        counter streams
        counter watchers

    uint64_t counter_read(const counter *it)
    const char *rpc_status_name(int status)
    uint64_t counters_operations(const counters *all, unsigned algorithm, unsigned status, unsigned ran_on)
    uint64_t counters_batches(const counters *all, unsigned algorithm, unsigned backend, unsigned reason, unsigned size)


cdef extern from "offload/dataplane/batching/calibrate.h" nogil:
    enum:
        COST_NO_CROSSOVER

    ctypedef struct cost_model:
        pass

    uint64_t cost_model_ns(const cost_model *model, unsigned backend, kernel_algorithm algorithm, unsigned count)
    bint calibrate_benchmark(const kernel_backend *backend, kernel_algorithm algorithm, unsigned count,
                             unsigned rounds, double *seconds, char *error)


cdef extern from "offload/dataplane/dataplane.h" nogil:
    ctypedef struct c_dataplane "dataplane":
        pass
    ctypedef struct dataplane_settings:
        uint32_t shards
        uint32_t max_wait_us
        uint32_t queue_limit
        uint32_t connection_queue_limit
        uint32_t max_connections
        uint32_t max_streams_per_connection
        uint32_t user_queue_limit
        uint32_t max_connections_per_user
        uint32_t max_connections_without_identity
        uint32_t user_memory_mib
        uint32_t idle_timeout_ms
        uint32_t stalled_timeout_ms
        uint32_t drain_timeout_ms
        const char *backend
    ctypedef struct dataplane_numbers:
        uint32_t queued
        uint32_t *queued_by_class
        bint draining
        unsigned backends
        const char **backend_names
        cost_model costs
        unsigned *crossover

    c_dataplane *dataplane_new(const dataplane_settings *settings, char *error)
    void dataplane_free(c_dataplane *plane)
    bint dataplane_add_listener(c_dataplane *plane, const char *name, int descriptor, char *error)
    bint dataplane_remove_listener(c_dataplane *plane, const char *name, char *error)
    bint dataplane_set_keyring(c_dataplane *plane, keyring *ring, char *error)
    bint dataplane_set_limits(c_dataplane *plane, uint32_t max_wait_us, uint32_t queue_limit, char *error)
    bint dataplane_calibrate(c_dataplane *plane, char *error)
    bint dataplane_start(c_dataplane *plane, char *error)
    bint dataplane_drain(c_dataplane *plane, char *error)
    bint dataplane_wait_drained(c_dataplane *plane, double timeout_seconds)
    void dataplane_stop(c_dataplane *plane)
    void dataplane_read(c_dataplane *plane, dataplane_numbers *numbers)
    const counters *dataplane_counters(const c_dataplane *plane)
    refusal_log *dataplane_refusals(c_dataplane *plane)
    bint dataplane_count_key_uses(c_dataplane *plane, bint count, char *error)
    unsigned dataplane_take_key_uses(c_dataplane *plane, key_use *taken, uint64_t *unlisted)
    bint dataplane_harden_process()
    const char *batch_reason_name(batch_reason reason)


cdef extern from "<fcntl.h>" nogil:
    enum:
        AT_EMPTY_PATH
        AT_SYMLINK_NOFOLLOW


cdef extern from "<unistd.h>" nogil:
    int fchownat(int folder, const char *path, uid_t owner, gid_t group, int flags)


cdef extern from "offload/dataplane/host/sandbox.h" nogil:
    bint sandbox_drop_privileges()
    bint sandbox_filter_calls(bint programs)
    bint sandbox_allows(long call, bint programs)


cdef extern from "offload/dataplane/host/landlock.h" nogil:
    ctypedef enum landlock_use:
        LANDLOCK_SOCKETS
        LANDLOCK_FILES
        LANDLOCK_ALL
    ctypedef struct landlock_place:
        const char *folder
        landlock_use use

    int c_landlock_version "landlock_version"()
    bint landlock_confine(const landlock_place *places, size_t count, const char **folder)
