// The kernel table of one ISA level. The engine (engine/*.cc) is written once against this table; isa/kernels.cc fills
// it once per level from kernels/*.inl.
//
// Two layouts. *Rows*: one token after the other, [token][channel]. *Lanes*: channel-major tiles, [channel][tile] with
// `tile` tokens side by side, so that a SIMD register holds one channel of many tokens and neither norm nor softmax
// ever sums across a register. Every value is computed by the same operations in the same order whatever lane, tile or
// batch it sits in: that is what makes results independent of batch mates and threads.
#pragma once
#include <cstdint>

#include "binding/contract/plan.h"

namespace hpformer {

// A in 16-bit fixed point (kernels/fixed.inl), or null: pairs of channels in panels, the scale of each row, and how
// large the integers of X may be.
struct Fixed {
  const int32_t* pairs = nullptr;
  const float* scale = nullptr;
  float limit = 0;
};

// C[r][c] = residual[r][c] + activation(bias[r] + sum_k A[r][k] X[k][c]), k ascending, fused multiply-adds.
// A is packed in panels of `Kernels::panel` rows: [ceil(rows / panel)][k][panel], the last panel zero-padded.
struct Gemm {
  const float* a = nullptr;
  int64_t rows = 0, k = 0;
  int64_t packed = 0;        // k of the packed panels when only a part of it is used (a then points into it); 0: k
  const float* x = nullptr;  // lanes [k][ldx]
  int64_t ldx = 0;
  float* c = nullptr;  // lanes [rows][ldc]; may not overlap x
  int64_t ldc = 0;
  int64_t cols = 0;                 // any count; whole registers are computed and written
  const float* bias = nullptr;      // [rows] or null
  const float* residual = nullptr;  // lanes [rows][ldc] or null; may be c where there is no activation
  int activation = 0;               // ordinal of Activation
  // A as bfloat16 tiles (kernels/tiles.inl), or null. `gemm` of a level that has tiles uses them instead of `a`: X is
  // rounded to bfloat16, sums stay float32.
  const uint16_t* tiles = nullptr;
  // float32 on tiles: A is the sum of three bfloat16 parts, tiles of the next part `part` values on; 0 in bfloat16.
  int64_t part = 0;
  Fixed fixed;  // `gemm` and `matvec` of a level that has it use it instead of `a`
};

enum class NormForm : int { layernorm, rms, affine, batchnorm };

// y = norm(x) over the channel axis, per lane. May be in place.
//   layernorm: (x - mean) / sqrt(var + eps) * weight + bias    rms: x / sqrt(mean(x^2) + eps) * weight
//   affine: x * weight + bias (a folded batchnorm)              batchnorm: (x - mean[c]) / sqrt(variance[c] + eps) *
//   weight + bias
struct NormLanes {
  NormForm form = NormForm::layernorm;
  const float* weight = nullptr;  // [channels]
  const float* bias = nullptr;    // [channels] or null
  const float* mean = nullptr;    // batchnorm
  const float* variance = nullptr;
  const float* x = nullptr;  // lanes [channels][ld]
  float* y = nullptr;
  int64_t channels = 0, ld = 0, cols = 0;
};

// Attention of one HPformer layer, keys shared by the lanes (tokens of one sequence): probabilities of every head over
// the segments, P[g * segments + s][lane] = softmax_s(scale * sum_i K_g[s][i] x[g * width + i][lane]).
struct KeyScores {
  const float* keys =
      nullptr;  // packed panels per head: [heads][ceil(S / panel)][width][panel], scale included when folded
  const float* x = nullptr;  // lanes [hidden][ld]
  float* p = nullptr;        // lanes [heads * segments][ld]
  int64_t heads = 0, width = 0, segments = 0, ld = 0, cols = 0;
  float scale = 1;  // 1 when folded into the keys
  // Levels with tiles: the keys as bfloat16 tiles or null, block-diagonal in blocks of `block` channels, which hold
  // whole heads: [hidden / block][ceil(block / width * segments / 16)][block / 32][16][32].
  const uint16_t* tiles = nullptr;
  int64_t block = 0;
};

// The same with keys of its own for every lane (one token of many sequences), and the weighted sum of the keys:
// out[g * width + i][lane] = sum_s P[g,s][lane] K[s][g * width + i][lane].
struct KeyAttentionLanes {
  // [ld / W][segments][hidden][W]: one register of lanes after the other, so that the sums read what the scores left in
  // L1 and no cache line is half used.
  const float* keys = nullptr;
  const int32_t* segments = nullptr;  // [ld] segments of each lane's sequence, 0 for idle lanes
  const float* x = nullptr;           // lanes [hidden][ld]
  float* p = nullptr;                 // lanes [heads * segmentsMax][ld]
  float* out = nullptr;               // lanes [hidden][ld]
  int64_t heads = 0, width = 0, segmentsMax = 0, ld = 0, cols = 0;
  float scale = 1;
};

// One step of the intra-segment scan over a block of rows (reference section 1, step 5), online softmax:
// score_t = scale * (query . x_t + offset_t); state: running maximum, sum of exponentials, weighted sums.
struct ScanBlock {
  static constexpr int64_t kMost = 64;  // rows of one block: longer segments come block by block
  const float* x = nullptr;             // rows [rows][ldx]
  int64_t ldx = 0, rows = 0, width = 0;
  const float* query = nullptr;  // [width]
  const float* table = nullptr;  // rows [rows][ldtable], absorbed embedding: offset_t += tableQuery . table_t
  const float* tableQuery = nullptr;
  int64_t ldtable = 0, tableWidth = 0;
  const float* offset = nullptr;  // [rows] or null
  const float* second = nullptr;  // rows [rows][ldsecond]: a second weighted sum with the same weights, or null
  int64_t ldsecond = 0, secondWidth = 0;
  float scale = 1;
  float* scores = nullptr;   // [rows] scaled scores out
  float* maximum = nullptr;  // state
  float* sum = nullptr;
  float* acc = nullptr;        // [width]
  float* accSecond = nullptr;  // [secondWidth]
};

struct Kernels {
  const char* isa;
  int64_t width;  // floats in a register
  int64_t panel;  // rows of a GEMM panel
  int64_t tile;   // tokens of a tile, a multiple of the micro-kernel's columns
  int64_t group;  // sequences side by side when one step of each is read

  void (*gemm)(const Gemm&);
  void (*norm)(const NormLanes&);
  void (*keyScores)(const KeyScores&);
  void (*keyAttentionLanes)(const KeyAttentionLanes&);
  void (*scanBlock)(const ScanBlock&);
  // rows
  void (*rowsSum)(const float* x, int64_t ld, int64_t rows, int64_t width, float* acc);  // acc[i] += sum of rows
  // y[i] = sum over rows of p[row] x[row][i]
  void (*rowsMix)(const float* x, int64_t ld, int64_t rows, int64_t width, const float* p, float* y);
  void (*rowsMax)(const float* x, int64_t ld, int64_t rows, int64_t width, float* acc);  // acc[i] = max(acc[i], rows)
  float (*dot)(const float* a, const float* b, int64_t width);
  void (*axpy)(float a, const float* x, float* y, int64_t width);      // y += a x
  void (*scaleRow)(float a, const float* x, float* y, int64_t width);  // y = a x
  void (*layernormRow)(const float* x, const float* weight, const float* bias, float* y, int64_t width);
  void (*softmaxRow)(float* x, int64_t width, float scale);  // in place over softmax(scale x)
  // layouts: rows[i] may be null (an idle lane, written as zeros)
  void (*toLanes)(const float* const* rows, int64_t count, int64_t width, float* lanes, int64_t ld);
  void (*fromLanes)(const float* lanes, int64_t ld, int64_t count, int64_t width, float* const* rows);
  // head links over the label axis, in lanes, in place: 1 sigmoid, 2 softmax
  void (*link)(int kind, float* x, int64_t labels, int64_t ld, int64_t cols);
  // Few tokens, channels in a row each, with the bits that their lanes would get. matvec: x [cols][ldx], c and residual
  // [cols][ldc], same panels as gemm.
  void (*matvec)(const Gemm&);
  void (*normRow)(const NormLanes&);
  // Levels with bfloat16 tiles; 0 and null elsewhere.
  int64_t tileDepth;  // the deepest product that runs on tiles
  // Rows [rows][cols] of lanes into columns [k0, k0 + cols) of A tiles that are `depth` tiles deep; `part` as in Gemm.
  void (*packTiles)(const float* x, int64_t ld, int64_t rows, int64_t cols, uint16_t* tiles, int64_t part,
                    int64_t depth, int64_t k0);
  // Levels with 16-bit fixed point: the deepest product; A's rows [rows][ld] to `pairs` [ceil(rows / panel)][ceil(k /
  // 2)] [panel] and `scale` [rows], both zeros up to whole panels before; returns `Fixed::limit`. 0 and null elsewhere.
  int64_t fixedDepth;
  float (*packFixed)(const float* a, int64_t ld, int64_t rows, int64_t k, int32_t* pairs, float* scale);
  void (*release)();  // gives the calling thread's tile registers back, at the end of a piece of work
};

// Highest level that this machine can run, or the lower one that HPFORMER_ISA names: baseline or neon is always there.
const Kernels& kernels();

}  // namespace hpformer
