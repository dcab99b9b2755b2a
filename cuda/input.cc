// What the host prepares for a slice of a batch.
#include <algorithm>
#include <cstring>

#include "batch.h"
#include "binding/contract/positions.h"
#include "binding/contract/segments.h"

namespace hpformer::cuda {
namespace {

bool hasPadding(const Spec& spec) { return spec.embedding == EmbeddingKind::tokens && spec.padding >= 0; }

template <typename T>
const T* stageCopy(Program* program, const T* from, int64_t count) {
  T* host = nullptr;
  T* device = program->stage<T>(count, &host);
  if (host) std::memcpy(host, from, static_cast<size_t>(count) * sizeof(T));
  return device;
}

}  // namespace

Status stageInput(DeviceModel& model, const Slice& slice, bool second, RowSelection rows, Program* program,
                  Input* input) {
  const Spec& spec = model.spec();
  const Request<float>& request = *slice.request;
  input->feed = second ? &request.second : &request.feed;
  input->out = second ? &request.outSecond : &request.out;
  const int64_t steps = input->feed->steps, count = slice.count;
  input->steps = steps;

  std::vector<SequenceInfo> infos(static_cast<size_t>(count));
  const int32_t* lengths = slice.at(input->feed->lengths, 1);
  const int32_t* tokens = slice.at(input->feed->tokens, steps);
  const int32_t* step = slice.at(request.step, 1);
  const float* weights = slice.at(request.readoutWeights, steps);
  const bool list = rows == RowSelection::read &&
                    (spec.readout == Readout::step || (spec.readout == Readout::mean && hasPadding(spec)));
  int* listed = nullptr;
  if (list) input->rowList = program->stage<int>(count * steps, &listed);
  input->segmentsMax = input->out->segmentsMax;
  for (int64_t b = 0; b < count; ++b) {
    SequenceInfo& info = infos[static_cast<size_t>(b)];
    info = {};
    const int64_t own = spec.over == Over::valid ? lengths[b] : steps;
    Segments segments;
    if (Status s = segmentsOf(spec, own, &segments); !s.ok()) return s;
    info.steps = static_cast<int>(own);
    info.segments = static_cast<int>(segments.count);
    info.segmentLength = static_cast<int>(segments.length);
    info.divisor = lengths ? static_cast<float>(lengths[b]) : static_cast<float>(own);
    info.step = step && !weights ? step[b] : 0;
    input->segmentsMax = std::max(input->segmentsMax, segments.count);
    input->segments = std::max(input->segments, segments.count);
    info.rows = info.steps;
    if (list) {
      const auto padding = [&](int64_t t) { return tokens && isPadding(spec, tokens + b * steps, t); };
      int kept = 0;
      const auto keep = [&](int64_t t) {
        if (listed) listed[b * steps + kept] = static_cast<int>(t);
        ++kept;
      };
      for (int64_t t = 0; t < own; ++t) {
        if (spec.readout == Readout::mean ? !padding(t) : weights ? weights[b * steps + t] != 0.f : t == info.step)
          keep(t);
      }
      info.rows = kept;
      for (int64_t t = kept; listed && t < steps; ++t) listed[b * steps + t] = 0;
    }
    input->rowsMax = std::max<int64_t>(input->rowsMax, info.rows);
  }
  input->info = stageCopy(program, infos.data(), count);

  std::shared_ptr<OriginTable> origin;
  const int64_t positions = steps + (hasPadding(spec) ? spec.padding + 1 : 0);
  if (Status s = model.origin(positions, &origin); !s.ok()) return s;
  input->positions = origin->rows;
  RowSource& source = input->source;
  source.steps = static_cast<int>(steps);
  source.hidden = static_cast<int>(spec.hidden);
  source.features = static_cast<int>(spec.features);
  source.origin = origin->floats.at<float>(0);
  source.originStride = origin->stride;
  source.normWeight = model.at(model.embeddingNormWeight);
  source.normBias = model.at(model.embeddingNormBias);
  source.table = model.at(model.embedding);
  input->prefix = spec.embedding == EmbeddingKind::features ? origin->prefix.at<double>(0) : nullptr;
  program->hold(origin);
  if (spec.embedding == EmbeddingKind::features) {
    source.kind = Embed::features;
    source.features_ =
        stageCopy(program, slice.at(input->feed->features, steps * spec.features), count * steps * spec.features);
  } else if (spec.embedding == EmbeddingKind::tokens) {
    source.kind = Embed::tokens;
    source.tokens = stageCopy(program, tokens, count * steps);
  } else {
    source.kind = Embed::scalar;
    source.values = stageCopy(program, slice.at(input->feed->values, steps), count * steps);
  }
  if (hasPadding(spec)) {
    int* host = nullptr;
    input->position = program->stage<int>(count * steps, &host);
    std::vector<int64_t> own(static_cast<size_t>(steps));
    for (int64_t b = 0; host && b < count; ++b) {
      positionsOf(spec, tokens + b * steps, steps, own.data());
      for (int64_t t = 0; t < steps; ++t) {
        host[b * steps + t] =
            isPadding(spec, tokens + b * steps, t) ? -1 : static_cast<int>(own[static_cast<size_t>(t)]);
      }
    }
    source.position = input->position;
  }
  return {};
}

}  // namespace hpformer::cuda
