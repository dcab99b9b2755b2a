// Random small models and batches for the native property tests; everything follows from one printed seed.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "binding/contract/request.h"
#include "binding/contract/segments.h"
#include "binding/contract/spec.h"
#include "binding/contract/weights.h"

namespace hpformer::test {

struct Random {
  explicit Random(uint64_t seed) : engine(seed) {}
  int64_t in(int64_t low, int64_t high) {
    return low + static_cast<int64_t>(engine() % static_cast<uint64_t>(high - low + 1));
  }
  double uniform(double low, double high) { return low + (high - low) * static_cast<double>(engine() >> 11) * 0x1p-53; }
  bool chance(double p) { return uniform(0, 1) < p; }
  std::mt19937_64 engine;
};

inline Vector randomVector(Random& r, int64_t n, double low, double high) {
  Vector v(static_cast<size_t>(n));
  for (double& x : v) x = static_cast<float>(r.uniform(low, high));  // exact in float, as checkpoints are
  return v;
}

inline NormWeights randomNorm(Random& r, NormKind kind, int64_t d) {
  NormWeights n;
  n.weight = randomVector(r, kind == NormKind::scalenorm ? 1 : d, 0.5, 1.5);
  if (kind == NormKind::layernorm || kind == NormKind::batchnorm) n.bias = randomVector(r, d, -0.3, 0.3);
  if (kind == NormKind::batchnorm) {
    n.mean = randomVector(r, d, -0.5, 0.5);
    n.variance = randomVector(r, d, 0.5, 2);
  }
  return n;
}

inline Spec randomSpec(Random& r) {
  Spec s;
  s.embedding = static_cast<EmbeddingKind>(r.in(0, 2));
  s.heads = r.in(1, 8);
  s.hidden = s.heads * r.in(s.heads >= 4 ? 1 : 4, 20);
  s.features = s.embedding == EmbeddingKind::features ? r.in(1, 40) : 0;
  s.vocabulary = s.embedding == EmbeddingKind::tokens ? r.in(5, 30) : 0;
  s.padding = s.embedding == EmbeddingKind::tokens && r.chance(0.7) ? r.in(0, 2) : -1;
  s.positions = static_cast<PositionKind>(r.in(0, 3));
  if (s.hidden < 4 && s.positions == PositionKind::halves) s.positions = PositionKind::none;
  s.scaleInput = (s.positions == PositionKind::interleaved || s.positions == PositionKind::halves) && r.chance(0.5);
  s.maximum = s.positions == PositionKind::learned ? 200 : 0;
  s.embeddingNorm = r.chance(0.3);
  s.layers = r.in(1, 4);
  s.tiedLayers = r.chance(0.2);
  s.activation = static_cast<Activation>(r.in(0, 4));
  s.norm = static_cast<NormKind>(r.in(0, 3));
  s.rule = r.chance(0.3) ? SegmentRule::paper : SegmentRule::upstream;
  s.times = s.rule == SegmentRule::paper ? 1 : r.in(1, 3);
  s.pooling = static_cast<Pooling>(r.in(0, 1));
  s.over = static_cast<Over>(r.in(0, 1));
  s.readout = static_cast<Readout>(r.in(0, 2));
  s.sequences = s.readout == Readout::mean && r.chance(0.3) ? 2 : 1;
  for (int64_t j = r.in(0, 2); j > 0; --j) s.headLayers.push_back({r.in(1, 24), static_cast<Activation>(r.in(0, 4))});
  s.labels = r.in(1, 12);
  s.headBias = r.chance(0.5);
  s.link = static_cast<Link>(r.in(0, 2));
  // Batches padded beyond what positions there are, which only a sequence's own steps need.
  if (s.positions == PositionKind::learned && s.over == Over::valid && r.chance(0.5)) s.maximum = r.in(10, 100);
  return s;
}

inline Weights randomWeights(Random& r, const Spec& s) {
  Weights w;
  const int64_t d = s.hidden;
  const double k = 1 / std::sqrt(static_cast<double>(d)),
               e = s.scaleInput ? k : 1;  // as upstream initialises what it scales
  if (s.embedding == EmbeddingKind::features)
    w.embedding = randomVector(r, d * s.features, -e / std::sqrt(static_cast<double>(s.features)),
                               e / std::sqrt(static_cast<double>(s.features)));
  if (s.embedding == EmbeddingKind::tokens) w.embedding = randomVector(r, s.vocabulary * d, -e, e);
  if (s.embedding == EmbeddingKind::scalar) w.embedding = randomVector(r, d, -e, e);
  if (s.embedding != EmbeddingKind::tokens) w.embeddingBias = randomVector(r, d, -e / 2, e / 2);
  if (s.positions == PositionKind::learned)
    w.positions = randomVector(
        r, (s.maximum + (s.embedding == EmbeddingKind::tokens && s.padding >= 0 ? s.padding + 1 : 0)) * d, -0.5, 0.5);
  if (s.embeddingNorm) w.embeddingNorm = randomNorm(r, NormKind::layernorm, d);
  w.fusion = randomVector(r, d * 2 * d, -k, k);
  w.fusionBias = randomVector(r, d, -k, k);
  for (int64_t i = 0; i < (s.tiedLayers ? 1 : s.layers); ++i) {
    LayerWeights l;
    l.output = randomVector(r, d * d, -k, k);
    l.norm1 = randomNorm(r, s.norm, d);
    l.feedForward = randomVector(r, d * d, -k, k);
    l.feedForwardBias = randomVector(r, d, -k, k);
    l.norm2 = randomNorm(r, s.norm, d);
    w.layers.push_back(l);
  }
  int64_t input = s.headInput();
  for (const HeadLayer& h : s.headLayers) {
    const double q = 1 / std::sqrt(static_cast<double>(input));
    w.head.push_back({randomVector(r, h.size * input, -q, q), randomVector(r, h.size, -q, q)});
    input = h.size;
  }
  const double q = 1 / std::sqrt(static_cast<double>(input));
  w.output = randomVector(r, s.labels * input, -q, q);
  if (s.headBias) w.outputBias = randomVector(r, s.labels, -q, q);
  return w;
}

// A batch in float and in double with every output that the spec allows.
template <typename Real>
struct Batch {
  Request<Real> request;
  std::vector<Real> features[2], values[2], readoutWeights, logits, probabilities;
  std::vector<int32_t> tokens[2], lengths[2], step;
  struct Out {
    std::vector<Real> pooled, keys, attention, segmentAttention, intraAttention;
    std::vector<int32_t> segments;
  } out[2];
};

// Fills feeds and allocates outputs; false when the segment rule has no answer for the drawn lengths.
inline bool randomBatch(Random& r, const Spec& s, int64_t batch, int64_t steps, Batch<float>* f, Batch<double>* d,
                        bool everyOutput) {
  const auto side = [&](int which) {
    const int64_t l = which == 0 ? steps : std::max<int64_t>(1, steps + r.in(-3, 5));
    const int64_t n = batch * l;
    const int64_t longest = s.positions == PositionKind::learned ? std::min(l, s.maximum) : l;
    if (s.over == Over::padded && longest < l) return false;
    if (s.embedding == EmbeddingKind::features) {
      const Vector x = randomVector(r, n * s.features, -2, 2);
      d->features[which] = x;
      f->features[which].assign(x.begin(), x.end());
    } else if (s.embedding == EmbeddingKind::scalar) {
      const Vector x = randomVector(r, n, -2, 2);
      d->values[which] = x;
      f->values[which].assign(x.begin(), x.end());
    } else {
      f->tokens[which].resize(static_cast<size_t>(n));
      for (int32_t& t : f->tokens[which])
        t = static_cast<int32_t>(s.padding >= 0 && r.chance(0.2) ? s.padding : r.in(0, s.vocabulary - 1));
      d->tokens[which] = f->tokens[which];
    }
    int64_t most = 0;
    for (int64_t b = 0; b < batch; ++b) {
      const int64_t own = s.over == Over::valid ? r.in(1, longest) : l;
      f->lengths[which].push_back(static_cast<int32_t>(s.over == Over::valid ? own : r.in(1, l + 3)));
      Segments segments;
      if (!segmentsOf(s, own, &segments).ok()) return false;
      most = std::max(most, segments.count);
    }
    d->lengths[which] = f->lengths[which];
    const auto set = [&](auto* batchOf) {
      using Real = std::remove_pointer_t<decltype(batchOf->request.logits)>;
      Feed<Real>& feed = which == 0 ? batchOf->request.feed : batchOf->request.second;
      SequenceOutputs<Real>& out = which == 0 ? batchOf->request.out : batchOf->request.outSecond;
      feed.steps = l;
      feed.features = batchOf->features[which].empty() ? nullptr : batchOf->features[which].data();
      feed.values = batchOf->values[which].empty() ? nullptr : batchOf->values[which].data();
      feed.tokens = batchOf->tokens[which].empty() ? nullptr : batchOf->tokens[which].data();
      feed.lengths = batchOf->lengths[which].data();
      out.segmentsMax = most;
      auto& o = batchOf->out[which];
      const auto take = [&](std::vector<Real>& v, int64_t count) {
        v.assign(static_cast<size_t>(count), Real(-777));
        return v.data();
      };
      if (s.readout != Readout::steps) out.pooled = take(o.pooled, batch * s.hidden);
      if (!everyOutput) return;
      out.keys = take(o.keys, batch * most * s.hidden);
      const bool one = s.readout == Readout::step && batchOf->request.readoutWeights == nullptr;
      out.attention = take(o.attention, batch * (one ? 1 : l) * s.layers * s.heads * most);
      out.segmentAttention = take(o.segmentAttention, batch * most * most);
      out.intraAttention = take(o.intraAttention, batch * l);
      o.segments.assign(static_cast<size_t>(batch), -7);
      out.segments = o.segments.data();
    };
    set(f);
    set(d);
    return true;
  };
  f->request.batch = d->request.batch = batch;
  if (s.readout == Readout::step && r.chance(0.4)) {
    const Vector w = randomVector(r, batch * steps, -1, 1);
    d->readoutWeights = w;
    for (double& x : d->readoutWeights)
      if (r.chance(0.6)) x = 0;
    f->readoutWeights.assign(d->readoutWeights.begin(), d->readoutWeights.end());
    f->request.readoutWeights = f->readoutWeights.data();
    d->request.readoutWeights = d->readoutWeights.data();
  }
  if (!side(0) || (s.sequences == 2 && !side(1))) return false;
  if (s.over == Over::valid)  // weights beyond a sequence's own length are refused upstream of any backend
    for (int64_t b = 0; f->request.readoutWeights && b < batch; ++b)
      for (int64_t t = f->lengths[0][static_cast<size_t>(b)]; t < steps; ++t)
        f->readoutWeights[static_cast<size_t>(b * steps + t)] = 0,
                                                          d->readoutWeights[static_cast<size_t>(b * steps + t)] = 0;
  if (s.readout == Readout::step && !f->request.readoutWeights) {
    for (int64_t b = 0; b < batch; ++b)
      f->step.push_back(
          static_cast<int32_t>(r.in(0, (s.over == Over::valid ? f->lengths[0][static_cast<size_t>(b)] : steps) - 1)));
    d->step = f->step;
    f->request.step = f->step.data();
    d->request.step = d->step.data();
  }
  const int64_t rows = batch * (s.readout == Readout::steps ? steps : 1) * s.labels;
  f->logits.assign(static_cast<size_t>(rows), -777);
  f->probabilities = f->logits;
  d->logits.assign(static_cast<size_t>(rows), -777);
  d->probabilities = d->logits;
  f->request.logits = f->logits.data();
  d->request.logits = d->logits.data();
  if (s.link != Link::none) {
    f->request.probabilities = f->probabilities.data();
    d->request.probabilities = d->probabilities.data();
  }
  return true;
}

inline std::string describe(const Spec& s) {
  std::string t = "embedding " + std::to_string(int(s.embedding)) + " F " + std::to_string(s.features) + " positions " +
                  std::to_string(int(s.positions)) + " hidden " + std::to_string(s.hidden) + " heads " +
                  std::to_string(s.heads) + " layers " + std::to_string(s.layers) + " norm " +
                  std::to_string(int(s.norm)) + " activation " + std::to_string(int(s.activation)) + " rule " +
                  std::to_string(int(s.rule)) + " times " + std::to_string(s.times) + " pooling " +
                  std::to_string(int(s.pooling)) + " over " + std::to_string(int(s.over)) + " readout " +
                  std::to_string(int(s.readout)) + " sequences " + std::to_string(s.sequences) + " embeddingNorm " +
                  std::to_string(s.embeddingNorm) + " padding " + std::to_string(s.padding);
  return t;
}

}  // namespace hpformer::test
