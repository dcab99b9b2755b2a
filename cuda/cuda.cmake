# The CUDA backend: driver API opened at run time, kernels embedded as one fatbin. Only nvcc is needed to build, and nothing
# of CUDA to link. Without nvcc the backend answers "not compiled in".
set(HPFORMER_CUDA_ARCHITECTURES "developer" CACHE STRING
    "developer: PTX compute_80 and compute_90 with line info (what the simulator runs); all: machine code and PTX for releases")
set(HPFORMER_CUDA_DIR ${CMAKE_CURRENT_LIST_DIR})

set(HPFORMER_NVCC "")
if(NOT HPFORMER_CUDA STREQUAL "OFF")
  find_program(HPFORMER_NVCC_FOUND NAMES nvcc HINTS ENV CUDACXX ENV CUDA_HOME ENV CUDA_PATH PATH_SUFFIXES bin
               PATHS /usr/local/cuda/bin /opt/cuda/bin)
  if(HPFORMER_NVCC_FOUND)
    set(HPFORMER_NVCC ${HPFORMER_NVCC_FOUND})
  elseif(HPFORMER_CUDA STREQUAL "ON")
    message(FATAL_ERROR "HPFORMER_CUDA=ON, but nvcc was not found")
  endif()
endif()

if(NOT HPFORMER_NVCC)
  message(STATUS "CUDA kernels: not built (HPFORMER_CUDA=${HPFORMER_CUDA}, no nvcc)")
  target_sources(hpformer_core PRIVATE ${HPFORMER_CUDA_DIR}/absent.cc)
  return()
endif()

if(HPFORMER_CUDA_ARCHITECTURES STREQUAL "all")
  # What of our list this nvcc knows; PTX for everything newer.
  execute_process(COMMAND ${HPFORMER_NVCC} --list-gpu-code OUTPUT_VARIABLE known OUTPUT_STRIP_TRAILING_WHITESPACE)
  set(HPFORMER_CUDA_CODE --compress-mode=size -gencode arch=compute_80,code=compute_80)
  foreach(arch 80 86 89 90 100 120)
    if(known MATCHES "sm_${arch}(\n|$)")
      list(APPEND HPFORMER_CUDA_CODE -gencode arch=compute_${arch},code=sm_${arch})
    endif()
  endforeach()
else()
  set(HPFORMER_CUDA_CODE -lineinfo -gencode arch=compute_80,code=compute_80 -gencode arch=compute_90,code=compute_90)
endif()

set(HPFORMER_FATBIN ${CMAKE_CURRENT_BINARY_DIR}/hpformer.fatbin)
# -fmad=false: multiply-adds only where the source writes them, so that bits do not depend on what was inlined where.
add_custom_command(
  OUTPUT ${HPFORMER_FATBIN}
  COMMAND ${HPFORMER_NVCC} -std=c++17 -O3 -fmad=false --threads 0 ${HPFORMER_CUDA_CODE} -MD -MF ${HPFORMER_FATBIN}.d
          -MT ${HPFORMER_FATBIN} -fatbin ${HPFORMER_CUDA_DIR}/kernels/kernels.cu -o ${HPFORMER_FATBIN}
  DEPENDS ${HPFORMER_CUDA_DIR}/kernels/kernels.cu
  DEPFILE ${HPFORMER_FATBIN}.d
  COMMENT "CUDA kernels (${HPFORMER_CUDA_ARCHITECTURES})" VERBATIM)

# The assembler includes the file as bytes: quick for megabytes, and no CUDA tool takes part in linking.
enable_language(ASM)
set(HPFORMER_FATBIN_SOURCE ${CMAKE_CURRENT_BINARY_DIR}/fatbin.S)
file(CONFIGURE OUTPUT ${HPFORMER_FATBIN_SOURCE} @ONLY CONTENT [[
  .section .rodata
  .balign 16
  .globl hpformer_fatbin
  .hidden hpformer_fatbin
hpformer_fatbin:
  .incbin "@HPFORMER_FATBIN@"
  .balign 16
  .section .note.GNU-stack,"",%progbits
]])
set_source_files_properties(${HPFORMER_FATBIN_SOURCE} PROPERTIES LANGUAGE ASM OBJECT_DEPENDS ${HPFORMER_FATBIN})
file(GLOB HPFORMER_CUDA_SOURCES CONFIGURE_DEPENDS ${HPFORMER_CUDA_DIR}/*.cc)
list(REMOVE_ITEM HPFORMER_CUDA_SOURCES ${HPFORMER_CUDA_DIR}/absent.cc)
target_sources(hpformer_core PRIVATE ${HPFORMER_CUDA_SOURCES} ${HPFORMER_FATBIN_SOURCE})
message(STATUS "CUDA kernels: ${HPFORMER_NVCC} (${HPFORMER_CUDA_ARCHITECTURES})")
