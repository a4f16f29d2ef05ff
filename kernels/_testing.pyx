"""The face of _kernels.pyx over kernels built with TESTING_HOOKS, and the hooks. Never part of a release.

Its allocator, counters and keys are its own: a Key of this module is not one of kernels._kernels.
"""

from kernels._kernels cimport *

include "_kernels.pyx"


cdef extern from "kernels/testing_hooks.h" nogil:
    ctypedef enum kernel_fault_place:
        FAULT_RSA_P
        FAULT_RSA_Q
        FAULT_RSA_RECOMBINED
        FAULT_ECDSA_R
        FAULT_ECDSA_S
        FAULT_ECDSA_POINT
        FAULT_ED25519_R
        FAULT_ED25519_S
        FAULT_COMB_DIGIT
        FAULT_ECDSA_INVERSE
        FAULT_ED25519_NONCE
        FAULT_SOFTWARE
        FAULT_ANY_LANE

    bint kernel_inject_fault(kernel_algorithm algorithm, unsigned lane, kernel_fault_place place, unsigned bit)
    unsigned kernel_clear_faults()
    bint kernel_force_rsa_way(const char *name)
    bint kernel_force_rsa_products(const char *name)
    uint64_t kernel_multiplications()
    uint64_t kernel_vector_instructions()
    void kernel_known_nonces(const uint8_t *nonces, size_t size, size_t count)
    void kernel_run_poisoned(const kernel_backend *backend, kernel_algorithm algorithm, kernel_lane *lanes,
                             size_t count, kernel_workspace *workspace, uint8_t poison)

cdef extern from "kernels/ecdsa_nonce.h" nogil:
    void ecdsa_nonce_from_wide_for_testing(kernel_algorithm algorithm, const uint8_t *wide, uint64_t *k)
    void ecdsa_nonces_p256(const kernel_lane *lanes, size_t count, uint64_t (*k)[4])
    void ecdsa_nonces_p384(const kernel_lane *lanes, size_t count, uint64_t (*k)[6])

cdef extern from "kernels/secret_memory.h" nogil:
    void *secret_alloc(size_t size)
    void secret_free(void *pointer)
    size_t secret_size(const void *pointer)

cdef extern from "kernels/encode/hash.h" nogil:
    ctypedef enum hash_algorithm:
        HASH_SHA256
        HASH_SHA384
        HASH_SHA512
    size_t hash_size(hash_algorithm hash)

cdef extern from "kernels/encode/rsa_blocks.h" nogil:
    void pkcs1_v15_encode(hash_algorithm hash, const uint8_t *digest, uint8_t *block, size_t size)
    void pss_encode(hash_algorithm hash, const uint8_t *digest, const uint8_t *salt, uint8_t *block, size_t size)
    void pkcs1_unpad_premaster(const kernel_key *key, const uint8_t *ciphertext, const uint8_t *block, size_t size,
                               uint8_t *premaster)

cdef extern from "kernels/encode/ecdsa_der.h" nogil:
    size_t ecdsa_der_encode(const uint8_t *pair, size_t half, uint8_t *der)


FAULT_PLACES = {
    "rsa_p": FAULT_RSA_P,
    "rsa_q": FAULT_RSA_Q,
    "rsa_recombined": FAULT_RSA_RECOMBINED,
    "ecdsa_r": FAULT_ECDSA_R,
    "ecdsa_s": FAULT_ECDSA_S,
    "ecdsa_point": FAULT_ECDSA_POINT,
    "ed25519_r": FAULT_ED25519_R,
    "ed25519_s": FAULT_ED25519_S,
    "comb_digit": FAULT_COMB_DIGIT,
    "ecdsa_inverse": FAULT_ECDSA_INVERSE,
    "ed25519_nonce": FAULT_ED25519_NONCE,
    "software": FAULT_SOFTWARE,
}
ANY_LANE = FAULT_ANY_LANE


def multiplications():
    return kernel_multiplications()


def force_rsa_way(str name):
    """Sends all RSA operations of the vector backends one way (rsa_ifma8_plan.h); None ends it."""
    cdef bytes encoded = (name or "").encode()
    if not kernel_force_rsa_way(encoded):
        raise ValueError(f"no way is named {name}")


def force_rsa_products(str name):
    """Makes the products of all RSA operations of the vector backends one way (montgomery_products.h); None ends it."""
    cdef bytes encoded = (name or "").encode()
    if not kernel_force_rsa_products(encoded):
        raise ValueError(f"no way to make products is named {name}")


def vector_instructions():
    return kernel_vector_instructions()


def inject_fault(str algorithm, unsigned int lane, str place, unsigned int bit):
    if not kernel_inject_fault(algorithm_named(algorithm), lane, FAULT_PLACES[place], bit):
        raise RuntimeError("16 faults are armed already")


def clear_faults():
    return kernel_clear_faults()


def known_nonces(const uint8_t[:, ::1] nonces):
    """The nonces of the next ECDSA batches of this thread; None clears them."""
    if nonces is None:
        kernel_known_nonces(NULL, 0, 0)
        return
    if nonces.shape[0] > KERNEL_LANES or nonces.shape[1] not in (32, 48):
        raise ValueError("up to 8 nonces of 32 or 48 bytes")
    kernel_known_nonces(&nonces[0, 0], nonces.shape[1], nonces.shape[0])


def nonce_from_wide(str algorithm, const uint8_t[::1] wide):
    """(wide mod (n - 1)) + 1 as the nonce derivation computes it; `wide` is 64 bytes, big-endian."""
    cdef uint64_t k[6]
    if wide.shape[0] != 64:
        raise ValueError("wide has 64 bytes")
    ecdsa_nonce_from_wide_for_testing(algorithm_named(algorithm), &wide[0], k)
    return sum(int(k[i]) << 64 * i for i in range(4 if algorithm == "p256" else 6))


def derived_nonces(keys, const uint8_t[:, ::1] digests):
    """What the vector kernels would take as nonces for these lanes."""
    cdef Lanes lanes = Lanes(keys, digests.shape[0], "software", None, ("p256", "p384"))
    cdef uint64_t k256[8][4]
    cdef uint64_t k384[8][6]
    lanes.set_rows(digests)
    if digests.shape[0] > KERNEL_LANES or digests.shape[1] != <Py_ssize_t>kernel_input_size(lanes.algorithm):
        raise ValueError("up to 8 digests as long as the order")
    if lanes.algorithm == KERNEL_P256:
        ecdsa_nonces_p256(lanes.lanes, digests.shape[0], k256)
        return [sum(int(k256[j][i]) << 64 * i for i in range(4)) for j in range(digests.shape[0])]
    ecdsa_nonces_p384(lanes.lanes, digests.shape[0], k384)
    return [sum(int(k384[j][i]) << 64 * i for i in range(6)) for j in range(digests.shape[0])]


def run_poisoned(keys, messages, backend, unsigned int poison):
    """Runs one batch (1 to 8) with the backend's kernel directly; the lanes that are not used, and the workspace, are
    filled with the byte `poison` before."""
    cdef list views = views_of(messages)
    cdef Lanes lanes = Lanes(keys, len(views), backend, None, ALGORITHMS)
    cdef Workspace workspace = workspace_of_thread()
    cdef Py_ssize_t i
    if len(views) > KERNEL_LANES or lanes.backend.run[<int>lanes.algorithm] == NULL:
        raise ValueError("one batch, of a backend that has the kernel")
    for i in range(len(views)):
        point_at(views[i], &lanes.lanes[i].input, &lanes.lanes[i].input_size)
    kernel_run_poisoned(lanes.backend, lanes.algorithm, lanes.lanes, len(views), workspace.handle, poison)
    return lanes.outcome()


cdef hash_algorithm hash_named(str name) except *:
    return {"sha256": HASH_SHA256, "sha384": HASH_SHA384, "sha512": HASH_SHA512}[name]


def pkcs1_block(str hash_name, const uint8_t[::1] digest, size_t size):
    cdef uint8_t block[KERNEL_OUTPUT_MAX]
    cdef hash_algorithm which = hash_named(hash_name)
    if <size_t>digest.shape[0] != hash_size(which) or size not in (256, 384, 512):
        raise ValueError("digest or block of a wrong size")
    pkcs1_v15_encode(which, &digest[0], block, size)
    return <bytes>block[:size]


def pss_block(str hash_name, const uint8_t[::1] digest, const uint8_t[::1] salt, size_t size):
    cdef uint8_t block[KERNEL_OUTPUT_MAX]
    cdef hash_algorithm which = hash_named(hash_name)
    if not <size_t>digest.shape[0] == <size_t>salt.shape[0] == hash_size(which) or size not in (256, 384, 512):
        raise ValueError("digest, salt or block of a wrong size")
    pss_encode(which, &digest[0], &salt[0], block, size)
    return <bytes>block[:size]


def unpad_premaster(Key key, const uint8_t[::1] ciphertext, const uint8_t[::1] block):
    cdef uint8_t premaster[48]
    cdef Py_ssize_t size = kernel_output_size(kernel_key_algorithm(key.use()))
    if not ciphertext.shape[0] == block.shape[0] == size:
        raise ValueError("ciphertext and block are as long as the modulus")
    pkcs1_unpad_premaster(key.use(), &ciphertext[0], &block[0], size, premaster)
    return <bytes>premaster[:48]


def ecdsa_der(const uint8_t[::1] pair):
    cdef uint8_t der[128]
    if pair.shape[0] not in (64, 96):
        raise ValueError("r and s of 32 or 48 bytes each")
    return <bytes>der[:ecdsa_der_encode(&pair[0], pair.shape[0] // 2, der)]


cdef class SecretBlock:
    """A block of secret memory, for tests of the allocator."""

    cdef uint8_t *pointer
    cdef readonly size_t asked

    def __cinit__(self, size_t size):
        self.asked = size
        self.pointer = <uint8_t *>secret_alloc(size)
        if self.pointer == NULL:
            raise MemoryError

    def __dealloc__(self):
        secret_free(self.pointer)

    @property
    def address(self):
        return <size_t>self.pointer

    @property
    def size(self):
        return secret_size(self.pointer)

    def read(self):
        return <bytes>self.pointer[:self.asked]

    def fill(self, unsigned int byte):
        cdef size_t i
        for i in range(self.asked):
            self.pointer[i] = byte


def churn(unsigned int seed, size_t rounds, size_t slots, size_t largest):
    """Allocates, checks, fills and frees at random, without the GIL; the number of blocks found not zeroed, not
    aligned, or changed by somebody else."""
    cdef uint8_t **blocks = <uint8_t **>calloc(slots, sizeof(void *))
    cdef size_t *sizes = <size_t *>calloc(slots, sizeof(size_t))
    cdef size_t i, j, k, wrong = 0
    cdef uint64_t state = seed + 1  # xorshift64
    with nogil:
        for i in range(rounds + slots):
            state ^= state << 13
            state ^= state >> 7
            state ^= state << 17
            j = i % slots if i >= rounds else (state >> 33) % slots
            if blocks[j] != NULL:
                for k in range(sizes[j]):
                    wrong += blocks[j][k] != <uint8_t>(seed + j)
                secret_free(blocks[j])
                blocks[j] = NULL
            if i >= rounds:
                continue
            sizes[j] = (state >> 20) % largest
            if (state >> 60) != 0:
                sizes[j] %= 700
            blocks[j] = <uint8_t *>secret_alloc(sizes[j])
            if blocks[j] == NULL:
                continue
            wrong += (<size_t>blocks[j]) % (4096 if sizes[j] >= 4096 else 64) != 0
            for k in range(sizes[j]):
                wrong += blocks[j][k] != 0
                blocks[j][k] = <uint8_t>(seed + j)
    free(blocks)
    free(sizes)
    return wrong
