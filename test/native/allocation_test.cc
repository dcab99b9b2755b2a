// Every allocation of create + run + dispose fails: the first, then the second, … until one pass needs no more; once it
// alone, once it and all after it. Each failure is StatusCode::memory, nothing leaks, and the next run works with the
// same bits.
//
// The failing allocations are those of the thread that asks (loader or runner); pool threads are driven by a model of
// one thread. A global operator new counts what is alive.
#include <algorithm>
#include <cstdio>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "binding/model/kernels.h"
#include "binding/model/model.h"
#include "check.h"
#include "failing_new.h"
#include "model_case.h"

using namespace hpformer;
using hpformer::test::alive;
using hpformer::test::countdown;
using hpformer::test::failed;
using hpformer::test::Failing;
using hpformer::test::failing;
using hpformer::test::Random;
using hpformer::test::randomArrays;
using hpformer::test::smallSpec;

namespace {

constexpr int64_t kBatch = 3, kSteps = 18;
constexpr uint32_t kAllRewrites = 0x7f;

template <typename Real>
struct Batch {
  Request<Real> request;
  std::vector<Real> real, logits, probabilities, attention;
  std::vector<int32_t> tokens;

  Batch(const Spec& spec, bool attentionToo) {
    Random random(9);
    request.batch = kBatch;
    if (spec.embedding == EmbeddingKind::tokens) {
      for (int64_t i = 0; i < kBatch * kSteps; ++i)
        tokens.push_back(static_cast<int32_t>(random.integer(0, spec.vocabulary - 1)));
    } else {
      const Vector values = random.vector(kBatch * kSteps * (spec.features > 0 ? spec.features : 1), -1, 1);
      real.assign(values.begin(), values.end());
    }
    for (Feed<Real>* feed : {&request.feed, &request.second}) {
      feed->steps = kSteps;
      feed->tokens = tokens.empty() ? nullptr : tokens.data();
      feed->features = spec.features > 0 ? real.data() : nullptr;
      feed->values = tokens.empty() && spec.features == 0 ? real.data() : nullptr;
    }
    const int64_t rows = spec.readout == Readout::steps ? kBatch * kSteps : kBatch;
    logits.resize(static_cast<size_t>(rows * spec.labels));
    probabilities.resize(logits.size());
    request.logits = logits.data();
    request.probabilities = probabilities.data();
    if (!attentionToo) return;
    request.out.segmentsMax = kSteps;
    attention.resize(static_cast<size_t>(kBatch * kSteps * kSteps));
    request.out.segmentAttention = attention.data();
  }
  // A run resolves lengths and step into memory of its own: the next one starts without them.
  void fresh() {
    request.feed.lengths = request.second.lengths = request.step = nullptr;
    std::fill(logits.begin(), logits.end(), Real{-777});
  }
};

template <typename Real>
void everyAllocation(const char* name, const Spec& spec, const ModelOptions& options, uint32_t rewrites, Failing mode) {
  Random random(5);
  const NamedArrays arrays = randomArrays(spec, random);
  Batch<Real> batch(spec, true);
  const CancelFlag cancel{false};

  const auto pass = [&]() -> Status {
    std::shared_ptr<const Model> model;
    FeedDefaults defaults;
    if (Status status = Model::create(spec, arrays, options, &model); !status.ok()) return status;
    batch.fresh();
    return model->run(&batch.request, rewrites, &defaults, cancel);
  };
  CHECK(pass().ok());  // warm: arena of this thread, statics
  const std::vector<Real> expected = batch.logits;
  const int64_t before = alive;
  int64_t n = 0;
  failing = mode;
  for (; n < 100000; ++n) {
    failed = false;
    countdown = n;
    const StatusCode code = pass().code;
    countdown = -1;
    if (!failed) {
      CHECK(code == StatusCode::ok);
      break;
    }
    CHECK(code == StatusCode::memory);
    if (alive != before) {
      std::fprintf(stderr, "%s: %lld blocks leaked when allocation %lld failed\n", name,
                   static_cast<long long>(alive - before), static_cast<long long>(n + 1));
      CHECK(alive == before);
      break;
    }
    if (n % 16 == 0) {
      CHECK(pass().ok());
      CHECK(batch.logits == expected);
      CHECK(alive == before);
    }
  }
  CHECK(n > 10);
  CHECK(pass().ok());
  CHECK(batch.logits == expected);
  std::printf("%s: %lld allocations, each failed %s\n", name, static_cast<long long>(n),
              mode == Failing::once ? "once" : "with all after it");
}

// A model that stays loaded: its first run on a new thread, whose arena is empty, fails at every allocation and then
// works.
void everyAllocationOfAFirstRun(const Spec& spec, Failing mode) {
  Random random(5);
  const NamedArrays arrays = randomArrays(spec, random);
  Batch<float> batch(spec, false);
  const CancelFlag cancel{false};
  ModelOptions options;
  options.threads = 1;
  int64_t n = 0;
  for (bool done = false; !done && n < 10000; ++n) {
    std::shared_ptr<const Model> model;
    CHECK(Model::create(spec, arrays, options, &model).ok());
    batch.fresh();
    std::thread([&] {
      FeedDefaults defaults;
      failing = mode;
      failed = false;
      countdown = n;
      const StatusCode code = model->run(&batch.request, kAllRewrites, &defaults, cancel).code;
      countdown = -1;
      done = !failed;
      CHECK(code == (failed ? StatusCode::memory : StatusCode::ok));
      CHECK(model->run(&batch.request, kAllRewrites, &defaults, cancel).ok());
    }).join();
  }
  CHECK(n > 1);
}

void everyAllocationOfAKernel() {
  std::vector<float> x(2 * 6 * 4, 0.5f), w(4 * 8, 0.25f), bias(4, 0.0f), out(2 * 3 * 4);
  KernelCall<float> call;
  call.name = "tdhp";
  call.parameters = {{"batch", 2}, {"steps", 6}, {"hidden", 4}, {"segments", 3}, {"length", 2}, {"pooling", 0}};
  call.inputs["x"] = {x.data(), 48};
  call.inputs["weight"] = {w.data(), 32};
  call.inputs["bias"] = {bias.data(), 4};
  call.outputs["out"] = {out.data(), 24};
  CHECK(runKernel(call).ok());
  const int64_t before = alive;
  int64_t n = 0;
  for (bool done = false; !done && n < 1000; ++n) {
    failed = false;
    countdown = n;
    const StatusCode code = runKernel(call).code;
    countdown = -1;
    done = !failed;
    CHECK(code == (failed ? StatusCode::memory : StatusCode::ok));
    CHECK(alive == before);
  }
}

}  // namespace

int main() {
  ModelOptions cpu, reference;
  cpu.threads = 1;
  reference.device = "reference";
  Spec features = smallSpec(EmbeddingKind::features, Readout::step), plain = features;
  plain.norm = NormKind::batchnorm;
  plain.readout = Readout::steps;
  Spec tokens = smallSpec(EmbeddingKind::tokens, Readout::mean);
  tokens.sequences = 2;
  Spec scalar = smallSpec(EmbeddingKind::scalar, Readout::mean);
  scalar.over = Over::valid;
  for (const Failing mode : {Failing::once, Failing::fromThere}) {
    cpu.precision = Precision::float32;
    everyAllocation<float>("features, step", features, cpu, kAllRewrites, mode);
    everyAllocation<float>("features, steps, plain plan", plain, cpu, 0, mode);
    everyAllocation<float>("tokens, two sequences", tokens, cpu, kAllRewrites, mode);
    cpu.precision = Precision::bfloat16;
    everyAllocation<float>("scalar, valid, bfloat16", scalar, cpu, kAllRewrites, mode);
    everyAllocation<double>("reference", plain, reference, 0, mode);
    failing = mode;
    everyAllocationOfAFirstRun(features, mode);
    everyAllocationOfAKernel();
  }
  return hpformer::test::result();
}
