// What host and device agree on: plain structs passed to kernels by value. No pointer is ever dereferenced on the wrong
// side.
#pragma once

namespace hpformer::cuda {

// One sequence of a batch, as prepared by the host.
struct SequenceInfo {
  int steps;          // rows that exist: L for over 'padded', the own length for 'valid'
  int segments;       // S
  int segmentLength;  // b
  int rows;           // rows that enter the layers (fused kernels)
  int step;           // the step that readout 'step' reads
  float divisor;      // of the mean readout
  int reserved[2];
};

enum class Embed : int { features, tokens, scalar, rows };  // rows: already embedded, row-major [batch, steps, hidden]
enum class Norm : int { layernorm, affine, scalenorm, rmsnorm };  // affine: batchnorm folded to one multiply-add
enum class Act : int { linear, relu, silu, gelu, geluTanh };      // binding/contract/spec.h, same order
enum class Pick : int { steps, step, weights, mean };             // how the readout reads

// Where a row of the embedded sequence comes from: x_t = source(t) + origin[position(t)], then LayerNorm, zero if
// padding. `origin` is bias + position vector, rounded once from double; a stride of 0 repeats its only row (no
// positions).
struct RowSource {
  Embed kind;
  int steps, hidden, features;
  const float* features_;  // [batch, steps, features]
  const int* tokens;       // [batch, steps]
  const float* values;     // [batch, steps]
  const float* rows;       // [batch, steps, hidden]
  const float* table;      // tokens: [vocabulary, hidden]; scalar: [hidden]
  const float* origin;     // [positions, originStride]
  const int* position;     // [batch, steps], -1 for a row that stays zero; null: the index itself
  int originStride;
  const float* normWeight;  // embeddingNorm, or null
  const float* normBias;
};

struct EmbedParams {
  RowSource source;  // kind features reads `out`, where dense has left W x
  const SequenceInfo* info;
  int batch;
  float* out;
};

struct PoolParams {
  const float* x;
  const SequenceInfo* info;
  int steps, hidden, segmentsMax, max;
  float* pool;  // [batch, segmentsMax, hidden]
};

struct ExtraParams {
  const float* pool;
  const SequenceInfo* info;
  int hidden, segmentsMax;
  float scale;  // 1 / sqrt(hidden)
  float* extra;
  float* weights;  // [batch, segmentsMax, segmentsMax] or null
};

struct IntraParams {
  const float* x;
  const float* extra;
  const SequenceInfo* info;
  int steps, hidden, segmentsMax;
  float scale;
  float* intra;
  float* weights;  // [batch, steps], also the scratch of the scores
};

// out[m, n] = act([a, b][m, k] w[n, k]^T + bias[n]); b starts at column `split` of the joined operand.
struct DenseParams {
  const float *a, *b;
  const float* weight;  // [n, k]
  const float* bias;    // or null
  float* out;
  int m, n, k, split;
  Act activation;
  int roundOperands;  // bfloat16 precision: operands rounded, sums in float32
};

struct KeyAttentionParams {
  const float* x;     // [batch, rows, hidden]
  const float* keys;  // [batch, segmentsMax, hidden]
  const SequenceInfo* info;
  int rows, hidden, heads, segmentsMax;
  float scale;      // 1 / sqrt(hidden / heads)
  int headsAtOnce;  // heads whose scores fit the block's shared memory together
  int roundOperands;
  float* out;        // [batch, rows, hidden]
  float* weights;    // this layer's [heads, segmentsMax] of every row, or null
  int weightStride;  // from one row's weights to the next
};

// out = norm(x + branch); branch may be null.
struct NormParams {
  const float *x, *branch, *weight, *bias;
  float* out;
  int rows, hidden;
  Norm kind;
};

// Picks, masks or sums encoded rows.
struct ReadoutParams {
  const float* x;  // [batch, steps, hidden]
  const SequenceInfo* info;
  const int* position;   // -1: a padding row, counts as zero
  const float* weights;  // [batch, steps] for Pick::weights
  int steps, hidden;
  Pick pick;        // steps: copy, with rows that do not exist or are padding set to zero
  int keepPadding;  // Pick::steps: leave padding rows as they are
  int gathered;     // Pick::step: x is [batch, hidden] already; 1: zero it for padding rows, 2: plain copy
  float* out;       // [batch, outStride] (+ column offset applied by the host); steps: [batch, steps, hidden]
  int outStride;
};

// probabilities and the zeroing of rows that do not exist.
struct LinkParams {
  const float* in;  // [batch, rows, width]
  const SequenceInfo* info;
  int batch, rows, width;
  int link;    // 0 none, 1 sigmoid, 2 softmax
  int masked;  // 1: rows beyond info.steps become 0; 2: beyond info.segments
  float* out;
};

// ---- fused kernels ----

// TDHP of whole sequences, a part of `stack`.
struct TdhpParams {
  RowSource source;
  const SequenceInfo* info;
  int segmentsMax;       // rows of a sequence in `keys`
  int segments;          // the most that a sequence of this launch has: what shared memory is laid out for
  int max;               // pooling by maximum
  int absorbed;          // features and mean pooling: rows are never embedded (embed, query, prefix used)
  int embedded;          // other features: rows are embedded one by one (slices used)
  float* means;          // [batch, segments, hidden]: segment means on their way between blocks that share a sequence
  int staged;            // rows of the origin table that a block keeps in shared memory, for several sequences; or 0
  float scale;           // 1 / sqrt(hidden)
  const double* prefix;  // [positions + 1, hidden]: sums of origin rows
  // Right operands [k, n], n rounded up to 8 so that rows start on sectors; in bfloat16 as slices in the order of the
  // lanes (model.h: slices).
  const char* slices;   // W once more, as slices in the order of the lanes: for rows that are embedded one by one
  const float* embed;   // [features, hidden]
  const float* query;   // [hidden, features]
  const float* fusion;  // [2 hidden, hidden]
  const float* fusionBias;
  float* keys;  // [batch, segmentsMax, hidden]; may be null when only the block that computed them needs them
};

struct HeadLayerParams {
  const float* weight;      // [out, in]
  const float* transposed;  // [in, out]
  const float* bias;        // or null
  int in, out;
  Act activation;
};

constexpr int kMaxHeadLayers = 6;  // the output layer included

struct HeadParams {
  HeadLayerParams layer[kMaxHeadLayers];
  int layers, labels, link, widest;  // widest: the largest `out`
  float* logits;                     // null where not asked for
  float* probabilities;
};

struct StackParams {
  TdhpParams tdhp;
  // Keys: `single` > 0: every block computes those of its own sequences, so many at once. Otherwise the first `ahead`
  // blocks to start compute them and the others wait for theirs: each of these blocks those of one sequence, or with
  // `shares` = segments > 1 first a block for each segment its mean, then another the rest.
  int single, ahead, shares;
  int tiles;  // of a sequence, where a tile holds rows of one sequence
  // Null if nobody waits; zero at the start: blocks started; [batch] shares whose means are there; [batch] shares whose
  // keys are there; for sums also [batch] pairs of tiles summed and [batch, pairs] tiles of a pair.
  unsigned* counters;
  const int* rowList;  // [batch, steps] or null: row i of a sequence is step rowList[i]
  int batch;
  int packed;  // sequences per tile with one row each; 0: a tile holds rows of one sequence
  int heads;
  float scale;  // log2(e) / sqrt(hidden / heads)
  int layers;
  Norm norm;
  Act activation;
  const char* weights;   // slices in the order of use: embedding, then per layer output and feedForward
  int embedSlices;       // 0 unless rows are embedded here from features
  int slicesInLayer;     // for wrapping around when layers are tied; else all of them
  const float* vectors;  // per layer: feedForward bias, norm1 weight, bias, norm2 weight, bias, each [hidden]
  int vectorStride;      // 5 hidden, or 0 when layers are tied
  Pick pick;
  const float* readoutWeights;  // [batch, steps]
  float* partial;   // Pick::mean, weights: [batch, pairs, hidden] sums of the rows of two neighbouring tiles
  float* joined;    // Pick::mean, weights: [batch, inputs * hidden], the head's input, or null
  int inputs;       // sequences that the head joins
  int input;        // which part of `joined` this launch fills; the other one is there if `head` has layers
  float* pooled;    // [batch, hidden] or null; not for Pick::steps
  float* encoded;   // Pick::steps: [batch, steps, hidden] or null
  HeadParams head;  // no layers: the head is not applied here
};

}  // namespace hpformer::cuda
