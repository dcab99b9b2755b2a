// GEMM on bfloat16 tiles (levels with AMX). In bfloat16 operands are rounded, everything else is float32. In float32
// each operand is the sum of three parts of 8 bits, and C = hl + hm + mm + mh + lh, then + hh (h, m, l: high, middle,
// low part of A, then of X): what is left out is below 2^-22 of a term, and the small products are summed before the
// large ones. Two parts and three products, 2^-16, were not enough: up to five times the bounds of float32 on random
// models.
//
// Weights lie as A tiles [ceil(rows / 16)][ceil(k / 32)][16][32], zero-padded. X is turned from lanes into B tiles
// [ceil(k / 32)][columns / 16][16][16][2] once per product, into a buffer on the stack (L1); C tiles go to a small
// buffer from which the epilogue (bias, activation, residual) writes the lanes. Two row tiles x two column tiles at a
// time: four accumulators hide the latency of the multiply, four loads serve four multiplies (16 serve 24 in float32).
namespace hpformer::HPFORMER_ISA {
namespace {

constexpr int64_t kDepth = 1024;       // the deepest product
constexpr int64_t kPairs = 48 * 1024;  // bfloat16 values of the X buffer
static_assert(3 * (kDepth / 32) * kHalves <= kPairs, "a column tile of the deepest product fits in all three parts");

// Tile registers are configured when first used and given back at the end of a piece of work (Kernels::release): held
// longer, they would be saved at every context switch of the thread.
static thread_local bool tilesReady = false;

HP_INLINE void tilesAcquire() {
  if (tilesReady) return;
  tilesConfigure();
  tilesReady = true;
}

static void releaseTiles() {
  if (tilesReady) tilesRelease();
  tilesReady = false;
}

// Lanes [k][ld] to B tiles; `blocks` column tiles of 16. With `part` the three parts, that far from each other. One
// column tile after the other, so that the loop over a tile's 16 rows has nothing to decide.
template <bool Parts>
static void toPairs(const float* x, int64_t ld, int64_t k, int64_t blocks, uint16_t* to, int64_t part) {
  const auto put = [part](uint16_t * at, vf first, vf second) __attribute__((always_inline)) {
    if constexpr (Parts)
      storeParts(at, part, first, second);
    else
      storePairs(at, first, second);
  };
  for (int64_t b = 0; b < blocks; ++b) {
    const float* in = x + b * W;
    uint16_t* out = to + b * kHalves;
    int64_t i = 0;
    for (; i + 32 <= k; i += 32, out += blocks * kHalves)
#pragma GCC unroll 4
      for (int64_t j = 0; j < 16; ++j, in += 2 * ld) put(out + j * 32, load(in), load(in + ld));
    for (int64_t j = 0; i < k && j < 16; ++j, in += 2 * ld) {
      const int64_t at = i + 2 * j;
      put(out + j * 32, at < k ? load(in) : vf{}, at + 1 < k ? load(in + ld) : vf{});
    }
  }
}

template <int R>
HP_INLINE void loadA(const uint16_t* a, int64_t stride) {
  HP_TILE_LOAD(4, a);
  if constexpr (R == 2) HP_TILE_LOAD(5, a + stride);
}
template <int C>
HP_INLINE void loadB(const uint16_t* b) {
  HP_TILE_LOAD(6, b);
  if constexpr (C == 2) HP_TILE_LOAD(7, b + kHalves);
}
template <int R, int C>
HP_INLINE void multiplyAdd() {
  HP_TILE_MULTIPLY(0, 4, 6);
  if constexpr (C == 2) HP_TILE_MULTIPLY(1, 4, 7);
  if constexpr (R == 2) HP_TILE_MULTIPLY(2, 5, 6);
  if constexpr (R == 2 && C == 2) HP_TILE_MULTIPLY(3, 5, 7);
}

// Operands of one product. Parts as in Gemm, `part` 0: one part.
struct TileOperands {
  const uint16_t *a, *b;  // row tiles of A, `stride` apart; column tiles of X, `blocks` of them at each depth
  int64_t stride, depth, blocks;
  int64_t aPart, bPart;
};

// The five small products of three parts: each operand is loaded once, the left and the right one in turn.
template <int R, int C>
HP_INLINE void multiplySmall(const TileOperands& o, int64_t k) {
  const uint16_t *a = o.a + k * kHalves, *b = o.b + k * o.blocks * kHalves;
  loadA<R>(a, o.stride);
  loadB<C>(b + 2 * o.bPart);
  multiplyAdd<R, C>();
  loadB<C>(b + o.bPart);
  multiplyAdd<R, C>();
  loadA<R>(a + o.aPart, o.stride);
  multiplyAdd<R, C>();
  loadB<C>(b);
  multiplyAdd<R, C>();
  loadA<R>(a + 2 * o.aPart, o.stride);
  multiplyAdd<R, C>();
}

// out [16 R][32]: R row tiles times C column tiles.
template <int R, int C>
static void multiply(const TileOperands& o, float* out) {
  HP_TILE_ZERO(0);
  if constexpr (C == 2) HP_TILE_ZERO(1);
  if constexpr (R == 2) HP_TILE_ZERO(2);
  if constexpr (R == 2 && C == 2) HP_TILE_ZERO(3);
  for (int64_t k = 0; o.aPart > 0 && k < o.depth; ++k) multiplySmall<R, C>(o, k);
  for (int64_t k = 0; k < o.depth; ++k) {
    loadA<R>(o.a + k * kHalves, o.stride);
    loadB<C>(o.b + k * o.blocks * kHalves);
    multiplyAdd<R, C>();
  }
  HP_TILE_STORE(0, out, 128);
  if constexpr (C == 2) HP_TILE_STORE(1, out + 16, 128);
  if constexpr (R == 2) HP_TILE_STORE(2, out + 512, 128);
  if constexpr (R == 2 && C == 2) HP_TILE_STORE(3, out + 528, 128);
}

template <int A>
static void finishTiles(const Gemm& g, const float* in, int64_t row, int64_t rows, int64_t col, int64_t blocks) {
  const int64_t ld = g.ldc, at = row * ld + col;  // copies: a store might change `g` for all that the compiler knows
  float* c = g.c + at;
  const float *const residual = g.residual ? g.residual + at : nullptr, *const biases = g.bias;
  for (int64_t r = 0; r < rows; ++r, in += 32) {
    const vf bias = set1(biases ? biases[row + r] : 0.0f);
    for (int64_t b = 0; b < blocks; ++b) {
      const vf y = activate<A>(load(in + b * W) + bias);
      store(c + r * ld + b * W, residual ? y + load(residual + r * ld + b * W) : y);
    }
  }
}

// Columns [col, col + 16 blocks) of the product, X already in pairs.
static void multiplyTiles(const Gemm& g, const uint16_t* pairs, int64_t part, int64_t col, int64_t blocks) {
  TileOperands o{};
  o.depth = (g.k + 31) / 32;
  o.stride = ((g.packed ? g.packed : g.k) + 31) / 32 * kHalves;
  o.blocks = blocks;
  o.aPart = g.part;
  o.bPart = part;
  alignas(64) float out[32 * 32];
  for (int64_t row = 0; row < g.rows; row += 32) {
    o.a = g.tiles + row / 16 * o.stride;
    const int64_t rows = g.rows - row < 32 ? g.rows - row : 32;
    for (int64_t b = 0; b < blocks; b += 2) {
      o.b = pairs + b * kHalves;
      const int64_t wide = blocks - b < 2 ? 1 : 2;
      if (rows > 16)
        wide == 2 ? multiply<2, 2>(o, out) : multiply<2, 1>(o, out);
      else
        wide == 2 ? multiply<1, 2>(o, out) : multiply<1, 1>(o, out);
      const int64_t at = col + b * W;
      switch (g.activation) {
        case 1: finishTiles<1>(g, out, row, rows, at, wide); break;
        case 2: finishTiles<2>(g, out, row, rows, at, wide); break;
        case 3: finishTiles<3>(g, out, row, rows, at, wide); break;
        case 4: finishTiles<4>(g, out, row, rows, at, wide); break;
        default: finishTiles<0>(g, out, row, rows, at, wide);
      }
    }
  }
}

// Calls use(pairs, part, col, blocks) for every chunk of columns that fits the buffer, with X of depth k converted.
template <typename Use>
HP_INLINE void eachChunk(const float* x, int64_t ld, int64_t k, int64_t cols, bool split, Use use) {
  alignas(64) uint16_t pairs[kPairs];
  const int64_t column = (k + 31) / 32 * kHalves, all = (cols + W - 1) / W;
  const int64_t most = kPairs / (split ? 3 * column : column);
  tilesAcquire();
  for (int64_t at = 0; at < all; at += most) {
    const int64_t blocks = all - at < most ? all - at : most, part = split ? blocks * column : 0;
    split ? toPairs<true>(x + at * W, ld, k, blocks, pairs, part) : toPairs<false>(x + at * W, ld, k, blocks, pairs, 0);
    HP_TILE_FENCE();
    use(pairs, part, at * W, blocks);
  }
}

static void gemmTiles(const Gemm& g) {
  eachChunk(g.x, g.ldx, g.k, g.cols, g.part > 0,
            [&g](const uint16_t* pairs, int64_t part, int64_t col, int64_t blocks) {
              multiplyTiles(g, pairs, part, col, blocks);
            });
}

// Scores of all heads, bfloat16 only: keys block-diagonal in blocks of `block` channels, X converted once.
static void scoresOnTiles(const KeyScores& a) {
  const int64_t together = a.block / a.width, rows = together * a.segments;
  const int64_t blockTiles = (rows + 15) / 16 * (a.block / 32);
  eachChunk(a.x, a.ld, a.heads * a.width, a.cols, false,
            [&](const uint16_t* pairs, int64_t, int64_t col, int64_t blocks) {
              for (int64_t i = 0; i * together < a.heads; ++i) {
                Gemm g;
                g.tiles = a.tiles + i * blockTiles * kHalves;
                g.k = a.block;
                g.rows = a.heads - i * together < together ? (a.heads - i * together) * a.segments : rows;
                g.c = a.p + i * rows * a.ld;
                g.ldc = a.ld;
                multiplyTiles(g, pairs + i * (a.block / 32) * blocks * kHalves, 0, col, blocks);
              }
            });
}

// Rows [rows][cols] of lanes into columns [k0, k0 + cols) of A tiles that are `depth` tiles deep.
static void packTiles(const float* x, int64_t ld, int64_t rows, int64_t cols, uint16_t* tiles, int64_t part,
                      int64_t depth, int64_t k0) {
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t i = 0; i < cols; i += W) {
      const int64_t n = cols - i < W ? cols - i : W, k = k0 + i, left = 32 - k % 32;
      uint16_t* to = tiles + (r / 16 * depth + k / 32) * kHalves + r % 16 * 32 + k % 32;
      const auto put = [&](vf v) {
        storeHalves(to, v, 0, n < left ? n : left);
        if (n > left) storeHalves(to + kHalves - 32, v, left, n);
        to += part;
      };
      vf v = load(x + r * ld + i);
      for (int p = part > 0 ? 0 : 2; p < 2; ++p) {
        put(upperHalf(v));
        v = v - upperHalf(v);
      }
      put(v);
    }
}

}  // namespace
}  // namespace hpformer::HPFORMER_ISA
