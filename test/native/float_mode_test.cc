// The caller's floating-point mode: results have the same bits whatever it is, on the caller's thread and on threads
// that were started in it, and it is the caller's again afterwards.
#include "binding/contract/float_mode.h"

#include <condition_variable>
#include <cstdio>
#include <cstring>
#include <mutex>
#include <vector>

#include "binding/model/kernels.h"
#include "binding/model/model.h"
#include "binding/model/queue.h"
#include "check.h"
#include "model_case.h"

using namespace hpformer;
using hpformer::test::Random;
using hpformer::test::randomArrays;
using hpformer::test::smallSpec;

namespace {

constexpr int64_t kBatch = 40, kSteps = 21;

struct Mode {
  const char* name;
  uint64_t value;
};
#if defined(__aarch64__)
constexpr uint64_t kRaised = 0;  // exceptions are noted in another register
constexpr Mode kModes[] = {{"denormals flushed", 1u << 24}, {"rounding up", 1u << 22}, {"rounding to zero", 3u << 22}};
#else
constexpr uint64_t kRaised = 0x3f;  // the exceptions noted so far, no mode
constexpr Mode kModes[] = {{"denormals flushed", 0x9fc0}, {"rounding up", 0x5f80}, {"rounding to zero", 0x7f80}};
#endif

using Numbers = std::vector<float>;

bool same(const Numbers& a, const Numbers& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

// By their bits: comparisons see flushed numbers as zero.
int64_t denormals(const Numbers& numbers) {
  int64_t count = 0;
  for (const float& x : numbers) {
    uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    count += (bits & 0x7f800000) == 0 && (bits & 0x007fffff) != 0;
  }
  return count;
}

// A model without anything that would drown the smallest numbers: no positions, no biases before the keys.
struct Case {
  Spec spec = smallSpec(EmbeddingKind::features, Readout::steps);
  NamedArrays arrays;
  std::vector<float> features;

  Case(double weights, double inputs) {
    Random random(11);
    spec.positions = PositionKind::none;
    arrays = randomArrays(spec, random);
    for (double& x : arrays["embedding.weight"].wide) x *= weights;
    for (const char* name : {"embedding.bias", "tdhp.fusion.bias"})
      for (double& x : arrays[name].wide) x = 0;
    for (const double x : random.vector(kBatch * kSteps * spec.features, -1, 1))
      features.push_back(static_cast<float>(x * inputs));
  }

  std::shared_ptr<const Model> model(int threads, Precision precision) const {
    ModelOptions options;
    options.threads = threads;
    options.precision = precision;
    std::shared_ptr<const Model> made;
    CHECK(Model::create(spec, arrays, options, &made).ok());
    return made;
  }

  // Keys, attention, logits and probabilities, one after another.
  Numbers run(const Model& model) const {
    const int64_t cuts = 8;  // more than 21 steps have
    Numbers keys(kBatch * cuts * spec.hidden), attention(kBatch * kSteps * spec.layers * spec.heads * cuts);
    Numbers logits(kBatch * kSteps * spec.labels), probabilities(logits.size());
    Request<float> request;
    request.batch = kBatch;
    request.feed.steps = kSteps;
    request.feed.features = features.data();
    request.out.segmentsMax = cuts;
    request.out.keys = keys.data();
    request.out.attention = attention.data();
    request.logits = logits.data();
    request.probabilities = probabilities.data();
    FeedDefaults defaults;
    const CancelFlag cancel{false};
    const Status status = model.run(&request, ~0u, &defaults, cancel);
    if (!status.ok()) std::fprintf(stderr, "%s\n", status.message.c_str());
    CHECK(status.ok());
    Numbers all = keys;
    for (const Numbers* part : {&attention, &logits, &probabilities}) all.insert(all.end(), part->begin(), part->end());
    return all;
  }
};

Numbers kernel() {
  Numbers x(6 * 4), out(3 * 4);
  for (size_t i = 0; i < x.size(); ++i) {
    const uint32_t bits = 77 * static_cast<uint32_t>(i) + 5;  // denormal
    std::memcpy(&x[i], &bits, sizeof bits);
  }
  KernelCall<float> call;
  call.name = "segmentPool";
  call.parameters = {{"batch", 1}, {"steps", 6}, {"hidden", 4}, {"segments", 3}, {"length", 2}, {"pooling", 0}};
  call.inputs["x"] = {x.data(), static_cast<int64_t>(x.size())};
  call.outputs["out"] = {out.data(), static_cast<int64_t>(out.size())};
  CHECK(runKernel(call).ok());
  return out;
}

// A run on a runner of the queue, as the addon does it.
class QueuedRun final : public Job {
 public:
  QueuedRun(const Case& of, const Model& model) : of_(of), model_(model) {}
  void work() override { result = of_.run(model_); }
  void finish() override {
    const std::lock_guard<std::mutex> lock(mutex_);
    done_ = true;
    wake_.notify_one();
  }
  void wait() {
    std::unique_lock<std::mutex> lock(mutex_);
    wake_.wait(lock, [this] { return done_; });
  }
  Numbers result;

 private:
  const Case& of_;
  const Model& model_;
  std::mutex mutex_;
  std::condition_variable wake_;
  bool done_ = false;
};

// Runs `compute` in a mode; it must be on afterwards.
template <typename Compute>
auto within(uint64_t mode, Compute compute) {
  const uint64_t before = floatMode();
  setFloatMode(mode);
  auto result = compute();
  const uint64_t after = floatMode();
  setFloatMode(before);
  CHECK((after | kRaised) == (mode | kRaised));
  return result;
}

void models(const Case& it, Precision precision) {
  // Everything the first time in the first mode: the pool's and the queue's threads are started in it.
  std::vector<Numbers> results;
  for (const Mode& mode : kModes) {
    for (const int threads : {4, 1}) {
      const auto model = within(mode.value, [&] { return it.model(threads, precision); });
      results.push_back(within(mode.value, [&] { return it.run(*model); }));
      results.push_back(within(mode.value, [&] {
        QueuedRun job(it, *model);
        CHECK(runQueue().push(&job).ok());
        job.wait();
        return job.result;
      }));
    }
  }
  const Numbers expected = within(kDefaultFloatMode, [&] { return it.run(*it.model(1, precision)); });
  const int64_t small = denormals(expected);
  std::printf("%lld of %zu numbers denormal\n", static_cast<long long>(small), expected.size());
  CHECK(small > kBatch);
  for (const Numbers& result : results) CHECK(same(result, expected));
}

}  // namespace

int main() {
  models(Case(1, 1e-40), Precision::float32);
  models(Case(1e-40, 1), Precision::float32);
  models(Case(1, 1e-40), Precision::bfloat16);
  const Numbers expected = kernel();
  CHECK(denormals(expected) == static_cast<int64_t>(expected.size()));
  for (const Mode& mode : kModes) CHECK(same(within(mode.value, kernel), expected));
  return hpformer::test::result();
}
