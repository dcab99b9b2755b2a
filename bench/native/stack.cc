// Whole models on one thread of the CPU backend, the published sizes with weights of our own: timed beside loops of the
// level's multiply-adds, of its additions and of both together, so that instruction counts of the same run
// (bench/src/engine.ts) say how long it must take at least.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <memory>
#include <random>

#include "binding/contract/reference.h"
#include "binding/contract/segments.h"
#include "binding/cpu/backend.h"
#include "native.h"

// What callgrind collects: one run, without loading.
extern "C" __attribute__((noinline)) void hpformer_counted_stack(const hpformer::native::Stack& stack) { stack.run(); }

namespace hpformer::native {
namespace {

Spec specOf(const std::string& name) {
  Spec spec;
  spec.heads = 8;
  if (name == "decompensation") {
    spec.embedding = EmbeddingKind::features;
    spec.features = 76;
    spec.positions = PositionKind::interleaved;
    spec.hidden = 128;
    spec.layers = 8;
    spec.segmentSteps = 504;
    spec.readout = Readout::steps;
    return spec;
  }
  spec.positions = PositionKind::halves;
  spec.scaleInput = true;
  spec.readout = Readout::mean;
  spec.headBias = false;
  spec.link = Link::softmax;
  spec.labels = 2;
  if (name == "text") {
    spec.embedding = EmbeddingKind::tokens;
    spec.vocabulary = 169;
    spec.padding = 1;
    spec.embeddingNorm = true;
    spec.hidden = 256;
    spec.layers = 4;
    spec.activation = Activation::silu;
    return spec;
  }
  spec.embedding = EmbeddingKind::scalar;
  spec.activation = Activation::gelu;
  spec.norm = NormKind::batchnorm;
  spec.hidden = name == "image" ? 256 : 128;
  spec.layers = name == "image" ? 8 : 6;
  return spec;
}

int64_t stepsOf(const std::string& name) {
  return name == "decompensation" ? 504 : name == "text" ? 4000 : name == "image" ? 1024 : 4096;
}

class Model : public Stack {
 public:
  explicit Model(const std::string& name) : spec_(specOf(name)) {
    name_ = name;
    steps_ = stepsOf(name);
    const int64_t d = spec_.hidden;
    std::mt19937 random(2023);
    std::normal_distribution<double> normal;
    const auto draw = [&](int64_t n, double scale) {
      Vector v(static_cast<std::size_t>(n));
      for (double& x : v) x = static_cast<float>(scale * normal(random));
      return v;
    };
    const auto matrix = [&](int64_t rows, int64_t depth) {
      return draw(rows * depth, 1 / std::sqrt(static_cast<double>(depth)));
    };
    const auto norm = [&] {
      NormWeights n{Vector(static_cast<std::size_t>(d), 1.0), draw(d, 0.1), {}, {}};
      if (spec_.norm == NormKind::batchnorm)
        n.mean = draw(d, 0.1), n.variance = Vector(static_cast<std::size_t>(d), 1.0);
      return n;
    };
    auto w = std::make_shared<Weights>();
    const bool tokens = spec_.embedding == EmbeddingKind::tokens;
    const int64_t width = tokens ? spec_.vocabulary : spec_.embedding == EmbeddingKind::features ? spec_.features : 1;
    w->embedding = tokens ? draw(width * d, 0.1) : matrix(d, width);
    if (!tokens) w->embeddingBias = draw(d, 0.1);
    if (spec_.embeddingNorm) w->embeddingNorm = {Vector(static_cast<std::size_t>(d), 1.0), draw(d, 0.1), {}, {}};
    w->fusion = matrix(d, 2 * d);
    w->fusionBias = draw(d, 0.1);
    for (int64_t i = 0; i < spec_.layers; ++i)
      w->layers.push_back({matrix(d, d), norm(), matrix(d, d), draw(d, 0.1), norm()});
    w->output = matrix(spec_.labels, d);
    if (spec_.headBias) w->outputBias = draw(spec_.labels, 0.1);
    weights_ = w;
    if (tokens) {
      for (int64_t t = 0; t < steps_; ++t) tokens_.push_back(2 + static_cast<int32_t>(random() % 167));
    } else {
      for (const double x : draw(steps_ * width, 1)) input_.push_back(static_cast<float>(x));
    }
    CpuOptions options;
    options.threads = 1;
    if (!createCpuBackend(spec_, weights_, options, &backend_).ok()) backend_.reset();
  }

  bool run() const override { return logitsOf(steps_, nullptr); }

  // Over the first 97 steps of long sequences: no tile and no segment divides them; the kernels do not change with L.
  double error() const override {
    const int64_t steps = spec_.segmentSteps > 0 ? steps_ : 97;
    std::vector<float> got;
    if (!logitsOf(steps, &got)) return NAN;
    std::vector<double> wide(input_.begin(), input_.end()), expected(got.size());
    Request<double> request;
    const auto length = static_cast<int32_t>(steps);
    fill(&request, steps, &length, wide.data());
    request.logits = expected.data();
    const CancelFlag cancel{false};
    if (!runReference(spec_, *weights_, request, cancel).ok()) return NAN;
    double worst = 0, square = 0;
    for (std::size_t i = 0; i < got.size(); ++i) {
      const double e = std::abs(got[i] - expected[i]);
      if (e > worst || std::isnan(e)) worst = e;  // a NaN stays
      square += expected[i] * expected[i];
    }
    return worst / std::max(1.0, std::sqrt(square / static_cast<double>(got.size())));
  }

 private:
  template <typename Real>
  void fill(Request<Real>* request, int64_t steps, const int32_t* length, const Real* input) const {
    request->batch = 1;
    request->feed.steps = steps;
    request->feed.lengths = length;
    if (spec_.embedding == EmbeddingKind::features) request->feed.features = input;
    if (spec_.embedding == EmbeddingKind::tokens) request->feed.tokens = tokens_.data();
    if (spec_.embedding == EmbeddingKind::scalar) request->feed.values = input;
    Segments cut;
    if (segmentsOf(spec_, steps, &cut).ok()) request->out.segmentsMax = cut.count;
  }

  bool logitsOf(int64_t steps, std::vector<float>* out) const {
    const int64_t rows = spec_.readout == Readout::steps ? steps : 1;
    std::vector<float> logits(static_cast<std::size_t>(rows * spec_.labels));
    Request<float> request;
    const auto length = static_cast<int32_t>(steps);
    fill(&request, steps, &length, input_.data());
    request.logits = logits.data();
    const CancelFlag cancel{false};
    const bool good = backend_ && backend_->run(request, Plan{}, cancel).ok();
    if (out) *out = std::move(logits);
    return good;
  }

  Spec spec_;
  std::shared_ptr<const Weights> weights_;
  std::unique_ptr<Backend> backend_;
  std::vector<float> input_;
  std::vector<int32_t> tokens_;
};

double median(std::vector<double> v) {
  std::sort(v.begin(), v.end());
  return v[v.size() / 2];
}

}  // namespace

const std::vector<std::string>& stackNames() {
  static const std::vector<std::string> names = {"decompensation", "text", "image", "long"};
  return names;
}

std::unique_ptr<Stack> makeStack(const std::string& name) {
  const auto& all = stackNames();
  return std::find(all.begin(), all.end(), name) == all.end() ? nullptr : std::make_unique<Model>(name);
}

int stacks(int rounds, const std::vector<std::string>& names) {
  struct Result {
    std::unique_ptr<Stack> stack;
    double error;
    std::vector<double> ms, multiply, add, both;
  };
  std::vector<Result> results;
  for (const std::string& name : names.empty() ? stackNames() : names) {
    auto stack = makeStack(name);
    if (!stack) {
      std::fprintf(stderr, "hpformer_native stack: no model named %s\n", name.c_str());
      return 2;
    }
    const double error = stack->error();
    results.push_back({std::move(stack), error, {}, {}, {}, {}});
  }
  const std::string isa = isaInUse();
  for (int round = -1; round < rounds; ++round)
    for (Result& r : results) {
      const double multiply = vectorRate(isa, VectorLoop::multiply, 2), add = vectorRate(isa, VectorLoop::add, 2),
                   both = vectorRate(isa, VectorLoop::both, 2);
      const auto start = std::chrono::steady_clock::now();
      if (!r.stack->run()) r.error = NAN;
      const double ms = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
      if (round < 0) continue;
      r.ms.push_back(ms);
      r.multiply.push_back(multiply);
      r.add.push_back(add);
      r.both.push_back(both);
    }
  bool good = true;
  std::printf("{ \"isa\": \"%s\", \"rows\": [", isa.c_str());
  for (std::size_t i = 0; i < results.size(); ++i) {
    Result& r = results[i];
    const bool checked = r.error <= 2e-5;
    good = good && checked;
    std::sort(r.ms.begin(), r.ms.end());
    std::printf(
        "%s\n  { \"model\": \"%s\", \"steps\": %lld, \"ms\": %.4f, \"low\": %.4f, \"high\": %.4f, \"repetitions\": "
        "%zu, "
        "\"multiplyRate\": %.4f, \"addRate\": %.4f, \"bothRate\": %.4f, \"checked\": %s, \"error\": %.1e }",
        i ? "," : "", r.stack->name().c_str(), static_cast<long long>(r.stack->steps()), median(r.ms),
        r.ms[r.ms.size() / 4], r.ms[r.ms.size() * 3 / 4], r.ms.size(), median(r.multiply), median(r.add),
        median(r.both), checked ? "true" : "false", r.error);
  }
  std::printf("\n] }\n");
  return good ? 0 : 1;
}

int countStack(const std::string& name) {
  const std::unique_ptr<Stack> stack = makeStack(name);
  if (!stack) {
    for (const std::string& known : stackNames()) std::printf("%s\n", known.c_str());
    return name == "list" ? 0 : 2;
  }
  if (!stack->run()) return 1;  // tables that later runs of this length share
  hpformer_counted_stack(*stack);
  return 0;
}

}  // namespace hpformer::native
