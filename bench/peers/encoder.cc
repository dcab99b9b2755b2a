#include "encoder.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

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
    if (!std::isfinite(error)) return std::numeric_limits<double>::max();
    worst = std::max(worst, error);
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
  Encoder(const std::string& name, const EncoderSize& s, bool broken) : s_(s) {
    std::mt19937 random(2023);
    embedding_ = Linear(s.size.hidden, s.features, true, random);
    for (int64_t i = 0; i < s.layers; ++i) {
      Layer layer;
      layer.attention = makeAttention(name, s.size, random);
      layer.attention->broken = broken;
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
    const Tiles x = encode(input, threads);
    for (int64_t c = 0; c < s_.size.hidden; ++c) {
      double sum = 0;
      for (int64_t t = 0; t < s_.size.steps; ++t) sum += x.at(c, t);
      pooled[c] = static_cast<float>(sum / static_cast<double>(s_.size.steps));
    }
  }

  // Every layer against its formula applied to what that very layer received; then the timed call against the mean of
  // the last one.
  double check(const float* input, int threads) const override {
    double worst = 0;
    Matrix received;
    encode(input, threads, [&](int64_t n, const Tiles& x, const Choices& choices) {
      Matrix got(s_.size.steps, s_.size.hidden);
      for (int64_t t = 0; t < got.rows; ++t)
        for (int64_t c = 0; c < got.columns; ++c) got.at(t, c) = x.at(c, t);
      const Matrix expected = n < 0 ? referenceEmbedding(input) : referenceLayer(n, received, threads, choices);
      worst = std::max(worst, worstError(got, expected));
      received = got;
    });
    Matrix pooled(1, s_.size.hidden), mean(1, s_.size.hidden);
    std::vector<float> called(static_cast<std::size_t>(s_.size.hidden));
    run(input, called.data(), threads);
    std::copy(called.begin(), called.end(), pooled.data.begin());
    for (int64_t t = 0; t < received.rows; ++t)
      addScaled(mean.row(0), 1.0 / static_cast<double>(received.rows), received.row(t), mean.columns);
    return std::max(worst, worstError(pooled, mean));
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
  // `see(n, x, choices)`: the embedding (n = -1) and what each layer made.
  using See = std::function<void(int64_t, const Tiles&, const Choices&)>;
  Tiles encode(const float* input, int threads, const See& see = nullptr) const {
    const int64_t d = s_.size.hidden, lanes = kernels().tile, steps = s_.size.steps;
    Tiles x(d, steps, lanes), attended(d, steps, lanes);
    parallelFor(x.count, threads, [&](int64_t i) {
      Floats rows(s_.features * lanes);
      std::fill(rows.data(), rows.data() + rows.size(), 0.0f);
      for (int64_t t = 0; t < lanes && i * lanes + t < steps; ++t)
        for (int64_t c = 0; c < s_.features; ++c) rows.data()[c * lanes + t] = input[(i * lanes + t) * s_.features + c];
      embedding_.tile(rows.data(), x.tile(i), lanes, 0, positions_.tile(i));
    });
    Choices choices;
    if (see) see(-1, x, choices);
    for (int64_t n = 0; n < s_.layers; ++n) {
      const Layer& layer = layers_[static_cast<std::size_t>(n)];
      layer.attention->run(x, attended, threads, see ? &choices : nullptr);
      parallelFor(x.count, threads, [&](int64_t i) {
        Floats y(d * lanes);
        layer.output.tile(attended.tile(i), y.data(), lanes, 0, x.tile(i));
        norm(y.data(), lanes);
        layer.forward.tile(y.data(), x.tile(i), lanes, 1, y.data());
        norm(x.tile(i), lanes);
      });
      if (see) see(n, x, choices);
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

  Matrix referenceEmbedding(const float* input) const {
    Matrix rows(s_.size.steps, s_.features);
    for (std::size_t i = 0; i < rows.data.size(); ++i) rows.data[i] = input[i];
    Matrix x = embedding_.reference(rows);
    for (int64_t t = 0; t < x.rows; ++t)
      for (int64_t c = 0; c < x.columns; ++c) x.at(t, c) += position(t, c, x.columns);
    return x;
  }

  Matrix referenceLayer(int64_t n, const Matrix& x, int threads, const Choices& choices) const {
    const Layer& layer = layers_[static_cast<std::size_t>(n)];
    Matrix y = layer.output.reference(layer.attention->reference(x, threads, choices));
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

std::unique_ptr<System> makeSystem(const std::string& name, const EncoderSize& size, bool broken) {
  if (name == "hpformer") return makeHpformer(size, broken);
  std::mt19937 random(0);
  EncoderSize tiny = size;
  tiny.size.steps = 1;
  tiny.size.rows = tiny.size.columns = 1;
  if (!makeAttention(name, tiny.size, random)) return nullptr;
  return std::make_unique<Encoder>(name, size, broken);
}

}  // namespace hpformer::peers
