// Which exact rewrites a run may use. Where one is also cheaper is decided by the engine, by the conditions that
// src/model/plan.ts tells; one whose bit is off is never used, so that tests can compare every pair.
#pragma once
#include <cstdint>

namespace hpformer {

enum class Precision : int32_t { float32, bfloat16 };

// Narrow models keep float32 operands in every precision: they gain nothing from bfloat16, and its rounding errors
// would have too few terms to average over.
inline Precision operandPrecision(int64_t hidden, Precision asked) {
  constexpr int64_t kNarrow = 32;
  return hidden < kNarrow ? Precision::float32 : asked;
}

struct Plan {
  bool depthFirst = true;          // a tile of tokens goes through all layers before the next tile
  bool readoutPruning = true;      // only tokens that the readout reads enter the layers
  bool absorbedEmbedding = true;   // TDHP works on raw features; no token but those read out is embedded
  bool zeroRowsClosedForm = true;  // appended and padding rows contribute in closed form
  bool tokenTables = true;         // per-vocabulary tables for what is linear in an embedding row
  bool foldedOutput = true;        // attention and output projection as one product with M_g = K_g W_o,g^T
  bool foldedWeights = true;       // batchnorm, score scale and premultiplied fusion folded when weights are packed
  Precision precision = Precision::float32;
};

}  // namespace hpformer
