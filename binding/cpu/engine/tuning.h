// The engine's tuned constants, the same on every ISA level. What each was measured against: docs/performance.md,
// Tuning.
#pragma once
#include <cstdint>

namespace hpformer::cpu {

// One step read: fewer sequences than this run one by one, as rows.
inline constexpr int64_t kAlone = 4;
// Streaming the weights once costs about as much as so many sequences.
inline constexpr double kTraffic = 3;
// What a number of registers of lanes that is no multiple of three costs on top, in registers: GEMM takes three at a
// time.
inline constexpr double kUneven = 0.4;
// Segments whose raw means, queries and sums are made together: about as many as keep their rows in L2.
inline constexpr int64_t kColumns = 72;
// Segments below which moving to lanes and back costs more than it saves.
inline constexpr int64_t kFewColumns = 6;
// Longer sequences would cost more in tables of the absorbed embedding than they save (src/model/plan.ts says the
// same).
inline constexpr int64_t kLongestAbsorbed = 2048;

}  // namespace hpformer::cpu
