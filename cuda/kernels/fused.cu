// The fused kernels of one width and precision (HPFORMER_HIDDEN, HPFORMER_BF16): one module each, loaded when first
// used.
#include "readout.cuh"

namespace hpformer::cuda {

// The explicit minimum of one block lets ptxas use up to 255 registers: 8 warps on a multiprocessor are enough here,
// spills are not.
#define HPFORMER_STACK_NAMED(hidden, name, tiles, stages)                                               \
  HPFORMER_KERNEL((256, 1), stack_##hidden##_##name##_##tiles)(const __grid_constant__ StackParams p) { \
    extern __shared__ __align__(128) char shared[];                                                     \
    Stack<hidden, HPFORMER_BF16, tiles, stages>(p, shared).run();                                       \
  }
#define HPFORMER_STACK(hidden, name, tiles) HPFORMER_STACK_NAMED(hidden, name, tiles, kMostStages)
#define HPFORMER_TIGHT_STACK(hidden, name, tiles) HPFORMER_STACK_NAMED(hidden, name, tiles, kLeastStages)

#if HPFORMER_BF16
HPFORMER_STACK(HPFORMER_HIDDEN, bf16, 1)
#if HPFORMER_HIDDEN <= 160  // layout.h: hasTwoTiles
HPFORMER_STACK(HPFORMER_HIDDEN, bf16, 2)
#endif
#else
HPFORMER_STACK(HPFORMER_HIDDEN, f32, 1)
#if HPFORMER_HIDDEN <= 128
HPFORMER_STACK(HPFORMER_HIDDEN, f32, 2)
#endif
#if HPFORMER_HIDDEN == 256  // layout.h: hasTight
HPFORMER_TIGHT_STACK(HPFORMER_HIDDEN, f32_tight, 1)
#endif
#endif

}  // namespace hpformer::cuda
