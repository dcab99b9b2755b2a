// The embedded fatbins (cuda.cmake) and which of them has a kernel.
#pragma once
#include <string>

// X(width): the fused kernels exist for these; cuda.cmake has the same list.
#define HPFORMER_CUDA_WIDTHS(X) X(64) X(96) X(128) X(160) X(192) X(256)

namespace hpformer::cuda {

// The module's name: kernels are called stack_<width>_<precision>[_tight]_<tiles>, or anything else.
inline std::string moduleOf(const std::string& kernel) {
  if (kernel.rfind("stack_", 0) == 0) return kernel.substr(6, kernel.find('_', kernel.find('_', 6) + 1) - 6);
  return "common";
}

inline bool hasFusedWidth(long long hidden) {
#define HPFORMER_CUDA_IS_WIDTH(width) \
  if (hidden == width) return true;
  HPFORMER_CUDA_WIDTHS(HPFORMER_CUDA_IS_WIDTH)
#undef HPFORMER_CUDA_IS_WIDTH
  return false;
}

// The fatbin of a module, null for an unknown name.
const void* fatbinOf(const std::string& module);

}  // namespace hpformer::cuda
