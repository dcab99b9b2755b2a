// HPformer itself, through the door of the CPU backend: everything the product does, and judged by the product's
// reference.
#include <cmath>
#include <limits>

#include "binding/contract/reference.h"
#include "binding/contract/segments.h"
#include "binding/cpu/backend.h"
#include "encoder.h"

namespace hpformer::peers {
namespace {

Vector doubles(const std::vector<float>& v) { return {v.begin(), v.end()}; }

class Hpformer : public System {
 public:
  Hpformer(const EncoderSize& s, bool broken) : s_(s) {
    const int64_t d = s.size.hidden;
    spec_.embedding = EmbeddingKind::features;
    spec_.features = s.features;
    spec_.positions = PositionKind::interleaved;
    spec_.hidden = d;
    spec_.heads = s.size.heads;
    spec_.layers = s.layers;
    spec_.readout = Readout::mean;
    spec_.labels = 1;
    std::mt19937 random(2023);
    const auto matrix = [&](int64_t rows, int64_t depth) {
      return doubles(gaussian(rows * depth, 1.0f / std::sqrt(static_cast<float>(depth)), random));
    };
    const auto vector = [&](int64_t n) { return doubles(gaussian(n, 0.1f, random)); };
    auto w = std::make_shared<Weights>();
    w->embedding = matrix(d, s.features);
    w->embeddingBias = vector(d);
    w->fusion = matrix(d, 2 * d);
    w->fusionBias = vector(d);
    for (int64_t i = 0; i < s.layers; ++i) {
      LayerWeights layer;
      layer.output = matrix(d, d);
      layer.feedForward = matrix(d, d);
      layer.feedForwardBias = vector(d);
      for (NormWeights* n : {&layer.norm1, &layer.norm2}) {
        n->weight = Vector(static_cast<std::size_t>(d), 1.0);
        n->bias = Vector(static_cast<std::size_t>(d), 0.0);
      }
      w->layers.push_back(layer);
    }
    w->output = matrix(1, d);
    w->outputBias = vector(1);
    weights_ = w;
    CpuOptions options;
    options.key = "peers " + std::to_string(d) + " " + std::to_string(s.layers);
    Spec engine = spec_;
    if (broken) engine.pooling = Pooling::max;  // segments are no longer means
    status_ = createCpuBackend(engine, weights_, options, &backend_);
  }

  void run(const float* input, float* pooled, int) const override {
    Request<float> request;
    float logit = 0;
    const auto length = static_cast<int32_t>(s_.size.steps);
    request.batch = 1;
    request.feed.steps = s_.size.steps;
    request.feed.features = input;
    request.feed.lengths = &length;
    request.out.pooled = pooled;
    request.out.segmentsMax = segments().count;
    request.logits = &logit;
    const CancelFlag cancel{false};
    const Status status = backend_->run(request, Plan{}, cancel);
    logit_ = logit;
    if (!status.ok()) pooled[0] = NAN;  // fails the check
  }

  // The call's outputs: the layers stay in registers, there is nothing else to see.
  double check(const float* input, int threads) const override {
    if (!status_.ok()) return std::numeric_limits<double>::max();
    const int64_t d = s_.size.hidden;
    std::vector<float> pooled(static_cast<std::size_t>(d));
    run(input, pooled.data(), threads);
    std::vector<double> wide(input, input + s_.size.steps * s_.features);
    Matrix expected(1, d), got(1, d);
    double logit = 0;
    const auto length = static_cast<int32_t>(s_.size.steps);
    Request<double> request;
    request.batch = 1;
    request.feed.steps = s_.size.steps;
    request.feed.features = wide.data();
    request.feed.lengths = &length;
    request.out.pooled = expected.data.data();
    request.out.segmentsMax = segments().count;
    request.logits = &logit;
    const CancelFlag cancel{false};
    if (!runReference(spec_, *weights_, request, cancel).ok()) return std::numeric_limits<double>::max();
    for (int64_t c = 0; c < d; ++c) got.at(0, c) = pooled[static_cast<std::size_t>(c)];
    const double root = std::sqrt(static_cast<double>(d));  // the logit is a sum over the channels
    return std::max(worstError(got, expected), std::abs(logit_ - logit) / root);
  }

  int64_t parametersPerLayer() const override { return 2 * s_.size.hidden * s_.size.hidden + 5 * s_.size.hidden; }

  // As the formulas state it; the engine's exact rewrites do less.
  double flops() const override {
    const double l = static_cast<double>(s_.size.steps), d = static_cast<double>(s_.size.hidden);
    const Segments cut = segments();
    const double n = static_cast<double>(cut.count), b = static_cast<double>(cut.length);
    return 2 * l * d * static_cast<double>(s_.features) + 4 * n * n * d + 4 * n * b * d + 4 * n * d * d +
           static_cast<double>(s_.layers) * l * (4 * n * d + 4 * d * d);
  }

 private:
  Segments segments() const {
    Segments cut;
    static_cast<void>(segmentsOf(spec_, s_.size.steps, &cut).ok());
    return cut;
  }
  EncoderSize s_;
  Spec spec_;
  std::shared_ptr<const Weights> weights_;
  std::unique_ptr<Backend> backend_;
  Status status_;
  mutable double logit_ = 0;  // of the last run
};

}  // namespace

std::unique_ptr<System> makeHpformer(const EncoderSize& size, bool broken) {
  return std::make_unique<Hpformer>(size, broken);
}

}  // namespace hpformer::peers
