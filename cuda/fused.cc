// The fused path: who takes it, which kernels, how many rows in a tile, how many tiles. Who takes it depends on the
// model and the sequence's own S; nothing else chosen here changes a result's bits.
#include <algorithm>
#include <cmath>

#include "batch.h"
#include "binding/contract/segments.h"
#include "layout.h"

namespace hpformer::cuda {
namespace {

constexpr int64_t kSingleSteps = 512;  // longer sequences get a launch of their own for TDHP
// Head layers wider than this get launches of their own, as in the unfused path: inside `stack`, and in kernel `head`.
constexpr int64_t kHeadInside = 1024, kHeadAfter = 4096;

// A launch shape of `stack`.
struct Shape {
  int tiles = 1;   // tiles of 16 rows in a warp
  int groups = 1;  // groups of 4 warps
  int packed = 0;
  int single = 0;  // StackParams::single
  int staged = 0;  // TdhpParams::staged
  int shared = 0;
  int rows() const { return 16 * tiles * groups; }
};

class Fused {
 public:
  Fused(DeviceModel& model, const Request<float>& request, const Plan& plan)
      : model_(model),
        spec_(model.spec()),
        request_(request),
        plan_(plan),
        half_(model.precision() == Precision::bfloat16),
        limit_(static_cast<int>(model.device().sharedLimit())) {}

  // Whether the smallest launch shape has room for the sequence.
  bool takes(int64_t b) const {
    if (!model_.fusable) return false;
    for (int i = 0; i < spec_.sequences; ++i) {
      const Feed<float>& feed = i == 1 ? request_.second : request_.feed;
      Segments s;
      if (!segmentsOf(spec_, spec_.over == Over::valid ? feed.lengths[b] : feed.steps, &s).ok()) return false;
      if (s.count < 1 || s.count > kMaxSegments) return false;
      const int segments = static_cast<int>(s.count), hidden = static_cast<int>(spec_.hidden);
      Shape smallest;
      smallest.packed = packable();
      if (!measure(segments, &smallest) || tdhpBytes(hidden, segments) > limit_) return false;
    }
    return true;
  }

  Status build(const Slice& slice, Program* program) {
    slice_ = slice;
    program_ = program;
    return pick() == Pick::step || pick() == Pick::steps ? one() : summed();
  }

 private:
  Pick pick() const {
    if (spec_.readout == Readout::steps) return Pick::steps;
    if (spec_.readout == Readout::mean) return Pick::mean;
    return request_.readoutWeights ? Pick::weights : Pick::step;
  }
  // One row of each sequence is read: rows of different sequences share a tile, if the heads divide a warp.
  bool packable() const { return pick() == Pick::step && 32 % spec_.heads == 0; }
  bool headInside() const { return (pick() == Pick::step || pick() == Pick::steps) && widest() <= kHeadInside; }
  bool headAfter() const { return widest() <= kHeadAfter; }

  int element() const { return half_ ? 2 : 4; }
  bool absorbed() const {
    return spec_.embedding == EmbeddingKind::features && spec_.pooling == Pooling::mean && !spec_.embeddingNorm &&
           plan_.absorbedEmbedding;
  }
  int embedSlices() const {
    if (!absorbed()) return 0;
    const int chunk = 64 / element();
    return static_cast<int>(spec_.features + chunk - 1) / chunk;
  }
  int widest() const {
    int64_t most = 1;
    for (const PackedHead& h : model_.head) most = std::max(most, h.out);
    return static_cast<int>(most);
  }

  int tdhpBytes(int hidden, int segments) const {
    return 4 * (tdhpFloats(hidden, segments, 1, absorbed(), 0) + keyFloats(hidden, segments));
  }

  bool measure(int segments, Shape* shape) const {
    shape->shared = StackLayout(static_cast<int>(spec_.hidden), element(), shape->rows(), embedSlices(), segments,
                                shape->packed, shape->single, absorbed(), shape->staged, headInside() ? widest() : 0,
                                pick() == Pick::step || pick() == Pick::steps)
                        .total;
    return shape->shared <= limit_;
  }

  // The largest tile that fits shared memory and still gives every multiprocessor something to do.
  bool choose(int segments, int64_t rows, bool single, Shape* shape) const {
    const int64_t busy = model_.device().multiprocessors();
    bool found = false;
    for (const auto& [tiles, groups] : {std::pair{1, 1}, {1, 2}, {2, 2}}) {
      Shape next{tiles, groups, 0, single ? 1 : 0, 0, 0};
      if (tiles == 2 && !hasTwoTiles(static_cast<int>(spec_.hidden), half_)) break;
      if (!measure(segments, &next)) break;
      const auto blocks = [&](int height) { return slice_.count * ((rows + height - 1) / height); };
      if (found && (rows <= shape->rows() || blocks(shape->rows()) <= busy)) break;
      *shape = next;
      found = true;
    }
    return found;
  }

  HeadParams head() const {
    HeadParams p{};
    p.layers = static_cast<int>(model_.head.size());
    for (size_t j = 0; j < model_.head.size(); ++j) {
      const PackedHead& h = model_.head[j];
      p.layer[j] = {model_.at(h.weight),    model_.at(h.transposed), model_.at(h.bias),
                    static_cast<int>(h.in), static_cast<int>(h.out), h.activation};
    }
    p.labels = static_cast<int>(spec_.labels);
    p.link = static_cast<int>(spec_.link);
    p.widest = widest();
    return p;
  }

  void outputs(HeadParams* p, int64_t rows) {
    const Request<float>& request = request_;
    const int64_t perSequence = rows * spec_.labels, all = slice_.count * perSequence;
    if (request.logits) p->logits = program_->result(slice_.at(request.logits, perSequence), all);
    if (request.probabilities) p->probabilities = program_->result(slice_.at(request.probabilities, perSequence), all);
  }

  // Everything of `stack` that does not depend on the readout; embeds rows first where the kernels cannot.
  StackParams parameters(const Input& in, Shape shape, Pick pick) {
    const int64_t d = spec_.hidden;
    StackParams p{};
    p.tdhp.source = in.source;
    if (spec_.embedding == EmbeddingKind::features && !absorbed()) {
      float* x = program_->scratch<float>(slice_.count * in.steps * d);
      buildEmbedding(model_, slice_, in, x, program_);
      p.tdhp.source.kind = Embed::rows;
      p.tdhp.source.rows = x;
    }
    p.tdhp.info = in.info;
    p.tdhp.segmentsMax = static_cast<int>(in.segmentsMax);
    p.tdhp.segments = static_cast<int>(in.segments);
    p.tdhp.max = spec_.pooling == Pooling::max;
    p.tdhp.absorbed = absorbed();
    p.tdhp.scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(d)));
    p.tdhp.embed = model_.at(model_.embedOperand);
    p.tdhp.query = model_.at(model_.queryOperand);
    p.tdhp.prefix = in.prefix;
    p.tdhp.fusion = model_.at(model_.fusionOperand);
    p.tdhp.fusionBias = model_.at(model_.fusionBias);
    p.single = shape.single;
    p.tdhp.staged = shape.staged;
    p.rowList = in.rowList;
    p.batch = static_cast<int>(slice_.count);
    p.packed = shape.packed;
    p.heads = static_cast<int>(spec_.heads);
    p.scale = static_cast<float>(1.44269504088896340736 / std::sqrt(static_cast<double>(spec_.headWidth())));
    p.layers = static_cast<int>(spec_.layers);
    p.norm = spec_.norm == NormKind::layernorm   ? Norm::layernorm
             : spec_.norm == NormKind::batchnorm ? Norm::affine
             : spec_.norm == NormKind::scalenorm ? Norm::scalenorm
                                                 : Norm::rmsnorm;
    p.activation = static_cast<Act>(spec_.activation);
    p.weights = reinterpret_cast<const char*>(model_.at(model_.stream));
    p.embedSlices = embedSlices();
    // The stream holds the embedding of features even where rows were embedded before.
    if (spec_.embedding == EmbeddingKind::features && !absorbed()) {
      const int64_t chunk = 64 / element();
      p.weights += (spec_.features + chunk - 1) / chunk * 64 * d;
    }
    const int64_t perLayer = 2 * d * element() / 64;
    p.slicesInLayer = static_cast<int>(spec_.tiedLayers ? perLayer : perLayer * spec_.layers);
    p.vectors = model_.at(model_.vectors);
    p.vectorStride = spec_.tiedLayers ? 0 : static_cast<int>(5 * d);
    p.pick = pick;
    return p;
  }

  // Keys: computed by `stack` itself, or by a launch of `tdhp` before it.
  void launch(const Input& in, const Shape& shape, int64_t tiles, StackParams* p) {
    const int64_t d = spec_.hidden, count = slice_.count * in.segmentsMax * d;
    float* out = slice_.at(in.out->keys, in.segmentsMax * d);
    const std::string width = std::to_string(d) + (half_ ? "_bf16" : "_f32");
    if (shape.single) {
      p->tdhp.keys = out ? program_->result(out, count) : nullptr;
    } else {
      p->tdhp.keys = program_->result(out, count);
      p->keys = p->tdhp.keys;
      const size_t shared = static_cast<size_t>(tdhpBytes(static_cast<int>(d), static_cast<int>(in.segments)));
      program_->launch("tdhp_" + width, {slice_.count}, 256, shared, p->tdhp);
    }
    const std::string name = "stack_" + width + "_" + std::to_string(shape.tiles);
    const Grid grid = shape.packed ? Grid{(slice_.count + shape.packed - 1) / shape.packed} : Grid{tiles, slice_.count};
    program_->launch(name, grid, 128 * shape.groups, static_cast<size_t>(shape.shared), *p);
  }

  // Rows of up to 16 sequences in one tile, fewer where that would leave most of the device idle; TDHP of as many of
  // them at once as there is room for.
  Status pack(int segments, int64_t steps, Shape* shape) const {
    shape->packed = static_cast<int>(std::clamp<int64_t>((slice_.count + 7) / 8, 1, 16));
    shape->single = steps <= kSingleSteps;
    while (shape->packed > 1 && !measure(segments, shape)) --shape->packed;
    if (!measure(segments, shape)) shape->single = 0;
    if (shape->single) {
      const int packed = shape->packed;
      for (int turns = 1; turns <= packed; ++turns) {
        shape->single = (packed + turns - 1) / turns;
        if (measure(segments, shape)) break;
      }
      shape->staged = absorbed() && packed > 1 ? static_cast<int>(steps) : 0;
      if (!measure(segments, shape)) shape->staged = 0;
    }
    return measure(segments, shape) ? Status() : noRoom();
  }

  // takes() has seen that the smallest shape fits.
  static Status noRoom() { return {StatusCode::internal, "cuda: no launch shape fits the device's shared memory"}; }

  // Readouts `step` and `steps`: the head runs inside `stack`, unless it is very wide.
  Status one() {
    Input in;
    if (Status s = stageInput(model_, slice_, false, RowSelection::read, program_, &in); !s.ok()) return s;
    const int segments = static_cast<int>(in.segments);
    const bool single = in.steps <= kSingleSteps, steps = pick() == Pick::steps;
    Shape shape;
    if (packable()) {
      if (Status s = pack(segments, in.steps, &shape); !s.ok()) return s;
    } else if (const int64_t rows = steps ? in.steps : 1;
               !choose(segments, rows, single, &shape) && !choose(segments, rows, false, &shape)) {
      return noRoom();
    }
    StackParams p = parameters(in, shape, pick());
    const int64_t rows = steps ? in.steps : 1, d = spec_.hidden;
    float* read = nullptr;
    if (steps) {
      p.encoded = read = headInside() ? nullptr : program_->scratch<float>(slice_.count * rows * d);
    } else if (in.out->pooled || !headInside()) {
      p.pooled = read = program_->result(slice_.at(in.out->pooled, d), slice_.count * d);
    }
    if (headInside()) {
      p.head = head();
      outputs(&p.head, rows);
    }
    launch(in, shape, steps ? (in.steps + shape.rows() - 1) / shape.rows() : 1, &p);
    if (!headInside()) buildHead(model_, slice_, {read, in.info, rows, steps}, Wanted::everything, program_);
    return {};
  }

  // Readouts that sum rows: `stack` leaves sums of 16 rows, `head` finishes.
  Status summed() {
    PoolHeadParams pool{};
    pool.inputs = static_cast<int>(spec_.sequences);
    pool.hidden = static_cast<int>(spec_.hidden);
    pool.divide = pick() == Pick::mean;
    for (int i = 0; i < pool.inputs; ++i) {
      Input in;
      if (Status s = stageInput(model_, slice_, i == 1, RowSelection::read, program_, &in); !s.ok()) return s;
      const int segments = static_cast<int>(in.segments);
      Shape shape;
      if (!choose(segments, in.rowsMax, in.steps <= kSingleSteps, &shape) &&
          !choose(segments, in.rowsMax, false, &shape)) {
        return noRoom();
      }
      StackParams p = parameters(in, shape, pick());
      if (pick() == Pick::weights) {
        float* host = nullptr;
        const int64_t count = slice_.count * in.steps;
        p.readoutWeights = program_->stage<float>(count, &host);
        if (host) std::copy_n(slice_.at(request_.readoutWeights, in.steps), count, host);
      }
      p.partialTiles = static_cast<int>(std::max<int64_t>(1, (in.rowsMax + 15) / 16));
      p.partial = program_->scratch<float>(slice_.count * p.partialTiles * spec_.hidden);
      launch(in, shape, std::max<int64_t>(1, (in.rowsMax + shape.rows() - 1) / shape.rows()), &p);
      const int at = pool.inputs == 2 ? 1 - i : 0;  // the second sequence's representation comes first
      pool.partial[at] = p.partial;
      pool.info[at] = in.info;
      pool.partialTiles[at] = p.partialTiles;
      if (in.out->pooled) {
        pool.pooled[at] = program_->result(slice_.at(in.out->pooled, spec_.hidden), slice_.count * spec_.hidden);
      }
    }
    if (headAfter()) {
      pool.head = head();
      outputs(&pool.head, 1);
    } else {
      pool.joined = program_->scratch<float>(slice_.count * spec_.headInput());
    }
    const size_t shared = 4 * static_cast<size_t>(spec_.headInput() + 2 * pool.head.widest);
    program_->launch("head", {slice_.count}, 256, shared, pool);
    if (!headAfter()) buildHead(model_, slice_, {pool.joined, nullptr, 1, false}, Wanted::everything, program_);
    return {};
  }

  DeviceModel& model_;
  const Spec& spec_;
  const Request<float>& request_;
  const Plan& plan_;
  Slice slice_;
  Program* program_ = nullptr;
  const bool half_;
  const int limit_;
};

}  // namespace

bool takesFused(DeviceModel& model, const Request<float>& request, const Plan& plan, int64_t b) {
  return Fused(model, request, plan).takes(b);
}

Status buildFused(DeviceModel& model, const Slice& slice, Program* program) {
  return Fused(model, *slice.request, *slice.plan).build(slice, program);
}

}  // namespace hpformer::cuda
