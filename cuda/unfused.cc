// The unfused path: one launch per step of the model, every intermediate in device memory.
#include <algorithm>
#include <cmath>

#include "batch.h"

namespace hpformer::cuda {
namespace {

constexpr int64_t kScoreFloats = 8192;  // shared memory of the score kernels stays below 48 KB

// The launches that several steps of the model share.
class Launches {
 public:
  Launches(DeviceModel& model, const Slice& slice, Program* program)
      : model_(model), batch_(static_cast<int>(slice.count)), program_(*program) {}

  int roundOperands() const { return model_.precision() == Precision::bfloat16; }

  // Program::dense with weights of the model. The products of the layers round their operands in bfloat16; embedding,
  // keys and head do not: nothing here would be faster for it.
  void dense(const float* a, const float* b, int64_t split, size_t weight, size_t bias, int64_t m, int64_t n, int64_t k,
             Act activation, float* out, int rounds = 0) {
    program_.dense(a, b, split, model_.at(weight), model_.at(bias), m, n, k, activation, out, rounds);
  }
  void dense(const float* a, size_t weight, size_t bias, int64_t m, int64_t n, int64_t k, Act activation, float* out,
             int rounds = 0) {
    dense(a, nullptr, k, weight, bias, m, n, k, activation, out, rounds);
  }

  // The link function over `rows` rows of each sequence; `masked` as in LinkParams.
  void link(const float* in, const SequenceInfo* info, int64_t rows, int64_t width, int kind, int masked, float* out) {
    const LinkParams p{in, info, batch_, static_cast<int>(rows), static_cast<int>(width), kind, masked, out};
    program_.launch("link", {(batch_ * rows + 3) / 4}, 128, 0, p);
  }

  // `readout` on the rows of an input; the caller has set what differs.
  void readout(const Input& in, const float* x, Pick pick, float* out, int64_t outStride, ReadoutParams p = {}) {
    p.x = x;
    p.info = in.info;
    p.position = in.position;
    p.steps = static_cast<int>(in.steps);
    p.hidden = static_cast<int>(model_.spec().hidden);
    p.pick = pick;
    p.out = out;
    p.outStride = static_cast<int>(outStride);
    program_.launch("readout", {pick == Pick::steps ? in.steps : 1, batch_}, 128, 0, p);
  }

 private:
  DeviceModel& model_;
  const int batch_;
  Program& program_;
};

// W x + origin and norm of all rows, into `x` [batch, steps, hidden].
void buildEmbedding(DeviceModel& model, const Slice& slice, const Input& in, float* x, Program* program) {
  const Spec& spec = model.spec();
  const int64_t rows = slice.count * in.steps, d = spec.hidden;
  if (spec.embedding == EmbeddingKind::features) {
    Launches(model, slice, program)
        .dense(in.source.features_, model.embedding, kNone, rows, d, spec.features, Act::linear, x);
  }
  EmbedParams embed{};
  embed.source = in.source;
  embed.info = in.info;
  embed.batch = static_cast<int>(slice.count);
  embed.out = x;
  program->launch("embed", {(rows + 3) / 4}, 128, 0, embed);
}

class Unfused {
 public:
  Unfused(DeviceModel& model, const Slice& slice, Wanted wanted, Program* program)
      : model_(model),
        spec_(model.spec()),
        slice_(slice),
        wanted_(wanted),
        program_(*program),
        launches_(model, slice, program) {}

  Status build() {
    const bool steps = spec_.readout == Readout::steps;
    if (steps) {
      Input input;
      if (Status s = stage(false, &input); !s.ok()) return s;
      const float* encoded = layers(input, tdhp(input));
      if (wanted_ == Wanted::everything) {
        buildHead(model_, slice_, {encoded, input.info, input.steps, true}, wanted_, &program_);
      }
      return {};
    }
    // Upstream order: the second sequence's representation comes first in the head's input.
    float* pooled = program_.scratch<float>(slice_.count * spec_.headInput());
    const int64_t inputs = spec_.sequences;
    for (int64_t i = 0; i < inputs; ++i) {
      Input input;
      if (Status s = stage(i == 1, &input); !s.ok()) return s;
      float* to = pooled + (inputs == 2 && i == 0 ? spec_.hidden : 0);
      pool(input, tdhp(input), to);
    }
    if (wanted_ == Wanted::everything) buildHead(model_, slice_, {pooled, nullptr, 1, false}, wanted_, &program_);
    return {};
  }

 private:
  struct Compressed {
    const float* embedded;
    const float* keys;
  };

  // An output's place in the caller's memory, moved to this slice; null when not wanted here.
  template <typename T>
  T* to(T* base, int64_t perSequence, bool extra) const {
    return wanted_ == Wanted::everything || extra ? slice_.at(base, perSequence) : nullptr;
  }

  Status stage(bool second, Input* input) {
    if (Status s = stageInput(model_, slice_, second, RowSelection::all, &program_, input); !s.ok()) return s;
    if (input->segmentsMax > kScoreFloats) {
      return {StatusCode::limit, "segments: expected at most " + std::to_string(kScoreFloats) +
                                     " on a CUDA device, got " + std::to_string(input->segmentsMax)};
    }
    return {};
  }

  Compressed tdhp(const Input& in) {
    const int64_t batch = slice_.count, d = spec_.hidden, steps = in.steps, s = in.segmentsMax;
    const SequenceOutputs<float>& out = *in.out;
    const int hidden = static_cast<int>(d), segments = static_cast<int>(s);
    float* x = program_.result(to(out.embedded, steps * d, true), batch * steps * d);
    buildEmbedding(model_, slice_, in, x, &program_);

    float* pool = program_.result(to(out.segmentPool, s * d, true), batch * s * d);
    float* extra = program_.result(to(out.extraSegment, s * d, true), batch * s * d);
    float* intra = program_.result(to(out.intraSegment, s * d, true), batch * s * d);
    float* keys = program_.result(to(out.keys, s * d, false), batch * s * d);
    float* among =
        out.segmentAttention ? program_.result(to(out.segmentAttention, s * s, true), batch * s * s) : nullptr;
    float* inside = program_.result(to(out.intraAttention, steps, true), batch * steps);
    const PoolParams poolParams{x,   in.info, static_cast<int>(steps), hidden, segments, spec_.pooling == Pooling::max,
                                pool};
    program_.launch("segmentPool", {s, batch}, 128, 0, poolParams);
    const float scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(d)));
    const ExtraParams extraParams{pool, in.info, hidden, segments, scale, extra, among};
    program_.launch("extraSegment", {s, batch}, 128, static_cast<size_t>(s) * sizeof(float), extraParams);
    program_.clear(inside, batch * steps * static_cast<int64_t>(sizeof(float)));
    const IntraParams intraParams{x, extra, in.info, static_cast<int>(steps), hidden, segments, scale, intra, inside};
    program_.launch("intraSegment", {s, batch}, 128, 0, intraParams);
    launches_.dense(extra, intra, d, model_.fusion, model_.fusionBias, batch * s, d, 2 * d, Act::linear, keys);
    // Rows past a sequence's own segments hold the bias now; they are defined to be zero.
    launches_.link(keys, in.info, s, d, 0, 2, keys);
    return {x, keys};
  }

  // All layers over `rows` rows of each sequence, from x into a buffer of its own.
  const float* stack(const Input& in, const float* x, const float* keys, int64_t rows, float* attention) {
    const int64_t batch = slice_.count, d = spec_.hidden, s = in.segmentsMax, total = batch * rows;
    const SequenceOutputs<float>& out = *in.out;
    float* mixed = program_.scratch<float>(total * d);
    float* branch = program_.scratch<float>(total * d);
    float* current = program_.scratch<float>(total * d);
    for (int64_t i = 0; i < spec_.layers; ++i) {
      const PackedLayer& layer = model_.layers[static_cast<size_t>(i)];
      KeyAttentionParams p{};
      p.x = x;
      p.keys = keys;
      p.info = in.info;
      p.rows = static_cast<int>(rows);
      p.hidden = static_cast<int>(d);
      p.heads = static_cast<int>(spec_.heads);
      p.segmentsMax = static_cast<int>(s);
      p.scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(spec_.headWidth())));
      p.headsAtOnce = static_cast<int>(std::clamp<int64_t>(kScoreFloats / s, 1, spec_.heads));
      p.roundOperands = launches_.roundOperands();
      p.out = mixed;
      p.weights = attention ? attention + i * spec_.heads * s : nullptr;
      p.weightStride = static_cast<int>(spec_.layers * spec_.heads * s);
      program_.launch("keyAttention", {rows, batch}, 128, static_cast<size_t>(p.headsAtOnce * s) * sizeof(float), p);
      const int rounds = launches_.roundOperands();
      launches_.dense(mixed, layer.output, kNone, total, d, d, Act::linear, branch, rounds);
      norm(x, branch, layer.norm1, total, current);
      launches_.dense(current, layer.feedForward, layer.feedForwardBias, total, d, d,
                      static_cast<Act>(spec_.activation), branch, rounds);
      norm(current, branch, layer.norm2, total, current);
      x = current;
      if (out.layers && out.layers[i] && rows == in.steps) {
        ReadoutParams keep{};
        keep.keepPadding = 1;
        launches_.readout(in, x, Pick::steps, program_.result(to(out.layers[i], rows * d, true), total * d), 0, keep);
      }
    }
    return x;
  }

  void norm(const float* x, const float* branch, const PackedNorm& packed, int64_t rows, float* out) {
    const NormParams p{x,
                       branch,
                       model_.at(packed.weight),
                       model_.at(packed.bias),
                       out,
                       static_cast<int>(rows),
                       static_cast<int>(spec_.hidden),
                       packed.kind};
    program_.launch("norm", {(rows + 3) / 4}, 128, 0, p);
  }

  // Layers over every step; padding rows of the result are zero.
  const float* layers(const Input& in, const Compressed& c) {
    const int64_t d = spec_.hidden, batch = slice_.count;
    const int64_t perStep = spec_.layers * spec_.heads * in.segmentsMax;
    float* attention =
        in.out->attention ? program_.result(to(in.out->attention, in.steps * perStep, true), batch * in.steps * perStep)
                          : nullptr;
    const float* x = stack(in, c.embedded, c.keys, in.steps, attention);
    float* encoded = program_.result(to(in.out->encoded, in.steps * d, true), batch * in.steps * d);
    launches_.readout(in, x, Pick::steps, encoded, 0);
    return encoded;
  }

  // Sum of the encoded rows, by 1 / divisor or by the weights that the caller gave.
  void sum(const Input& in, const float* x, Pick pick, float* out) {
    ReadoutParams p{};
    if (pick == Pick::weights) {
      float* host = nullptr;
      const int64_t count = slice_.count * in.steps;
      p.weights = program_.stage<float>(count, &host);
      if (host) std::copy_n(slice_.at(slice_.request->readoutWeights, in.steps), count, host);
    }
    launches_.readout(in, x, pick, out, spec_.hidden, p);
  }

  // Readouts that give one row: [batch, headInput] at `to_`, and the `pooled` output.
  void pool(const Input& in, const Compressed& c, float* to_) {
    const int64_t d = spec_.hidden, batch = slice_.count, stride = spec_.headInput();
    const SequenceOutputs<float>& out = *in.out;
    const bool one = spec_.readout == Readout::step && !slice_.request->readoutWeights;
    const bool allRows = !one || out.layers || out.encoded;
    const Pick pick = spec_.readout == Readout::mean ? Pick::mean : one ? Pick::step : Pick::weights;
    float* pooled = program_.result(to(out.pooled, d, false), batch * d);
    const int64_t perStep = spec_.layers * spec_.heads * in.segmentsMax;
    if (one) {
      float* rows = program_.scratch<float>(batch * d);
      launches_.readout(in, c.embedded, Pick::step, rows, d);
      float* attention = out.attention ? program_.result(to(out.attention, perStep, true), batch * perStep) : nullptr;
      const float* x = stack(in, rows, c.keys, 1, attention);
      ReadoutParams mask{};
      mask.gathered = 1;  // zero where the row is a padding token's
      launches_.readout(in, x, Pick::step, pooled, d, mask);
    }
    if (allRows) {
      Input all = in;
      SequenceOutputs<float> outputs = out;
      if (one) outputs.attention = nullptr;
      all.out = &outputs;
      const float* encoded = layers(all, c);
      if (!one) sum(in, encoded, pick, pooled);
    }
    ReadoutParams copy{};
    copy.gathered = 2;  // its columns of the head's input
    launches_.readout(in, pooled, Pick::step, to_, stride, copy);
  }

  DeviceModel& model_;
  const Spec& spec_;
  const Slice& slice_;
  const Wanted wanted_;
  Program& program_;
  Launches launches_;
};

}  // namespace

Status buildUnfused(DeviceModel& model, const Slice& slice, Wanted wanted, Program* program) {
  return Unfused(model, slice, wanted, program).build();
}

void buildHead(DeviceModel& model, const Slice& slice, const HeadInput& in, Wanted wanted, Program* program) {
  if (wanted == Wanted::extras) return;
  const Spec& spec = model.spec();
  const Request<float>& request = *slice.request;
  const int64_t rows = slice.count * in.rows;
  Launches launches(model, slice, program);
  const auto mask = [&](const float* x, int64_t width, int kind, float* out) {
    launches.link(x, in.info, in.rows, width, kind, in.masked, out);
  };
  const float* x = in.x;
  for (size_t j = 0; j < model.head.size(); ++j) {
    const PackedHead& layer = model.head[j];
    float* out = program->scratch<float>(rows * layer.out);
    launches.dense(x, layer.weight, layer.bias, rows, layer.out, layer.in, layer.activation, out);
    const bool last = j + 1 == model.head.size();
    if (!last && request.head && request.head[j]) {
      mask(out, layer.out, 0, program->result(slice.at(request.head[j], in.rows * layer.out), rows * layer.out));
    }
    x = out;
  }
  const int64_t perSequence = in.rows * spec.labels;
  if (request.logits)
    mask(x, spec.labels, 0, program->result(slice.at(request.logits, perSequence), rows * spec.labels));
  if (request.probabilities) {
    mask(x, spec.labels, static_cast<int>(spec.link),
         program->result(slice.at(request.probabilities, perSequence), rows * spec.labels));
  }
}

}  // namespace hpformer::cuda
