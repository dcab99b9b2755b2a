#include "modules.h"

// Defined by the assembly file that cuda.cmake writes.
#define HPFORMER_CUDA_DECLARE(width)                              \
  extern "C" const unsigned char hpformer_fatbin_##width##_f32[]; \
  extern "C" const unsigned char hpformer_fatbin_##width##_bf16[];
extern "C" const unsigned char hpformer_fatbin_common[];
HPFORMER_CUDA_WIDTHS(HPFORMER_CUDA_DECLARE)

namespace hpformer::cuda {

const void* fatbinOf(const std::string& module) {
  if (module == "common") return hpformer_fatbin_common;
#define HPFORMER_CUDA_FIND(width)                                    \
  if (module == #width "_f32") return hpformer_fatbin_##width##_f32; \
  if (module == #width "_bf16") return hpformer_fatbin_##width##_bf16;
  HPFORMER_CUDA_WIDTHS(HPFORMER_CUDA_FIND)
#undef HPFORMER_CUDA_FIND
  return nullptr;
}

}  // namespace hpformer::cuda
