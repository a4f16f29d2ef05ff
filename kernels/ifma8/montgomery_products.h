/* Two ways to make the squares and products of 20 limbs; which is faster depends on the processor.
 *
 * Karatsuba's identity saves multiplications and pays with additions. Where a processor multiplies 512 bits once per
 * cycle and adds beside it (Zen 4), the fewest multiplications win. Where two ports do all 512-bit instructions
 * (Intel's servers), an addition costs as much as a multiplication, and the fewest instructions win:
 *
 *   20 limbs, instructions (of which multiplications)     Karatsuba      schoolbook
 *   square                                                1415 (1131)    1337 (1221)
 *   multiply                                              1642 (1401)    1699 (1601)
 *
 * Schoolbook squares leave bits above 52 in their limbs, which the differences of halves cannot take, so a product of
 * 20 limbs that stands alone is made directly too, although that is no shorter. Products inside 40 limbs are made of
 * halves both ways: what they save pays even there. Values are the same.
 */
#ifndef KERNELS_IFMA8_MONTGOMERY_PRODUCTS_H
#define KERNELS_IFMA8_MONTGOMERY_PRODUCTS_H

typedef enum montgomery_products { MONTGOMERY_KARATSUBA, MONTGOMERY_SCHOOLBOOK, MONTGOMERY_WAYS } montgomery_products;

#endif
