// The fused path: who takes it, which kernels, how many rows in a tile, how many tiles. Who takes it depends on the
// model and the sequence's own S; nothing else chosen here changes a result's bits.
#include <algorithm>
#include <cmath>

#include "batch.h"
#include "binding/contract/segments.h"
#include "layout.h"

namespace hpformer::cuda {
namespace {

constexpr int64_t kTogetherSteps = 512;  // packed sequences up to this length: their own block does their TDHP
constexpr int64_t kSharedSteps = 256;    // shorter sequences do not repay that blocks wait for each other once more
// Head layers wider than this get launches of their own, as in the unfused path: for rows that are read, and for sums.
constexpr int64_t kHeadInside = 1024, kHeadAfter = 4096;

// A launch shape of `stack`.
struct Shape {
  int tiles = 1;   // tiles of 16 rows in a warp
  int groups = 1;  // groups of 4 warps
  int packed = 0;
  int single = 0;  // StackParams::single; 0: keys come from blocks ahead
  int staged = 0;  // TdhpParams::staged
  int stages = kMostStages;
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
      const int segments = static_cast<int>(s.count);
      Shape smallest = least(segments);
      if (!measure(segments, &smallest)) return false;
    }
    return true;
  }

  Status build(const Slice& slice, Program* program) {
    slice_ = slice;
    program_ = program;
    return sums() ? summed() : one();
  }

 private:
  Pick pick() const {
    if (spec_.readout == Readout::steps) return Pick::steps;
    if (spec_.readout == Readout::mean) return Pick::mean;
    return request_.readoutWeights ? Pick::weights : Pick::step;
  }
  bool sums() const { return pick() == Pick::mean || pick() == Pick::weights; }
  // One row of each sequence is read: rows of different sequences share a tile, if the heads divide a warp.
  bool packable() const { return pick() == Pick::step && 32 % spec_.heads == 0; }
  bool headInside() const { return !sums() && widest() <= kHeadInside; }
  bool headAfter() const { return widest() <= kHeadAfter; }

  int element() const { return half_ ? 2 : 4; }
  bool absorbed() const {
    return spec_.embedding == EmbeddingKind::features && spec_.pooling == Pooling::mean && !spec_.embeddingNorm &&
           plan_.absorbedEmbedding;
  }
  bool embedded() const { return spec_.embedding == EmbeddingKind::features && !absorbed(); }
  int embedSlices() const {
    if (spec_.embedding != EmbeddingKind::features) return 0;
    const int chunk = 64 / element();
    return static_cast<int>(spec_.features + chunk - 1) / chunk;
  }
  int widest() const {
    int64_t most = 1;
    for (const PackedHead& h : model_.head) most = std::max(most, h.out);
    return static_cast<int>(most);
  }

  // The smallest launch shape; with fewer slices of weights in flight where that is what makes it fit.
  Shape least(int segments) const {
    Shape shape;
    shape.packed = packable();
    if (!measure(segments, &shape) && hasTight(static_cast<int>(spec_.hidden), half_)) shape.stages = kLeastStages;
    return shape;
  }

  bool measure(int segments, Shape* shape) const {
    const bool inside = sums() ? headAfter() : headInside();
    shape->shared = StackLayout(static_cast<int>(spec_.hidden), element(), shape->stages, shape->rows(), embedSlices(),
                                segments, shape->packed, shape->single, absorbed(), shape->staged, embedded(),
                                inside ? widest() : 0, !sums(), sums() ? static_cast<int>(spec_.sequences) : 0)
                        .total;
    return shape->shared <= limit_;
  }

  // Of long and few sequences the keys are shared by blocks, one for each segment and pass, if all of them can start at
  // once.
  int64_t sharedBlocks(const Input& in) const { return 2 * slice_.count * in.segments; }
  bool shareable(const Input& in) const {
    return in.steps >= kSharedSteps && in.segments > 1 && sharedBlocks(in) <= model_.device().multiprocessors();
  }

  // The largest tile that fits shared memory and still gives every multiprocessor something to do. A sequence of one
  // tile computes its keys in that tile's block, others ahead of their tiles, by more than the least number of warps.
  bool choose(const Input& in, int64_t rows, Shape* shape) const {
    const int segments = static_cast<int>(in.segments);
    const bool shared = shareable(in);
    const int64_t busy = model_.device().multiprocessors();
    const int stages = least(segments).stages;
    bool found = false;
    for (const auto& [tiles, groups] : {std::pair{1, 1}, {1, 2}, {2, 2}}) {
      Shape next;
      next.tiles = tiles, next.groups = groups, next.stages = stages;
      if (tiles == 2 && (shared || stages < kMostStages || !hasTwoTiles(static_cast<int>(spec_.hidden), half_))) break;
      if (!measure(segments, &next)) break;
      const auto blocks = [&](int height) { return slice_.count * ((rows + height - 1) / height); };
      if (found && (rows <= shape->rows() || (shape->groups > 1 && blocks(shape->rows()) <= busy))) break;
      *shape = next;
      found = true;
    }
    if (found && rows <= shape->rows()) {
      Shape own = *shape;
      own.single = 1;
      if (measure(segments, &own)) *shape = own;
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

  // Everything of `stack` that does not depend on the readout.
  StackParams parameters(const Input& in, Shape shape, Pick pick) {
    const int64_t d = spec_.hidden;
    StackParams p{};
    p.tdhp.source = in.source;
    p.tdhp.info = in.info;
    p.tdhp.segmentsMax = static_cast<int>(in.segmentsMax);
    p.tdhp.segments = static_cast<int>(in.segments);
    p.tdhp.max = spec_.pooling == Pooling::max;
    p.tdhp.absorbed = absorbed();
    p.tdhp.embedded = embedded();
    p.tdhp.scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(d)));
    p.tdhp.slices = reinterpret_cast<const char*>(model_.at(model_.stream));
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
    const int64_t perLayer = 2 * d * element() / 64;
    p.slicesInLayer = static_cast<int>(spec_.tiedLayers ? perLayer : perLayer * spec_.layers);
    p.vectors = model_.at(model_.vectors);
    p.vectorStride = spec_.tiedLayers ? 0 : static_cast<int>(5 * d);
    p.pick = pick;
    return p;
  }

  // Keys from blocks ahead: one for each sequence, or shared.
  void share(const Input& in, StackParams* p) {
    const bool shared = shareable(in);
    p->shares = shared ? static_cast<int>(in.segments) : 1;
    p->ahead = static_cast<int>(shared ? sharedBlocks(in) : slice_.count);
    if (shared) p->tdhp.means = program_->scratch<float>(slice_.count * in.segments * spec_.hidden);
  }

  void launch(const Input& in, const Shape& shape, int64_t tiles, StackParams* p) {
    const int64_t d = spec_.hidden, count = slice_.count * in.segmentsMax * d;
    float* out = slice_.at(in.out->keys, in.segmentsMax * d);
    p->tdhp.keys = shape.single && !out ? nullptr : program_->result(out, count);
    if (!shape.single) share(in, p);
    p->tiles = static_cast<int>(tiles);
    // Counters are zeroed by coming with the inputs.
    if (p->ahead || sums()) {
      unsigned* host = nullptr;
      const int64_t pairs = (tiles + 1) / 2, counters = 1 + slice_.count * (sums() ? 3 + pairs : 2);
      p->counters = program_->stage<unsigned>(counters, &host);
      if (host) std::fill_n(host, counters, 0u);
    }
    const std::string name = "stack_" + std::to_string(d) + (half_ ? "_bf16_" : "_f32_") +
                             (shape.stages == kLeastStages ? "tight_" : "") + std::to_string(shape.tiles);
    const int64_t blocks = shape.packed ? (slice_.count + shape.packed - 1) / shape.packed : tiles * slice_.count;
    program_->launch(name, {p->ahead + blocks}, 128 * shape.groups, static_cast<size_t>(shape.shared), *p);
  }

  // Rows of up to 16 sequences in one tile, fewer where that would leave most of the device idle; TDHP of as many of
  // them at once as there is room for.
  Status pack(const Input& in, Shape* shape) const {
    const int segments = static_cast<int>(in.segments);
    shape->packed = static_cast<int>(std::clamp<int64_t>((slice_.count + 7) / 8, 1, 16));
    shape->single = in.steps <= kTogetherSteps;
    shape->stages = least(segments).stages;
    while (shape->packed > 1 && !measure(segments, shape)) --shape->packed;
    if (!measure(segments, shape)) shape->single = 0;
    if (shape->single) {
      const int packed = shape->packed;
      for (int turns = 1; turns <= packed; ++turns) {
        shape->single = (packed + turns - 1) / turns;
        if (measure(segments, shape)) break;
      }
      shape->staged = absorbed() && packed > 1 ? static_cast<int>(std::min(in.steps, in.positions)) : 0;
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
    const bool steps = pick() == Pick::steps;
    Shape shape;
    if (packable()) {
      if (Status s = pack(in, &shape); !s.ok()) return s;
    } else if (!choose(in, steps ? in.steps : 1, &shape)) {
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

  // Readouts that sum rows: each tile leaves its sum, the last of a sequence adds them and applies the head. Of two
  // sequences the second launch does that.
  Status summed() {
    const int inputs = static_cast<int>(spec_.sequences);
    const int64_t d = spec_.hidden;
    float* joined = inputs == 2 || !headAfter() ? program_->scratch<float>(slice_.count * inputs * d) : nullptr;
    for (int i = 0; i < inputs; ++i) {
      Input in;
      if (Status s = stageInput(model_, slice_, i == 1, RowSelection::read, program_, &in); !s.ok()) return s;
      Shape shape;
      if (!choose(in, in.rowsMax, &shape)) return noRoom();
      StackParams p = parameters(in, shape, pick());
      if (pick() == Pick::weights) {
        float* host = nullptr;
        const int64_t count = slice_.count * in.steps;
        p.readoutWeights = program_->stage<float>(count, &host);
        if (host) std::copy_n(slice_.at(request_.readoutWeights, in.steps), count, host);
      }
      const int64_t tiles = std::max<int64_t>(1, (in.rowsMax + shape.rows() - 1) / shape.rows());
      p.partial = program_->scratch<float>(slice_.count * ((tiles + 1) / 2) * d);
      p.inputs = inputs;
      p.input = inputs == 2 ? 1 - i : 0;  // the second sequence's representation comes first
      p.joined = joined;
      if (in.out->pooled) p.pooled = program_->result(slice_.at(in.out->pooled, d), slice_.count * d);
      if (headAfter() && i + 1 == inputs) {
        p.head = head();
        outputs(&p.head, 1);
      }
      launch(in, shape, tiles, &p);
    }
    if (!headAfter()) buildHead(model_, slice_, {joined, nullptr, 1, false}, Wanted::everything, program_);
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
