// A minimal assertion: a failed CHECK prints its place and condition, and the program ends with an error.
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
