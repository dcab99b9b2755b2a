// A model's weights in the layouts of the kernels: made once per process for equal keys, immutable, shared by all models
// and worker threads that load the same file at the same precision and ISA level.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "binding/contract/plan.h"
#include "binding/contract/spec.h"
#include "binding/contract/weights.h"
#include "kernels.h"
#include "tables.h"

namespace hpformer {

// Cache-line aligned floats.
class Floats {
 public:
  Floats() = default;
  explicit Floats(int64_t count);
  float* data() { return data_.get(); }
  const float* data() const { return data_.get(); }
  int64_t size() const { return size_; }

 private:
  struct Free {
    void operator()(float* p) const;
  };
  std::unique_ptr<float[], Free> data_;
  int64_t size_ = 0;
};

struct PackedNorm {
  NormForm form = NormForm::layernorm;
  Floats weight, bias, mean, variance;
};

struct PackedLayer {
  Floats output;       // panels [hidden x hidden]
  Floats feedForward;  // panels [hidden x hidden]
  Floats feedForwardBias;
  PackedNorm norm1, norm2;
};

struct PackedHead {
  Floats weight, bias;  // panels; bias empty when there is none
  int64_t size = 0, input = 0;
  Activation activation = Activation::linear;
};

class Packed {
 public:
  // Equal `key`, precision, ISA level and folding give the same object while anyone holds it.
  static std::shared_ptr<const Packed> get(const Spec& spec, std::shared_ptr<const Weights> weights,
                                           const std::string& key, Precision precision);

  Packed(const Spec& spec, std::shared_ptr<const Weights> weights, Precision precision);

  Spec spec;
  std::shared_ptr<const Weights> weights;  // the exact values, for tables that depend on positions and lengths
  Floats embedding;       // features: panels [hidden x F]; tokens: rows [vocabulary][hidden]; scalar: [hidden]. Input scale included
  Floats embeddingBias;   // input scale included
  PackedNorm embeddingNorm;
  Floats fusion, fusionBias;  // panels [hidden x 2 hidden]
  std::vector<PackedLayer> layers;
  std::vector<PackedHead> head;  // head layers, then the output
  // Absorbed embedding (features, mean pooling, no embedding norm): absent otherwise
  bool absorbs = false;
  Floats gram;            // panels of W^T W [F x F]
  Floats fused;           // panels of [W_f1 W | W_f2 W] [hidden x 2 F]
  // Unfolded batchnorm statistics, for the plan that switches foldedWeights off; empty for other norms
  std::vector<PackedNorm> plainNorms;  // [2 i], [2 i + 1] of layer i

  std::unique_ptr<Tables> tables;
  int64_t bytes = 0;

 private:
  Floats panels(const double* source, int64_t rows, int64_t columns);
  Floats copy(const Vector& source, double scale = 1);
  PackedNorm norm(const NormWeights& source, bool fold);
  Precision precision_;
  int64_t panel_;
};

}  // namespace hpformer
