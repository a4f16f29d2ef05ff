# libx25519.a: the key agreement of a handshake, apart from libkernels.a, for the Envoy module, which needs nothing else of
# the kernels. The comb table is that of the Ed25519 signatures.
set(kernels_x25519_sources ${CMAKE_CURRENT_LIST_DIR}/x25519_ifma8_public.c ${CMAKE_CURRENT_LIST_DIR}/x25519_ifma4_shared.c)
add_library(x25519 STATIC ${CMAKE_CURRENT_LIST_DIR}/x25519_usable.c)
target_include_directories(x25519 PUBLIC ${PROJECT_SOURCE_DIR})
if(KERNELS_COMPILER_HAS_IFMA)
  add_library(kernels_x25519 OBJECT ${kernels_x25519_sources} ${curves_generated}/ed25519_constants.h)
  target_include_directories(kernels_x25519 PRIVATE ${PROJECT_SOURCE_DIR} ${curves_generated})
  target_compile_options(kernels_x25519 PRIVATE -Wno-shadow -O3 ${ifma8_flags})
  target_compile_definitions(x25519 PRIVATE KERNELS_HAVE_IFMA8=1)
  target_sources(x25519 PRIVATE $<TARGET_OBJECTS:kernels_x25519> ${curves_generated}/ed25519_comb.c)
endif()
