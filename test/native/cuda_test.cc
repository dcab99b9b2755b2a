// The CUDA backend against the double-precision reference on random models: every output, both paths, both precisions.
// Usage: cuda_test [seed [cases [hidden]]]: `hidden` fixes the width of the models for the fused kernels. Needs a
// driver library (HPFORMER_CUDA_LIBRARY); exits with 77 where there is none.
#include <cstdlib>
#include <cstring>

#include "cuda_cases.h"
#include "cuda_check.h"

using namespace hpformer;
using namespace hpformer::testing;

namespace {

int64_t gHidden = 0;
uint64_t gDigest = 14695981039346656037u;  // FNV-1a of the bits of all logits

void digest(const std::vector<float>& values) {
  for (const float value : values) {
    uint32_t bits = 0;
    std::memcpy(&bits, &value, sizeof(bits));
    for (int i = 0; i < 32; i += 8) gDigest = (gDigest ^ (bits >> i & 255)) * 1099511628211u;
  }
}

Spec randomSpec(Random& r, bool fast) {
  Spec spec;
  spec.embedding = r.pick<EmbeddingKind>({EmbeddingKind::features, EmbeddingKind::tokens, EmbeddingKind::scalar});
  spec.features = r.integer(1, 90);
  spec.vocabulary = r.integer(3, 40);
  spec.padding = spec.embedding == EmbeddingKind::tokens && r.coin(0.7) ? r.integer(0, 2) : -1;
  spec.positions = r.pick<PositionKind>(
      {PositionKind::none, PositionKind::interleaved, PositionKind::halves, PositionKind::learned});
  const bool sinusoidal = spec.positions == PositionKind::interleaved || spec.positions == PositionKind::halves;
  spec.scaleInput = sinusoidal && r.coin();
  spec.maximum = 200;
  spec.embeddingNorm = r.coin(0.3);
  spec.heads = r.pick<int64_t>({1, 2, 4, 8});
  spec.hidden = spec.heads * r.integer(spec.heads == 1 ? 4 : 2, 12);
  if (fast) {
    spec.hidden = r.pick<int64_t>({64, 64, 96, 128, 128, 160, 192, 256});
    if (gHidden) spec.hidden = gHidden;
    spec.heads = r.pick<int64_t>({1, 2, 4, 8, 8, 8, 16});
    if (spec.hidden == 96 && r.coin(0.3)) spec.heads = 3;
  }
  spec.layers = r.integer(1, 3);
  spec.tiedLayers = r.coin(0.2);
  spec.activation = r.pick<Activation>(
      {Activation::linear, Activation::relu, Activation::silu, Activation::gelu, Activation::geluTanh});
  spec.norm = r.pick<NormKind>(
      {NormKind::layernorm, NormKind::layernorm, NormKind::batchnorm, NormKind::scalenorm, NormKind::rmsnorm});
  spec.rule = r.coin(0.7) ? SegmentRule::upstream : SegmentRule::paper;
  spec.times = spec.rule == SegmentRule::upstream && r.coin(0.3) ? r.integer(2, 4) : 1;
  spec.pooling = r.coin(0.6) ? Pooling::mean : Pooling::max;
  spec.over = r.coin() ? Over::padded : Over::valid;
  spec.readout = r.pick<Readout>({Readout::steps, Readout::step, Readout::mean});
  spec.sequences = spec.readout == Readout::mean && r.coin(0.4) ? 2 : 1;
  for (int64_t i = r.integer(0, 2); i > 0; --i) {
    spec.headLayers.push_back({r.integer(1, 40), r.coin() ? Activation::gelu : Activation::relu});
  }
  spec.labels = r.integer(1, 12);
  spec.headBias = r.coin();
  spec.link = r.pick<Link>({Link::none, Link::sigmoid, Link::softmax});
  if (spec.positions == PositionKind::learned && spec.over == Over::valid && r.coin()) {
    Segments segments;
    do spec.maximum = r.integer(10, 60);  // batches are padded beyond it
    while (!segmentsOf(spec, spec.maximum, &segments).ok());
  }
  return spec;
}

std::string describe(const Spec& s, const Batch& b) {
  char text[400];
  std::snprintf(
      text, sizeof(text),
      "embedding %d F=%lld V=%lld pad=%lld positions %d scale %d norm0 %d h=%lld H=%lld N=%lld tied %d act %d "
      "norm %d rule %d k=%lld pool %d steps=%lld over %d readout %d sequences %lld labels %lld link %d | B=%lld "
      "L=%lld/%lld S=%lld weights %d",
      int(s.embedding), (long long)s.features, (long long)s.vocabulary, (long long)s.padding, int(s.positions),
      s.scaleInput, s.embeddingNorm, (long long)s.hidden, (long long)s.heads, (long long)s.layers, s.tiedLayers,
      int(s.activation), int(s.norm), int(s.rule), (long long)s.times, int(s.pooling), (long long)s.segmentSteps,
      int(s.over), int(s.readout), (long long)s.sequences, (long long)s.labels, int(s.link), (long long)b.size,
      (long long)b.first.steps, (long long)b.second.steps, (long long)b.first.segmentsMax, !b.weights.empty());
  return text;
}

struct Case {
  const char* what;
  const std::vector<float>* got;
  const std::vector<double>* want;
};

std::vector<Case> pairs(const Run<float>& got, const Run<double>& want) {
  std::vector<Case> all = {{"logits", &got.logits, &want.logits},
                           {"probabilities", &got.probabilities, &want.probabilities}};
  const auto sequence = [&](const Outputs<float>& g, const Outputs<double>& w) {
    all.push_back({"pooled", &g.pooled, &w.pooled});
    all.push_back({"keys", &g.keys, &w.keys});
    all.push_back({"attention", &g.attention, &w.attention});
    all.push_back({"segmentAttention", &g.segmentAttention, &w.segmentAttention});
    all.push_back({"intraAttention", &g.intraAttention, &w.intraAttention});
    all.push_back({"embedded", &g.embedded, &w.embedded});
    all.push_back({"segmentPool", &g.segmentPool, &w.segmentPool});
    all.push_back({"extraSegment", &g.extraSegment, &w.extraSegment});
    all.push_back({"intraSegment", &g.intraSegment, &w.intraSegment});
    for (size_t i = 0; i < g.layers.size(); ++i) all.push_back({"layer", &g.layers[i], &w.layers[i]});
    all.push_back({"encoded", &g.encoded, &w.encoded});
  };
  sequence(got.first, want.first);
  sequence(got.second, want.second);
  for (size_t j = 0; j < got.head.size(); ++j) all.push_back({"head", &got.head[j], &want.head[j]});
  return all;
}

void fail(const std::string& what, uint64_t seed, const std::string& text) {
  ++gFailures;
  std::printf("FAILED seed %llu: %s\n  %s\n", static_cast<unsigned long long>(seed), what.c_str(), text.c_str());
}

// One random model and batch; returns the largest error in units of the bound.
double one(uint64_t seed, bool fast) {
  Random r(seed);
  const Spec spec = randomSpec(r, fast);
  const auto weights = std::make_shared<const Weights>(randomWeights(spec, r));
  int64_t steps = 0, steps2 = 0;
  Segments segments;
  do steps = r.integer(1, 70);
  while (!segmentsOf(spec, steps, &segments).ok());
  do steps2 = r.integer(1, 50);
  while (!segmentsOf(spec, steps2, &segments).ok());
  const Batch batch = randomBatch(spec, r, fast ? r.pick<int64_t>({1, 3, 18}) : r.integer(1, 4), steps, steps2);
  const bool trace = !fast && r.coin();
  const bool extras = trace || r.coin(0.4);
  Run<double> want(spec, batch, trace, extras);
  Run<float> got(spec, batch, trace, extras);
  const std::string text = describe(spec, batch);
  if (Status s = runReference(spec, *weights, want.request, kNever); !s.ok()) {
    fail("reference: " + s.message, seed, text);
    return INFINITY;
  }
  double most = 0;
  for (const Precision precision : {Precision::float32, Precision::bfloat16}) {
    std::unique_ptr<Backend> backend;
    Status s = load(spec, weights, precision, &backend, std::to_string(seed));
    Plan plan;
    plan.precision = precision;
    plan.depthFirst = seed % 4 != 0;
    if (s.ok()) s = backend->run(got.request, plan, kNever);
    if (!s.ok()) {
      fail(s.message, seed, text);
      return INFINITY;
    }
    digest(got.logits);
    if (got.first.segments != want.first.segments) fail("segments differ", seed, text);
    if (precision == Precision::bfloat16) {
      double size = 0;
      const double error = rootMeanSquare(got.logits, want.logits, &size);
      if (!(error <= 1e-2 * std::max(1.0, size))) fail("bfloat16 logits: error " + std::to_string(error), seed, text);
      continue;
    }
    for (const Case& c : pairs(got, want)) {
      const double error = worst(*c.got, *c.want);
      if (!(error <= allowed()))
        fail(std::string(c.what) + ": " + std::to_string(error) + " times the bound", seed, text);
      most = std::max(most, error);
    }
  }
  return most;
}

}  // namespace

int main(int argc, char** argv) {
  const uint64_t seed = argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 1;
  const int cases = argc > 2 ? std::atoi(argv[2]) : 40;
  gHidden = argc > 3 ? std::atoi(argv[3]) : 0;
  if (const int skip = skipped()) return skip;
  double most = 0;
  for (int i = 0; i < cases; ++i)
    most = std::max(most, one(seed + static_cast<uint64_t>(i), (seed + static_cast<uint64_t>(i)) % 2 == 1));
  std::printf("%d cases from seed %llu: %d failures, largest error %.3f of the bound, bits %016llx\n", cases,
              static_cast<unsigned long long>(seed), gFailures, most, static_cast<unsigned long long>(gDigest));
  return gFailures == 0 ? 0 : 1;
}
