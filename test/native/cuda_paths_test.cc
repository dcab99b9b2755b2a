// Which way a sequence takes through the device: whatever does not fit the fused kernels must still run, and the choice
// must not depend on batch mates. Exits with 77 where there is no driver library.
#include <array>
#include <atomic>
#include <cstdlib>
#include <cstring>

#include "cuda/driver.h"
#include "cuda_cases.h"
#include "cuda_check.h"

using namespace hpformer;
using namespace hpformer::testing;

namespace cuda = hpformer::cuda;

namespace {

std::atomic<int> gLaunches{0};
std::atomic<unsigned> gBlocks{0};  // of the last launch
std::atomic<int> gUploads{0};      // device memory for what stays there

Spec small(int64_t hidden, int64_t heads, Readout readout) {
  Spec spec;
  spec.embedding = EmbeddingKind::features;
  spec.features = 12;
  spec.positions = PositionKind::interleaved;
  spec.hidden = hidden;
  spec.heads = heads;
  spec.layers = 2;
  spec.activation = Activation::relu;
  spec.norm = NormKind::layernorm;
  spec.readout = readout;
  spec.labels = 3;
  spec.link = Link::softmax;
  return spec;
}

// A model on the device against the double-precision reference.
void compare(const Spec& spec, const std::string& what, int64_t size, int64_t steps, bool weighted, Plan plan = {}) {
  Random r(11);
  const auto weights = std::make_shared<const Weights>(randomWeights(spec, r));
  Batch batch = randomBatch(spec, r, size, steps, steps);
  if (spec.readout == Readout::step) {
    batch.weights.assign(weighted ? static_cast<size_t>(size * steps) : 0, 0.1);
    batch.weightsFloat.assign(batch.weights.begin(), batch.weights.end());
    batch.weights.assign(batch.weightsFloat.begin(), batch.weightsFloat.end());
  }
  Run<double> want(spec, batch, false, false);
  Status s = runReference(spec, *weights, want.request, kNever);
  expect(s.ok(), what + ": reference: " + s.message);
  for (const Precision precision : {Precision::float32, Precision::bfloat16}) {
    Run<float> got(spec, batch, false, false);
    std::unique_ptr<Backend> backend;
    plan.precision = precision;
    s = load(spec, weights, precision, &backend);
    if (s.ok()) s = backend->run(got.request, plan, kNever);
    expect(s.ok(), what + ": " + s.message);
    if (!s.ok()) continue;
    if (precision == Precision::bfloat16) {
      double scale = 0;
      const double error = rootMeanSquare(got.logits, want.logits, &scale);
      expect(error <= 1e-2 * std::max(1.0, scale), what + ": bfloat16 logits " + std::to_string(error));
      continue;
    }
    const double logits = worst(got.logits, want.logits), chances = worst(got.probabilities, want.probabilities),
                 pooled = worst(got.first.pooled, want.first.pooled);
    expect(logits <= allowed(), what + ": logits " + std::to_string(logits) + " times the bound");
    expect(chances <= allowed(), what + ": probabilities " + std::to_string(chances) + " times the bound");
    expect(pooled <= allowed(), what + ": pooled " + std::to_string(pooled) + " times the bound");
  }
}

// Head layers beyond shared memory: two rows of the widest layer do not fit 163 KB.
void wideHeads() {
  for (const bool weighted : {false, true}) {
    Spec spec = small(64, 4, Readout::step);
    spec.headLayers = {{weighted ? 21000 : 9000, Activation::relu}};
    compare(spec, weighted ? "wide head, weights" : "wide head, step", 3, 20, weighted);
  }
  Spec spec = small(64, 4, Readout::steps);
  spec.headLayers = {{9000, Activation::gelu}};
  spec.over = Over::valid;
  compare(spec, "wide head, steps", 2, 18, false);
  spec = small(64, 4, Readout::mean);
  spec.headLayers = {{21000, Activation::relu}};
  compare(spec, "wide head, mean", 2, 20, false);
  spec.sequences = 2;
  compare(spec, "wide head, two sequences", 2, 20, false);
  spec = small(64, 4, Readout::step);
  spec.headLayers = {{1024, Activation::relu}};
  compare(spec, "widest head inside", 3, 20, false);
}

// Features whose rows must be embedded one by one are, by the same single launch: maximum, embedding norm, and the
// absorbed form switched off.
void embeddedRows() {
  int64_t features = 76;
  int turn = 0;
  for (const int64_t hidden : {64, 96, 128, 160, 192, 256}) {
    for (const bool norm : {false, true}) {
      const Readout readout = std::array{Readout::step, Readout::steps, Readout::mean}[turn++ % 3];
      Spec spec = small(hidden, 8, readout);
      spec.features = features = features % 115 + 13;  // also odd ones
      spec.embeddingNorm = norm;
      spec.pooling = turn % 4 == 0 ? Pooling::mean : Pooling::max;
      spec.layers = 1;
      gLaunches = 0;
      compare(spec, "rows embedded one by one, hidden " + std::to_string(hidden), 2, 70, false);
      expect(gLaunches == 2, std::to_string(gLaunches) + " launches for a batch in each precision");
    }
  }
  Spec spec = small(64, 8, Readout::steps);
  spec.features = 128;
  Plan plan;
  plan.absorbedEmbedding = false;
  gLaunches = 0;
  compare(spec, "embedding not absorbed", 2, 70, false, plan);
  expect(gLaunches == 2, std::to_string(gLaunches) + " launches without the absorbed form");
}

// Of few long sequences a block for each segment computes the keys, of more than the device has room for one block
// each: all kinds of rows and readouts, sequences of one batch with fewer segments than others.
void sharedSequences() {
  int turn = 0;
  for (const Readout readout : {Readout::step, Readout::steps, Readout::mean}) {
    for (const EmbeddingKind kind : {EmbeddingKind::features, EmbeddingKind::tokens}) {
      for (const int64_t size : {2, 12}) {
        if (size > 2 && readout != Readout::step) continue;
        Spec spec = small(turn % 2 ? 128 : 64, 8, readout);
        spec.layers = 1;
        spec.embedding = kind;
        spec.vocabulary = 50;
        spec.pooling = turn % 3 == 2 ? Pooling::max : Pooling::mean;
        spec.over = turn % 2 ? Over::valid : Over::padded;
        spec.times = 3;  // S up to 17
        spec.sequences = readout == Readout::mean && turn % 2 ? 2 : 1;
        const int64_t steps = readout == Readout::step ? 530 : 270;
        const std::string what = "shared sequences " + std::to_string(turn++) + " of " + std::to_string(size);
        gLaunches = 0;
        compare(spec, what, size, steps, false);
        expect(gLaunches == 2 * spec.sequences, what + ": " + std::to_string(gLaunches) + " launches");
        const unsigned tiles = readout == Readout::step ? 2 : static_cast<unsigned>(size * ((steps + 15) / 16));
        const bool shared = gBlocks > tiles + 4 * size;
        expect(shared == (size == 2), what + ": " + std::to_string(gBlocks) + " blocks");
      }
    }
  }
}

// Sequences padded beyond the learned positions, of which only their own steps need one; a table is uploaded once.
void learnedPositions() {
  for (const EmbeddingKind kind : {EmbeddingKind::features, EmbeddingKind::tokens, EmbeddingKind::scalar}) {
    for (const Readout readout : {Readout::step, Readout::steps, Readout::mean}) {
      for (const int64_t hidden : {64, 16}) {
        if (hidden == 16 && kind != EmbeddingKind::features) continue;
        Spec spec = small(hidden, 4, readout);
        spec.embedding = kind;
        spec.vocabulary = 20;
        spec.padding = kind == EmbeddingKind::tokens ? 1 : -1;
        spec.positions = PositionKind::learned;
        spec.maximum = 48;
        spec.over = Over::valid;
        spec.layers = 1;
        const std::string what = "learned positions, embedding " + std::to_string(static_cast<int>(kind)) +
                                 ", hidden " + std::to_string(hidden) + ", readout " +
                                 std::to_string(static_cast<int>(readout));
        const int64_t size = readout == Readout::step ? 9 : 2;  // from 9 on sequences share tiles and tables
        compare(spec, what, size, 64, false);
        Random r(19);
        std::unique_ptr<Backend> backend;
        const Batch batch = randomBatch(spec, r, size, 64, 0);
        Run<float> run(spec, batch, false, false);
        Status s = load(spec, std::make_shared<const Weights>(randomWeights(spec, r)), Precision::float32, &backend);
        if (s.ok()) s = backend->run(run.request, {}, kNever);
        gUploads = 0;
        if (s.ok()) s = backend->run(run.request, {}, kNever);
        expect(s.ok(), what + ": " + s.message);
        expect(gUploads == 0, what + ": " + std::to_string(gUploads) + " tables uploaded again");
      }
    }
  }
}

// Widths without fused kernels.
void oddWidths() {
  for (const int64_t hidden : {16, 320, 512}) {
    for (const Readout readout : {Readout::step, Readout::steps, Readout::mean}) {
      compare(small(hidden, 4, readout), "hidden " + std::to_string(hidden), 2, 24, false);
    }
  }
}

// Two lengths with S on both sides of what shared memory holds at hidden 256: the sequence with the smaller S must have
// the same bits beside the other as alone, whichever comes first.
void mates(Precision precision, Readout readout, int64_t low, int64_t high) {
  Spec spec = small(256, 8, readout);
  spec.over = Over::valid;
  spec.layers = 1;
  int64_t few = 0, many = 0;
  for (spec.times = 2; spec.times < 32 && !(few && many); ++spec.times) {
    few = many = 0;
    for (int64_t steps = 20; steps <= 120; ++steps) {
      Segments s;
      if (!segmentsOf(spec, steps, &s).ok()) continue;
      if (s.count > low / 2 && s.count <= low) few = steps;
      if (s.count > high && s.count <= 64) many = steps;
    }
    if (few && many) break;
  }
  expect(few && many, "no lengths with S on both sides");
  Random r(5);
  const auto weights = std::make_shared<const Weights>(randomWeights(spec, r));
  std::unique_ptr<Backend> backend;
  Plan plan;
  plan.precision = precision;
  Status s = load(spec, weights, precision, &backend);
  expect(s.ok(), s.message);
  const int64_t steps = std::max(few, many);
  Batch both = randomBatch(spec, r, 3, steps, 0);
  both.first.lengths = {static_cast<int32_t>(few), static_cast<int32_t>(many), static_cast<int32_t>(few)};
  both.weights.clear();
  both.weightsFloat.clear();
  if (readout == Readout::step) both.step = {0, 1, 2};
  Segments longest;
  (void)segmentsOf(spec, many, &longest);
  both.first.segmentsMax = longest.count;
  Run<float> together(spec, both, false, false);
  s = backend->run(together.request, plan, kNever);
  expect(s.ok(), s.message);
  for (const int64_t b : {0, 2}) {
    Batch one = both;
    one.size = 1;
    one.first.steps = few;
    one.first.lengths = {static_cast<int32_t>(few)};
    const auto from = both.first.featuresFloat.begin() + b * steps * spec.features;
    one.first.featuresFloat.assign(from, from + few * spec.features);
    if (readout == Readout::step) one.step = {both.step[static_cast<size_t>(b)]};
    Segments own;
    (void)segmentsOf(spec, few, &own);
    one.first.segmentsMax = own.count;
    Run<float> alone(spec, one, false, false);
    s = backend->run(alone.request, plan, kNever);
    expect(s.ok(), s.message);
    const float* logits = together.logits.data() + static_cast<size_t>(b) * together.logits.size() / 3;
    const float* keys = together.first.keys.data() + b * longest.count * spec.hidden;
    const std::string what = "S " + std::to_string(own.count) + " beside S " + std::to_string(longest.count);
    expect(sameBits(alone.logits.data(), logits, alone.logits.size()), what + ": other bits");
    expect(sameBits(alone.first.keys.data(), keys, alone.first.keys.size()), what + ": other keys");
  }
}

}  // namespace

int main() {
  if (const int skip = skipped()) return skip;
  static cuda::Driver real;
  std::string reason;
  real = *cuda::driver(&reason);
  cuda::Driver table = real;
  table.launchKernel = [](cuda::CUfunction f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by,
                          unsigned bz, unsigned shared, cuda::CUstream stream, void** arguments, void** extra) {
    ++gLaunches;
    gBlocks = gx * gy;
    return real.launchKernel(f, gx, gy, gz, bx, by, bz, shared, stream, arguments, extra);
  };
  table.memAlloc = [](cuda::CUdeviceptr* address, size_t bytes) { return ++gUploads, real.memAlloc(address, bytes); };
  cuda::replaceDriverForTests(&table);
  learnedPositions();
  embeddedRows();
  sharedSequences();
  cuda::replaceDriverForTests(nullptr);
  wideHeads();
  oddWidths();
  mates(Precision::float32, Readout::mean, 32, 48);
  mates(Precision::float32, Readout::step, 32, 48);
  mates(Precision::bfloat16, Readout::steps, 32, 48);
  return result();
}
