// Every allocation of create + run + dispose fails once: the first, then the second, … until one pass needs no more.
// Each failure is StatusCode::memory, nothing leaks, and the next run works with the same bits.
//
// The failing allocations are those of the thread that asks (loader or runner); pool threads are driven by a model of
// one thread. A global operator new counts what is alive.
#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <new>
#include <string>
#include <thread>
#include <vector>

#include "binding/model/kernels.h"
#include "binding/model/model.h"
#include "check.h"
#include "model_case.h"

namespace {

std::atomic<int64_t> alive{0};
thread_local int64_t countdown = -1;  // -1: allocations do not fail; n: the n-th from now on fails, and all after it
thread_local bool failed = false;

void* allocate(std::size_t size, std::size_t alignment) {
  if (countdown == 0) {
    failed = true;
    return nullptr;
  }
  if (countdown > 0) --countdown;
  void* p = nullptr;
  if (posix_memalign(&p, alignment < sizeof(void*) ? sizeof(void*) : alignment, size ? size : 1) != 0) return nullptr;
  ++alive;
  return p;
}

void* allocateOrThrow(std::size_t size, std::size_t alignment) {
  void* p = allocate(size, alignment);
  if (!p) throw std::bad_alloc();
  return p;
}

void release(void* p) {
  if (!p) return;
  --alive;
  std::free(p);
}

}  // namespace

void* operator new(std::size_t n) { return allocateOrThrow(n, alignof(std::max_align_t)); }
void* operator new[](std::size_t n) { return allocateOrThrow(n, alignof(std::max_align_t)); }
void* operator new(std::size_t n, std::align_val_t a) { return allocateOrThrow(n, static_cast<std::size_t>(a)); }
void* operator new[](std::size_t n, std::align_val_t a) { return allocateOrThrow(n, static_cast<std::size_t>(a)); }
void* operator new(std::size_t n, const std::nothrow_t&) noexcept { return allocate(n, alignof(std::max_align_t)); }
void* operator new[](std::size_t n, const std::nothrow_t&) noexcept { return allocate(n, alignof(std::max_align_t)); }
void* operator new(std::size_t n, std::align_val_t a, const std::nothrow_t&) noexcept {
  return allocate(n, static_cast<std::size_t>(a));
}
void* operator new[](std::size_t n, std::align_val_t a, const std::nothrow_t&) noexcept {
  return allocate(n, static_cast<std::size_t>(a));
}
void operator delete(void* p) noexcept { release(p); }
void operator delete[](void* p) noexcept { release(p); }
void operator delete(void* p, std::size_t) noexcept { release(p); }
void operator delete[](void* p, std::size_t) noexcept { release(p); }
void operator delete(void* p, std::align_val_t) noexcept { release(p); }
void operator delete[](void* p, std::align_val_t) noexcept { release(p); }
void operator delete(void* p, std::size_t, std::align_val_t) noexcept { release(p); }
void operator delete[](void* p, std::size_t, std::align_val_t) noexcept { release(p); }
void operator delete(void* p, const std::nothrow_t&) noexcept { release(p); }
void operator delete[](void* p, const std::nothrow_t&) noexcept { release(p); }
void operator delete(void* p, std::align_val_t, const std::nothrow_t&) noexcept { release(p); }
void operator delete[](void* p, std::align_val_t, const std::nothrow_t&) noexcept { release(p); }

using namespace hpformer;
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
void everyAllocation(const char* name, const Spec& spec, const ModelOptions& options, uint32_t rewrites) {
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
  std::printf("%s: %lld allocations, each failed once\n", name, static_cast<long long>(n));
}

// A model that stays loaded: its first run on a new thread, whose arena is empty, fails at every allocation and then
// works.
void everyAllocationOfAFirstRun(const Spec& spec) {
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
  ModelOptions cpu;
  cpu.threads = 1;
  Spec features = smallSpec(EmbeddingKind::features, Readout::step);
  everyAllocation<float>("features, step", features, cpu, kAllRewrites);
  features.norm = NormKind::batchnorm;
  features.readout = Readout::steps;
  everyAllocation<float>("features, steps, plain plan", features, cpu, 0);
  Spec tokens = smallSpec(EmbeddingKind::tokens, Readout::mean);
  tokens.sequences = 2;
  everyAllocation<float>("tokens, two sequences", tokens, cpu, kAllRewrites);
  Spec scalar = smallSpec(EmbeddingKind::scalar, Readout::mean);
  scalar.over = Over::valid;
  cpu.precision = Precision::bfloat16;
  everyAllocation<float>("scalar, valid, bfloat16", scalar, cpu, kAllRewrites);
  ModelOptions reference;
  reference.device = "reference";
  everyAllocation<double>("reference", features, reference, 0);
  everyAllocationOfAFirstRun(smallSpec(EmbeddingKind::features, Readout::step));
  everyAllocationOfAKernel();
  return hpformer::test::result();
}
