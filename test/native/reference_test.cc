// The reference against values worked out by hand, and the promises that do not need golden data.
#include "binding/contract/reference.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <vector>

#include "binding/contract/math.h"
#include "binding/contract/positions.h"
#include "binding/contract/reference_steps.h"
#include "binding/contract/segments.h"
#include "binding/model/feeds.h"
#include "check.h"
#include "model_case.h"

using namespace hpformer;
using hpformer::test::Random;

namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

void scalars() {
  CHECK_NEAR(gelu(1.0), 0.84134474606854294859, 1e-15);
  CHECK_NEAR(gelu(-6.0), -5.9195268e-9, 1e-15);
  CHECK_NEAR(geluTanh(1.0), 0.84119199060827676, 1e-14);
  CHECK_NEAR(silu(-2.0), -0.23840584404423515, 1e-15);
  CHECK(sigmoid(-1000) == 0 && sigmoid(1000) == 1);
  CHECK(std::isnan(relu(kNaN)) && std::isnan(sigmoid(kNaN)));
  double p[] = {1e6, 1e6, -1e6};
  reference::softmax(p, 3);
  CHECK(p[0] == 0.5 && p[1] == 0.5 && p[2] == 0);
  double q[] = {0, kNaN, 1};
  reference::softmax(q, 3);
  CHECK(std::isnan(q[0]) && std::isnan(q[2]));
}

void positions() {
  Spec spec;
  spec.hidden = 5;
  spec.positions = PositionKind::interleaved;
  CHECK_NEAR(positionValue(spec, 3, 0), std::sin(3.0), 1e-15);
  CHECK_NEAR(positionValue(spec, 3, 3), std::cos(3.0 * std::pow(10000.0, -0.4)), 1e-13);
  CHECK_NEAR(positionValue(spec, 3, 4), std::sin(3.0 * std::pow(10000.0, -0.8)), 1e-13);
  spec.positions = PositionKind::halves;
  CHECK_NEAR(positionValue(spec, 7, 1), std::sin(7e-4), 1e-15);
  CHECK_NEAR(positionValue(spec, 7, 3), std::cos(7e-4), 1e-15);
  CHECK(positionValue(spec, 7, 4) == 0);
  spec.embedding = EmbeddingKind::tokens;
  spec.padding = 1;
  const int32_t tokens[] = {4, 1, 5, 1, 6};
  int64_t at[5];
  positionsOf(spec, tokens, 5, at);
  CHECK(at[0] == 2 && at[1] == 1 && at[2] == 3 && at[3] == 1 && at[4] == 4);
  double row[5];
  positionRow(spec, {}, 1, row);
  CHECK(std::all_of(row, row + 5, [](double v) { return v == 0; }));
  spec.padding = -1;
  positionsOf(spec, tokens, 5, at);
  CHECK(at[0] == 0 && at[1] == 1 && at[4] == 4);
}

void pooling() {
  // Three rows in two segments of two: the last segment has one appended zero row.
  const double x[] = {1, -2, 3, -4, -5, -6};
  double out[4];
  reference::segmentPool(x, 3, 2, 2, 2, Pooling::mean, out);
  CHECK(out[0] == 2 && out[1] == -3 && out[2] == -2.5 && out[3] == -3);
  reference::segmentPool(x, 3, 2, 2, 2, Pooling::max, out);
  CHECK(out[0] == 3 && out[1] == -2 && out[2] == 0 && out[3] == 0);
  // The zero row takes part in the softmax of its segment.
  const double extra[] = {0, 0, 1, 0};
  double intra[4], weights[3];
  reference::intraSegmentAttention(extra, x, 3, 2, 2, 2, intra, weights);
  const double score = std::exp(-5 / std::sqrt(2.0));
  CHECK_NEAR(weights[0], 0.5, 1e-15);
  CHECK_NEAR(weights[2], score / (score + 1), 1e-15);
  CHECK_NEAR(intra[2], -5 * score / (score + 1), 1e-15);
}

struct Result {
  Status status;
  Vector logits, probabilities, keys, pooled, attention, encoded;
};

struct Batch {
  int64_t batch = 1, steps = 1;
  Vector features;
  std::vector<int32_t> tokens, lengths, step;
  Vector weights;
};

Result run(const Spec& spec, const Weights& weights, const Batch& in) {
  Result out;
  const int64_t most = 64;
  const int64_t rows = spec.readout == Readout::steps ? in.batch * in.steps : in.batch;
  out.logits.resize(rows * spec.labels, 7.0);
  out.probabilities = out.logits;
  out.keys.resize(in.batch * most * spec.hidden, 7.0);
  out.pooled.resize(in.batch * spec.hidden, 7.0);
  out.encoded.resize(in.batch * in.steps * spec.hidden, 7.0);
  out.attention.resize(in.batch * in.steps * spec.layers * spec.heads * most, 7.0);
  Request<double> request;
  request.batch = in.batch;
  request.feed.steps = in.steps;
  request.feed.features = in.features.empty() ? nullptr : in.features.data();
  request.feed.tokens = in.tokens.empty() ? nullptr : in.tokens.data();
  request.feed.lengths = in.lengths.empty() ? nullptr : in.lengths.data();
  request.step = in.step.empty() ? nullptr : in.step.data();
  request.readoutWeights = in.weights.empty() ? nullptr : in.weights.data();
  request.out.segmentsMax = most;
  request.out.keys = out.keys.data();
  request.out.pooled = spec.readout == Readout::steps ? nullptr : out.pooled.data();
  request.out.encoded = out.encoded.data();
  request.out.attention = out.attention.data();
  request.logits = out.logits.data();
  request.probabilities = out.probabilities.data();
  FeedDefaults defaults;
  const CancelFlag cancel{false};
  out.status = resolve(spec, &request, &defaults);
  if (out.status.ok()) out.status = runReference(spec, weights, request, cancel);
  return out;
}

Weights randomWeights(const Spec& spec, Random& random) {
  Weights weights;
  const Status status = takeWeights(spec, randomArrays(spec, random), &weights);
  CHECK(status.ok());
  return weights;
}

bool sameBits(const double* a, const double* b, int64_t count) {
  return std::memcmp(a, b, static_cast<size_t>(count) * sizeof(double)) == 0;
}

// over 'valid': a sequence has the bits that 'padded' gives for it alone; what stands beyond its length is never read.
void validMode(Readout readout) {
  Random random(11);
  Spec spec = hpformer::test::smallSpec(EmbeddingKind::features, readout);
  const Weights weights = randomWeights(spec, random);
  const int64_t steps = 23;
  Batch batch{3, steps, random.vector(3 * steps * spec.features, -1, 1), {}, {9, 23, 1}, {}, {}};
  for (int64_t b = 0; b < 3; ++b) {
    double* row = batch.features.data() + b * steps * spec.features;
    std::fill(row + batch.lengths[b] * spec.features, row + steps * spec.features, kNaN);
  }
  spec.over = Over::valid;
  const Result all = run(spec, weights, batch);
  CHECK(all.status.ok());
  spec.over = Over::padded;
  for (int64_t b = 0; b < 3; ++b) {
    const int64_t length = batch.lengths[b];
    const double* row = batch.features.data() + b * steps * spec.features;
    const Batch one{1, length, Vector(row, row + length * spec.features), {}, {}, {}, {}};
    const Result alone = run(spec, weights, one);
    CHECK(alone.status.ok());
    const int64_t used = (readout == Readout::steps ? length : 1) * spec.labels;
    const int64_t each = (readout == Readout::steps ? steps : 1) * spec.labels;
    CHECK(sameBits(all.logits.data() + b * each, alone.logits.data(), used));
    CHECK(sameBits(all.keys.data() + b * 64 * spec.hidden, alone.keys.data(), 64 * spec.hidden));
    CHECK(sameBits(all.encoded.data() + b * steps * spec.hidden, alone.encoded.data(), length * spec.hidden));
    CHECK(std::all_of(all.logits.data() + b * each + used, all.logits.data() + (b + 1) * each,
                      [](double v) { return v == 0; }));
    CHECK(std::all_of(all.encoded.data() + (b * steps + length) * spec.hidden,
                      all.encoded.data() + (b + 1) * steps * spec.hidden, [](double v) { return v == 0; }));
  }
}

void notANumber() {
  Random random(5);
  const Spec spec = hpformer::test::smallSpec(EmbeddingKind::features, Readout::steps);
  const Weights weights = randomWeights(spec, random);
  Batch batch{3, 10, random.vector(3 * 10 * spec.features, -1, 1), {}, {}, {}, {}};
  const Result clean = run(spec, weights, batch);
  batch.features[(10 + 4) * spec.features + 2] = kNaN;
  const Result dirty = run(spec, weights, batch);
  const int64_t each = 10 * spec.labels;
  CHECK(sameBits(clean.logits.data(), dirty.logits.data(), each));
  CHECK(sameBits(clean.logits.data() + 2 * each, dirty.logits.data() + 2 * each, each));
  CHECK(
      std::all_of(dirty.logits.data() + each, dirty.logits.data() + 2 * each, [](double v) { return std::isnan(v); }));
  CHECK(std::all_of(dirty.probabilities.data() + each, dirty.probabilities.data() + 2 * each,
                    [](double v) { return std::isnan(v); }));
}

void readouts() {
  Random random(3);
  Spec spec = hpformer::test::smallSpec(EmbeddingKind::features, Readout::step);
  const Weights weights = randomWeights(spec, random);
  Batch batch{2, 8, random.vector(2 * 8 * spec.features, -1, 1), {}, {}, {3, 7}, {}};
  const Result one = run(spec, weights, batch);
  CHECK(sameBits(one.pooled.data(), one.encoded.data() + 3 * spec.hidden, spec.hidden));
  batch.step.clear();
  batch.weights.assign(16, 0.0);
  batch.weights[3] = 1;
  const Result weighted = run(spec, weights, batch);
  CHECK(sameBits(one.logits.data(), weighted.logits.data(), spec.labels));
  // An all-zero row reads nothing: the head sees zeros.
  Batch other = batch;
  other.features = random.vector(2 * 8 * spec.features, -1, 1);
  const Result again = run(spec, weights, other);
  CHECK(sameBits(weighted.logits.data() + spec.labels, again.logits.data() + spec.labels, spec.labels));
  CHECK_NEAR(weighted.probabilities[0] + weighted.probabilities[1], 1, 1e-15);

  // 'padded' divides by what was given, 'valid' by the sequence's own length.
  spec.readout = Readout::mean;
  batch.weights.clear();
  batch.lengths = {2, 16};
  const Result mean = run(spec, weights, batch);
  double sum = 0;
  for (int64_t t = 0; t < 8; ++t) sum += mean.encoded[(8 + t) * spec.hidden];
  CHECK_NEAR(mean.pooled[spec.hidden], sum / 16, 1e-14);
}

void padding() {
  Random random(8);
  Spec spec = hpformer::test::smallSpec(EmbeddingKind::tokens, Readout::mean);
  const Weights weights = randomWeights(spec, random);
  const Batch batch{1, 9, {}, {4, 5, 1, 6, 7, 8, 1, 1, 1}, {}, {}, {}};
  const Result padded = run(spec, weights, batch);
  CHECK(padded.status.ok());
  for (const int64_t t : {2, 6, 7, 8}) CHECK(padded.encoded[t * spec.hidden] == 0);
  double sum = 0;
  for (int64_t t = 0; t < 9; ++t) sum += padded.encoded[t * spec.hidden];
  CHECK_NEAR(padded.pooled[0], sum / 5, 1e-14);  // five tokens that are not padding
  spec.over = Over::valid;
  const Result valid = run(spec, weights, batch);
  sum = 0;
  for (int64_t t = 0; t < 6; ++t) sum += valid.encoded[t * spec.hidden];
  CHECK_NEAR(valid.pooled[0], sum / 6, 1e-14);  // the last token that is not padding is the sixth
}

void cancelling() {
  Random random(1);
  const Spec spec = hpformer::test::smallSpec(EmbeddingKind::features, Readout::step);
  const Weights weights = randomWeights(spec, random);
  const Vector features = random.vector(4 * spec.features, -1, 1);
  Vector logits(2);
  Request<double> request;
  request.batch = 1;
  request.feed.steps = 4;
  request.feed.features = features.data();
  request.logits = logits.data();
  FeedDefaults defaults;
  CHECK(resolve(spec, &request, &defaults).ok());
  const CancelFlag cancel{true};
  CHECK(runReference(spec, weights, request, cancel).code == StatusCode::aborted);
}

}  // namespace

int main() {
  scalars();
  positions();
  pooling();
  validMode(Readout::step);
  validMode(Readout::steps);
  validMode(Readout::mean);
  notANumber();
  readouts();
  padding();
  cancelling();
  return hpformer::test::result();
}
