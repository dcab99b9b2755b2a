# The CUDA backend: driver API opened at run time, kernels embedded as one fatbin. Without nvcc the backend answers "not compiled in".
target_sources(hpformer_core PRIVATE ${CMAKE_CURRENT_LIST_DIR}/absent.cc)
