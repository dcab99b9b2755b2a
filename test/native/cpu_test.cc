// The CPU backend against the double-precision reference on random models and batches, with every rewrite on and off;
// and the promise that a sequence gets the same bits in any batch and on any number of threads. Usage: cpu_test [seed]
// [cases] [float32|bfloat16]. In bfloat16 the logits' RMS error is bounded by 1e-2 max(1, their RMS).
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "binding/contract/reference.h"
#include "binding/cpu/backend.h"
#include "random_model.h"

using namespace hpformer;
using namespace hpformer::test;

namespace {

int failures = 0;

double worst = 0;
Precision precision = Precision::float32;

bool closeRms(const std::vector<float>& got, const Vector& expected) {
  double error = 0, size = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    error += (got[i] - expected[i]) * (got[i] - expected[i]);
    size += expected[i] * expected[i];
  }
  const double n = static_cast<double>(expected.size()), allowed = 1e-2 * std::max(1.0, std::sqrt(size / n));
  const double relative = std::sqrt(error / n) / allowed;
  worst = std::max(worst, relative);
  if (relative <= 1) return true;
  std::printf("  logits: RMS error %.3g, allowed %.3g\n", relative * allowed, allowed);
  return false;
}

bool close(const char* what, const std::vector<float>& got, const Vector& expected, double bound) {
  for (size_t i = 0; i < expected.size(); ++i) {
    const double error = std::fabs(got[i] - expected[i]), allowed = bound + bound * std::fabs(expected[i]);
    if (error / allowed > worst) worst = error / allowed;
    if (!(error <= allowed)) {
      std::printf("  %s[%zu]: got %.9g, expected %.9g\n", what, i, static_cast<double>(got[i]), expected[i]);
      return false;
    }
  }
  return true;
}

template <typename T>
bool same(const char* what, const T* a, const T* b, size_t n) {
  if (n == 0 || std::memcmp(a, b, n * sizeof(T)) == 0) return true;
  for (size_t i = 0; i < n; ++i)
    if (std::memcmp(a + i, b + i, sizeof(T)) != 0) {
      std::printf("  %s[%zu]: %.9g against %.9g\n", what, i, static_cast<double>(a[i]), static_cast<double>(b[i]));
      break;
    }
  return false;
}

void fail(uint64_t seed, const Spec& s, int64_t batch, int64_t steps, const char* what) {
  ++failures;
  std::printf("FAIL %s seed=%llu batch %lld steps %lld %s\n", what, static_cast<unsigned long long>(seed),
              static_cast<long long>(batch), static_cast<long long>(steps), describe(s).c_str());
}

void one(uint64_t seed) {
  Random r(seed);
  Spec s = randomSpec(r);
  if (r.chance(0.3)) {  // widths that models have; with tiles: heads that share a block, fill one, span two
    constexpr int64_t kShapes[][2] = {{128, 8}, {64, 8}, {96, 3}, {128, 2}, {160, 8}};
    const auto& [hidden, heads] = kShapes[r.in(0, 4)];
    s.hidden = hidden;
    s.heads = heads;
  }
  auto weights = std::make_shared<Weights>(randomWeights(r, s));
  const int64_t batch = r.in(1, r.chance(0.2) ? 60 : 6), steps = r.in(1, 130);
  const bool everyOutput = r.chance(0.5);
  Batch<float> f;
  Batch<double> d;
  if (!randomBatch(r, s, batch, steps, &f, &d, everyOutput)) return;
  CancelFlag go{false};
  if (Status status = runReference(s, *weights, d.request, go); !status.ok()) {
    std::printf("%s\n", status.message.c_str());
    return fail(seed, s, batch, steps, "reference");
  }
  Plan plan;
  bool* const bits[] = {&plan.depthFirst,  &plan.readoutPruning, &plan.absorbedEmbedding, &plan.zeroRowsClosedForm,
                        &plan.tokenTables, &plan.foldedOutput,   &plan.foldedWeights};
  for (int variant = 0; variant < 3; ++variant) {
    for (bool* bit : bits) *bit = variant == 0 ? true : variant == 1 ? r.chance(0.5) : false;
    std::unique_ptr<Backend> backend;
    if (!createCpuBackend(s, weights, {precision, static_cast<int>(r.in(1, 3)), ""}, &backend).ok())
      return fail(seed, s, batch, steps, "create");
    if (Status status = backend->run(f.request, plan, go); !status.ok()) {
      std::printf("%s\n", status.message.c_str());
      return fail(seed, s, batch, steps, "run");
    }
    const bool exact = precision == Precision::float32;
    bool fine = exact ? close("logits", f.logits, d.logits, 2e-5) : closeRms(f.logits, d.logits);
    if (exact && f.request.probabilities) fine &= close("probabilities", f.probabilities, d.probabilities, 1e-5);
    for (int side = 0; exact && side < s.sequences; ++side) {
      fine &= close("pooled", f.out[side].pooled, d.out[side].pooled, 2e-5);
      fine &= close("keys", f.out[side].keys, d.out[side].keys, 1e-5);
      fine &= close("attention", f.out[side].attention, d.out[side].attention, 1e-5);
      fine &= close("segmentAttention", f.out[side].segmentAttention, d.out[side].segmentAttention, 1e-5);
      fine &= close("intraAttention", f.out[side].intraAttention, d.out[side].intraAttention, 1e-5);
      fine &= f.out[side].segments == d.out[side].segments;
    }
    if (!fine) {
      fail(seed, s, batch, steps, "against reference");
      std::printf("  rewrites");
      for (bool* bit : bits) std::printf(" %d", *bit);
      std::printf("\n");
      return;
    }
    // Each sequence alone, on one thread: the same bits.
    const std::vector<float> logits = f.logits, pooled = f.out[0].pooled;
    std::unique_ptr<Backend> single;
    if (!createCpuBackend(s, weights, {precision, 1, ""}, &single).ok()) return fail(seed, s, batch, steps, "create");
    const size_t width = logits.size() / static_cast<size_t>(batch);
    const int64_t b = r.in(0, batch - 1);
    Request<float> alone = f.request;
    alone.batch = 1;
    for (Feed<float>* feed : {&alone.feed, &alone.second}) {
      if (feed->features) feed->features += b * feed->steps * s.features;
      if (feed->tokens) feed->tokens += b * feed->steps;
      if (feed->values) feed->values += b * feed->steps;
      if (feed->lengths) feed->lengths += b;
    }
    if (alone.step) alone.step += b;
    if (alone.readoutWeights) alone.readoutWeights += b * steps;
    std::vector<float> own(width);
    alone.logits = own.data();
    alone.probabilities = nullptr;
    const int64_t most = alone.out.segmentsMax, mostSecond = alone.outSecond.segmentsMax;
    alone.out = {};
    alone.outSecond = {};
    alone.out.segmentsMax = most;
    alone.outSecond.segmentsMax = mostSecond;
    if (!single->run(alone, plan, go).ok()) return fail(seed, s, batch, steps, "run alone");
    if (!same("logits alone", own.data(), logits.data() + static_cast<size_t>(b) * width, width))
      return fail(seed, s, batch, steps, "same bits alone");
  }
}

}  // namespace

int main(int argc, char** argv) {
  const uint64_t seed = argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 1;
  const uint64_t cases = argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 400;
  if (argc > 3 && std::strcmp(argv[3], "bfloat16") == 0) precision = Precision::bfloat16;
  const char* wanted = std::getenv("HPFORMER_ISA");
  if (wanted && isaInUse() != wanted) {
    std::printf("this machine or build has no ISA level %s\n", wanted);
    return 77;
  }
  for (uint64_t i = 0; i < cases; ++i) one(seed + i);
  std::printf("isa %s, %s: seeds %llu..%llu, %d failures, worst error %.2f of its bound\n", isaInUse().c_str(),
              precision == Precision::float32 ? "float32" : "bfloat16", static_cast<unsigned long long>(seed),
              static_cast<unsigned long long>(seed + cases - 1), failures, worst);
  return failures ? 1 : 0;
}
