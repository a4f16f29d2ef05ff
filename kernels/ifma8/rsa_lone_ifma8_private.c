/* RSA private operation, one at a time, each number spread over the lanes (montgomery_lone_ifma8.h).
 *
 * Formula, for n = p q:
 *     x_p = c^dp mod p,   x_q = c^dq mod q                     side by side, as a pair
 *     h   = (x_p - x_q) q^-1 mod p,   x = x_q + q h            (Garner)
 *     x^e mod n = c, or nothing is released                    n as a whole
 *
 * Into Montgomery form: c = c_0 + R c_1, so c R = c_0 R^2 / R + c_1 R^3 / R. Below 5 N + 4.01 N.
 *
 * Exponentiation: fixed windows of 5 bits over all bits of the half, leading zeros too; the table of 32 entries is read
 * whole for each.
 *
 * Between the multiplications a number is an array of 64-bit words: there it is brought below its modulus, and q h is
 * multiplied. That is plain C, and 1% of the time.
 *
 * Secret: p, q, dp, dq, q^-1, all intermediates, x until it has passed the check. Public: c, n, e, sizes, and whether
 * the check passed; branches depend on nothing else. Everything lives in the workspace.
 */
#include "kernels/ifma8/montgomery_lone_ifma8.h"
#include "kernels/ifma8/rsa_ifma8.h"
#include "kernels/ifma8/rsa_lone_ifma8.h"
#include "kernels/secret_flow.h"
#include "kernels/testing_hooks.h"
#include "kernels/workspace_internal.h"

enum {
  WINDOW_BITS = 5,
  ENTRIES = 1 << WINDOW_BITS,
  P_LANES = 0x55, /* of a pair */
  Q_LANES = 0xaa
};

typedef struct lone_area {
  vec table[ENTRIES * LONE_REGISTERS_MAX];
  vec modulus[LONE_REGISTERS_MAX], folded[LONE_REGISTERS_MAX], inverse[LONE_REGISTERS_MAX], square[LONE_REGISTERS_MAX];
  vec x[LONE_REGISTERS_MAX], y[LONE_REGISTERS_MAX], one[LONE_REGISTERS_MAX];
  vec scratch[2 * LONE_REGISTERS_MAX];
  uint64_t c[RSA_WORDS_MAX];                                              /* the input */
  uint64_t x_p[RSA_HALF_WORDS_MAX + 1], x_q[RSA_HALF_WORDS_MAX + 1];      /* with room for small multiples of p, q */
  uint64_t h[RSA_HALF_WORDS_MAX + 1], difference[RSA_HALF_WORDS_MAX + 1]; /* x_p - x_q + 2 p */
  uint64_t result[RSA_WORDS_MAX], power[RSA_WORDS_MAX + 1];               /* x, x^e mod n */
} lone_area;
_Static_assert(sizeof(lone_area) <= KERNEL_AREA_SIZE, "the workspace is too small for a lone operation");

typedef struct operation {
  const kernel_key *key;
  uint64_t *kept; /* rsa_lone_ifma8.h */
  unsigned registers;
  unsigned words; /* of a half */
  lone_multiply *pair, *whole;
  lone_area *area;
} operation;

/* Numbers as words */

/* The input, big-endian, as words. */
static void load_input(const operation *o, const uint8_t *input) {
  for (unsigned i = 0; i < 2 * o->words; i++) {
    uint64_t word;
    memcpy(&word, input + 8 * (2 * o->words - 1 - i), sizeof word);
    o->area->c[i] = __builtin_bswap64(word);
  }
}

static void store_output(const operation *o, uint8_t *output) {
  for (unsigned i = 0; i < 2 * o->words; i++) {
    uint64_t word = __builtin_bswap64(o->area->result[i]);
    memcpy(output + 8 * (2 * o->words - 1 - i), &word, sizeof word);
  }
}

/* x - m where x >= m. x has a word more than m. */
static void subtract_once(uint64_t *x, const uint64_t *m, unsigned words) {
  uint64_t borrow = 0;
  for (unsigned i = 0; i <= words; i++) {
    borrow = (uint64_t)(((unsigned __int128)x[i] - (i < words ? m[i] : 0) - borrow) >> 64) & 1;
  }
  const uint64_t taken = borrow - 1; /* 0 where it would become negative */
  borrow = 0;
  for (unsigned i = 0; i <= words; i++) {
    unsigned __int128 difference = (unsigned __int128)x[i] - (i < words ? m[i] & taken : 0) - borrow;
    x[i] = (uint64_t)difference;
    borrow = (uint64_t)(difference >> 64) & 1;
  }
}

/* The bits from `first` on of a number go to all lanes that are its, in the layout's order. */
static void spread(const operation *o, vec *to, lone_layout layout, unsigned index, const uint64_t *words,
                   unsigned count, unsigned first) {
  lone_spread((uint64_t *)to, layout, index, o->registers, words, count, first);
}

/* A modulus and its constants into lanes. */
static void spread_modulus(const operation *o, lone_layout layout, unsigned index, const uint64_t *modulus,
                           unsigned words, lone_constants constants) {
  lone_area *area = o->area;
  spread(o, area->modulus, layout, index, modulus, words, 0);
  spread(o, area->folded, layout, index, constants.folded, words, 0);
  spread(o, area->square, layout, index, constants.square, words, 0);
  for (unsigned r = 0; r < o->registers; r++) ((uint64_t *)&area->inverse[r])[index] = constants.inverse[r];
}
static lone_modulus modulus_of(const operation *o) {
  return (lone_modulus){o->area->modulus, o->area->folded, o->area->inverse, o->area->scratch};
}
static void spread_primes(const operation *o) {
  const uint64_t *primes[] = {o->key->rsa.p, o->key->rsa.q};
  for (unsigned half = 0; half < 2; half++) {
    spread_modulus(o, LONE_PAIR, half, primes[half], o->words,
                   lone_constants_of_prime(o->kept, o->registers, o->words, half));
  }
}

/* A number below 4.01 m out of its lanes, and below m. */
static void gather(const operation *o, uint64_t *to, const vec *from, lone_layout layout, unsigned index,
                   const uint64_t *m, unsigned words) {
  const uint64_t *lanes = (const uint64_t *)from;
  unsigned __int128 sum = 0; /* what is below bit 64 (word + 1), so far */
  unsigned word = 0;
  for (unsigned block = 0; block < LONE_LANES / layout; block++) {
    for (unsigned r = 0; r < o->registers; r++) {
      unsigned bit = block * lone_block_bits(o->registers) + r * LONE_LIMB_BITS;
      for (; bit >= 64 * (word + 1) && word < words; word++) {
        to[word] = (uint64_t)sum;
        sum >>= 64;
      }
      uint64_t limb = lanes[LONE_LANES * r + layout * block + index] & ((UINT64_C(1) << LONE_LIMB_BITS) - 1);
      if (bit < 64 * (words + 1)) sum += (unsigned __int128)limb << (bit - 64 * word);
    }
  }
  for (; word < words; word++) {
    to[word] = (uint64_t)sum;
    sum >>= 64;
  }
  to[words] = (uint64_t)sum;
  for (int i = 0; i < 4; i++) subtract_once(to, m, words);
}

/* Exponentiation */

typedef struct selection {
  vec_mask bit[WINDOW_BITS];
} selection;

static selection window_digit(const operation *o, unsigned window) {
  const rsa_key_numbers *numbers = &o->key->rsa;
  uint64_t p = lone_bits(numbers->dp, o->words, WINDOW_BITS * window, WINDOW_BITS);
  uint64_t q = lone_bits(numbers->dq, o->words, WINDOW_BITS * window, WINDOW_BITS);
  selection digit;
  for (unsigned i = 0; i < WINDOW_BITS; i++) {
    digit.bit[i] = (vec_mask)((-(p >> i & 1) & P_LANES) | (-(q >> i & 1) & Q_LANES));
  }
  return digit;
}

/* The register at `table` of the entry with the digit's bits, by a tree of blends that reads all entries. */
VEC_INLINE vec select_register(const vec *table, unsigned stride, const selection *digit, unsigned bits) {
  if (bits == 0) {
    vec entry = vec_load(table);
    VEC_KEEP(entry); /* no masked load: see select_limb in montgomery.py */
    return entry;
  }
  vec clear = select_register(table, stride, digit, bits - 1);
  vec is_set = select_register(table + (stride << (bits - 1)), stride, digit, bits - 1);
  return vec_select(digit->bit[bits - 1], is_set, clear);
}

/* Part number `part` of WINDOW_BITS of the table entry. */
static void select_part(const operation *o, vec *to, const selection *digit, unsigned part) {
  const unsigned end = (part + 1) * o->registers / WINDOW_BITS;
  for (unsigned r = part * o->registers / WINDOW_BITS; r < end; r++) {
    vec_store(&to[r], select_register(o->area->table + r, o->registers, digit, WINDOW_BITS));
  }
}

/* x + y, for numbers of a pair whose sum fits. */
static void add(const operation *o, vec *x, const vec *y) {
  const vec limb_mask = vec_all((UINT64_C(1) << LONE_LIMB_BITS) - 1);
  vec carry = vec_zero();
  for (int turn = 0; turn < 2; turn++) { /* the second takes the carries from block to block */
    for (unsigned r = 0; r < o->registers; r++) {
      const bool top = r + 1 == o->registers;
      const vec mask = top ? vec_shift_right(limb_mask, 1) : limb_mask;
      vec limb = vec_add(vec_and(vec_load(&x[r]), limb_mask), carry);
      if (turn == 0) limb = vec_add(limb, vec_and(vec_load(&y[r]), limb_mask));
      carry = top ? vec_shift_right(limb, LONE_LIMB_BITS - 1) : vec_shift_right(limb, LONE_LIMB_BITS);
      vec_store(&x[r], turn == 0 || !top ? vec_and(limb, mask) : limb);
    }
    carry = vec_lanes_up(carry, LONE_PAIR);
  }
}

/* x_p and x_q. */
static void exponentiate(const operation *o) {
  lone_area *area = o->area;
  const unsigned registers = o->registers, r_bits = lone_block_bits(registers) * (LONE_LANES / LONE_PAIR);
  spread_primes(o);
  const lone_modulus m = modulus_of(o);
  const vec *square = area->square;

  vec *base = area->table + registers;
  for (unsigned index = 0; index < LONE_PAIR; index++) {
    spread(o, area->x, LONE_PAIR, index, area->c, 2 * o->words, 0);
    spread(o, area->y, LONE_PAIR, index, area->c, 2 * o->words, r_bits);
  }
  o->pair(base, square, square, &m); /* R^3 */
  o->pair(base, area->y, base, &m);
  o->pair(area->x, area->x, square, &m);
  add(o, base, area->x);
  o->pair(area->table, area->one, square, &m);
  for (unsigned entry = 2; entry < ENTRIES; entry++) {
    vec *to = area->table + entry * registers;
    const vec *half = area->table + entry / 2 * registers;
    entry % 2 == 0 ? o->pair(to, half, half, &m) : o->pair(to, to - registers, base, &m);
  }

  unsigned window = (64 * o->words + WINDOW_BITS - 1) / WINDOW_BITS - 1;
  selection digit = window_digit(o, window);
  for (unsigned i = 0; i < WINDOW_BITS; i++) select_part(o, area->x, &digit, i);
  while (window-- > 0) {
    /* Between the squarings, whose beginnings wait for the ends of those before. */
    digit = window_digit(o, window);
    for (unsigned i = 0; i < WINDOW_BITS; i++) {
      o->pair(area->x, area->x, area->x, &m);
      select_part(o, area->y, &digit, i);
    }
    o->pair(area->x, area->x, area->y, &m);
  }

  o->pair(area->x, area->x, area->one, &m);
  gather(o, area->x_p, area->x, LONE_PAIR, 0, o->key->rsa.p, o->words);
  gather(o, area->x_q, area->x, LONE_PAIR, 1, o->key->rsa.q, o->words);
}

/* Recombination: the result from the halves. */
static void recombine(const operation *o) {
  lone_area *area = o->area;
  const rsa_key_numbers *numbers = &o->key->rsa;
  const unsigned words = o->words;
  const lone_modulus m = modulus_of(o); /* still p and q, of which only p is needed */

  /* x_p - x_q + 2 p lies in (0, 3 p), because q < 2^(bits of p) <= 2 p. */
  __int128 carry = 0;
  for (unsigned i = 0; i < words; i++) {
    carry += (__int128)area->x_p[i] - area->x_q[i] + numbers->p[i] + numbers->p[i];
    area->difference[i] = (uint64_t)carry;
    carry >>= 64;
  }
  area->difference[words] = (uint64_t)carry;
  spread(o, area->x, LONE_PAIR, 0, area->difference, words + 1, 0);
  spread(o, area->y, LONE_PAIR, 0, numbers->qinv, words, 0);
  o->pair(area->y, area->y, area->square, &m);
  o->pair(area->x, area->x, area->y, &m);
  gather(o, area->h, area->x, LONE_PAIR, 0, numbers->p, words);

  memcpy(area->result, area->x_q, words * sizeof *area->result);
  memset(area->result + words, 0, words * sizeof *area->result);
  for (unsigned i = 0; i < words; i++) {
    uint64_t over = 0;
    for (unsigned j = 0; j < words; j++) {
      unsigned __int128 sum = (unsigned __int128)area->h[i] * numbers->q[j] + area->result[i + j] + over;
      area->result[i + j] = (uint64_t)sum;
      over = (uint64_t)(sum >> 64);
    }
    area->result[words + i] = over;
  }
}

/* The check: whether x^e mod n is the input. All bits set if so, else 0. The exponent is public. */
static uint64_t check(const operation *o) {
  lone_area *area = o->area;
  const unsigned words = 2 * o->words;
  spread_modulus(o, LONE_WHOLE, 0, o->key->rsa.n, words, lone_constants_of_n(o->kept, o->registers, o->words));
  const lone_modulus m = modulus_of(o);
  vec *x = area->table, *mont = x + o->registers, *power = mont + o->registers;
  spread(o, x, LONE_WHOLE, 0, area->result, words, 0);
  o->whole(mont, x, area->square, &m);
  /* The highest bit of e is x R itself; the last, as e is odd, a multiplication by x without R. */
  const uint64_t e = o->key->rsa.e;
  memcpy(power, mont, o->registers * sizeof(vec));
  for (int bit = 62 - __builtin_clzll(e); bit >= 0; bit--) {
    o->whole(power, power, power, &m);
    if (e >> bit & 1) o->whole(power, power, bit > 0 ? mont : x, &m);
  }
  gather(o, area->power, power, LONE_WHOLE, 0, o->key->rsa.n, words);
  uint64_t different = 0;
  for (unsigned i = 0; i < words; i++) different |= area->power[i] ^ area->c[i];
  return ((different | -different) >> 63) - 1;
}

static void run(kernel_algorithm algorithm, kernel_lane *lane, size_t index, lone_area *area) {
  static lone_multiply *const pairs[] = {VEC_NAME(lone_multiply_pair_5), VEC_NAME(lone_multiply_pair_8),
                                         VEC_NAME(lone_multiply_pair_10)};
  static lone_multiply *const wholes[] = {VEC_NAME(lone_multiply_whole_5), VEC_NAME(lone_multiply_whole_8),
                                          VEC_NAME(lone_multiply_whole_10)};
  const unsigned size = algorithm - KERNEL_RSA2048;
  const operation o = {.key = lane->key,
                       .kept = ((const rsa_ifma8_key *)lane->key->ifma8)->lone,
                       .registers = lone_registers(algorithm),
                       .words = lane->key->rsa.words / 2,
                       .pair = pairs[size],
                       .whole = wholes[size],
                       .area = area};
  memset(area->one, 0, sizeof area->one);
  vec_store(area->one, vec_select(LONE_PAIR + 1, vec_all(1), vec_zero()));

  load_input(&o, lane->input);
  exponentiate(&o);
  KERNEL_FAULT_POINT(algorithm, index, FAULT_RSA_P, area->x_p[bit / 64] ^= UINT64_C(1) << bit % 64);
  KERNEL_FAULT_POINT(algorithm, index, FAULT_RSA_Q, area->x_q[bit / 64] ^= UINT64_C(1) << bit % 64);
  recombine(&o);
  KERNEL_FAULT_POINT(algorithm, index, FAULT_RSA_RECOMBINED, area->result[bit / 64] ^= UINT64_C(1) << bit % 64);
  uint64_t good = check(&o);
  KERNEL_DECLASSIFY(&good, sizeof good, "rsa_lone_verdict");
  if (good == 0) {
    lane->status = KERNEL_FAULT;
    return;
  }
  store_output(&o, lane->output);
  KERNEL_DECLASSIFY(lane->output, lane->input_size, "rsa_lone_result");
  lane->status = KERNEL_OK;
}

/* Products are made one way only. */
void VEC_NAME(rsa_lone_private)(kernel_algorithm algorithm, montgomery_products products, kernel_lane lanes[],
                                size_t first, size_t count, kernel_workspace *workspace) {
  (void)products;
  if (workspace->used < sizeof(lone_area)) workspace->used = sizeof(lone_area);
  for (size_t i = first; i < first + count; i++) run(algorithm, &lanes[i], i, (lone_area *)workspace->area);
}
