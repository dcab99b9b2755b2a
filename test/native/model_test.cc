// Intake, feeds, kernels and the run queue: what they refuse, and that threads meet safely (run under TSan as well).
#include "binding/model/model.h"

#include <atomic>
#include <condition_variable>
#include <limits>
#include <mutex>
#include <thread>
#include <vector>

#include "binding/contract/positions.h"
#include "binding/model/kernels.h"
#include "binding/contract/thread.h"
#include "binding/model/queue.h"
#include "check.h"
#include "model_case.h"

using namespace hpformer;
using hpformer::test::Random;
using hpformer::test::randomArrays;
using hpformer::test::smallSpec;

namespace {

bool contains(const Status& status, const std::string& text) { return status.message.find(text) != std::string::npos; }

void intake() {
  Random random(2);
  for (const NormKind norm : {NormKind::layernorm, NormKind::batchnorm, NormKind::scalenorm, NormKind::rmsnorm}) {
    for (const bool tied : {false, true}) {
      Spec spec = smallSpec(EmbeddingKind::tokens, Readout::mean);
      spec.norm = norm;
      spec.tiedLayers = tied;
      spec.positions = PositionKind::learned;
      spec.maximum = 20;
      spec.sequences = 2;
      Weights weights;
      CHECK(takeWeights(spec, randomArrays(spec, random), &weights).ok());
      CHECK(weights.layers.size() == (tied ? 1u : 2u));
      CHECK(weights.positions.size() == 22u * 12u);
      CHECK(weights.head[0].weight.size() == 7u * 24u);
    }
  }
  const Spec spec = smallSpec(EmbeddingKind::features, Readout::step);
  const auto refused = [&](auto change, const char* text) {
    NamedArrays arrays = randomArrays(spec, random);
    change(arrays);
    Weights weights;
    const Status status = takeWeights(spec, arrays, &weights);
    CHECK(status.code == StatusCode::checkpoint);
    CHECK(contains(status, text));
  };
  refused([](NamedArrays& a) { a.erase("layers.1.norm2.bias"); }, "layers.1.norm2.bias: is missing");
  refused([](NamedArrays& a) { a["layers.7.norm2.bias"].wide = {1}; }, "layers.7.norm2.bias");
  refused([](NamedArrays& a) { a["tdhp.fusion.bias"].wide.pop_back(); }, "expected 12 values, got 11");
  refused([](NamedArrays& a) { a["embedding.bias"].wide[3] = std::numeric_limits<double>::infinity(); }, "at index 3");
  NamedArrays arrays = randomArrays(spec, random);
  Spec huge = spec;
  huge.features = int64_t{1} << 52;
  Weights weights;
  CHECK(takeWeights(huge, arrays, &weights).code == StatusCode::config);
}

// A block of a learned table filled past its last row read memory beyond the weights; AddressSanitizer found it.
void positionsBeyondTheTable() {
  Random random(4);
  Spec spec = smallSpec(EmbeddingKind::tokens, Readout::mean);
  spec.positions = PositionKind::learned;
  spec.maximum = 20;
  Weights weights;
  CHECK(takeWeights(spec, randomArrays(spec, random), &weights).ok());
  const int64_t rows = spec.maximum + spec.padding + 1;
  std::vector<double> row(static_cast<size_t>(spec.hidden));
  positionRow(spec, weights, rows - 1, row.data());
  CHECK(row[0] == weights.positions[static_cast<size_t>((rows - 1) * spec.hidden)]);
  for (const int64_t position : {rows, rows + 1000}) {
    std::fill(row.begin(), row.end(), -7.0);
    positionRow(spec, weights, position, row.data());
    for (const double x : row) CHECK(x == 0);
  }
}

struct Feeding {
  Spec spec = smallSpec(EmbeddingKind::tokens, Readout::step);
  Request<float> request;
  std::vector<int32_t> tokens{2, 3, 4, 5, 1, 1, 2, 2, 2, 2, 2, 2};
  std::vector<float> weights;
  FeedDefaults defaults;

  Feeding() {
    request.batch = 2;
    request.feed.steps = 6;
    request.feed.tokens = tokens.data();
  }
  Status resolved() { return resolve(spec, &request, &defaults); }
};

void feeds() {
  {
    Feeding f;
    CHECK(f.resolved().ok());
    CHECK(f.request.feed.lengths[0] == 4 && f.request.feed.lengths[1] == 6);
    CHECK(f.request.step[0] == 5 && f.request.step[1] == 5);
  }
  {
    Feeding f;
    f.spec.over = Over::valid;
    f.tokens[2] = 1;  // padding inside does not end the sequence
    CHECK(f.resolved().ok());
    CHECK(f.request.feed.lengths[0] == 4 && f.request.step[0] == 3);
  }
  const auto refused = [](auto change, StatusCode code, const char* text) {
    Feeding f;
    change(f);
    const Status status = f.resolved();
    CHECK(status.code == code);
    CHECK(contains(status, text));
  };
  static const int32_t zero[] = {4, 0}, seven[] = {7, 1}, negative[] = {0, -1};
  refused([](Feeding& f) { f.request.batch = 0; }, StatusCode::shape, "batch");
  refused([](Feeding& f) { f.request.feed.steps = 0; }, StatusCode::shape, "tokens");
  refused([](Feeding& f) { f.tokens[7] = 11; }, StatusCode::range, "got 11 at sequence 1, step 1");
  refused([](Feeding& f) { f.tokens[0] = -1; }, StatusCode::range, "got -1 at sequence 0, step 0");
  refused([](Feeding& f) { f.request.feed.lengths = zero; }, StatusCode::range, "got 0 at sequence 1");
  refused(
      [](Feeding& f) {
        f.spec.over = Over::valid;
        f.request.feed.lengths = seven;
      },
      StatusCode::range, "expected 1 to 6, got 7");
  refused([](Feeding& f) { f.request.step = seven; }, StatusCode::range, "step: expected 0 to 5, got 7");
  refused([](Feeding& f) { f.request.step = negative; }, StatusCode::range, "got -1 at sequence 1");
  refused(
      [](Feeding& f) {
        f.spec.over = Over::valid;
        std::fill(f.tokens.begin(), f.tokens.end(), 1);
      },
      StatusCode::range, "not padding");
  refused([](Feeding& f) { f.spec.times = 4; }, StatusCode::shape, "segments");
  refused(
      [](Feeding& f) {
        f.spec.positions = PositionKind::learned;
        f.spec.maximum = 5;
      },
      StatusCode::shape, "at most 5 steps");
  refused(
      [](Feeding& f) {
        f.weights.assign(12, 0);
        f.weights[5] = std::numeric_limits<float>::quiet_NaN();
        f.request.readoutWeights = f.weights.data();
      },
      StatusCode::input, "readoutWeights");
  refused(
      [](Feeding& f) {
        f.spec.over = Over::valid;
        f.weights.assign(12, 0);
        f.weights[5] = 1;
        f.request.readoutWeights = f.weights.data();
      },
      StatusCode::range, "beyond the sequence's length 4");
  Feeding f;
  f.spec.over = Over::valid;
  static const int32_t four[] = {4, 6};
  f.request.feed.lengths = four;
  f.tokens[5] = 1000;  // never read
  CHECK(f.resolved().ok());
}

void kernels() {
  std::vector<float> x{1, 2, 3, 4, 5, 6}, w{1, 1, 1}, y(6);
  KernelCall<float> call;
  call.name = "norm";
  call.parameters = {{"rows", 2}, {"hidden", 3}, {"norm", 3}};
  call.inputs["x"] = {x.data(), 6};
  call.inputs["weight"] = {w.data(), 3};
  call.outputs["out"] = {y.data(), 6};
  CHECK(runKernel(call).ok());
  CHECK_NEAR(y[2], 3 / std::sqrt(14.0 / 3 + 1e-5), 1e-6);
  call.parameters["rows"] = 3;
  CHECK(runKernel(call).code == StatusCode::shape);
  call.parameters["rows"] = 0x1p40;
  CHECK(runKernel(call).code == StatusCode::shape);
  call.parameters["rows"] = 1.5;
  CHECK(runKernel(call).code == StatusCode::range);
  call.name = "nothing";
  CHECK(runKernel(call).code == StatusCode::input);
}

class CountingJob final : public Job {
 public:
  void work() override { worked.fetch_add(1); }
  void finish() override {
    const std::lock_guard<std::mutex> lock(mutex);
    --*left;
    done->notify_one();
  }
  static inline std::atomic<int> worked{0};
  static inline std::mutex mutex;
  int* left = nullptr;
  std::condition_variable* done = nullptr;
};

void queue() {
  RunQueue* runs = new RunQueue(3, 200);  // runners stay in it until the process ends
  std::condition_variable done;
  int left = 400;
  std::vector<CountingJob> jobs(400);
  std::atomic<int> refused{0};
  const auto submit = [&](size_t from) {
    for (size_t i = from; i < from + 200; ++i) {
      jobs[i].left = &left;
      jobs[i].done = &done;
      if (i % 5 == 0) jobs[i].cancelled.store(true);
      if (runs->push(&jobs[i]).ok()) continue;
      refused.fetch_add(1);
      jobs[i].finish();
    }
  };
  std::thread one(submit, 0), two(submit, 200);
  one.join();
  two.join();
  std::unique_lock<std::mutex> lock(CountingJob::mutex);
  done.wait(lock, [&] { return left == 0; });
  CHECK(CountingJob::worked.load() <= 320);
  CHECK(CountingJob::worked.load() + refused.load() >= 320);
  lock.unlock();

  runs->close();
  CHECK(runs->push(&jobs[0]).code == StatusCode::limit);
  CHECK(!runs->withdraw(&jobs[0]));
}

// Runs of one model on several threads at once give the bits of a run alone.
void concurrentRuns() {
  Random random(4);
  const Spec spec = smallSpec(EmbeddingKind::features, Readout::step);
  ModelOptions options;
  options.device = "reference";
  std::shared_ptr<const Model> model;
  CHECK(Model::create(spec, randomArrays(spec, random), options, &model).ok());
  const Vector features = random.vector(3 * 17 * spec.features, -1, 1);
  const auto once = [&](Vector* logits) {
    logits->resize(6);
    Request<double> request;
    request.batch = 3;
    request.feed.steps = 17;
    request.feed.features = features.data();
    request.logits = logits->data();
    FeedDefaults defaults;
    const CancelFlag cancel{false};
    CHECK(model->run(&request, 0, &defaults, cancel).ok());
  };
  Vector alone;
  once(&alone);
  std::vector<Vector> results(4);
  std::vector<std::thread> threads;
  for (Vector& result : results) threads.emplace_back(once, &result);
  for (std::thread& thread : threads) thread.join();
  for (const Vector& result : results) CHECK(result == alone);

  options.device = "cuda:x";
  CHECK(Model::create(spec, randomArrays(spec, random), options, &model).code == StatusCode::device);
}

void nonFinite() {
  Random random(6);
  const Spec spec = smallSpec(EmbeddingKind::features, Readout::step);
  ModelOptions options;
  options.device = "reference";
  options.rejectNonFinite = true;
  std::shared_ptr<const Model> model;
  CHECK(Model::create(spec, randomArrays(spec, random), options, &model).ok());
  Vector features = random.vector(2 * 9 * spec.features, -1, 1), logits(4);
  const auto outcome = [&] {
    Request<double> request;
    request.batch = 2;
    request.feed.steps = 9;
    request.feed.features = features.data();
    request.logits = logits.data();
    FeedDefaults defaults;
    const CancelFlag cancel{false};
    return model->run(&request, 0, &defaults, cancel);
  };
  CHECK(outcome().ok());
  features[(9 + 2) * spec.features + 4] = 1e308;
  CHECK(contains(outcome(), "from finite inputs"));
  features[(9 + 2) * spec.features + 4] = std::numeric_limits<double>::quiet_NaN();
  const Status status = outcome();
  CHECK(status.code == StatusCode::input);
  CHECK(contains(status, "at sequence 1, step 2, feature 4"));
}

// What the kernels' buffers need, whatever the C library gives by itself.
void stacks() {
#if defined(__linux__)
  std::atomic<std::size_t> size{0};
  const auto measure = [](void* to) -> void* {
    pthread_attr_t attributes;
    std::size_t own = 1;
    if (pthread_getattr_np(pthread_self(), &attributes) == 0) {
      pthread_attr_getstacksize(&attributes, &own);
      pthread_attr_destroy(&attributes);
    }
    *static_cast<std::atomic<std::size_t>*>(to) = own;
    return nullptr;
  };
  CHECK(startThread(measure, &size));
  while (size == 0) std::this_thread::yield();
  CHECK(size >= kThreadStack);
#endif
}

}  // namespace

int main() {
  stacks();
  intake();
  positionsBeyondTheTable();
  feeds();
  kernels();
  queue();
  concurrentRuns();
  nonFinite();
  return hpformer::test::result();
}
