// libFuzzer: a small model of any kind, a batch whose ids, lengths, steps and weights come from strangers. A run is a
// result or a status; nothing is read or written beyond the arrays, which have exactly the sizes that the request
// claims.
#include <cstdio>
#include <memory>
#include <string>

#include "binding/contract/segments.h"
#include "binding/model/model.h"
#include "bytes.h"
#include "test/native/model_case.h"

using namespace hpformer;
using hpformer::fuzz::Bytes;

namespace {

Spec specOf(Bytes& b) {
  Spec s = test::smallSpec(static_cast<EmbeddingKind>(b.in(0, 2)), static_cast<Readout>(b.in(0, 2)));
  s.positions = static_cast<PositionKind>(b.in(0, 3));
  s.maximum = s.positions == PositionKind::learned ? b.in(1, 12) : 0;
  s.scaleInput = b.chance() && (s.positions == PositionKind::interleaved || s.positions == PositionKind::halves);
  s.heads = b.chance() ? 3 : 4;
  s.layers = b.in(1, 2);
  s.tiedLayers = b.chance();
  s.norm = static_cast<NormKind>(b.in(0, 3));
  s.activation = static_cast<Activation>(b.in(0, 4));
  s.rule = static_cast<SegmentRule>(b.in(0, 1));
  s.times = s.rule == SegmentRule::paper ? 1 : b.in(1, 2);
  s.pooling = static_cast<Pooling>(b.in(0, 1));
  s.segmentSteps = b.chance() ? b.in(1, 20) : 0;
  s.over = static_cast<Over>(b.in(0, 1));
  s.sequences = s.readout == Readout::mean && s.embedding != EmbeddingKind::features && b.chance() ? 2 : 1;
  if (s.embedding == EmbeddingKind::tokens && b.chance()) s.padding = -1;
  s.link = static_cast<Link>(b.in(0, 2));
  return s;
}

template <typename Real>
struct Side {
  std::vector<Real> rows, pooled, keys, attention, segmentAttention, intraAttention;
  std::vector<int32_t> tokens, lengths, segments;
};

template <typename Real>
void fill(Bytes& b, const Spec& s, int64_t batch, int64_t steps, Feed<Real>* feed, SequenceOutputs<Real>* out,
          Side<Real>* side) {
  feed->steps = steps;
  const auto total = static_cast<size_t>(batch * steps);
  if (s.embedding == EmbeddingKind::tokens) {
    for (size_t i = 0; i < total; ++i) side->tokens.push_back(b.id(s.vocabulary));
    feed->tokens = side->tokens.data();
  } else {
    side->rows = b.reals<Real>(batch * steps * (s.features > 0 ? s.features : 1));
    (s.features > 0 ? feed->features : feed->values) = side->rows.data();
  }
  if (b.chance()) {
    for (int64_t i = 0; i < batch; ++i) side->lengths.push_back(b.id(steps + 1));
    feed->lengths = side->lengths.data();
  }
  const auto take = [&](std::vector<Real>& v, int64_t count) {
    v.resize(static_cast<size_t>(count));
    return v.data();
  };
  if (s.readout != Readout::steps) out->pooled = take(side->pooled, batch * s.hidden);
  if (!b.chance()) return;
  const int64_t most = b.in(0, 24);  // too small a number of segments is refused
  out->segmentsMax = most;
  out->keys = take(side->keys, batch * most * s.hidden);
  out->attention = take(side->attention, batch * steps * s.layers * s.heads * most);
  out->segmentAttention = take(side->segmentAttention, batch * most * most);
  out->intraAttention = take(side->intraAttention, batch * steps);
  side->segments.resize(static_cast<size_t>(batch));
  out->segments = side->segments.data();
}

template <typename Real>
void run(Bytes& b, const Spec& s, const Model& model) {
  Request<Real> request;
  Side<Real> first, second;
  request.batch = b.in(1, 3);
  const int64_t steps = b.in(1, 20);
  fill(b, s, request.batch, steps, &request.feed, &request.out, &first);
  if (s.sequences == 2) fill(b, s, request.batch, b.in(1, 20), &request.second, &request.outSecond, &second);
  std::vector<int32_t> step;
  std::vector<Real> weights;
  if (s.readout == Readout::step) {
    if (b.chance()) {
      weights = b.reals<Real>(request.batch * steps);
      request.readoutWeights = weights.data();
    } else if (b.chance()) {
      for (int64_t i = 0; i < request.batch; ++i) step.push_back(b.id(steps));
      request.step = step.data();
    }
  }
  std::vector<Real> logits(static_cast<size_t>(request.batch * (s.readout == Readout::steps ? steps : 1) * s.labels));
  std::vector<Real> probabilities(logits.size());
  request.logits = logits.data();
  if (s.link != Link::none) request.probabilities = probabilities.data();
  FeedDefaults defaults;
  const CancelFlag cancel{false};
  const Status status = model.run(&request, b.byte() & 0x7f, &defaults, cancel);
  // TypeScript sizes outputs itself, so that too few segments there are a defect of ours; here a stranger chose them.
  const bool tooFew = status.message.find("outputs have room for") != std::string::npos;
  if (!status.ok() && (status.message.empty() || (status.code == StatusCode::internal && !tooFew))) {
    std::fprintf(stderr, "status %d: %s\n", static_cast<int>(status.code), status.message.c_str());
    __builtin_trap();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Bytes b(data, size);
  const Spec spec = specOf(b);
  test::Random random(b.byte());
  ModelOptions options;
  options.device = b.chance() ? "cpu" : "reference";
  options.threads = 1;
  options.rejectNonFinite = b.chance();
  std::shared_ptr<const Model> model;
  if (!Model::create(spec, test::randomArrays(spec, random), options, &model).ok()) return 0;
  if (model->isReference())
    run<double>(b, spec, *model);
  else
    run<float>(b, spec, *model);
  return 0;
}
