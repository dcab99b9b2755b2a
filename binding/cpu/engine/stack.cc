// The HPformer layers for one tile of tokens, depth first: embed the tile, run every layer while it sits in L1/L2, hand
// it to the readout. After K_comp no token looks at another, so tiles are independent.
#include <algorithm>
#include <cmath>

#include "context.h"

namespace hpformer::cpu {
namespace {

// One sequence's keys in the layouts of the layers; shared read-only by its tiles.
struct KeyPanels {
  int64_t segments = 0;
  bool folded = false;
  float scale = 1;          // left to the softmax when not folded into the keys
  float* scores = nullptr;  // panels per head [heads][S / panel][width][panel], times 1/sqrt(width)
  float* values = nullptr;  // unfolded: panels per head of K_g^T [heads][width / panel][S][panel]
  float* mixed = nullptr;   // folded: panels per layer of M [layers][hidden / panel][heads * S][panel]
  Fixed* fixed = nullptr;   // or M of each layer in fixed point
  int64_t valueStride = 0, scoreStride = 0, mixedStride = 0;
  TileKeys tiles;
};

bool folds(const Context& c, int64_t segments, int64_t tokens) {
  const int64_t h = c.spec.hidden, sh = segments * c.spec.heads;
  // Per token: S * heads * hidden against S * hidden + hidden^2; once per sequence: S * hidden^2.
  return c.plan.foldedOutput && sh * tokens + segments * h < tokens * (segments + h);
}

// M_g = K_g W_o,g^T for every head of a layer: use(o, g S + s, value).
template <typename Use>
void mix(const Context& c, const PackedLayer& layer, const float* lanes, int64_t ld, int64_t segments, Use use) {
  Arena& arena = Arena::local();
  Arena::Scope scope(arena);
  const int64_t d = c.spec.hidden, width = c.spec.headWidth(), heads = c.spec.heads, panel = c.k.panel;
  float* product = arena.take<float>(d * ld);
  for (int64_t g = 0; g < heads; ++g) {
    Gemm m;
    m.a = layer.output.data() + g * width * panel;  // heads begin inside tiles: plain multiply-adds
    m.packed = d;
    m.rows = d;
    m.k = width;
    m.x = lanes + g * width * ld;
    m.ldx = m.ldc = ld;
    m.c = product;
    m.cols = segments;
    c.k.gemm(m);
    for (int64_t o = 0; o < d; ++o)
      for (int64_t s = 0; s < segments; ++s) use(o, g * segments + s, product[o * ld + s]);
  }
}

void mixPanels(const Context& c, const PackedLayer& layer, const float* lanes, int64_t ld, int64_t segments,
               float* out) {
  const int64_t panel = c.k.panel, depth = c.spec.heads * segments;
  mix(c, layer, lanes, ld, segments,
      [&](int64_t o, int64_t i, float v) { out[(o / panel * depth + i) * panel + o % panel] = v; });
}

// M in fixed point, into the memory that `pairs` and `scale` name: digits are shared out over the whole matrix, so rows
// first.
void mixFixed(const Context& c, const PackedLayer& layer, const float* lanes, int64_t ld, int64_t segments,
              int32_t* pairs, float* scale, Fixed* out) {
  Arena& arena = Arena::local();
  Arena::Scope scope(arena);
  const int64_t d = c.spec.hidden, depth = c.spec.heads * segments;
  float* rows = arena.take<float>(d * depth);
  mix(c, layer, lanes, ld, segments, [&](int64_t o, int64_t i, float v) { rows[o * depth + i] = v; });
  out->limit = c.k.packFixed(rows, depth, d, depth, pairs, scale);
  out->pairs = pairs;
  out->scale = scale;
}

void packKeys(const Context& c, const float* keys, int64_t segments, int64_t tokens, Arena& arena, int threads,
              KeyPanels* k) {
  const int64_t d = c.spec.hidden, width = c.spec.headWidth(), heads = c.spec.heads, panel = c.k.panel;
  const float scale = 1.0f / std::sqrt(static_cast<float>(width));
  k->segments = segments;
  k->folded = folds(c, segments, tokens);
  k->scale = c.plan.foldedWeights ? 1.0f : scale;
  const float keyScale = c.plan.foldedWeights ? scale : 1.0f;
  if (c.k.tileDepth > 0) k->tiles = tileKeys(c, keys, segments, keyScale, k->folded, arena, threads);
  const int64_t blocks = (segments + panel - 1) / panel;
  k->scoreStride = blocks * width * panel;
  k->scores = arena.take<float>(heads * k->scoreStride);
  std::fill_n(k->scores, heads * k->scoreStride, 0.0f);
  for (int64_t s = 0; s < segments; ++s)
    for (int64_t g = 0; g < heads; ++g)
      for (int64_t i = 0; i < width; ++i)
        k->scores[g * k->scoreStride + (s / panel * width + i) * panel + s % panel] =
            keys[s * d + g * width + i] * keyScale;
  if (!k->folded) {
    const int64_t rows = (width + panel - 1) / panel;
    k->valueStride = rows * segments * panel;
    k->values = arena.take<float>(heads * k->valueStride);
    std::fill_n(k->values, heads * k->valueStride, 0.0f);
    for (int64_t g = 0; g < heads; ++g)
      for (int64_t s = 0; s < segments; ++s)
        for (int64_t i = 0; i < width; ++i)
          k->values[g * k->valueStride + (i / panel * segments + s) * panel + i % panel] = keys[s * d + g * width + i];
    return;
  }
  if (k->tiles.mixed) return;
  const int64_t ld = roundUp(segments, c.k.width);
  float* lanes = arena.take<float>(d * ld);
  const float** rows = arena.take<const float*>(segments);
  for (int64_t s = 0; s < segments; ++s) rows[s] = keys + s * d;
  c.k.toLanes(rows, segments, d, lanes, ld);
  const int64_t layers = static_cast<int64_t>(c.packed.layers.size()), depth = heads * segments;
  const auto each = [&](auto&& body) {
    shareOut(c, layers, threads, [&](int64_t i) { body(i, c.packed.layers[static_cast<size_t>(i)]); });
  };
  if (c.packed.precision == Precision::bfloat16 && depth <= c.k.fixedDepth) {
    const int64_t padded = roundUp(d, panel), size = padded * ((depth + 1) / 2);
    k->fixed = arena.take<Fixed>(layers);
    auto* pairs = arena.take<int32_t>(layers * size);
    float* scales = arena.take<float>(layers * padded);
    if (d % panel) std::fill_n(pairs, layers * size, 0), std::fill_n(scales, layers * padded, 0.0f);
    return each([&](int64_t i, const PackedLayer& layer) {
      mixFixed(c, layer, lanes, ld, segments, pairs + i * size, scales + i * padded, k->fixed + i);
    });
  }
  k->mixedStride = roundUp(d, panel) * depth;
  k->mixed = arena.take<float>(layers * k->mixedStride);
  if (d % panel) std::fill_n(k->mixed, layers * k->mixedStride, 0.0f);
  each([&](int64_t i, const PackedLayer& layer) {
    mixPanels(c, layer, lanes, ld, segments, k->mixed + i * k->mixedStride);
  });
}

struct TileBuffers {
  int64_t ld = 0;
  float *x, *y, *p, *a;
  TileBuffers(const Context& c, Arena& arena, int64_t segments, int64_t lanes) : ld(lanes) {
    const int64_t d = c.spec.hidden;
    x = arena.take<float>(d * ld);
    y = arena.take<float>(d * ld);
    p = arena.take<float>(c.spec.heads * segments * ld);
    a = arena.take<float>(d * ld);
  }
};

const PackedNorm* normsOf(const Context& c, int64_t layer, int which) {
  const size_t at = c.packed.layers.size() == 1 ? 0 : static_cast<size_t>(layer);
  const PackedNorm* n = which == 0 ? &c.packed.layers[at].norm1 : &c.packed.layers[at].norm2;
  if (!c.plan.foldedWeights && !c.packed.plainNorms.empty())
    n = &c.packed.plainNorms[2 * at + static_cast<size_t>(which)];
  return n;
}

void addNorm(const Context& c, int64_t layer, int which, float* x, const float* y, int64_t ld, int64_t cols) {
  c.k.norm(normOf(*normsOf(c, layer, which), y, x, c.spec.hidden, ld, cols));
}

// Z = Norm2(Y + act(W_1 Y + c_1)) after Y = Norm1(X + O); `b.y` holds X + O on entry, `b.x` the result.
void feedForward(const Context& c, const PackedLayer& w, int64_t layer, const TileBuffers& b, int64_t cols,
                 bool tiles = true) {
  addNorm(c, layer, 0, b.x, b.y, b.ld, cols);
  Gemm g;
  w.feedForward.operandOf(&g, c.k);
  if (!tiles) g.tiles = nullptr;
  g.rows = g.k = c.spec.hidden;
  g.x = b.x;
  g.ldx = g.ldc = b.ld;
  g.c = b.y;
  g.cols = cols;
  g.bias = w.feedForwardBias.data();
  g.activation = static_cast<int>(c.spec.activation);
  g.residual = b.x;
  c.k.gemm(g);
  addNorm(c, layer, 1, b.x, b.y, b.ld, cols);
}

const PackedLayer& layerOf(const Context& c, int64_t i) {
  return c.packed.layers[c.packed.layers.size() == 1 ? 0 : static_cast<size_t>(i)];
}

void layer(const Context& c, const KeyPanels& k, int64_t i, const TileBuffers& b, int64_t cols) {
  const int64_t d = c.spec.hidden, width = c.spec.headWidth(), heads = c.spec.heads;
  const PackedLayer& w = layerOf(c, i);
  KeyScores scores;
  scores.keys = k.scores;
  scores.x = b.x;
  scores.p = b.p;
  scores.heads = heads;
  scores.width = width;
  scores.segments = k.segments;
  scores.ld = b.ld;
  scores.cols = cols;
  scores.scale = k.scale;
  scores.tiles = k.tiles.scores;
  scores.block = k.tiles.block;
  c.k.keyScores(scores);
  Gemm g;
  g.ldx = g.ldc = b.ld;
  g.cols = cols;
  if (k.folded) {
    const int64_t at = c.packed.layers.size() == 1 ? 0 : i;
    if (k.tiles.mixed) {
      g.tiles = k.tiles.mixed + at * k.tiles.stride;
      g.part = k.tiles.part;
    } else if (k.fixed) {
      g.fixed = k.fixed[at];
    } else {
      g.a = k.mixed + at * k.mixedStride;
    }
    g.rows = d;
    g.k = heads * k.segments;
    g.x = b.p;
  } else {
    for (int64_t h = 0; h < heads; ++h) {
      g.a = k.values + h * k.valueStride;
      g.rows = width;
      g.k = k.segments;
      g.x = b.p + h * k.segments * b.ld;
      g.c = b.a + h * width * b.ld;
      c.k.gemm(g);
    }
    w.output.operandOf(&g, c.k);
    g.rows = g.k = d;
    g.x = b.a;
  }
  g.c = b.y;
  g.residual = b.x;
  c.k.gemm(g);
  feedForward(c, w, i, b, cols);
}

// P of a tile to `attention` [.., layers, heads, segmentsMax] of the rows that `at` gives.
template <typename At>
void storeAttention(const Context& c, const float* p, int64_t ld, int64_t segments, int64_t most, int64_t layer,
                    int64_t count, At at) {
  const int64_t heads = c.spec.heads;
  for (int64_t i = 0; i < count; ++i) {
    float* out = at(i);
    if (!out) continue;
    out += layer * heads * most;
    for (int64_t g = 0; g < heads; ++g)
      for (int64_t s = 0; s < most; ++s) out[g * most + s] = s < segments ? p[(g * segments + s) * ld + i] : 0.0f;
  }
}

struct Tile {
  int64_t first = 0, count = 0;
};

class SequenceStack {
 public:
  SequenceStack(const Context& c, const Sequence& s, const Tokens& tokens, const float* weights,
                const Request<float>* stepsHead)
      : c_(c), s_(s), tokens_(tokens), weights_(weights), head_(stepsHead) {}

  Status run(const float* keys, float* pooled, int threads) {
    Arena& arena = Arena::local();
    Arena::Scope scope(arena);
    packKeys(c_, keys, s_.segments.count, tokens_.read, arena, threads, &keys_);
    const int64_t d = c_.spec.hidden, tile = c_.k.tile;
    readTiles_ = (tokens_.read + tile - 1) / tile;
    const int64_t tiles = readTiles_ + (tokens_.count - tokens_.read + tile - 1) / tile;
    partial_ = pooled ? arena.take<float>(readTiles_ * d) : nullptr;
    const auto share = [&](auto&& body) { shareOut(c_, tiles, threads, body); };
    if (c_.plan.depthFirst) {
      share([&](int64_t i) { depthFirst(i); });
    } else {
      layerByLayer(arena, tiles, share);
    }
    if (c_.cancelled()) return {StatusCode::aborted, "aborted"};
    if (pooled) {  // tiles in order: the same sum for any number of threads
      std::fill_n(pooled, d, 0.0f);
      for (int64_t i = 0; i < readTiles_; ++i) c_.k.axpy(1.0f, partial_ + i * d, pooled, d);
    }
    return {};
  }

 private:
  Tile tileAt(int64_t i) const {
    const int64_t tile = c_.k.tile;
    if (i < readTiles_) return {i * tile, std::min(tile, tokens_.read - i * tile)};
    const int64_t first = tokens_.read + (i - readTiles_) * tile;
    return {first, std::min(tile, tokens_.count - first)};
  }

  void depthFirst(int64_t i) {
    Arena& arena = Arena::local();
    Arena::Scope scope(arena);
    const Tile t = tileAt(i);
    TileBuffers b(c_, arena, keys_.segments, c_.k.tile);
    embedLanes(c_, s_, tokens_.steps + t.first, t.count, b.x, b.ld);
    for (int64_t l = 0; l < c_.spec.layers; ++l) {
      layer(c_, keys_, l, b, t.count);
      keep(t, l, b);
    }
    finish(i, t, b.x, b.ld);
  }

  template <typename Share>
  void layerByLayer(Arena& arena, int64_t tiles, Share&& share) {
    const int64_t d = c_.spec.hidden, ld = c_.k.tile;
    float* all = arena.take<float>(tiles * d * ld);
    share([&](int64_t i) {
      const Tile t = tileAt(i);
      embedLanes(c_, s_, tokens_.steps + t.first, t.count, all + i * d * ld, ld);
    });
    for (int64_t l = 0; l < c_.spec.layers; ++l) {
      share([&](int64_t i) {
        Arena& own = Arena::local();
        Arena::Scope scope(own);
        const Tile t = tileAt(i);
        TileBuffers b(c_, own, keys_.segments, ld);
        b.x = all + i * d * ld;
        layer(c_, keys_, l, b, t.count);
        keep(t, l, b);
      });
    }
    share([&](int64_t i) { finish(i, tileAt(i), all + i * d * ld, ld); });
  }

  // Per-layer outputs of a tile.
  void keep(const Tile& t, int64_t l, const TileBuffers& b) {
    const SequenceOutputs<float>& out = *s_.out;
    const int32_t* steps = tokens_.steps + t.first;
    if (out.attention) {
      const int64_t most = out.segmentsMax, size = c_.spec.layers * c_.spec.heads * most;
      storeAttention(c_, b.p, b.ld, keys_.segments, most, l, t.count, [&](int64_t i) {
        if (tokens_.attentionStep < 0) return out.attention + (s_.index * s_.padded + steps[i]) * size;
        return steps[i] == tokens_.attentionStep ? out.attention + s_.index * size : nullptr;
      });
    }
    if (out.layers && out.layers[l]) rowsOut(b.x, b.ld, t, out.layers[l]);
  }

  void rowsOut(const float* x, int64_t ld, const Tile& t, float* to) const {
    Arena& arena = Arena::local();
    Arena::Scope scope(arena);
    const int64_t d = c_.spec.hidden;
    float** rows = arena.take<float*>(t.count);
    for (int64_t i = 0; i < t.count; ++i) rows[i] = to + (s_.index * s_.padded + tokens_.steps[t.first + i]) * d;
    c_.k.fromLanes(x, ld, t.count, d, rows);
  }

  void finish(int64_t index, const Tile& t, float* x, int64_t ld) {
    Arena& arena = Arena::local();
    Arena::Scope scope(arena);
    const int64_t d = c_.spec.hidden;
    const int32_t* steps = tokens_.steps + t.first;
    for (int64_t i = 0; i < t.count; ++i)
      if (s_.padding(c_.spec, steps[i]))
        for (int64_t o = 0; o < d; ++o) x[o * ld + i] = 0.0f;
    if (s_.out->encoded) rowsOut(x, ld, t, s_.out->encoded);
    if (partial_ && index < readTiles_) {
      float* sum = partial_ + index * d;
      float* w = arena.take<float>(t.count);
      // A step of weight zero is not read: its NaN would survive the product.
      for (int64_t i = 0; i < t.count; ++i) w[i] = weights_ ? weights_[steps[i]] : 1.0f;
      for (int64_t i = 0; weights_ && i < t.count; ++i)
        if (w[i] == 0)
          for (int64_t o = 0; o < d; ++o) x[o * ld + i] = 0.0f;
      for (int64_t o = 0; o < d; ++o) sum[o] = c_.k.dot(x + o * ld, w, t.count);
    }
    if (head_) {
      int64_t* rows = arena.take<int64_t>(t.count);
      for (int64_t i = 0; i < t.count; ++i) rows[i] = s_.index * s_.padded + steps[i];
      headLanes(c_, x, ld, t.count, rows, *head_);
    }
  }

  const Context& c_;
  const Sequence& s_;
  const Tokens tokens_;
  const float* weights_;
  const Request<float>* head_;
  KeyPanels keys_;
  float* partial_ = nullptr;  // [readTiles_][hidden]
  int64_t readTiles_ = 0;
};

}  // namespace

Status stackSequence(const Context& c, const Sequence& s, const float* keys, const Tokens& tokens, const float* weights,
                     float* pooled, const Request<float>* stepsHead, int threads) {
  SequenceStack stack(c, s, tokens, weights, stepsHead);
  return stack.run(keys, pooled, threads);
}

namespace {

// Segment s of `segments` in the layout of KeyAttentionLanes: rows[i] are the `width` channels of lane i.
void keysToLanes(const Context& c, const float* const* rows, int64_t lanes, int64_t width, int64_t s, int64_t segments,
                 float* keys) {
  const int64_t w = c.k.width;
  for (int64_t i = 0; i < lanes; i += w)
    c.k.toLanes(rows + i, std::min(w, lanes - i), width, keys + (i * segments + s * w) * width, w);
}

// One token of one sequence, channels in a row. Heads stand in the lanes of the attention kernel, so each head's
// numbers come from the operations that stackSteps' lanes run, in their order.
Status stackStep(const Context& c, const Sequence& s, int32_t step, const float* keys, float* pooled) {
  Arena& arena = Arena::local();
  Arena::Scope scope(arena);
  const int64_t d = c.spec.hidden, heads = c.spec.heads, width = c.spec.headWidth(), count = s.segments.count;
  const int64_t ld = roundUp(heads, c.k.width);
  float* x = arena.take<float>(d);
  float* y = arena.take<float>(d);
  float* a = arena.take<float>(d);
  float* headLanes = arena.take<float>(width * ld);
  float* mixed = arena.take<float>(width * ld);
  float* keyLanes = arena.take<float>(count * width * ld);
  float* p = arena.take<float>(count * ld);
  const float** rows = arena.take<const float*>(heads);
  float** to = arena.take<float*>(heads);
  auto* segments = arena.take<int32_t>(ld);
  std::fill_n(segments, ld, 0);
  std::fill_n(segments, heads, static_cast<int32_t>(count));
  for (int64_t i = 0; i < count; ++i) {
    for (int64_t g = 0; g < heads; ++g) rows[g] = keys + i * d + g * width;
    keysToLanes(c, rows, heads, width, i, count, keyLanes);
  }
  embedStep(c, s, step, x);
  for (int64_t g = 0; g < heads; ++g) to[g] = a + g * width;
  KeyAttentionLanes attention;
  attention.keys = keyLanes;
  attention.segments = segments;
  attention.x = headLanes;
  attention.p = p;
  attention.out = mixed;
  attention.heads = 1;
  attention.width = width;
  attention.segmentsMax = count;
  attention.ld = ld;
  attention.cols = heads;
  attention.scale = 1.0f / std::sqrt(static_cast<float>(width));
  for (int64_t g = 0; g < heads; ++g) rows[g] = x + g * width;
  for (int64_t l = 0; l < c.spec.layers; ++l) {
    if (c.cancelled()) return {StatusCode::aborted, "aborted"};
    const PackedLayer& w = layerOf(c, l);
    c.k.toLanes(rows, heads, width, headLanes, ld);
    c.k.keyAttentionLanes(attention);
    c.k.fromLanes(mixed, ld, heads, width, to);
    if (s.out->attention) {
      const int64_t most = s.out->segmentsMax;
      float* out = s.out->attention + (s.index * c.spec.layers + l) * heads * most;
      for (int64_t g = 0; g < heads; ++g)
        for (int64_t i = 0; i < most; ++i) out[g * most + i] = i < count ? p[i * ld + g] : 0.0f;
    }
    Gemm g;
    w.output.operandOf(&g, c.k);
    g.rows = g.k = d;
    g.x = a;
    g.c = y;
    g.residual = x;
    g.cols = 1;
    c.k.matvec(g);
    c.k.normRow(normOf(*normsOf(c, l, 0), y, x, d, 1, 1));
    w.feedForward.operandOf(&g, c.k);
    g.x = x;
    g.bias = w.feedForwardBias.data();
    g.activation = static_cast<int>(c.spec.activation);
    c.k.matvec(g);
    c.k.normRow(normOf(*normsOf(c, l, 1), y, x, d, 1, 1));
  }
  if (s.padding(c.spec, step)) std::fill_n(x, d, 0.0f);
  std::copy_n(x, d, pooled);
  return {};
}

}  // namespace

Status stackSteps(const Context& c, const Sequence* sequences, int64_t count, const int32_t* steps,
                  const float* const* keys, float* const* pooled) {
  if (count < kAlone && c.runsRows()) {
    for (int64_t j = 0; j < count; ++j)
      if (Status status = stackStep(c, sequences[j], steps[j], keys[j], pooled[j]); !status.ok()) return status;
    return {};
  }
  Arena& arena = Arena::local();
  Arena::Scope scope(arena);
  const int64_t d = c.spec.hidden, ld = roundUp(count, c.k.width);
  int64_t most = 0;
  auto* segments = arena.take<int32_t>(ld);
  std::fill_n(segments, ld, 0);
  for (int64_t j = 0; j < count; ++j) {
    segments[j] = static_cast<int32_t>(sequences[j].segments.count);
    most = std::max(most, sequences[j].segments.count);
  }
  TileBuffers b(c, arena, most, ld);
  float* lanes = arena.take<float>(most * d * ld);
  const float** rows = arena.take<const float*>(ld);
  for (int64_t s = 0; s < most; ++s) {
    for (int64_t j = 0; j < count; ++j) rows[j] = s < segments[j] ? keys[j] + s * d : nullptr;
    keysToLanes(c, rows, count, d, s, most, lanes);
  }
  embedSteps(c, sequences, count, steps, b.x, ld);
  KeyAttentionLanes a;
  a.keys = lanes;
  a.segments = segments;
  a.x = b.x;
  a.p = b.p;
  a.out = b.a;
  a.heads = c.spec.heads;
  a.width = c.spec.headWidth();
  a.segmentsMax = most;
  a.ld = ld;
  a.cols = count;
  a.scale = 1.0f / std::sqrt(static_cast<float>(a.width));
  for (int64_t l = 0; l < c.spec.layers; ++l) {
    if (c.cancelled()) return {StatusCode::aborted, "aborted"};
    c.k.keyAttentionLanes(a);
    for (int64_t j = 0; j < count; ++j) {
      const Sequence& s = sequences[j];
      if (!s.out->attention) continue;
      const int64_t width = s.out->segmentsMax;
      float* out = s.out->attention + (s.index * c.spec.layers + l) * c.spec.heads * width;
      for (int64_t g = 0; g < c.spec.heads; ++g)
        for (int64_t i = 0; i < width; ++i) out[g * width + i] = i < segments[j] ? b.p[(g * most + i) * ld + j] : 0.0f;
    }
    Gemm g;
    const PackedLayer& w = layerOf(c, l);
    w.output.operandOf(&g, c.k);
    if (c.runsRows()) g.tiles = nullptr;
    g.rows = g.k = d;
    g.x = b.a;
    g.ldx = g.ldc = ld;
    g.c = b.y;
    g.cols = count;
    g.residual = b.x;
    c.k.gemm(g);
    feedForward(c, w, l, b, count, !c.runsRows());
  }
  for (int64_t j = 0; j < count; ++j)
    if (sequences[j].padding(c.spec, steps[j]))
      for (int64_t o = 0; o < d; ++o) b.x[o * ld + j] = 0.0f;
  c.k.fromLanes(b.x, ld, count, d, pooled);
  return {};
}

}  // namespace hpformer::cpu
