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
  if(HPFORMER_CUDA STREQUAL "OFF")
    message(STATUS "CUDA kernels: not built (HPFORMER_CUDA=OFF)")
  else()
    message(STATUS "CUDA kernels: not built (HPFORMER_CUDA=${HPFORMER_CUDA}, no nvcc)")
  endif()
  target_sources(hpformer_core PRIVATE ${HPFORMER_CUDA_DIR}/absent.cc)
  return()
endif()

if(HPFORMER_CUDA_ARCHITECTURES STREQUAL "all")
  # Two virtual architectures, the ones that the simulator runs. Machine code once per major capability (sm_80 code also runs
  # on 8.6 and 8.9) as far as this nvcc knows it; PTX for everything newer.
  execute_process(COMMAND ${HPFORMER_NVCC} --list-gpu-code OUTPUT_VARIABLE known OUTPUT_STRIP_TRAILING_WHITESPACE)
  set(HPFORMER_CUDA_CODE -gencode arch=compute_80,code=[compute_80,sm_80])
  foreach(code sm_90 sm_100)
    if(known MATCHES "${code}(\n|$)")
      list(APPEND HPFORMER_CUDA_CODE -gencode arch=compute_90,code=${code})
    endif()
  endforeach()
else()
  set(HPFORMER_CUDA_CODE -lineinfo -gencode arch=compute_80,code=compute_80 -gencode arch=compute_90,code=compute_90)
endif()

# One fatbin per module: the kernels of every shape, and the fused ones by width and precision. Small modules compile side by
# side and load only when a model needs them. -fmad=false: multiply-adds only where the source writes them, so that bits do
# not depend on what was inlined where.
function(hpformer_fatbin name source)
  set(fatbin ${CMAKE_CURRENT_BINARY_DIR}/hpformer_${name}.fatbin)
  set(keep "")
  set(kept "")
  if(HPFORMER_TESTS)  # the PTX, for the table of registers and spills (ptxas.cjs)
    set(folder ${CMAKE_CURRENT_BINARY_DIR}/ptx/${name})
    file(MAKE_DIRECTORY ${folder})
    set(keep --keep --keep-dir ${folder})
    string(REPLACE .cu .compute_80.ptx kept ${folder}/${source})
  endif()
  add_custom_command(
    OUTPUT ${fatbin} ${kept}
    COMMAND ${HPFORMER_NVCC} -std=c++17 -O3 -fmad=false --compress-mode=size ${HPFORMER_CUDA_CODE} ${keep} ${ARGN} -MD -MF ${fatbin}.d -MT ${fatbin}
            -fatbin ${HPFORMER_CUDA_DIR}/kernels/${source} -o ${fatbin}
    DEPENDS ${HPFORMER_CUDA_DIR}/kernels/${source}
    DEPFILE ${fatbin}.d
    COMMENT "CUDA kernels ${name} (${HPFORMER_CUDA_ARCHITECTURES})" VERBATIM)
  set(HPFORMER_FATBINS ${HPFORMER_FATBINS} ${fatbin} PARENT_SCOPE)
  # The assembler includes the file as bytes: quick for megabytes, and no CUDA tool takes part in linking.
  set(HPFORMER_FATBIN_TEXT "${HPFORMER_FATBIN_TEXT}
  .balign 16
  .globl hpformer_fatbin_${name}
  .hidden hpformer_fatbin_${name}
hpformer_fatbin_${name}:
  .incbin \"${fatbin}\"" PARENT_SCOPE)
endfunction()

set(HPFORMER_FATBINS "")
set(HPFORMER_FATBIN_TEXT "  .section .rodata")
hpformer_fatbin(common common.cu)
foreach(hidden 64 96 128 160 192 256)  # modules.h has the same list
  hpformer_fatbin(${hidden}_f32 fused.cu -DHPFORMER_HIDDEN=${hidden} -DHPFORMER_BF16=0)
  hpformer_fatbin(${hidden}_bf16 fused.cu -DHPFORMER_HIDDEN=${hidden} -DHPFORMER_BF16=1)
endforeach()

enable_language(ASM)
set(HPFORMER_FATBIN_SOURCE ${CMAKE_CURRENT_BINARY_DIR}/hpformer_fatbins.S)
file(CONFIGURE OUTPUT ${HPFORMER_FATBIN_SOURCE} @ONLY CONTENT "@HPFORMER_FATBIN_TEXT@
  .section .note.GNU-stack,\"\",%progbits
")
set_source_files_properties(${HPFORMER_FATBIN_SOURCE} PROPERTIES LANGUAGE ASM OBJECT_DEPENDS "${HPFORMER_FATBINS}")
file(GLOB HPFORMER_CUDA_SOURCES CONFIGURE_DEPENDS ${HPFORMER_CUDA_DIR}/*.cc)
list(REMOVE_ITEM HPFORMER_CUDA_SOURCES ${HPFORMER_CUDA_DIR}/absent.cc)
target_sources(hpformer_core PRIVATE ${HPFORMER_CUDA_SOURCES} ${HPFORMER_FATBIN_SOURCE})
message(STATUS "CUDA kernels: ${HPFORMER_NVCC} (${HPFORMER_CUDA_ARCHITECTURES})")
