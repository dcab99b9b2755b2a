#include "model.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <map>
#include <utility>

#include "binding/contract/positions.h"
#include "modules.h"

namespace hpformer::cuda {
namespace {

std::mutex gModelsMutex;
std::map<std::string, std::weak_ptr<DeviceModel>> gModels;

}  // namespace

// Collects arrays into one block; each starts on 32 bytes: vectors, sectors.
class Packer {
 public:
  size_t add(const Vector& values, double scale = 1.0) {
    const size_t offset = floats_.size();
    for (double v : values) floats_.push_back(static_cast<float>(v * scale));
    floats_.resize((floats_.size() + 7) / 8 * 8, 0.f);
    return offset;
  }

  PackedNorm norm(NormKind kind, const NormWeights& w) {
    PackedNorm packed;
    if (kind == NormKind::batchnorm) {
      const auto [scale, shift] = folded(w);
      packed.kind = Norm::affine;
      packed.weight = add(scale);
      packed.bias = add(shift);
      return packed;
    }
    packed.kind = kind == NormKind::layernorm   ? Norm::layernorm
                  : kind == NormKind::scalenorm ? Norm::scalenorm
                                                : Norm::rmsnorm;
    packed.weight = add(w.weight);
    if (kind == NormKind::layernorm) packed.bias = add(w.bias);
    return packed;
  }

  // A matrix [rows, columns] as [columns, rows].
  size_t transposed(const Vector& matrix, int64_t rows, int64_t columns, double scale = 1.0) {
    Vector turned(matrix.size());
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < columns; ++c)
        turned[static_cast<size_t>(c * rows + r)] = matrix[static_cast<size_t>(r * columns + c)];
    }
    return add(turned, scale);
  }

  // A weight [hidden, k] as slices of the stream: 64 bytes of k for all columns, in the order in which lanes load their
  // operands (kernels/mma.cuh); k beyond the matrix is zero.
  void slices(const Vector& weight, int64_t hidden, int64_t k, bool bfloat16, double scale = 1.0) {
    const int64_t words = bfloat16 ? 8 : 4, chunk = 4 * words;
    for (int64_t first = 0; first < k; first += chunk) {
      for (int64_t unit = 0; unit < hidden / 8 * 32; ++unit) {
        const int64_t lane = unit % 32, n = unit / 32 * 8 + lane / 4, column = first + lane % 4 * words;
        const auto value = [&](int64_t e) {
          return column + e < k ? static_cast<float>(weight[static_cast<size_t>(n * k + column + e)] * scale) : 0.f;
        };
        for (int64_t e = 0; e < words; e += bfloat16 ? 2 : 1) {
          floats_.push_back(bfloat16 ? std::bit_cast<float>(bits(value(e)) | bits(value(e + 1)) << 16) : value(e));
        }
      }
    }
  }

  // A vector of `hidden` values for kernels that index it by column whatever it was: one value is repeated, none is
  // zero.
  void column(const Vector& values, int64_t hidden) {
    for (int64_t i = 0; i < hidden; ++i) {
      const size_t at = values.size() == 1 ? 0 : static_cast<size_t>(i);
      floats_.push_back(values.empty() ? 0.f : static_cast<float>(values[at]));
    }
  }
  void columns(NormKind kind, const NormWeights& w, int64_t hidden) {
    if (kind != NormKind::batchnorm) {
      column(w.weight, hidden);
      column(w.bias, hidden);
      return;
    }
    const auto [scale, shift] = folded(w);
    column(scale, hidden);
    column(shift, hidden);
  }

  size_t position() const { return floats_.size(); }
  const std::vector<float>& floats() const { return floats_; }

 private:
  // Eval batchnorm as one multiply-add.
  static std::pair<Vector, Vector> folded(const NormWeights& w) {
    Vector scale(w.weight.size()), shift(w.weight.size());
    for (size_t i = 0; i < scale.size(); ++i) {
      scale[i] = w.weight[i] / std::sqrt(w.variance[i] + kNormEpsilon);
      shift[i] = w.bias[i] - w.mean[i] * scale[i];
    }
    return {scale, shift};
  }

  // bfloat16, nearest even.
  static uint32_t bits(float x) {
    const uint32_t b = std::bit_cast<uint32_t>(x);
    if (x != x) return (b >> 16) | 0x40;
    return (b + 0x7fff + ((b >> 16) & 1)) >> 16;
  }

  std::vector<float> floats_;
};

Status DeviceModel::acquire(const Spec& spec, const Weights& weights, int ordinal, Precision precision,
                            const std::string& key, std::shared_ptr<DeviceModel>* out) {
  const std::string name =
      std::to_string(ordinal) + (precision == Precision::bfloat16 ? "/bfloat16/" : "/float32/") + key;
  std::lock_guard lock(gModelsMutex);
  if (!key.empty()) {
    if (std::shared_ptr<DeviceModel> known = gModels[name].lock(); known && known->device().poisoned().ok()) {
      *out = std::move(known);
      return {};
    }
  }
  std::shared_ptr<Device> device;
  if (Status s = Device::acquire(ordinal, &device); !s.ok()) return s;
  std::shared_ptr<DeviceModel> fresh(new DeviceModel(device, spec, weights, precision));
  if (Status s = fresh->pack(weights); !s.ok()) return s;
  if (!key.empty()) {
    std::erase_if(gModels, [](const auto& entry) { return entry.second.expired(); });
    gModels[name] = fresh;
  }
  *out = std::move(fresh);
  return {};
}

Status DeviceModel::pack(const Weights& w) {
  Packer packer;
  embedding = packer.add(w.embedding, inputScale(spec_));
  if (spec_.embeddingNorm) {
    embeddingNormWeight = packer.add(w.embeddingNorm.weight);
    embeddingNormBias = packer.add(w.embeddingNorm.bias);
  }
  fusion = packer.add(w.fusion);
  fusionBias = packer.add(w.fusionBias);
  for (int64_t i = 0; i < spec_.layers; ++i) {
    if (spec_.tiedLayers && i > 0) {
      layers.push_back(layers.front());
      continue;
    }
    const LayerWeights& from = w.layers[static_cast<size_t>(i)];
    PackedLayer layer;
    layer.output = packer.add(from.output);
    layer.feedForward = packer.add(from.feedForward);
    layer.feedForwardBias = packer.add(from.feedForwardBias);
    layer.norm1 = packer.norm(spec_.norm, from.norm1);
    layer.norm2 = packer.norm(spec_.norm, from.norm2);
    layers.push_back(layer);
  }
  int64_t in = spec_.headInput();
  for (size_t j = 0; j < spec_.headLayers.size(); ++j) {
    const int64_t size = spec_.headLayers[j].size;
    head.push_back({packer.add(w.head[j].weight), packer.transposed(w.head[j].weight, size, in),
                    packer.add(w.head[j].bias), in, size, static_cast<Act>(spec_.headLayers[j].activation)});
    in = size;
  }
  head.push_back({packer.add(w.output), packer.transposed(w.output, spec_.labels, in),
                  spec_.headBias ? packer.add(w.outputBias) : kNone, in, spec_.labels, Act::linear});
  packFused(w, &packer);
  Device::Current current(*device_);
  if (!current.status().ok()) return current.status();
  if (fusable) {
    const std::string width = std::to_string(spec_.hidden);
    if (Status s = device_->prepare(width + (precision_ == Precision::bfloat16 ? "_bf16" : "_f32")); !s.ok()) return s;
  } else {
    if (Status s = device_->prepare("common"); !s.ok()) return s;
  }
  return device_->upload(packer.floats().data(), packer.floats().size() * sizeof(float), &block_);
}

void DeviceModel::packFused(const Weights& w, Packer* packer) {
  const int64_t d = spec_.hidden;
  const bool features = spec_.embedding == EmbeddingKind::features;
  fusable =
      hasFusedWidth(d) && head.size() <= static_cast<size_t>(kMaxHeadLayers) && !(features && spec_.features > 128);
  if (!fusable) return;
  const bool half = precision_ == Precision::bfloat16;
  const int64_t wide = (spec_.features + 7) / 8 * 8;
  if (features && half) {
    Vector turned(static_cast<size_t>(wide * d));
    for (int64_t i = 0; i < d * spec_.features; ++i) {
      turned[static_cast<size_t>(i % spec_.features * d + i / spec_.features)] = w.embedding[static_cast<size_t>(i)];
    }
    queryOperand = packer->position();
    packer->slices(turned, wide, d, half, inputScale(spec_));
  } else if (features) {
    embedOperand = packer->transposed(w.embedding, d, spec_.features, inputScale(spec_));
    Vector padded(static_cast<size_t>(d * wide));
    for (int64_t i = 0; i < d * spec_.features; ++i) {
      padded[static_cast<size_t>(i / spec_.features * wide + i % spec_.features)] = w.embedding[static_cast<size_t>(i)];
    }
    queryOperand = packer->add(padded, inputScale(spec_));
  }
  if (half) {
    fusionOperand = packer->position();
    packer->slices(w.fusion, d, 2 * d, half);
  } else {
    fusionOperand = packer->transposed(w.fusion, d, 2 * d);
  }
  stream = packer->position();
  if (features && half) embedOperand = stream;  // the same slices
  if (features) packer->slices(w.embedding, d, spec_.features, half, inputScale(spec_));
  for (const LayerWeights& layer : w.layers) {
    packer->slices(layer.output, d, d, half);
    packer->slices(layer.feedForward, d, d, half);
  }
  vectors = packer->position();
  for (const LayerWeights& layer : w.layers) {
    packer->column(layer.feedForwardBias, d);
    packer->columns(spec_.norm, layer.norm1, d);
    packer->columns(spec_.norm, layer.norm2, d);
  }
}

Status DeviceModel::origin(int64_t rows, std::shared_ptr<OriginTable>* out) {
  std::lock_guard lock(originMutex_);
  const int64_t hidden = spec_.hidden, learned = static_cast<int64_t>(positions_.positions.size()) / hidden;
  // Sequences may be padded beyond what was learned; nothing there is embedded.
  if (learned > 0) rows = std::min(rows, learned);
  if (origin_ && origin_->rows >= rows) {
    *out = origin_;
    return {};
  }
  const bool features = spec_.embedding == EmbeddingKind::features;
  const bool single = spec_.positions == PositionKind::none && !features;  // one row, repeated by a stride of 0
  int64_t count = std::max<int64_t>(64, rows);
  if (origin_) count = std::max(count, origin_->rows * 2);
  if (learned > 0) count = learned;
  const int64_t stored = single ? 1 : count;
  const double scale = inputScale(spec_);
  std::vector<float> floats(static_cast<size_t>(stored * hidden));
  Vector row(static_cast<size_t>(hidden)), prefix(features ? static_cast<size_t>((stored + 1) * hidden) : 0);
  for (int64_t p = 0; p < stored; ++p) {
    positionRow(spec_, positions_, p, row.data());
    for (int64_t i = 0; i < hidden; ++i) {
      const double bias = embeddingBias_.empty() ? 0.0 : embeddingBias_[static_cast<size_t>(i)] * scale;
      const size_t at = static_cast<size_t>(p * hidden + i);
      floats[at] = static_cast<float>(row[static_cast<size_t>(i)] + bias);
      if (features) prefix[at + static_cast<size_t>(hidden)] = prefix[at] + row[static_cast<size_t>(i)] + bias;
    }
  }
  auto table = std::make_shared<OriginTable>();
  table->rows = count;
  table->stride = single ? 0 : static_cast<int>(hidden);
  if (Status s = device_->upload(floats.data(), floats.size() * sizeof(float), &table->floats); !s.ok()) return s;
  if (features) {
    if (Status s = device_->upload(prefix.data(), prefix.size() * sizeof(double), &table->prefix); !s.ok()) return s;
  }
  origin_ = table;
  *out = std::move(table);
  return {};
}

}  // namespace hpformer::cuda
