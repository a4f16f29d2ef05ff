# The RSA kernels of the 8-lane backend. Their multiplications are written by kernels/generate/montgomery.py.
set(rsa_generate ${PROJECT_SOURCE_DIR}/kernels/generate)
set(rsa_generated ${CMAKE_CURRENT_BINARY_DIR}/ifma8_rsa)
file(MAKE_DIRECTORY ${rsa_generated})
set(rsa_tiles ${rsa_generated}/montgomery_tiles.c)
add_custom_command(
  OUTPUT ${rsa_tiles}
  COMMAND ${Python3_EXECUTABLE} ${rsa_generate}/montgomery.py ${rsa_tiles}
  DEPENDS ${rsa_generate}/montgomery.py ${rsa_generate}/karatsuba.py ${rsa_generate}/products.py
          ${rsa_generate}/straight_line.py
  COMMENT "Writing the 8-lane Montgomery arithmetic" VERBATIM)

# One object library per build of the kernels. gcc's second scheduling pass would undo the order of the generated code,
# and spill.
function(add_rsa name)
  add_library(${name} OBJECT ${CMAKE_CURRENT_FUNCTION_LIST_DIR}/montgomery_ifma8.c
    ${CMAKE_CURRENT_FUNCTION_LIST_DIR}/rsa_ifma8_private.c ${rsa_tiles})
  target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR})
  target_link_libraries(${name} PRIVATE boringssl_crypto)
  target_compile_options(${name} PRIVATE ${ARGN})
  target_sources(kernels PRIVATE $<TARGET_OBJECTS:${name}>)
endfunction()

# The multiplications of a lone operation, whose numbers lie across the lanes.
set(rsa_lone ${rsa_generated}/montgomery_lone.c)
add_custom_command(
  OUTPUT ${rsa_lone}
  COMMAND ${Python3_EXECUTABLE} ${rsa_generate}/lone.py ${rsa_lone}
  DEPENDS ${rsa_generate}/lone.py ${rsa_generate}/straight_line.py
  COMMENT "Writing the Montgomery arithmetic of lone operations" VERBATIM)
function(add_rsa_lone name)
  add_library(${name} OBJECT ${CMAKE_CURRENT_FUNCTION_LIST_DIR}/rsa_lone_ifma8_private.c ${rsa_lone})
  target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR})
  target_link_libraries(${name} PRIVATE boringssl_crypto)
  target_compile_options(${name} PRIVATE ${ARGN})
  target_sources(kernels PRIVATE $<TARGET_OBJECTS:${name}>)
endfunction()

include(CheckCCompilerFlag)
check_c_compiler_flag(-fno-schedule-insns2 KERNELS_COMPILER_HAS_NO_SCHEDULE)
if(KERNELS_COMPILER_HAS_NO_SCHEDULE)
  set(rsa_flags -fno-schedule-insns2)
endif()

foreach(lanes 8 4)
  if(KERNELS_COMPILER_HAS_IFMA)
    add_rsa(kernels_rsa_${lanes} -O3 ${rsa_flags} ${ifma8_flags} -DVEC_LANES=${lanes})
    target_sources(kernels_rsa_${lanes} PRIVATE ${CMAKE_CURRENT_LIST_DIR}/rsa_ifma8_measure.c)
  endif()
  if(TESTING_HOOKS)
    add_rsa(kernels_rsa_${lanes}_portable -O1 -DVEC_PORTABLE -DVEC_LANES=${lanes})
  endif()
endforeach()
if(KERNELS_COMPILER_HAS_IFMA)
  add_rsa_lone(kernels_rsa_lone -O3 ${rsa_flags} ${ifma8_flags})
  target_sources(kernels_rsa_lone PRIVATE ${CMAKE_CURRENT_LIST_DIR}/rsa_lone_ifma8_measure.c)
endif()
if(TESTING_HOOKS)
  add_rsa_lone(kernels_rsa_lone_portable -O1 -DVEC_PORTABLE)
endif()
if(KERNELS_COMPILER_HAS_IFMA OR TESTING_HOOKS)
  target_sources(kernels PRIVATE ${CMAKE_CURRENT_LIST_DIR}/rsa_ifma8_key.c ${CMAKE_CURRENT_LIST_DIR}/rsa_ifma8_lanes.c
    ${CMAKE_CURRENT_LIST_DIR}/rsa_ifma8_plan.c ${CMAKE_CURRENT_LIST_DIR}/rsa_lone_ifma8_key.c)
endif()
