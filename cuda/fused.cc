// The fused path: which kernels, how many rows in a tile, how many tiles. Nothing chosen here changes a result's bits.
#include <algorithm>
#include <cmath>

#include "batch.h"
#include "binding/contract/segments.h"
#include "layout.h"

namespace hpformer::cuda {
namespace {

constexpr int64_t kSingleSteps = 512;  // longer sequences get a launch of their own for TDHP

// A launch shape of `stack`.
struct Shape {
  int tiles = 1;   // tiles of 16 rows in a warp
  int groups = 1;  // groups of 4 warps
  int packed = 0;
  bool single = false;
  int shared = 0;
  int rows() const { return 16 * tiles * groups; }
};

class Fused {
 public:
  Fused(DeviceModel& model, const Slice& slice, Program* program)
      : model_(model),
        spec_(model.spec()),
        slice_(slice),
        program_(*program),
        half_(model.precision() == Precision::bfloat16),
        limit_(static_cast<int>(model.device().sharedLimit())) {}

  Status build(bool* taken) {
    *taken = false;
    if (!model_.fusable || !fits()) return {};
    *taken = true;
    if (spec_.readout == Readout::steps) return one(Pick::steps);
    if (spec_.readout == Readout::step && !slice_.request->readoutWeights) return one(Pick::step);
    return summed(spec_.readout == Readout::mean ? Pick::mean : Pick::weights);
  }

 private:
  // Segments and shared memory, for the sequences of this slice; nothing is built yet.
  bool fits() const {
    for (int i = 0; i < spec_.sequences; ++i) {
      const int64_t segments = segmentsMax(i == 1);
      if (segments < 1 || segments > kMaxSegments) return false;
      Shape shape;
      if (!choose(static_cast<int>(segments), Pick::mean, 16, false, &shape)) return false;
      if (4 * tdhpFloats(static_cast<int>(spec_.hidden), static_cast<int>(segments)) > limit_) return false;
    }
    return true;
  }

  // The whole request's largest S, so that every slice of a batch takes the same path.
  int64_t segmentsMax(bool second) const {
    const Feed<float>& feed = second ? slice_.request->second : slice_.request->feed;
    int64_t most = second ? slice_.request->outSecond.segmentsMax : slice_.request->out.segmentsMax;
    for (int64_t b = 0; b < slice_.request->batch; ++b) {
      Segments s;
      const int64_t own = spec_.over == Over::valid ? feed.lengths[b] : feed.steps;
      if (!segmentsOf(spec_, own, &s).ok()) return 0;
      most = std::max(most, s.count);
    }
    return most;
  }

  int element() const { return half_ ? 2 : 4; }
  bool absorbed() const {
    return spec_.embedding == EmbeddingKind::features && spec_.pooling == Pooling::mean && !spec_.embeddingNorm &&
           slice_.plan->absorbedEmbedding;
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

  bool measure(int segments, Pick pick, Shape* shape) const {
    const bool headInside = pick == Pick::step || pick == Pick::steps;
    shape->shared = StackLayout(static_cast<int>(spec_.hidden), element(), shape->rows(), embedSlices(), segments,
                                shape->packed, shape->single, widest(), headInside)
                        .total;
    return shape->shared <= limit_;
  }

  // The largest tile that fits shared memory and still gives every multiprocessor something to do.
  bool choose(int segments, Pick pick, int64_t rows, bool single, Shape* shape) const {
    const int64_t busy = model_.device().multiprocessors();
    bool found = false;
    for (const auto& [tiles, groups] : {std::pair{1, 1}, {1, 2}, {2, 2}}) {
      Shape next{tiles, groups, 0, single, 0};
      if (tiles == 2 && !hasTwoTiles(static_cast<int>(spec_.hidden), half_)) break;
      if (!measure(segments, pick, &next)) break;
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
    const Request<float>& request = *slice_.request;
    const int64_t perSequence = rows * spec_.labels, all = slice_.count * perSequence;
    if (request.logits) p->logits = program_.result(slice_.at(request.logits, perSequence), all);
    if (request.probabilities) p->probabilities = program_.result(slice_.at(request.probabilities, perSequence), all);
  }

  // Everything of `stack` that does not depend on the readout; embeds rows first where the kernels cannot.
  StackParams parameters(const Input& in, Shape shape, Pick pick) {
    const int64_t d = spec_.hidden;
    StackParams p{};
    p.tdhp.source = in.source;
    if (spec_.embedding == EmbeddingKind::features && !absorbed()) {
      float* x = program_.scratch<float>(slice_.count * in.steps * d);
      buildEmbedding(model_, slice_, in, x, &program_);
      p.tdhp.source.kind = Embed::rows;
      p.tdhp.source.rows = x;
    }
    p.tdhp.info = in.info;
    p.tdhp.segmentsMax = static_cast<int>(in.segmentsMax);
    p.tdhp.max = spec_.pooling == Pooling::max;
    p.tdhp.absorbed = absorbed();
    p.tdhp.scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(d)));
    p.tdhp.embedTransposed = model_.at(model_.embedTransposed);
    p.tdhp.embed = model_.at(model_.embedPadded);
    p.tdhp.prefix = in.prefix;
    p.tdhp.fusionTransposed = model_.at(model_.fusionTransposed);
    p.tdhp.fusionBias = model_.at(model_.fusionBias);
    p.single = shape.single;
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
    p.head = head();
    return p;
  }

  // Keys: computed by `stack` itself, or by a launch of `tdhp` before it.
  void launch(const Input& in, const Shape& shape, int64_t tiles, StackParams* p) {
    const int64_t d = spec_.hidden, count = slice_.count * in.segmentsMax * d;
    float* out = slice_.at(in.out->keys, in.segmentsMax * d);
    const std::string width = std::to_string(d);
    if (shape.single) {
      p->tdhp.keys = out ? program_.result(out, count) : nullptr;
    } else {
      p->tdhp.keys = program_.result(out, count);
      p->keys = p->tdhp.keys;
      const size_t shared = 4 * static_cast<size_t>(tdhpFloats(static_cast<int>(d), static_cast<int>(in.segmentsMax)));
      program_.launch("tdhp_" + width, {slice_.count}, 256, shared, p->tdhp);
    }
    const std::string name = "stack_" + width + (half_ ? "_bf16_" : "_f32_") + std::to_string(shape.tiles);
    const Grid grid = shape.packed ? Grid{(slice_.count + shape.packed - 1) / shape.packed} : Grid{tiles, slice_.count};
    program_.launch(name, grid, 128 * shape.groups, static_cast<size_t>(shape.shared), *p);
  }

  // Readouts `step` and `steps`: the head runs inside `stack`.
  Status one(Pick pick) {
    Input in;
    if (Status s = stageInput(model_, slice_, false, RowSelection::read, &program_, &in); !s.ok()) return s;
    const int segments = static_cast<int>(in.segmentsMax);
    const bool single = in.steps <= kSingleSteps;
    Shape shape;
    if (pick == Pick::step) {
      // Rows of up to 16 sequences in one tile; fewer where that would leave most of the device idle.
      shape.single = single;
      shape.packed = 32 % spec_.heads == 0 ? static_cast<int>(std::clamp<int64_t>((slice_.count + 7) / 8, 1, 16)) : 0;
      while (shape.packed > 1 && !measure(segments, pick, &shape)) --shape.packed;
      if (!measure(segments, pick, &shape)) shape.single = false;
      if (!measure(segments, pick, &shape)) return notTaken();
    } else if (!choose(segments, pick, in.steps, single, &shape) && !choose(segments, pick, in.steps, false, &shape)) {
      return notTaken();
    }
    StackParams p = parameters(in, shape, pick);
    if (pick == Pick::step && in.out->pooled) {
      p.pooled = program_.result(slice_.at(in.out->pooled, spec_.hidden), slice_.count * spec_.hidden);
    }
    outputs(&p.head, pick == Pick::steps ? in.steps : 1);
    launch(in, shape, pick == Pick::steps ? (in.steps + shape.rows() - 1) / shape.rows() : 1, &p);
    return {};
  }

  // Shared memory did not suffice after all (a very wide head): the unfused path has no such limit.
  Status notTaken() { return {StatusCode::limit, "the head does not fit the device's shared memory"}; }

  // Readouts that sum rows: `stack` leaves sums of 16 rows, `head` finishes.
  Status summed(Pick pick) {
    PoolHeadParams pool{};
    pool.inputs = static_cast<int>(spec_.sequences);
    pool.hidden = static_cast<int>(spec_.hidden);
    pool.divide = pick == Pick::mean;
    for (int i = 0; i < pool.inputs; ++i) {
      Input in;
      if (Status s = stageInput(model_, slice_, i == 1, RowSelection::read, &program_, &in); !s.ok()) return s;
      const int segments = static_cast<int>(in.segmentsMax);
      Shape shape;
      if (!choose(segments, pick, in.rowsMax, in.steps <= kSingleSteps, &shape) &&
          !choose(segments, pick, in.rowsMax, false, &shape)) {
        return notTaken();
      }
      StackParams p = parameters(in, shape, pick);
      if (pick == Pick::weights) {
        float* host = nullptr;
        const int64_t count = slice_.count * in.steps;
        p.readoutWeights = program_.stage<float>(count, &host);
        if (host) std::copy_n(slice_.at(slice_.request->readoutWeights, in.steps), count, host);
      }
      p.partialTiles = static_cast<int>(std::max<int64_t>(1, (in.rowsMax + 15) / 16));
      p.partial = program_.scratch<float>(slice_.count * p.partialTiles * spec_.hidden);
      launch(in, shape, std::max<int64_t>(1, (in.rowsMax + shape.rows() - 1) / shape.rows()), &p);
      const int at = pool.inputs == 2 ? 1 - i : 0;  // the second sequence's representation comes first
      pool.partial[at] = p.partial;
      pool.info[at] = in.info;
      pool.partialTiles[at] = p.partialTiles;
      if (in.out->pooled) {
        pool.pooled[at] = program_.result(slice_.at(in.out->pooled, spec_.hidden), slice_.count * spec_.hidden);
      }
    }
    pool.head = head();
    outputs(&pool.head, 1);
    const size_t shared = 4 * static_cast<size_t>(spec_.headInput() + 2 * pool.head.widest);
    program_.launch("head", {slice_.count}, 256, shared, pool);
    return {};
  }

  DeviceModel& model_;
  const Spec& spec_;
  const Slice& slice_;
  Program& program_;
  const bool half_;
  const int limit_;
};

}  // namespace

Status buildFused(DeviceModel& model, const Slice& slice, Program* program, bool* taken) {
  return Fused(model, slice, program).build(taken);
}

}  // namespace hpformer::cuda
