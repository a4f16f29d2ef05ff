// The smallest way to say what must hold: a failed CHECK prints where and what, and the program ends with an error.
#ifndef TLS_OFFLOAD_TESTS_CHECK_H
#define TLS_OFFLOAD_TESTS_CHECK_H

#include <cstdio>
#include <cstdlib>

#define CHECK(condition)                                                             \
  do {                                                                               \
    if (!(condition)) {                                                              \
      fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #condition); \
      abort();                                                                       \
    }                                                                                \
  } while (false)

#endif
