/* Marks for the test of secret flow (tests/kernels/constant_time): there, memcheck treats secrets as undefined memory
 * and reports every branch and address that depends on one.
 *
 * KERNEL_DECLASSIFY says that a value made from secrets may be known from here on: a result that is released, a verdict
 * that was checked. Every name must be listed, with the reason, in tests/kernels/constant_time/declassified.toml.
 *
 * The marks have an effect only in the portable build of the kernels, which exists only with TESTING_HOOKS.
 */
#ifndef KERNELS_SECRET_FLOW_H
#define KERNELS_SECRET_FLOW_H

#if defined(TESTING_HOOKS) && defined(VEC_PORTABLE) && __has_include(<valgrind/memcheck.h>)
#include <valgrind/memcheck.h>
#define KERNEL_DECLASSIFY(pointer, size, name) ((void)VALGRIND_MAKE_MEM_DEFINED((pointer), (size)), (void)(name))
#else
#define KERNEL_DECLASSIFY(pointer, size, name) ((void)(pointer))
#endif

#endif
