// A model's weights in the layouts of the kernels: made once per process for equal keys, immutable, shared by all
// models and worker threads that load the same file at the same precision and ISA level.
#pragma once
#include <algorithm>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "binding/contract/plan.h"
#include "binding/contract/spec.h"
#include "binding/contract/weights.h"
#include "kernels.h"
#include "tables.h"

namespace hpformer {

// Cache-line aligned zeros, to be filled.
template <typename T>
class Aligned {
 public:
  Aligned() = default;
  explicit Aligned(int64_t count)
      : data_(static_cast<T*>(::operator new(static_cast<size_t>(count > 0 ? count : 1) * sizeof(T), kLine))),
        size_(count) {
    std::fill_n(data_.get(), count, T{});
  }
  T* data() { return data_.get(); }
  const T* data() const { return data_.get(); }
  int64_t size() const { return size_; }

 private:
  static constexpr std::align_val_t kLine{64};
  struct Free {
    void operator()(T* p) const { ::operator delete(p, kLine); }
  };
  std::unique_ptr<T[], Free> data_;
  int64_t size_ = 0;
};
using Floats = Aligned<float>;

// A weight of the model's products: panels for `Gemm::a` (in bfloat16 rounded to it), tiles where the level has them,
// in float32 of three parts, or 16-bit fixed point, in bfloat16 on levels that have that.
struct PackedMatrix {
  Floats panels;
  Aligned<int32_t> pairs;
  Floats scale;
  float limit = 0;
  Aligned<uint16_t> tiles;
  int64_t part = 0;
  const float* data() const { return panels.data(); }
  Fixed fixed() const { return {pairs.data(), scale.data(), limit}; }
  // As the left operand of `g`, from column `first` on (a multiple of 32 on tiles).
  void operandOf(Gemm* g, const Kernels& level, int64_t first = 0) const {
    g->a = panels.data() + first * level.panel;
    g->fixed = fixed();
    if (tiles.size() == 0) return;
    g->tiles = tiles.data() + first / 32 * 512;
    g->part = part;
  }
};

// Nearest bfloat16 (ties to even), its 16 bits.
uint16_t bfloat16Bits(float x);

struct PackedNorm {
  NormForm form = NormForm::layernorm;
  Floats weight, bias, mean, variance;
};

struct PackedLayer {
  PackedMatrix output;       // [hidden x hidden]
  PackedMatrix feedForward;  // [hidden x hidden]
  Floats feedForwardBias;
  PackedNorm norm1, norm2;
};

struct PackedHead {
  PackedMatrix weight;
  Floats bias;  // empty when there is none
  int64_t size = 0, input = 0;
  Activation activation = Activation::linear;
};

class Packed {
 public:
  // Equal `key`, precision and ISA level give the same object while anyone holds it.
  static std::shared_ptr<const Packed> get(const Spec& spec, std::shared_ptr<const Weights> weights,
                                           const std::string& key, Precision precision);

  Packed(const Spec& spec, std::shared_ptr<const Weights> weights, Precision operands);

  Spec spec;
  Precision precision;
  const Kernels& level;                    // whose layouts these are
  std::shared_ptr<const Weights> weights;  // the exact values, for tables that depend on positions and lengths
  PackedMatrix
      embedding;  // features: [hidden x F]; tokens: rows [vocabulary][hidden]; scalar: [hidden]. Input scale included
  Floats embeddingBias;  // input scale included
  PackedNorm embeddingNorm;
  PackedMatrix fusion;  // [hidden x 2 hidden], never in bfloat16: all tokens share its few keys
  Floats fusionBias;
  std::vector<PackedLayer> layers;
  std::vector<PackedHead> head;  // head layers, then the output
  // Absorbed embedding (features, mean pooling, no embedding norm): absent otherwise. Float32 in every precision, W^T W
  // even by plain multiply-adds: squared weights under a softmax would lose too much.
  bool absorbs = false;
  Floats gram;         // panels of W^T W [F x F]
  PackedMatrix fused;  // [W_f1 W | W_f2 W] [hidden x 2 F]
  // Unfolded batchnorm statistics, for the plan that switches foldedWeights off; empty for other norms
  std::vector<PackedNorm> plainNorms;  // [2 i], [2 i + 1] of layer i

  std::unique_ptr<Tables> tables;
  int64_t bytes = 0;

 private:
  Floats panels(const double* source, int64_t rows, int64_t columns, bool rounded = false);
  // What a weight is for: the products of every token; those and M (stack.cc); few or small products.
  enum class Use { layer, mixed, small };
  PackedMatrix matrix(const double* source, int64_t rows, int64_t columns, Use use);
  PackedMatrix keyMatrix(const double* source, int64_t rows, int64_t columns);
  void addFixed(PackedMatrix* m, const double* source, int64_t rows, int64_t columns);
  void addTiles(PackedMatrix* m, const double* source, int64_t rows, int64_t columns, int parts);
  Floats copy(const Vector& source, double scale = 1);
  PackedNorm norm(const NormWeights& source, bool fold);
};

}  // namespace hpformer
