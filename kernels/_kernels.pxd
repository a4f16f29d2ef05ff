# The C interfaces of kernels/, declared once (kernels.h, key.h, sign.h, secret_memory.h).
from libc.stdint cimport uint8_t, uint16_t, uint64_t


cdef extern from "kernels/kernels.h" nogil:
    enum:
        KERNEL_LANES
        KERNEL_OUTPUT_MAX

    ctypedef enum kernel_algorithm:
        KERNEL_RSA2048
        KERNEL_RSA4096
        KERNEL_P256
        KERNEL_P384
        KERNEL_ED25519
        KERNEL_ALGORITHMS

    ctypedef enum kernel_status:
        KERNEL_OK

    ctypedef struct kernel_key:
        pass

    ctypedef struct kernel_workspace:
        pass

    ctypedef struct kernel_lane:
        const kernel_key *key
        const uint8_t *input
        size_t input_size
        uint8_t *output
        kernel_status status
        bint redone

    ctypedef void kernel_run(kernel_lane *lanes, size_t count, kernel_workspace *workspace)

    ctypedef struct kernel_backend:
        const char *name
        const char *description
        bint (*usable)() noexcept nogil
        kernel_run **run

    const kernel_backend *const *kernel_backends
    const kernel_backend *kernel_backend_by_name(const char *name)
    const kernel_backend *kernel_backend_for(kernel_algorithm algorithm)
    void kernel_batch(const kernel_backend *backend, kernel_algorithm algorithm, kernel_lane *lanes, size_t count,
                      kernel_workspace *workspace)
    const char *kernel_algorithm_name(kernel_algorithm algorithm)
    size_t kernel_input_size(kernel_algorithm algorithm)
    size_t kernel_output_size(kernel_algorithm algorithm)
    uint64_t kernel_faults(kernel_algorithm algorithm)
    kernel_workspace *kernel_workspace_new()
    void kernel_workspace_free(kernel_workspace *workspace)


cdef extern from "kernels/key.h" nogil:
    enum:
        KERNEL_KEY_ID_SIZE
        KERNEL_ERROR_MAX

    kernel_key *kernel_key_read(const char *path, char *error)
    kernel_key *kernel_key_parse(const uint8_t *text, size_t size, char *error)
    kernel_key *kernel_key_generate(kernel_algorithm algorithm, char *error)
    void kernel_key_release(kernel_key *key)
    kernel_algorithm kernel_key_algorithm(const kernel_key *key)
    const uint8_t *kernel_key_id(const kernel_key *key)
    const uint8_t *kernel_key_public(const kernel_key *key, size_t *size)


cdef extern from "kernels/sign.h" nogil:
    enum:
        SIGN_OUTPUT_MAX

    ctypedef enum sign_status:
        SIGN_OK

    ctypedef struct sign_operation:
        const kernel_key *key
        uint16_t scheme
        bint decrypt
        bint prehashed
        const uint8_t *input
        size_t input_size
        uint8_t output[512]
        size_t output_size
        sign_status status
        bint redone

    bint sign_scheme_fits(uint16_t scheme, kernel_algorithm algorithm, bint tls12)
    void sign_batch(const kernel_backend *backend, kernel_algorithm algorithm, sign_operation **operations,
                    size_t count, kernel_workspace *workspace)


cdef extern from "kernels/secret_memory.h" nogil:
    const char *secret_memory_kind()
    size_t secret_memory_used()
    size_t secret_memory_reserved()
    bint secret_is_lost(const void *pointer)
