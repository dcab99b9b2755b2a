// A model's weights on one device: folded in double, rounded once, uploaded once, shared by every backend object with
// the same key.
#pragma once
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "binding/contract/plan.h"
#include "binding/contract/spec.h"
#include "binding/contract/weights.h"
#include "device.h"
#include "params.h"

namespace hpformer::cuda {

// Offsets count floats in the packed block; kNone: the model has no such array.
inline constexpr size_t kNone = ~size_t{0};

struct PackedNorm {
  Norm kind = Norm::layernorm;
  size_t weight = kNone, bias = kNone;
};

struct PackedLayer {
  size_t output = kNone, feedForward = kNone, feedForwardBias = kNone;
  PackedNorm norm1, norm2;
};

struct PackedHead {
  size_t weight = kNone, transposed = kNone, bias = kNone;
  int64_t in = 0, out = 0;
  Act activation = Act::linear;
};

// bias + position vector of every position up to `rows`, in float; grown when a longer sequence comes, learned ones
// whole from the start.
struct OriginTable {
  DeviceBuffer floats;
  DeviceBuffer prefix;  // double [rows + 1, hidden]: sums of the rows before; only for features
  int64_t rows = 0;
  int stride = 0;
};

class Packer;

class DeviceModel {
 public:
  static Status acquire(const Spec& spec, const Weights& weights, int ordinal, Precision precision,
                        const std::string& key, std::shared_ptr<DeviceModel>* out);

  Device& device() { return *device_; }
  const Spec& spec() const { return spec_; }
  Precision precision() const { return precision_; }
  int64_t bytes() const { return static_cast<int64_t>(block_.bytes()); }

  const float* at(size_t offset) const { return offset == kNone ? nullptr : block_.at<float>(offset * sizeof(float)); }
  // A table with at least `rows` rows, or all that were learned. The caller keeps it until the work that reads it is
  // done.
  Status origin(int64_t rows, std::shared_ptr<OriginTable>* out);

  size_t embedding =
      kNone;  // features [hidden, F], tokens [vocabulary, hidden], scalar [hidden]; input scale folded in
  size_t embeddingNormWeight = kNone, embeddingNormBias = kNone;
  size_t fusion = kNone, fusionBias = kNone;
  std::vector<PackedLayer> layers;  // spec.layers entries; tied ones are equal
  std::vector<PackedHead> head;     // head layers, then the output layer

  // For the fused kernels (layouts in params.h and kernels/mma.cuh); kNone where the model's shape has none.
  bool fusable = false;
  size_t embedOperand = kNone, queryOperand = kNone, fusionOperand = kNone;  // of TDHP (TdhpParams)
  size_t stream = kNone, vectors = kNone;

 private:
  DeviceModel(std::shared_ptr<Device> device, const Spec& spec, const Weights& weights, Precision precision)
      : device_(std::move(device)),
        spec_(spec),
        precision_(precision),
        embeddingBias_(weights.embeddingBias),
        positions_{} {
    positions_.positions = weights.positions;
  }
  Status pack(const Weights& weights);
  void packFused(const Weights& weights, Packer* packer);

  std::shared_ptr<Device> device_;  // first, so that it outlives the buffers
  const Spec spec_;
  const Precision precision_;
  Vector embeddingBias_;
  Weights positions_;  // learned positions only
  DeviceBuffer block_;
  std::mutex originMutex_;
  std::shared_ptr<OriginTable> origin_;
};

}  // namespace hpformer::cuda
