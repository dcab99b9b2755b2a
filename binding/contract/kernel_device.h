// One step of the model on plain host arrays, computed by a device: what `kernels.*` asks of a backend other than the
// CPU's. Arrays, shapes and names as in binding/model/kernels.h, which has checked every size before a call comes here.
#pragma once
#include <cstdint>

#include "reference_steps.h"
#include "spec.h"
#include "status.h"
#include "weights.h"

namespace hpformer {

struct KernelSizes {
  int64_t batch = 0, steps = 0, hidden = 0, segments = 0, length = 0, heads = 0;
};

// Embedding, positions and norm; `spec` says which. `x` or `tokens`; `learned` holds the table of learned positions.
struct EmbedArrays {
  const float *x = nullptr, *weight = nullptr, *bias = nullptr, *normWeight = nullptr, *normBias = nullptr;
  const int32_t* tokens = nullptr;
  const Weights* learned = nullptr;
  float* out = nullptr;
};

class KernelDevice {
 public:
  virtual ~KernelDevice() = default;
  virtual Status embed(const Spec& spec, const KernelSizes& sizes, const EmbedArrays& arrays) = 0;
  virtual Status segmentPool(const KernelSizes& sizes, const float* x, Pooling pooling, float* out) = 0;
  virtual Status extraSegmentAttention(const KernelSizes& sizes, const float* x, float* out, float* weights) = 0;
  virtual Status intraSegmentAttention(const KernelSizes& sizes, const float* extra, const float* x, float* out,
                                       float* weights) = 0;
  virtual Status fusion(const KernelSizes& sizes, const float* extra, const float* intra, const float* weight,
                        const float* bias, float* out) = 0;
  virtual Status tdhp(const KernelSizes& sizes, const float* x, Pooling pooling, const float* weight, const float* bias,
                      float* out) = 0;
  virtual Status keyAttention(const KernelSizes& sizes, const float* x, const float* keys, float* out,
                              float* weights) = 0;
  virtual Status norm(NormKind kind, const reference::NormArrays<float>& w, int64_t rows, int64_t hidden,
                      const float* x, float* out) = 0;
  virtual Status dense(const float* x, int64_t rows, int64_t inputs, const float* weight, const float* bias,
                       int64_t outputs, Activation activation, float* out) = 0;
  virtual Status layer(const KernelSizes& sizes, const float* x, const float* keys,
                       const reference::LayerArrays<float>& w, NormKind kind, Activation activation, float* out) = 0;
  virtual Status head(const float* x, int64_t rows, int64_t inputs, const float* weight, const float* bias,
                      int64_t labels, Link link, float* logits, float* probabilities) = 0;
};

// Times of a call's work on the device, its copies left out.
struct KernelTiming {
  int repetitions = 0;      // in; 0: no timing
  double* times = nullptr;  // [repetitions] milliseconds of one call each
};

}  // namespace hpformer
