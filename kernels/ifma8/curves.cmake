# The elliptic-curve kernels of the 8-lane backend. Their constants and tables are written by kernels/generate/curves.py.
set(curves_generated ${CMAKE_CURRENT_BINARY_DIR}/ifma8_curves)
set(curves_script ${PROJECT_SOURCE_DIR}/kernels/generate/curves.py)
file(MAKE_DIRECTORY ${curves_generated})

set(curves p256 p384 ed25519)
set(curves_kernels)
set(curves_tables)
set(curves_constants)
foreach(curve ${curves})
  set(header ${curves_generated}/${curve}_constants.h)
  set(table ${curves_generated}/${curve}_comb.c)
  add_custom_command(
    OUTPUT ${header} ${table}
    COMMAND ${Python3_EXECUTABLE} ${curves_script} ${curve} --constants ${header} --table ${table}
    DEPENDS ${curves_script}
    COMMENT "Writing the constants and the comb table of ${curve}" VERBATIM)
  list(APPEND curves_kernels ${CMAKE_CURRENT_LIST_DIR}/${curve}_ifma8_sign.c)
  list(APPEND curves_tables ${table})
  list(APPEND curves_constants ${header})
endforeach()

set(sha512_script ${PROJECT_SOURCE_DIR}/kernels/generate/sha512.py)
set(sha512_constants ${curves_generated}/sha512_constants.h)
add_custom_command(
  OUTPUT ${sha512_constants}
  COMMAND ${Python3_EXECUTABLE} ${sha512_script} ${sha512_constants}
  DEPENDS ${sha512_script}
  COMMENT "Writing the constants of SHA-512" VERBATIM)
list(APPEND curves_kernels ${CMAKE_CURRENT_LIST_DIR}/sha512_ifma8_batch.c)
list(APPEND curves_constants ${sha512_constants})

# One object library per build of the kernels; the tables are plain C and shared.
function(add_curves name)
  add_library(${name} OBJECT ${curves_kernels} ${curves_constants})
  target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR} ${curves_generated})
  target_link_libraries(${name} PRIVATE boringssl_crypto)
  target_compile_options(${name} PRIVATE -Wno-shadow ${ARGN})
  target_sources(kernels PRIVATE $<TARGET_OBJECTS:${name}>)
endfunction()

if(KERNELS_COMPILER_HAS_IFMA)
  add_curves(kernels_curves -O3 ${ifma8_flags})
endif()
if(TESTING_HOOKS)
  add_curves(kernels_curves_portable -O1 -DVEC_PORTABLE)
endif()
if(KERNELS_COMPILER_HAS_IFMA OR TESTING_HOOKS)
  add_library(kernels_curves_tables OBJECT ${curves_tables})
  target_sources(kernels PRIVATE $<TARGET_OBJECTS:kernels_curves_tables>)
endif()
