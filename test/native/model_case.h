// Random small models and batches for the native tests.
#pragma once
#include <cstdint>
#include <random>
#include <string>

#include "binding/contract/request.h"
#include "binding/contract/spec.h"
#include "binding/contract/weights.h"
#include "binding/model/intake.h"

namespace hpformer::test {

class Random {
 public:
  explicit Random(uint64_t seed) : engine_(seed) {}
  double real(double low, double high) { return low + (high - low) * (static_cast<double>(engine_() >> 11) * 0x1p-53); }
  int64_t integer(int64_t low, int64_t high) {
    return low + static_cast<int64_t>(engine_() % static_cast<uint64_t>(high - low + 1));
  }
  Vector vector(int64_t count, double low, double high) {
    Vector v(static_cast<size_t>(count));
    for (double& x : v) x = real(low, high);
    return v;
  }

 private:
  std::mt19937_64 engine_;
};

inline Spec smallSpec(EmbeddingKind embedding, Readout readout) {
  Spec spec;
  spec.embedding = embedding;
  spec.features = embedding == EmbeddingKind::features ? 5 : 0;
  spec.vocabulary = embedding == EmbeddingKind::tokens ? 11 : 0;
  spec.padding = embedding == EmbeddingKind::tokens ? 1 : -1;
  spec.positions = embedding == EmbeddingKind::features ? PositionKind::interleaved : PositionKind::halves;
  spec.scaleInput = embedding != EmbeddingKind::features;
  spec.embeddingNorm = embedding == EmbeddingKind::tokens;
  spec.hidden = 12;
  spec.heads = 3;
  spec.layers = 2;
  spec.activation = Activation::silu;
  spec.readout = readout;
  spec.headLayers = {{7, Activation::gelu}};
  spec.labels = 2;
  spec.link = Link::softmax;
  return spec;
}

// Every parameter of the spec by name, uniform and small; variances positive.
inline NamedArrays randomArrays(const Spec& spec, Random& random) {
  NamedArrays arrays;
  const int64_t d = spec.hidden;
  const auto put = [&](const std::string& name, int64_t count, double low = -0.4, double high = 0.4) {
    arrays[name].wide = random.vector(count, low, high);
  };
  const auto putNorm = [&](const std::string& name, NormKind kind) {
    put(name + ".weight", kind == NormKind::scalenorm ? 1 : d, 0.5, 1.5);
    if (kind == NormKind::layernorm || kind == NormKind::batchnorm) put(name + ".bias", d);
    if (kind == NormKind::batchnorm) {
      put(name + ".mean", d);
      put(name + ".variance", d, 0.2, 2);
    }
  };
  const bool tokens = spec.embedding == EmbeddingKind::tokens;
  put("embedding.weight", tokens ? spec.vocabulary * d : d * (spec.features > 0 ? spec.features : 1));
  if (!tokens) put("embedding.bias", d);
  if (spec.positions == PositionKind::learned)
    put("positions.weight", (spec.maximum + (tokens ? spec.padding + 1 : 0)) * d);
  if (spec.embeddingNorm) putNorm("embeddingNorm", NormKind::layernorm);
  put("tdhp.fusion.weight", 2 * d * d);
  put("tdhp.fusion.bias", d);
  for (int64_t i = 0; i < (spec.tiedLayers ? 1 : spec.layers); ++i) {
    const std::string name = "layers." + std::to_string(i);
    put(name + ".output.weight", d * d);
    putNorm(name + ".norm1", spec.norm);
    put(name + ".feedForward.weight", d * d);
    put(name + ".feedForward.bias", d);
    putNorm(name + ".norm2", spec.norm);
  }
  int64_t width = spec.headInput();
  for (size_t j = 0; j < spec.headLayers.size(); ++j) {
    const std::string name = "head.layers." + std::to_string(j);
    put(name + ".weight", spec.headLayers[j].size * width);
    put(name + ".bias", spec.headLayers[j].size);
    width = spec.headLayers[j].size;
  }
  put("head.output.weight", spec.labels * width);
  if (spec.headBias) put("head.output.bias", spec.labels);
  return arrays;
}

}  // namespace hpformer::test
