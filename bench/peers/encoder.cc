#include "encoder.h"

#include <algorithm>
#include <cmath>

namespace hpformer::peers {

double position(int64_t step, int64_t channel, int64_t hidden) {
  const double angle = static_cast<double>(step) * std::exp(-static_cast<double>(channel & ~int64_t{1}) *
                                                            std::log(10000.0) / static_cast<double>(hidden));
  return channel & 1 ? std::cos(angle) : std::sin(angle);
}

double worstError(const Matrix& got, const Matrix& expected) {
  double worst = 0, square = 0;
  for (std::size_t i = 0; i < expected.data.size(); ++i) {
    const double error = std::abs(got.data[i] - expected.data[i]);
    if (error > worst || std::isnan(error)) worst = error;  // a NaN stays: nothing is greater
    square += expected.data[i] * expected.data[i];
  }
  return worst / std::sqrt(square / static_cast<double>(expected.data.size()));
}

namespace {

struct Layer {
  std::unique_ptr<Attention> attention;
  Linear output, forward;
};

class Encoder : public System {
 public:
  Encoder(const std::string& name, const EncoderSize& s) : s_(s) {
    std::mt19937 random(2023);
    embedding_ = Linear(s.size.hidden, s.features, true, random);
    for (int64_t i = 0; i < s.layers; ++i) {
      Layer layer;
      layer.attention = makeAttention(name, s.size, random);
      layer.output = Linear(s.size.hidden, s.size.hidden, false, random);
      layer.forward = Linear(s.size.hidden, s.size.hidden, true, random);
      layers_.push_back(std::move(layer));
    }
    ones_ = Floats(s.size.hidden);
    std::fill(ones_.data(), ones_.data() + s.size.hidden, 1.0f);
    zeros_ = Floats(s.size.hidden);
    std::fill(zeros_.data(), zeros_.data() + s.size.hidden, 0.0f);
    positions_ = Tiles(s.size.hidden, s.size.steps, kernels().tile);
    for (int64_t t = 0; t < s.size.steps; ++t)
      for (int64_t c = 0; c < s.size.hidden; ++c)
        positions_.at(c, t) = static_cast<float>(position(t, c, s.size.hidden));
  }

  void run(const float* input, float* pooled, int threads) const override {
    const Tiles x = encode(input, threads, s_.layers, false);
    for (int64_t c = 0; c < s_.size.hidden; ++c) {
      double sum = 0;
      for (int64_t t = 0; t < s_.size.steps; ++t) sum += x.at(c, t);
      pooled[c] = static_cast<float>(sum / static_cast<double>(s_.size.steps));
    }
  }

  // One layer: discrete choices (hash buckets, routes) of later layers could flip on rounding alone.
  double check(const float* input, int threads, bool broken) const override {
    const Tiles x = encode(input, threads, 1, broken);
    Matrix got(s_.size.steps, s_.size.hidden);
    for (int64_t t = 0; t < got.rows; ++t)
      for (int64_t c = 0; c < got.columns; ++c) got.at(t, c) = x.at(c, t);
    return worstError(got, reference(input));
  }

  int64_t parametersPerLayer() const override {
    const Layer& layer = layers_[0];
    return layer.attention->parameters() + layer.output.parameters() + layer.forward.parameters() + 4 * s_.size.hidden;
  }

  double flops() const override {
    const double l = static_cast<double>(s_.size.steps), d = static_cast<double>(s_.size.hidden);
    return 2 * l * d * static_cast<double>(s_.features) +
           static_cast<double>(s_.layers) * (layers_[0].attention->flops() + 4 * l * d * d);
  }

 private:
  Tiles encode(const float* input, int threads, int64_t layers, bool broken) const {
    const int64_t d = s_.size.hidden, lanes = kernels().tile, steps = s_.size.steps;
    Tiles x(d, steps, lanes), attended(d, steps, lanes);
    parallelFor(x.count, threads, [&](int64_t i) {
      Floats rows(s_.features * lanes);
      std::fill(rows.data(), rows.data() + rows.size(), 0.0f);
      for (int64_t t = 0; t < lanes && i * lanes + t < steps; ++t)
        for (int64_t c = 0; c < s_.features; ++c) rows.data()[c * lanes + t] = input[(i * lanes + t) * s_.features + c];
      embedding_.tile(rows.data(), x.tile(i), lanes, 0, positions_.tile(i));
    });
    for (int64_t n = 0; n < layers; ++n) {
      const Layer& layer = layers_[static_cast<std::size_t>(n)];
      layer.attention->run(x, attended, threads);
      if (broken) attended.at(0, 0) += 0.01f;
      parallelFor(x.count, threads, [&](int64_t i) {
        Floats y(d * lanes);
        layer.output.tile(attended.tile(i), y.data(), lanes, 0, x.tile(i));
        norm(y.data(), lanes);
        layer.forward.tile(y.data(), x.tile(i), lanes, 1, y.data());
        norm(x.tile(i), lanes);
      });
    }
    return x;
  }

  void norm(float* x, int64_t lanes) const {
    NormLanes n;
    n.form = NormForm::layernorm;
    n.weight = ones_.data();
    n.bias = zeros_.data();
    n.x = x;
    n.y = x;
    n.channels = s_.size.hidden;
    n.ld = n.cols = lanes;
    kernels().norm(n);
  }

  static void referenceNorm(Matrix& x) {
    for (int64_t t = 0; t < x.rows; ++t) {
      double mean = 0, variance = 0;
      for (int64_t c = 0; c < x.columns; ++c) mean += x.at(t, c) / static_cast<double>(x.columns);
      for (int64_t c = 0; c < x.columns; ++c)
        variance += std::pow(x.at(t, c) - mean, 2) / static_cast<double>(x.columns);
      for (int64_t c = 0; c < x.columns; ++c) x.at(t, c) = (x.at(t, c) - mean) / std::sqrt(variance + 1e-5);
    }
  }

  Matrix reference(const float* input) const {
    Matrix rows(s_.size.steps, s_.features);
    for (std::size_t i = 0; i < rows.data.size(); ++i) rows.data[i] = input[i];
    Matrix x = embedding_.reference(rows);
    for (int64_t t = 0; t < x.rows; ++t)
      for (int64_t c = 0; c < x.columns; ++c) x.at(t, c) += position(t, c, x.columns);
    const Layer& layer = layers_[0];
    Matrix y = layer.output.reference(layer.attention->reference(x));
    for (std::size_t i = 0; i < y.data.size(); ++i) y.data[i] += x.data[i];
    referenceNorm(y);
    Matrix z = layer.forward.reference(y);
    for (std::size_t i = 0; i < z.data.size(); ++i) z.data[i] = std::max(0.0, z.data[i]) + y.data[i];
    referenceNorm(z);
    return z;
  }

  EncoderSize s_;
  Linear embedding_;
  std::vector<Layer> layers_;
  Floats ones_, zeros_;
  Tiles positions_;
};

}  // namespace

const std::vector<std::string>& systemNames() {
  static const std::vector<std::string> names = {"hpformer", "transformer", "linformer", "performer",
                                                 "linear",   "longformer",  "sparse",    "reformer",
                                                 "sinkhorn", "synthesizer", "adamra",    "hot"};
  return names;
}

std::unique_ptr<System> makeSystem(const std::string& name, const EncoderSize& size) {
  if (name == "hpformer") return makeHpformer(size);
  std::mt19937 random(0);
  EncoderSize tiny = size;
  tiny.size.steps = 1;
  tiny.size.rows = tiny.size.columns = 1;
  if (!makeAttention(name, tiny.size, random)) return nullptr;
  return std::make_unique<Encoder>(name, size);
}

}  // namespace hpformer::peers
