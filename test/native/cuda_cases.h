// Random models and batches for the CUDA tests, and the comparison with the double-precision reference.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "binding/contract/plan.h"
#include "binding/contract/reference.h"
#include "binding/contract/segments.h"
#include "cuda/backend.h"

namespace hpformer::testing {

class Random {
 public:
  explicit Random(uint64_t seed) : engine_(seed) {}
  int64_t integer(int64_t low, int64_t high) { return std::uniform_int_distribution<int64_t>(low, high)(engine_); }
  bool coin(double chance = 0.5) { return real(0, 1) < chance; }
  double real(double low, double high) { return std::uniform_real_distribution<double>(low, high)(engine_); }
  double normal() { return std::normal_distribution<double>()(engine_); }
  template <typename T>
  T pick(std::vector<T> from) {
    return from[static_cast<size_t>(integer(0, static_cast<int64_t>(from.size()) - 1))];
  }
  Vector vector(int64_t size, double deviation, double mean = 0) {
    Vector v(static_cast<size_t>(size));
    for (double& x : v) x = static_cast<float>(mean + deviation * normal());  // float values: what a checkpoint holds
    return v;
  }

 private:
  std::mt19937_64 engine_;
};

inline NormWeights randomNorm(Random& r, NormKind kind, int64_t d) {
  NormWeights w;
  w.weight = r.vector(kind == NormKind::scalenorm ? 1 : d, 0.1, 1);
  if (kind == NormKind::layernorm || kind == NormKind::batchnorm) w.bias = r.vector(d, 0.1);
  if (kind == NormKind::batchnorm) {
    w.mean = r.vector(d, 0.2);
    w.variance = r.vector(d, 0);
    for (double& v : w.variance) v = static_cast<float>(r.real(0.5, 2));
  }
  return w;
}

inline Weights randomWeights(const Spec& spec, Random& r) {
  const int64_t d = spec.hidden;
  const double scale = 1 / std::sqrt(static_cast<double>(d));
  Weights w;
  switch (spec.embedding) {
    case EmbeddingKind::features:
      w.embedding =
          r.vector(d * spec.features, (spec.scaleInput ? scale : 1) / std::sqrt(static_cast<double>(spec.features)));
      break;
    case EmbeddingKind::tokens: w.embedding = r.vector(spec.vocabulary * d, spec.scaleInput ? scale : 1); break;
    case EmbeddingKind::scalar: w.embedding = r.vector(d, spec.scaleInput ? scale : 1); break;
  }
  if (spec.embedding != EmbeddingKind::tokens) w.embeddingBias = r.vector(d, 0.1 * scale);
  if (spec.positions == PositionKind::learned) {
    const int64_t rows = spec.embedding == EmbeddingKind::tokens ? spec.maximum + spec.padding + 1 : spec.maximum;
    w.positions = r.vector(rows * d, 0.3);
  }
  if (spec.embeddingNorm) w.embeddingNorm = randomNorm(r, NormKind::layernorm, d);
  w.fusion = r.vector(d * 2 * d, scale / std::sqrt(2.0));
  w.fusionBias = r.vector(d, 0.05);
  for (int64_t i = 0; i < (spec.tiedLayers ? 1 : spec.layers); ++i) {
    LayerWeights layer;
    layer.output = r.vector(d * d, scale);
    layer.feedForward = r.vector(d * d, scale);
    layer.feedForwardBias = r.vector(d, 0.05);
    layer.norm1 = randomNorm(r, spec.norm, d);
    layer.norm2 = randomNorm(r, spec.norm, d);
    w.layers.push_back(std::move(layer));
  }
  int64_t in = spec.headInput();
  for (const HeadLayer& layer : spec.headLayers) {
    w.head.push_back({r.vector(layer.size * in, 1 / std::sqrt(static_cast<double>(in))), r.vector(layer.size, 0.05)});
    in = layer.size;
  }
  w.output = r.vector(spec.labels * in, 1 / std::sqrt(static_cast<double>(in)));
  if (spec.headBias) w.outputBias = r.vector(spec.labels, 0.1);
  return w;
}

// A batch with its own memory in both number types; outputs are allocated for all names.
template <typename Real>
struct Outputs {
  std::vector<Real> pooled, keys, attention, segmentAttention, intraAttention, embedded, segmentPool, extraSegment,
      intraSegment, encoded;
  std::vector<int32_t> segments;
  std::vector<std::vector<Real>> layers;
  std::vector<Real*> layerPointers;
};

struct InputData {
  int64_t steps = 0, segmentsMax = 0;
  std::vector<double> features, values;
  std::vector<float> featuresFloat, valuesFloat;
  std::vector<int32_t> tokens, lengths;
};

struct Batch {
  int64_t size = 0;
  InputData first, second;
  std::vector<int32_t> step;
  std::vector<double> weights;  // readoutWeights, or empty
  std::vector<float> weightsFloat;
};

inline InputData randomInput(const Spec& spec, Random& r, int64_t batch, int64_t steps) {
  InputData in;
  in.steps = steps;
  const size_t cells = static_cast<size_t>(batch * steps);
  // Only a sequence's own steps need learned positions, not what pads it.
  const int64_t longest =
      spec.over == Over::valid && spec.positions == PositionKind::learned ? std::min(steps, spec.maximum) : steps;
  in.lengths.resize(static_cast<size_t>(batch));
  for (int64_t b = 0; b < batch; ++b) {
    int64_t own = longest;
    Segments s;
    for (int tries = 0; spec.over == Over::valid && tries < 50; ++tries) {
      own = r.integer(1, longest);
      if (segmentsOf(spec, own, &s).ok()) break;
      own = longest;
    }
    in.lengths[static_cast<size_t>(b)] = static_cast<int32_t>(spec.over == Over::valid ? own : r.integer(1, steps + 3));
    (void)segmentsOf(spec, spec.over == Over::valid ? own : steps, &s);
    in.segmentsMax = std::max(in.segmentsMax, s.count);
  }
  if (spec.embedding == EmbeddingKind::features) {
    in.features = r.vector(batch * steps * spec.features, 1);
    in.featuresFloat.assign(in.features.begin(), in.features.end());
  } else if (spec.embedding == EmbeddingKind::scalar) {
    in.values = r.vector(batch * steps, 1);
    in.valuesFloat.assign(in.values.begin(), in.values.end());
  } else {
    in.tokens.resize(cells);
    for (int64_t b = 0; b < batch; ++b) {
      const int64_t used = r.coin() ? steps : r.integer(1, steps);
      for (int64_t t = 0; t < steps; ++t) {
        const bool pad = spec.padding >= 0 && (t >= used || r.coin(0.05));
        in.tokens[static_cast<size_t>(b * steps + t)] =
            static_cast<int32_t>(pad ? spec.padding : r.integer(0, spec.vocabulary - 1));
      }
    }
  }
  return in;
}

inline Batch randomBatch(const Spec& spec, Random& r, int64_t size, int64_t steps, int64_t steps2) {
  Batch batch;
  batch.size = size;
  batch.first = randomInput(spec, r, size, steps);
  if (spec.sequences == 2) batch.second = randomInput(spec, r, size, steps2);
  if (spec.readout == Readout::step) {
    const bool weighted = r.coin(0.3);
    for (int64_t b = 0; b < size; ++b) {
      const int64_t own = spec.over == Over::valid ? batch.first.lengths[static_cast<size_t>(b)] : steps;
      batch.step.push_back(static_cast<int32_t>(r.integer(0, own - 1)));
      for (int64_t t = 0; weighted && t < steps; ++t) {
        batch.weights.push_back(t < own && b != 1 && r.coin(0.4) ? static_cast<float>(0.15 * r.normal()) : 0);
      }
    }
    batch.weightsFloat.assign(batch.weights.begin(), batch.weights.end());
  }
  return batch;
}

template <typename Real>
struct Run {
  Request<Real> request;
  Outputs<Real> first, second;
  std::vector<Real> logits, probabilities;
  std::vector<std::vector<Real>> head;
  std::vector<Real*> headPointers;

  // `trace`: also every intermediate. `extras`: also attention weights.
  Run(const Spec& spec, const Batch& batch, bool trace, bool extras) {
    request.batch = batch.size;
    request.trace = trace;
    connect(spec, batch.first, batch.size, &request.feed, &first, &request.out, trace, extras, !batch.weights.empty());
    if (spec.sequences == 2) {
      connect(spec, batch.second, batch.size, &request.second, &second, &request.outSecond, trace, extras, false);
    }
    if (spec.readout == Readout::step) {
      if (batch.weights.empty()) {
        request.step = batch.step.data();
      } else if constexpr (std::is_same_v<Real, double>) {
        request.readoutWeights = batch.weights.data();
      } else {
        request.readoutWeights = batch.weightsFloat.data();
      }
    }
    const int64_t rows = batch.size * (spec.readout == Readout::steps ? batch.first.steps : 1);
    request.logits = make(&logits, rows * spec.labels);
    if (spec.link != Link::none) request.probabilities = make(&probabilities, rows * spec.labels);
    if (trace) {
      head.resize(spec.headLayers.size());
      for (size_t j = 0; j < head.size(); ++j) headPointers.push_back(make(&head[j], rows * spec.headLayers[j].size));
      request.head = headPointers.data();
    }
  }

 private:
  static Real* make(std::vector<Real>* v, int64_t size) {
    v->assign(static_cast<size_t>(size), Real(-77));
    return v->data();
  }

  void connect(const Spec& spec, const InputData& in, int64_t batch, Feed<Real>* feed, Outputs<Real>* o,
               SequenceOutputs<Real>* out, bool trace, bool extras, bool weighted) {
    feed->steps = in.steps;
    feed->tokens = in.tokens.empty() ? nullptr : in.tokens.data();
    feed->lengths = in.lengths.data();
    if constexpr (std::is_same_v<Real, double>) {
      feed->features = in.features.data();
      feed->values = in.values.data();
    } else {
      feed->features = in.featuresFloat.data();
      feed->values = in.valuesFloat.data();
    }
    const int64_t d = spec.hidden, s = in.segmentsMax, cells = batch * in.steps;
    out->segmentsMax = s;
    out->keys = make(&o->keys, batch * s * d);
    o->segments.assign(static_cast<size_t>(batch), -1);
    out->segments = o->segments.data();
    if (spec.readout != Readout::steps) out->pooled = make(&o->pooled, batch * d);
    if (extras) {
      const bool one = spec.readout == Readout::step && !weighted;
      out->attention = make(&o->attention, batch * (one ? 1 : in.steps) * spec.layers * spec.heads * s);
      out->segmentAttention = make(&o->segmentAttention, batch * s * s);
      out->intraAttention = make(&o->intraAttention, cells);
    }
    if (!trace) return;
    out->embedded = make(&o->embedded, cells * d);
    out->segmentPool = make(&o->segmentPool, batch * s * d);
    out->extraSegment = make(&o->extraSegment, batch * s * d);
    out->intraSegment = make(&o->intraSegment, batch * s * d);
    out->encoded = make(&o->encoded, cells * d);
    o->layers.resize(static_cast<size_t>(spec.layers));
    for (auto& layer : o->layers) o->layerPointers.push_back(make(&layer, cells * d));
    out->layers = o->layerPointers.data();
  }
};

// The largest |got - want| in units of the bound, infinity where only one is NaN. The bound is that of the fixtures,
// whose tensors are of order 1: 1e-5 + 1e-5 |want|. Random models have larger ones (batchnorm does not normalise here),
// so a tensor's root mean square takes the place of the 1 where it is larger.
inline double worst(const std::vector<float>& got, const std::vector<double>& want) {
  double square = 0, count = 0;
  for (double v : want) {
    if (!std::isnan(v)) square += v * v, ++count;
  }
  const double unit = std::max(1.0, std::sqrt(square / std::max(1.0, count)));
  double most = got.size() == want.size() ? 0 : INFINITY;
  for (size_t i = 0; i < want.size() && i < got.size(); ++i) {
    if (std::isnan(want[i]) && std::isnan(got[i])) continue;
    const double error = std::fabs(got[i] - want[i]) / (1e-5 * unit + 1e-5 * std::fabs(want[i]));
    most = std::isnan(error) ? INFINITY : std::max(most, error);
  }
  return most;
}

inline double rootMeanSquare(const std::vector<float>& got, const std::vector<double>& want, double* size) {
  double error = 0, square = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    error += (got[i] - want[i]) * (got[i] - want[i]);
    square += want[i] * want[i];
  }
  const double n = std::max<double>(1, static_cast<double>(want.size()));
  *size = std::sqrt(square / n);
  return std::sqrt(error / n);
}

}  // namespace hpformer::testing
