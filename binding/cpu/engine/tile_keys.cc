// One sequence's keys as bfloat16 tiles: for the scores, and mixed with every layer's output projection (M of
// stack.cc).
#include <algorithm>

#include "context.h"

namespace hpformer::cpu {
namespace {

constexpr int64_t kHalves = 512;

// Channels of a block-diagonal block: whole heads and whole tiles; 0 when heads do not fit tiles.
int64_t blockOf(int64_t width) { return width % 32 == 0 ? width : 32 % width == 0 ? 32 : 0; }

// [hidden / block][rows / 16][block / 32][16][32], row h * S + s of a block: key s of its head h in that head's
// channels.
const uint16_t* scoreTiles(const Context& c, const float* keys, int64_t segments, float scale, int64_t block,
                           Arena& arena) {
  const int64_t d = c.spec.hidden, width = c.spec.headWidth(), heads = c.spec.heads, together = block / width;
  const int64_t size = roundUp(together * segments, 16) / 16 * (block / 32) * kHalves,
                count = (heads + together - 1) / together;
  auto* tiles = arena.take<uint16_t>(count * size);
  std::fill_n(tiles, count * size, uint16_t{0});
  for (int64_t g = 0; g < heads; ++g)
    for (int64_t s = 0; s < segments; ++s)
      for (int64_t i = 0; i < width; ++i) {
        const int64_t row = g % together * segments + s, k = g % together * width + i;
        tiles[g / together * size + (row / 16 * (block / 32) + k / 32) * kHalves + row % 16 * 32 + k % 32] =
            bfloat16Bits(keys[s * d + g * width + i] * scale);
      }
  return tiles;
}

// M of one layer. `lanes` [hidden][ld]: column h * S + s holds key s in the channels of its block's head h, zero
// elsewhere, so that one product on tiles mixes all heads of a block.
void mixTiles(const Context& c, const PackedLayer& layer, const float* lanes, int64_t ld, int64_t segments,
              int64_t block, uint16_t* out, int64_t part) {
  Arena& arena = Arena::local();
  Arena::Scope scope(arena);
  const int64_t d = c.spec.hidden, heads = c.spec.heads, together = block / c.spec.headWidth();
  float* product = arena.take<float>(d * ld);
  for (int64_t first = 0; first < heads; first += together) {
    const int64_t from = first * c.spec.headWidth();
    Gemm m;
    layer.output.operandOf(&m, c.k, from);
    m.packed = d;
    m.rows = d;
    m.k = std::min(block, d - from);
    m.x = lanes + from * ld;
    m.ldx = m.ldc = ld;
    m.c = product;
    m.cols = std::min(together, heads - first) * segments;
    c.k.gemm(m);
    c.k.packTiles(product, ld, d, m.cols, out, part, roundUp(heads * segments, 32) / 32, first * segments);
  }
}

}  // namespace

TileKeys tileKeys(const Context& c, const float* keys, int64_t segments, float scale, bool folded, Arena& arena,
                  int threads) {
  const int64_t d = c.spec.hidden, width = c.spec.headWidth(), heads = c.spec.heads, block = blockOf(width);
  TileKeys t;
  if (block == 0 || d > c.k.tileDepth) return t;
  const bool split = c.packed.precision == Precision::float32;
  if (!split) {  // the scores of float32 go through a softmax: plain multiply-adds, a small part of the work
    t.block = block;
    t.scores = scoreTiles(c, keys, segments, scale, block, arena);
  }
  if (!folded || heads * segments > c.k.tileDepth) return t;
  const int64_t together = block / width, ld = roundUp(together * segments, c.k.width);
  float* lanes = arena.take<float>(d * ld);
  std::fill_n(lanes, d * ld, 0.0f);
  for (int64_t s = 0; s < segments; ++s)
    for (int64_t i = 0; i < d; ++i) lanes[i * ld + i / width % together * segments + s] = keys[s * d + i];
  const int64_t layers = static_cast<int64_t>(c.packed.layers.size());
  const int64_t size = roundUp(d, 16) / 16 * roundUp(heads * segments, 32) / 32 * kHalves;
  t.part = split ? size : 0;
  t.stride = split ? 3 * size : size;
  t.mixed = arena.take<uint16_t>(layers * t.stride);
  std::fill_n(t.mixed, layers * t.stride, uint16_t{0});
  shareOut(c, layers, threads, [&](int64_t i) {
    mixTiles(c, c.packed.layers[static_cast<size_t>(i)], lanes, ld, segments, block, t.mixed + i * t.stride, t.part);
  });
  return t;
}

}  // namespace hpformer::cpu
