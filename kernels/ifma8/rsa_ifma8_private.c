/* RSA private operation, eight lanes or four, by the Chinese remainder theorem.
 *
 * Formula, for each operation with modulus n = p q:
 *     x_p = c^dp mod p,   x_q = c^dq mod q                     (two exponentiations of half the size)
 *     h   = (x_p - x_q) q^-1 mod p,   x = x_q + q h            (Garner)
 *     x^e mod n = c, or nothing is released
 *
 * Lanes: an exponentiation pass carries the halves of up to four operations, lanes 0 to 3 modulo p, lanes 4 to 7 modulo
 * q; five to eight operations take two passes. Garner's step and the check carry whole operations, lane i the i-th.
 * Lanes without an operation repeat the first one; their results are discarded. With four lanes (VEC_LANES) all these
 * numbers are half as large.
 *
 * Bounds: limbs have 52 bits; numbers modulo N stay below 2 N between multiplications, also R^-1 c, because c < n < R p
 * (montgomery_ifma8.h has the exact bound). x_p - x_q + 2 p lies in (0, 3 p) because q < 2^(bits of p) <= 2 p.
 *
 * Exponentiation: fixed windows of 4 bits over all bits of the half, including the leading zeros of an exponent.
 *
 * Secret: p, q, dp, dq, q^-1, all intermediates, x until it has passed the check. Public: c, n, e, sizes, and whether
 * the check passed; branches depend on nothing else. Everything lives in the workspace.
 */
#include "kernels/ifma8/montgomery_ifma8.h"
#include "kernels/ifma8/rsa_ifma8.h"
#include "kernels/secret_flow.h"
#include "kernels/testing_hooks.h"
#include "kernels/workspace_internal.h"

enum {
  WINDOW_BITS = 4,
  ENTRIES = 1 << WINDOW_BITS,
  PASS_OPERATIONS = VEC_LANES / 2,
  P = 0,
  Q = 1,
  FAST_EXPONENT = 65537
};

typedef struct rsa_area {
  montgomery_scratch scratch;
  vec modulus[RSA_LIMBS_MAX];
  vec x[RSA_LIMBS_MAX];            /* the number being computed; in the end the result */
  vec half[2][RSA_HALF_LIMBS_MAX]; /* x_p, x_q of all operations */
  union {
    struct { /* exponentiation */
      vec table[ENTRIES * RSA_HALF_LIMBS_MAX];
      vec exponent[RSA_HALF_WORDS_MAX];
    };
    struct { /* recombination and check */
      vec input[RSA_LIMBS_MAX];
      vec factor[RSA_LIMBS_MAX];
      vec power[RSA_LIMBS_MAX];
      vec product[RSA_LIMBS_MAX];
    };
  };
} rsa_area;
_Static_assert(sizeof(rsa_area) <= KERNEL_AREA_SIZE, "the workspace is too small for RSA-4096");

typedef struct batch {
  kernel_algorithm algorithm;
  kernel_lane *lanes;
  unsigned count;
  unsigned limbs; /* of a half */
  montgomery_products products;
  rsa_area *area;
} batch;

static const kernel_lane *operation(const batch *b, unsigned i) {
  return &b->lanes[i < b->count ? i : 0];
}
static const rsa_ifma8_key *prepared(const batch *b, unsigned i) {
  return operation(b, i)->key->ifma8;
}

/* Moving numbers into and out of lanes */

static void set_lane(vec *to, unsigned lane, const uint64_t *from, unsigned count) {
  for (unsigned i = 0; i < count; i++) ((uint64_t *)&to[i])[lane] = from[i];
}

/* The big-endian input of an operation as 2 limbs of a half. */
static void set_lane_input(const batch *b, vec *to, unsigned lane, unsigned index) {
  const kernel_lane *from = operation(b, index);
  uint8_t bytes[KERNEL_OUTPUT_MAX + 8] = {0}; /* little-endian, with room to read beyond */
  for (size_t i = 0; i < from->input_size; i++) bytes[i] = from->input[from->input_size - 1 - i];
  for (unsigned i = 0; i < 2 * b->limbs; i++) {
    unsigned bit = 52 * i;
    uint64_t limb = 0;
    if (bit / 8 < from->input_size) memcpy(&limb, bytes + bit / 8, sizeof limb);
    ((uint64_t *)&to[i])[lane] = limb >> bit % 8 & MONTGOMERY_LIMB_MASK;
  }
}

static void get_lane_output(const batch *b, const vec *from, unsigned lane, uint8_t *output, size_t size) {
  for (size_t i = 0; i < size; i++) {
    unsigned bit = 8 * (unsigned)i, limb = bit / 52, shift = bit % 52;
    uint64_t value = ((const uint64_t *)&from[limb])[lane] >> shift;
    if (shift > 44 && limb + 1 < 2 * b->limbs) value |= ((const uint64_t *)&from[limb + 1])[lane] << (52 - shift);
    output[size - 1 - i] = (uint8_t)value;
  }
}

/* Arithmetic beside the Montgomery multiplications */

/* Propagates carries through signed columns, to limbs below 2^52. The number must not be negative and must fit. */
static void carry_through(vec *to, const vec *from, unsigned count) {
  const vec limb_mask = vec_all(MONTGOMERY_LIMB_MASK);
  vec carry = vec_zero();
  for (unsigned i = 0; i < count; i++) {
    vec limb = vec_add(vec_load(&from[i]), carry);
    carry = vec_shift_right_signed(limb, 52);
    vec_store(&to[i], vec_and(limb, limb_mask));
  }
  VEC_ASSERT_WITHIN(carry, 0, 0);
}

/* x - N where x >= N, for x < 2 N with limbs below 2^52. */
static void subtract_once(vec *x, const vec *modulus, unsigned count) {
  const vec limb_mask = vec_all(MONTGOMERY_LIMB_MASK);
  vec carry = vec_zero();
  for (unsigned i = 0; i < count; i++) {
    carry = vec_shift_right_signed(vec_add(vec_sub(vec_load(&x[i]), vec_load(&modulus[i])), carry), 52);
  }
  vec taken = vec_clear(limb_mask, carry); /* 0 in lanes that would become negative */
  carry = vec_zero();
  for (unsigned i = 0; i < count; i++) {
    vec limb = vec_add(vec_sub(vec_load(&x[i]), vec_and(vec_load(&modulus[i]), taken)), carry);
    carry = vec_shift_right_signed(limb, 52);
    vec_store(&x[i], vec_and(limb, limb_mask));
  }
  VEC_ASSERT_WITHIN(carry, 0, 0);
}

static selection window_digit(const vec *exponent, unsigned window) {
  selection digit;
  for (unsigned bit = 0; bit < WINDOW_BITS; bit++) {
    unsigned place = WINDOW_BITS * window + bit;
    digit.bit[bit] = vec_any_bit(vec_load(&exponent[place / 64]), vec_all(UINT64_C(1) << place % 64));
  }
  return digit;
}

/* to = table[digit]; reads all entries. */
static void select_entry(vec *to, const vec *table, selection digit, unsigned limbs) {
  for (unsigned i = 0; i < limbs; i++) {
    vec level[ENTRIES];
    for (unsigned entry = 0; entry < ENTRIES; entry++) {
      level[entry] = vec_load(&table[entry * limbs + i]);
      VEC_KEEP(level[entry]); /* no masked load: see select_limb in montgomery.py */
    }
    for (unsigned bit = 0; bit < WINDOW_BITS; bit++) {
      for (unsigned j = 0; j < (unsigned)ENTRIES >> (bit + 1); j++) {
        level[j] = vec_select(digit.bit[bit], level[2 * j + 1], level[2 * j]);
      }
    }
    vec_store(&to[i], level[0]);
  }
}

/* The pass */

static montgomery_modulus load_pass(const batch *b, unsigned first) {
  rsa_area *area = b->area;
  uint64_t k0[VEC_LANES];
  for (unsigned lane = 0; lane < VEC_LANES; lane++) {
    unsigned index = first + lane % PASS_OPERATIONS;
    const rsa_ifma8_half *half = &prepared(b, index)->half[lane / PASS_OPERATIONS];
    set_lane(area->modulus, lane, half->prime, b->limbs);
    set_lane(area->exponent, lane, half->exponent, b->lanes[0].key->rsa.words / 2);
    set_lane(area->table, lane, half->one, b->limbs);
    set_lane(area->table + b->limbs, lane, half->cube, b->limbs);
    set_lane_input(b, area->x, lane, index);
    k0[lane] = half->k0;
  }
  return montgomery_prepare(b->products, b->limbs, area->modulus, vec_load(k0), &area->scratch);
}

/* half[P] and half[Q] of operations first to first + PASS_OPERATIONS - 1. */
static void exponentiate(const batch *b, unsigned first) {
  rsa_area *area = b->area;
  unsigned limbs = b->limbs;
  montgomery_modulus m = load_pass(b, first);
  montgomery_fold(&m);

  /* c R^-1, then c R: the base in Montgomery form is entry 1. */
  vec *base = area->table + limbs;
  montgomery_reduce(&m, area->x, area->x);
  montgomery_multiply(&m, base, area->x, base);
  for (unsigned entry = 2; entry < ENTRIES; entry++) {
    vec *to = area->table + entry * limbs;
    if (entry % 2 == 0) {
      montgomery_square(&m, to, area->table + entry / 2 * limbs);
    } else {
      montgomery_multiply(&m, to, to - limbs, base);
    }
  }

  unsigned window = 64 * b->lanes[0].key->rsa.words / 2 / WINDOW_BITS - 1;
  select_entry(area->x, area->table, window_digit(area->exponent, window), limbs);
  while (window-- > 0) montgomery_window(&m, area->x, area->table, window_digit(area->exponent, window));

  /* Out of Montgomery form: of a number below R, so below 2 N. */
  memset(area->x + limbs, 0, limbs * sizeof(vec));
  montgomery_reduce(&m, area->x, area->x);
  subtract_once(area->x, area->modulus, limbs);
  for (unsigned i = 0; i < limbs; i++) {
    const uint64_t *x = (const uint64_t *)&area->x[i];
    memcpy((uint64_t *)&area->half[P][i] + first, x, PASS_OPERATIONS * sizeof *x);
    memcpy((uint64_t *)&area->half[Q][i] + first, x + PASS_OPERATIONS, PASS_OPERATIONS * sizeof *x);
  }
}

/* Runs the second pass, or copies the first when there are no operations for it. */
static void exponentiate_rest(const batch *b) {
  if (b->count > PASS_OPERATIONS) {
    exponentiate(b, PASS_OPERATIONS);
    return;
  }
  for (unsigned half = P; half <= Q; half++) {
    for (unsigned i = 0; i < b->limbs; i++) {
      uint64_t *x = (uint64_t *)&b->area->half[half][i];
      memcpy(x + PASS_OPERATIONS, x, PASS_OPERATIONS * sizeof *x);
    }
  }
}

/* Recombination: x from the halves. */
static void recombine(const batch *b) {
  rsa_area *area = b->area;
  unsigned limbs = b->limbs;
  vec *q = area->factor, *h = area->power;
  uint64_t k0[VEC_LANES];
  for (unsigned lane = 0; lane < VEC_LANES; lane++) {
    const rsa_ifma8_key *key = prepared(b, lane);
    set_lane(area->modulus, lane, key->half[P].prime, limbs);
    set_lane(q, lane, key->half[Q].prime, limbs);
    set_lane(area->product, lane, key->qinv, limbs);
    k0[lane] = key->half[P].k0;
  }
  montgomery_modulus m = montgomery_prepare(b->products, limbs, area->modulus, vec_load(k0), &area->scratch);

  for (unsigned i = 0; i < limbs; i++) {
    vec p = vec_load(&area->modulus[i]);
    vec difference = vec_sub(vec_load(&area->half[P][i]), vec_load(&area->half[Q][i]));
    vec_store(&h[i], vec_add(difference, vec_add(p, p)));
  }
  carry_through(h, h, limbs);
  montgomery_multiply(&m, h, h, area->product); /* R in the constant and 1 / R of the product cancel */
  subtract_once(h, area->modulus, limbs);

  montgomery_product(&m, h, q);
  vec *columns = area->scratch.columns;
  for (unsigned i = 0; i < limbs; i++) {
    vec_store(&columns[i], vec_add(vec_load(&columns[i]), vec_load(&area->half[Q][i])));
  }
  carry_through(area->x, columns, 2 * limbs);
}

/* The check */

/* power = x^e / R mod n, plain, for any public exponents. `mont` is x R. */
static void public_power(const batch *b, const montgomery_modulus *m, vec *power, const vec *mont, vec *spare) {
  uint64_t e[VEC_LANES], all_bits = 0;
  bool fast = true;
  for (unsigned lane = 0; lane < VEC_LANES; lane++) {
    e[lane] = prepared(b, lane)->e;
    all_bits |= e[lane];
    fast = fast && e[lane] == FAST_EXPONENT;
  }
  if (fast) { /* (x R)^65536 R, times x plain */
    montgomery_square(m, power, mont);
    for (int i = 1; i < 16; i++) montgomery_square(m, power, power);
    montgomery_multiply(m, power, power, b->area->x);
    return;
  }
  /* Above the highest bit of its exponent a lane keeps 1 R. */
  const vec exponent = vec_load(e);
  for (unsigned i = 0; i < m->limbs; i++) vec_store(&spare[i], vec_all(i == 0));
  montgomery_multiply(m, power, spare, b->area->factor);
  for (int bit = 63 - __builtin_clzll(all_bits); bit >= 0; bit--) {
    montgomery_square(m, power, power);
    montgomery_multiply(m, spare, power, mont);
    vec_mask has_bit = vec_any_bit(exponent, vec_all(UINT64_C(1) << bit));
    for (unsigned i = 0; i < m->limbs; i++) {
      vec_store(&power[i], vec_select(has_bit, vec_load(&spare[i]), vec_load(&power[i])));
    }
  }
  for (unsigned i = 0; i < m->limbs; i++) vec_store(&spare[i], vec_all(i == 0));
  montgomery_multiply(m, power, power, spare);
}

/* The lanes in which x^e mod n is the input. */
static vec_mask check(const batch *b) {
  rsa_area *area = b->area;
  unsigned limbs = 2 * b->limbs;
  uint64_t k0[VEC_LANES];
  for (unsigned lane = 0; lane < VEC_LANES; lane++) {
    const rsa_ifma8_key *key = prepared(b, lane);
    set_lane(area->modulus, lane, key->n, limbs);
    set_lane(area->factor, lane, key->n_square, limbs);
    set_lane_input(b, area->input, lane, lane);
    k0[lane] = key->n_k0;
  }
  montgomery_modulus m = montgomery_prepare(b->products, limbs, area->modulus, vec_load(k0), &area->scratch);

  vec *mont = area->half[0]; /* the halves are no longer needed, and together they are as long as n */
  montgomery_multiply(&m, mont, area->x, area->factor);
  public_power(b, &m, area->power, mont, area->product);
  subtract_once(area->power, area->modulus, limbs);
  vec different = vec_zero();
  for (unsigned i = 0; i < limbs; i++) {
    different = vec_or(different, vec_xor(vec_load(&area->power[i]), vec_load(&area->input[i])));
  }
  return vec_equal(different, vec_zero());
}

#ifdef TESTING_HOOKS
static void flip(vec *number, unsigned lane, unsigned bit) {
  ((uint64_t *)&number[bit / 52])[lane] ^= UINT64_C(1) << bit % 52;
}
#endif

void VEC_NAME(rsa_private)(kernel_algorithm algorithm, montgomery_products products, kernel_lane lanes[], size_t first,
                           size_t count, kernel_workspace *workspace) {
  lanes += first;
  batch b = {.algorithm = algorithm,
             .lanes = lanes,
             .count = (unsigned)count,
             .limbs = rsa_ifma8_half_limbs(algorithm),
             .products = products,
             .area = (rsa_area *)workspace->area};
  if (workspace->used < sizeof(rsa_area)) workspace->used = sizeof(rsa_area);

  exponentiate(&b, 0);
  exponentiate_rest(&b);
  for (unsigned lane = 0; lane < count; lane++) {
    KERNEL_FAULT_POINT(algorithm, first + lane, FAULT_RSA_P, flip(b.area->half[P], lane, bit));
    KERNEL_FAULT_POINT(algorithm, first + lane, FAULT_RSA_Q, flip(b.area->half[Q], lane, bit));
  }
  recombine(&b);
  for (unsigned lane = 0; lane < count; lane++) {
    KERNEL_FAULT_POINT(algorithm, first + lane, FAULT_RSA_RECOMBINED, flip(b.area->x, lane, bit));
  }
  vec_mask good = check(&b);
  KERNEL_DECLASSIFY(&good, sizeof good, "rsa_verdict");
  for (unsigned lane = 0; lane < count; lane++) {
    if (good >> lane & 1) {
      get_lane_output(&b, b.area->x, lane, lanes[lane].output, lanes[lane].input_size);
      KERNEL_DECLASSIFY(lanes[lane].output, lanes[lane].input_size, "rsa_result");
      lanes[lane].status = KERNEL_OK;
    } else {
      lanes[lane].status = KERNEL_FAULT;
    }
  }
}
