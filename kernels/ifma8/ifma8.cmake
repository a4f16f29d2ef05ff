# The 8-lane AVX-512 IFMA backend. Its files, and only they, are compiled with AVX-512; where the compiler cannot,
# the backend is still there and says that it has no kernel.
include(CheckCSourceCompiles)
set(ifma8_flags -mavx512f -mavx512vl -mavx512dq -mavx512bw -mavx512vbmi -mavx512vbmi2 -mavx512ifma -mbmi2)

set(CMAKE_REQUIRED_FLAGS "-mavx512ifma -mavx512f -mavx512vl -mavx512vbmi -mavx512vbmi2")
check_c_source_compiles(
  "#include <immintrin.h>
   int main(void) { __m512i z = _mm512_setzero_si512(); return (int)_mm512_reduce_add_epi64(_mm512_madd52lo_epu64(z, z, z)); }"
  KERNELS_COMPILER_HAS_IFMA)
unset(CMAKE_REQUIRED_FLAGS)

target_sources(kernels PRIVATE ${CMAKE_CURRENT_LIST_DIR}/ifma8_backend.c)
if(KERNELS_COMPILER_HAS_IFMA)
  set_source_files_properties(${CMAKE_CURRENT_LIST_DIR}/ifma8_backend.c ${CMAKE_CURRENT_LIST_DIR}/rsa_ifma8_lanes.c
    ${CMAKE_CURRENT_LIST_DIR}/rsa_ifma8_plan.c TARGET_DIRECTORY kernels PROPERTIES COMPILE_DEFINITIONS KERNELS_HAVE_IFMA8=1)
endif()
include(${CMAKE_CURRENT_LIST_DIR}/rsa.cmake)
include(${CMAKE_CURRENT_LIST_DIR}/curves.cmake)
include(${CMAKE_CURRENT_LIST_DIR}/x25519.cmake)
