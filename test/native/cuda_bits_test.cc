// What must not change a result's bits on a CUDA device: batch mates, padding, tile shapes, repetition (CUDA graphs),
// other threads, other outputs asked for. And a NaN reaches its own sequence only. Usage: cuda_bits_test [seed
// [cases]]; exits with 77 where there is no driver library.
#include <cstdlib>
#include <cstring>
#include <limits>
#include <thread>

#include "cuda_cases.h"
#include "cuda_check.h"

using namespace hpformer;
using namespace hpformer::testing;

namespace {

void expect(bool ok, const std::string& what, uint64_t seed) {
  testing::expect(ok, "seed " + std::to_string(seed) + ": " + what);
}

Spec model(Random& r, int kind) {
  Spec spec;
  spec.hidden = r.pick<int64_t>({64, 128, 96});
  spec.heads = r.pick<int64_t>({4, 8, 3});
  if (spec.hidden % spec.heads) spec.heads = 8;
  spec.layers = 2;
  spec.readout = static_cast<Readout>(kind % 3);
  spec.over = Over::valid;
  spec.labels = 3;
  spec.link = Link::softmax;
  if (kind % 2 == 0) {
    spec.embedding = EmbeddingKind::features;
    spec.features = r.integer(3, 80);
    spec.positions = PositionKind::interleaved;
  } else {
    spec.embedding = EmbeddingKind::tokens;
    spec.vocabulary = 30;
    spec.padding = 1;
    spec.positions = PositionKind::halves;
    spec.scaleInput = true;
    spec.norm = NormKind::rmsnorm;
    spec.activation = Activation::gelu;
    spec.pooling = r.coin() ? Pooling::mean : Pooling::max;
  }
  return spec;
}

template <typename T>
std::vector<T> cut(const std::vector<T>& v, int64_t b, int64_t row, int64_t keep) {
  if (v.empty()) return {};
  return std::vector<T>(v.begin() + b * row, v.begin() + b * row + keep);
}

// Sequence b alone, without its padding.
Batch alone(const Spec& spec, const Batch& all, int64_t b) {
  Batch one;
  one.size = 1;
  const InputData& in = all.first;
  const int64_t own = in.lengths[static_cast<size_t>(b)];
  one.first.steps = own;
  one.first.lengths = {static_cast<int32_t>(own)};
  one.first.featuresFloat = cut(in.featuresFloat, b, in.steps * spec.features, own * spec.features);
  one.first.valuesFloat = cut(in.valuesFloat, b, in.steps, own);
  one.first.tokens = cut(in.tokens, b, in.steps, own);
  Segments s;
  (void)segmentsOf(spec, own, &s);
  one.first.segmentsMax = s.count;
  if (!all.step.empty()) one.step = {all.step[static_cast<size_t>(b)]};
  one.weightsFloat = cut(all.weightsFloat, b, in.steps, own);
  one.weights.assign(one.weightsFloat.begin(), one.weightsFloat.end());
  return one;
}

void one(uint64_t seed, Precision precision) {
  Random r(seed);
  const Spec spec = model(r, static_cast<int>(seed % 6));
  const auto weights = std::make_shared<const Weights>(randomWeights(spec, r));
  const int64_t steps = r.integer(12, 90);
  Batch batch = randomBatch(spec, r, 19, steps, 0);
  std::unique_ptr<Backend> backend;
  Plan plan;
  plan.precision = precision;
  Status s = load(spec, weights, precision, &backend);
  expect(s.ok(), s.message, seed);
  if (!s.ok()) return;
  const auto run = [&](Run<float>& what) {
    const Status status = backend->run(what.request, plan, kNever);
    expect(status.ok(), status.message, seed);
    return status.ok();
  };
  Run<float> first(spec, batch, false, false);
  if (!run(first)) return;
  const size_t perSequence = first.logits.size() / static_cast<size_t>(batch.size);

  for (int i = 0; i < 3; ++i) {  // the second and later runs of a shape are CUDA graphs
    Run<float> again(spec, batch, false, false);
    run(again);
    expect(sameBits(first.logits.data(), again.logits.data(), first.logits.size()), "another run, other bits", seed);
  }
  Run<float> extras(spec, batch, false, true);
  run(extras);
  expect(sameBits(first.logits.data(), extras.logits.data(), first.logits.size()), "attention asked, other bits", seed);

  for (int64_t b = 0; b < batch.size; b += 6) {
    const Batch single = alone(spec, batch, b);
    Run<float> got(spec, single, false, false);
    if (!run(got)) return;
    expect(sameBits(got.logits.data(), first.logits.data() + static_cast<size_t>(b) * perSequence, got.logits.size()),
           "alone and without padding, other bits", seed);
    expect(sameBits(got.first.keys.data(), first.first.keys.data() + b * batch.first.segmentsMax * spec.hidden,
                    got.first.keys.size()),
           "alone and without padding, other keys", seed);
  }

  std::vector<std::thread> threads;
  std::vector<std::unique_ptr<Run<float>>> runs;
  for (int i = 0; i < 6; ++i) runs.push_back(std::make_unique<Run<float>>(spec, batch, false, false));
  for (auto& each : runs)
    threads.emplace_back([&backend, &plan, &each] { (void)backend->run(each->request, plan, kNever); });
  for (std::thread& thread : threads) thread.join();
  for (auto& each : runs) {
    expect(sameBits(first.logits.data(), each->logits.data(), first.logits.size()), "run beside others, other bits",
           seed);
  }

  if (spec.embedding == EmbeddingKind::features) {
    // NaN in padding is legal, NaN in a real row makes its own sequence NaN.
    const int64_t row = steps * spec.features;
    for (int64_t b = 0; b < batch.size; ++b) {
      const int64_t own = batch.first.lengths[static_cast<size_t>(b)];
      for (int64_t i = own * spec.features; i < row; ++i) {
        batch.first.featuresFloat[static_cast<size_t>(b * row + i)] = std::numeric_limits<float>::quiet_NaN();
      }
    }
    batch.first.featuresFloat[static_cast<size_t>(4 * row)] = std::numeric_limits<float>::quiet_NaN();
    Run<float> got(spec, batch, false, false);
    run(got);
    bool others = true, own = true;
    const size_t live =
        spec.readout == Readout::steps ? static_cast<size_t>(batch.first.lengths[4] * spec.labels) : perSequence;
    for (size_t i = 0; i < got.logits.size(); ++i) {
      const bool mine = i / perSequence == 4 && i % perSequence < live;
      const bool empty = spec.readout == Readout::step && !batch.weightsFloat.empty();
      if (mine && !empty) own = own && std::isnan(got.logits[i]);
      if (i / perSequence != 4) others = others && sameBits(&got.logits[i], &first.logits[i], 1);
    }
    expect(own, "NaN in a sequence: its outputs are not NaN", seed);
    expect(others, "NaN in a sequence or in padding: another sequence changed", seed);
  }
}

// Keys of long sequences: by one block each in a large batch, by a block for each segment in a small one, and of a
// short sequence always by one. A sequence's bits are the same.
void shared(uint64_t seed, Precision precision) {
  Random r(seed);
  Spec spec = model(r, seed % 2 ? 4 : 1);  // features, mean and tokens, either pooling; one step is read
  spec.readout = Readout::step;
  spec.hidden = 64;
  spec.heads = 8;
  spec.layers = 1;
  spec.times = spec.embedding == EmbeddingKind::features ? 2 : 1;
  const auto weights = std::make_shared<const Weights>(randomWeights(spec, r));
  std::unique_ptr<Backend> backend;
  Plan plan;
  plan.precision = precision;
  Status s = load(spec, weights, precision, &backend);
  expect(s.ok(), s.message, seed);
  if (!s.ok()) return;
  Batch batch = randomBatch(spec, r, 110, 520, 0);
  batch.first.lengths[1] = 520;
  Run<float> all(spec, batch, false, false);
  s = backend->run(all.request, plan, kNever);
  expect(s.ok(), s.message, seed);
  const size_t keys = static_cast<size_t>(batch.first.segmentsMax * spec.hidden);
  for (const int64_t b : {0, 1, 57, 109}) {
    const Batch single = alone(spec, batch, b);
    Run<float> got(spec, single, false, false);
    s = backend->run(got.request, plan, kNever);
    expect(s.ok(), s.message, seed);
    expect(sameBits(got.logits.data(), all.logits.data() + b * spec.labels, got.logits.size()),
           "keys shared, other bits", seed);
    expect(
        sameBits(got.first.keys.data(), all.first.keys.data() + static_cast<size_t>(b) * keys, got.first.keys.size()),
        "keys shared, other keys", seed);
  }
}

}  // namespace

int main(int argc, char** argv) {
  const uint64_t seed = argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 1;
  const int cases = argc > 2 ? std::atoi(argv[2]) : 3;
  if (const int skip = skipped()) return skip;
  for (int i = 0; i < cases; ++i) {
    one(seed + static_cast<uint64_t>(i), i % 2 ? Precision::bfloat16 : Precision::float32);
    one(seed + static_cast<uint64_t>(i), i % 2 ? Precision::float32 : Precision::bfloat16);
  }
  shared(seed, Precision::float32);
  shared(seed + 1, Precision::bfloat16);
  std::printf("%d models from seed %llu: %d failures\n", cases, static_cast<unsigned long long>(seed), gFailures);
  return gFailures == 0 ? 0 : 1;
}
