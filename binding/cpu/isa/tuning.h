// The tuned constants of every ISA level, in one place. What each was measured against: docs/performance.md, Tuning.
#pragma once
#include <cstdint>

#include "simd.h"

namespace hpformer::HPFORMER_ISA {
namespace {

struct Tuning {
  int rows, registers;  // of C that the GEMM micro-kernel keeps: rows of weights x registers of lanes
  int64_t panel;        // rows of a weight panel: a register of `matvec`
  int64_t tokens;       // of one sequence, side by side through all layers
  int64_t sequences;    // side by side when one step of each is read: weights stream once for all of them
};

#if HPFORMER_TILES
constexpr Tuning kTuning{8, 3, 16, 32, 64};  // pairs of column tiles, 16 lanes each
#elif HPFORMER_LANES == 16
constexpr Tuning kTuning{8, 3, 16, 48, 48};  // 24 accumulators of 32 registers
#elif defined(__aarch64__)
constexpr Tuning kTuning{8, 3, 8, 24, 48};
#elif defined(__FMA__)
constexpr Tuning kTuning{4, 3, 8, 24, 48};  // 12 accumulators of 16 registers; 7 loads for 12 multiply-adds
#else
constexpr Tuning kTuning{4, 2, 8, 24, 48};  // no fused multiply-add: room for the products
#endif
static_assert(kTuning.panel % W == 0 && kTuning.tokens % W == 0 && kTuning.sequences % W == 0);

}  // namespace
}  // namespace hpformer::HPFORMER_ISA
