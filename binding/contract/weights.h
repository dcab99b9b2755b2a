// A model's parameters by their canonical names, in double so that every backend folds and packs from exact values.
// Matrices are row-major (out, in), as PyTorch stores them. src/checkpoint/names.ts owns the names and their shapes.
#pragma once
#include <vector>

namespace hpformer {

using Vector = std::vector<double>;

struct NormWeights {
  Vector weight;          // layernorm, batchnorm, rmsnorm: [hidden]; scalenorm: [1]
  Vector bias;            // layernorm, batchnorm: [hidden]
  Vector mean, variance;  // batchnorm: running statistics [hidden]
};

struct LayerWeights {
  Vector output;                        // layers.i.output.weight       [hidden, hidden], no bias
  NormWeights norm1;                    // layers.i.norm1.*
  Vector feedForward, feedForwardBias;  // layers.i.feedForward.weight  [hidden, hidden], .bias [hidden]
  NormWeights norm2;                    // layers.i.norm2.*
};

struct HeadLayerWeights {
  Vector weight, bias;  // head.layers.j.weight [size, previous size], .bias [size]
};

struct Weights {
  Vector embedding;      // embedding.weight: features [hidden, F]; tokens [vocabulary, hidden]; scalar [hidden]
  Vector embeddingBias;  // embedding.bias: features, scalar [hidden]
  Vector positions;      // positions.weight (learned): tokens [maximum + padding + 1, hidden]; else [maximum, hidden]
  NormWeights embeddingNorm;           // embeddingNorm.weight, .bias [hidden] (always LayerNorm)
  Vector fusion, fusionBias;           // tdhp.fusion.weight [hidden, 2 hidden] (extra part first), .bias [hidden]
  std::vector<LayerWeights> layers;    // one entry when tied
  std::vector<HeadLayerWeights> head;  // head.layers.j
  Vector output, outputBias;           // head.output.weight [labels, last size], .bias [labels] when config.head.bias
};

}  // namespace hpformer
