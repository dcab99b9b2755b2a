// stack: the whole model in one launch. A tile of tokens goes through embedding, all layers, readout and head; TDHP
// comes before it in the same block (`single`), or in blocks of their own that start first (`ahead`): a block's work
// follows from the order in which blocks start, so whoever waits for means or keys waits for blocks that run. Where
// rows are summed, the last tile of a sequence to arrive adds the tiles' sums in their order and applies the head.
//
// A block has R groups of 4 warps. A group owns kTiles tiles of 16 rows; its 4 warps own a quarter of the columns each,
// so the residual stream and the norms stay in registers (accumulator layout) and only operands pass through shared
// memory:
//
//   x (registers) --operand--> P --attention--> Q --product Wo--> + x, norm --> y --operand--> P --product W1--> act
//     ^                                                                                                          |
//     +------------------------------ norm <-- + y <-------------------------------------------------------------+
//
// Weights come as a stream of slices (64 bytes of k for all columns) in the order of use, kStages deep by cp.async;
// the wait for a slice is also the barrier between the phases. The split into four column quarters is the same for
// every launch shape, and with it the order of every sum: a row's bits depend neither on its tile nor on the number of
// rows.
#pragma once
#include "attention.cuh"
#include "head.cuh"
#include "tdhp.cuh"

namespace hpformer::cuda {

template <int kHidden, bool kBf16, int kTiles, int kStages>
class Stack {
  using O = Operand<kBf16>;
  static constexpr int kQuarter = kHidden / 4;  // columns of a warp
  static constexpr int kGroups = kQuarter / 8;  // its groups of 8 columns
  static constexpr int kSlices = kHidden / O::kChunk;
  static constexpr int kSliceBytes = 64 * kHidden;
  static constexpr int kUnits = kHidden / 8 * 32;  // 16-byte units in a slice
  static constexpr int kKeyStride = kHidden + kKeyPadding;
  static constexpr bool kShared = kTiles == 1;  // fused.cc: two tiles have so many blocks that no sequence is shared
  static constexpr int kRowStride = kHidden + kRowPadding;  // of a row on its way to the head

  const StackParams& p;
  char* const memory;
  const StackLayout layout;
  const int warp, lane, quarter, r, c;
  const int firstRow;     // of this warp's group, in the tile
  const int rows;         // of the tile
  int slice = 0, slices;  // consumed, in all
  char *front, *back;     // P and Q, swapping roles
  float x[kTiles][kGroups][4];

 public:
  __device__ Stack(const StackParams& params, char* shared)
      : p(params),
        memory(shared),
        layout(kHidden, O::kElement, kStages, static_cast<int>(blockDim.x) / 128 * 16 * kTiles, params.embedSlices,
               params.tdhp.segments, params.packed, params.single, params.tdhp.absorbed, params.tdhp.staged,
               params.tdhp.embedded, params.head.widest, params.pick <= Pick::step,
               params.pick > Pick::step ? params.inputs : 0),
        warp(threadIdx.x / 32),
        lane(threadIdx.x % 32),
        quarter(warp % 4),
        r(lane / 4),
        c(lane % 4),
        firstRow(warp / 4 * 16 * kTiles),
        rows(static_cast<int>(blockDim.x) / 128 * 16 * kTiles) {
    slices = p.embedSlices + p.layers * 2 * kSlices;
    front = memory + layout.operands;
    back = front + rows * layout.stride;
  }

  __device__ void run() {
    const bool drawn = p.ahead && p.counters;  // in the order in which blocks start
    const int index = drawn ? static_cast<int>(tell(threadIdx.x == 0 ? atomicAdd(p.counters, 1u) : 0u)) : blockIdx.x;
    const bool alone = index < p.ahead;  // TDHP only
    const int at = index - p.ahead;
    const int first = alone ? index % (p.batch * p.shares) / p.shares : p.packed ? at * p.packed : at / p.tiles;
    const int tile = alone || p.packed ? 0 : at % p.tiles;
    const int count = p.packed && !alone ? min(p.packed, p.batch - first) : 1;
    if (tile > 0 && tile * rows >= p.tdhp.info[first].rows &&
        !(p.pick == Pick::steps && tile * rows < p.tdhp.source.steps)) {
      return;  // a shorter sequence than the longest of the batch
    }
    if (!alone) {
#pragma unroll
      for (int i = 0; i < kStages - 1; ++i) {
        prefetch(i);
      }
    }
    if (alone || p.single) computeKeys(index, first, count, tile);
    if (alone) return;
    embed(first, count, tile);
    if (!p.single) fetchKeys(first, count);
    storeOperands(front);
    __syncthreads();
    for (int i = 0; i < p.layers; ++i) layer(i, first, count);
    waitAsync<0>();
    __syncthreads();
    if (p.pick == Pick::step) {
      readRows(first, count);
    } else if (p.pick == Pick::steps) {
      readSteps(first, tile);
    } else {
      sumRows(first, tile);
    }
  }

 private:
  // ---- the weight stream ----

  __device__ void prefetch(int index) {
    if (index < slices) {
      int at = index;
      if (at >= p.embedSlices) at = p.embedSlices + (at - p.embedSlices) % p.slicesInLayer;
      const char* from = p.weights + static_cast<long long>(at) * kSliceBytes;
      char* to = memory + layout.weights + index % kStages * kSliceBytes;
      for (int i = threadIdx.x; i < kUnits; i += blockDim.x) copyAsync16(to + i * 16, from + i * 16);
    }
    commitAsync();  // an empty group at the end keeps the count
  }

  // The next slice, visible to all; everything written to shared memory before is visible too.
  __device__ const char* nextSlice() {
    waitAsync<kStages - 2>();
    __syncthreads();
    prefetch(slice + kStages - 1);
    return memory + layout.weights + slice++ % kStages * kSliceBytes;
  }

  static __device__ void clear(float (&sum)[kTiles][kGroups][4]) {
#pragma unroll
    for (int t = 0; t < kTiles; ++t) {
#pragma unroll
      for (int g = 0; g < kGroups; ++g) {
#pragma unroll
        for (int e = 0; e < 4; ++e) sum[t][g][e] = 0.f;
      }
    }
  }

  // sum += rows of `operands` times `count` slices of the stream.
  __device__ void product(char* operands, int stride, int count, float (&sum)[kTiles][kGroups][4]) {
    for (int k = 0; k < count; ++k) {
      const char* weights = nextSlice() + (quarter * kGroups * 32 + lane) * 16;
      typename O::A a[kTiles];
#pragma unroll
      for (int t = 0; t < kTiles; ++t) {
        const int row = firstRow + t * 16 + r;
        a[t] = O::prepareA(load16(unitOf(operands, stride, row, k * 4 + c)),
                           load16(unitOf(operands, stride, row + 8, k * 4 + c)));
      }
#pragma unroll
      for (int g = 0; g < kGroups; ++g) {
        const auto b = O::prepareB(load16(weights + g * 512));
#pragma unroll
        for (int t = 0; t < kTiles; ++t) O::multiply(sum[t][g], a[t], b);
      }
    }
  }

  // ---- keys ----

  __device__ void computeKeys(int index, int first, int count, int tile) {
    const bool alone = index < p.ahead;
    float* const area = reinterpret_cast<float*>(memory + (alone ? 0 : layout.operands));
    float* const packedKeys = alone || !p.packed ? nullptr : reinterpret_cast<float*>(memory + layout.keys);
    const int together = alone ? 1 : p.single;
    // A share is one pass of one segment.
    int share = -1, begin = 0, end = 2;
    if (kShared && alone && p.shares > 1) {
      share = index % p.shares;
      begin = index / (p.batch * p.shares);
      end = begin + 1;
      if (begin == 1) await(p.counters + 1 + first, threadIdx.x == 0);
    }
#pragma unroll 1
    for (int i = 0; i < count; i += together) {
      const Tdhp<kHidden, kBf16, kShared> tdhp(p.tdhp, first + i, min(together, count - i), area,
                                               packedKeys ? packedKeys + i * p.tdhp.segments * kKeyStride : nullptr,
                                               share);
      tdhp.run(i == 0, begin, end);
      if (kShared && end == 1) {
        tdhp.writeMeans();
      } else if (p.tdhp.keys && tile == 0) {
        tdhp.writeKeys();
      }
      if (!packedKeys && !alone) fillKeys(tdhp.keys, p.tdhp.info[first].segments);
    }
    if (alone) {
      if (p.counters) publish(p.counters + 1 + (end == 1 ? 0 : p.batch) + first);
    } else {
      __syncthreads();
    }
  }

  // Until all shares of a sequence have counted up.
  __device__ void await(const unsigned* counter, bool asked) const {
    while (asked && acquire(counter) < static_cast<unsigned>(p.shares)) __nanosleep(100);
  }

  // Keys that another block computes.
  __device__ void fetchKeys(int first, int count) {
    await(p.counters + 1 + p.batch + first + threadIdx.x, p.counters && threadIdx.x < count);
    __syncthreads();
    if (p.packed) {
      float* const keys = reinterpret_cast<float*>(memory + layout.keys);
      for (int i = 0; i < count; ++i) {
        copyKeys(first + i, 0, p.tdhp.info[first + i].segments, keys + i * p.tdhp.segments * kKeyStride);
      }
    } else {
      float* const area = reinterpret_cast<float*>(memory + layout.operands);
      const KeyFragments<kHidden, kBf16> fragments(memory + layout.keys, p.tdhp.segments);
      const int segments = p.tdhp.info[first].segments;
      for (int group = 0; group * 16 < segments; ++group) {
        const int live = min(16, segments - group * 16);
        copyKeys(first, group * 16, live, area);
        __syncthreads();
        fragments.fill(group, area, live, p.scale);
        __syncthreads();
      }
    }
  }

  __device__ void fillKeys(const float* keys, int segments) {
    const KeyFragments<kHidden, kBf16> fragments(memory + layout.keys, p.tdhp.segments);
    for (int group = 0; group * 16 < segments; ++group) {
      fragments.fill(group, keys + group * 16 * kKeyStride, min(16, segments - group * 16), p.scale);
    }
  }

  // Keys of segments `from` … from memory to rows in shared memory.
  __device__ void copyKeys(int batch, int from, int segments, float* to) {
    const float* keys = p.tdhp.keys + (static_cast<long long>(batch) * p.tdhp.segmentsMax + from) * kHidden;
    for (int k = threadIdx.x * 4; k < segments * kHidden; k += blockDim.x * 4) {
      *reinterpret_cast<float4*>(to + k / kHidden * kKeyStride + k % kHidden) =
          __ldcg(reinterpret_cast<const float4*>(keys + k));
    }
  }

  // ---- rows ----

  // What row `row` of the tile stands for: sequence, step; false if nothing.
  __device__ bool locate(int row, int first, int count, int tile, int* batch, int* step) const {
    if (p.packed) {
      *batch = first + min(row, count - 1);
      *step = p.rowList[static_cast<long long>(*batch) * p.tdhp.source.steps];
      return row < count;
    }
    *batch = first;
    const int index = tile * rows + row;
    const bool exists = index < p.tdhp.info[first].rows;
    *step = !exists ? 0 : p.rowList ? p.rowList[static_cast<long long>(first) * p.tdhp.source.steps + index] : index;
    return exists;
  }

  __device__ void embed(int first, int count, int tile) {
    const RowSource& s = p.tdhp.source;
    clear(x);
    if (kBf16 && p.embedSlices) addOrigin(first, count, tile);  // the sum begins there
    if (p.embedSlices) {
      stageFeatures(first, count, tile);
      // The operand rows of the raw features have a stride of their own.
      product(front, rawStride(), p.embedSlices, x);
      __syncthreads();  // P and Q are free again
    }
#pragma unroll
    for (int t = 0; t < kTiles; ++t) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        int batch, step;
        bool alive = locate(firstRow + t * 16 + r + 8 * h, first, count, tile, &batch, &step);
        const long long at = static_cast<long long>(batch) * s.steps + step;
        int position = step;
        if (alive && s.position) position = s.position[at];
        alive = alive && position >= 0;
#pragma unroll
        for (int g = 0; g < kGroups; ++g) {
          const int column = quarter * kQuarter + g * 8 + 2 * c;
          float2 v = make_float2(x[t][g][2 * h], x[t][g][2 * h + 1]);
          if (!alive) {
            v = make_float2(0.f, 0.f);
          } else if (s.kind == Embed::rows) {
            v = __ldg(reinterpret_cast<const float2*>(s.rows + at * kHidden + column));
          } else {
            const float2 o = kBf16 && p.embedSlices ? make_float2(0.f, 0.f) : origin(position, column);
            if (s.kind == Embed::features) {
              if (!kBf16) v = make_float2(v.x + o.x, v.y + o.y);
            } else if (s.kind == Embed::tokens) {
              const float2 e = __ldg(
                  reinterpret_cast<const float2*>(s.table + static_cast<long long>(s.tokens[at]) * kHidden + column));
              v = make_float2(e.x + o.x, e.y + o.y);
            } else {
              const float2 e = __ldg(reinterpret_cast<const float2*>(s.table + column));
              v = make_float2(fmaf(s.values[at], e.x, o.x), fmaf(s.values[at], e.y, o.y));
            }
          }
          x[t][g][2 * h] = v.x;
          x[t][g][2 * h + 1] = v.y;
        }
      }
    }
    if (s.normWeight && s.kind != Embed::rows) {
      normalise(Norm::layernorm, s.normWeight, s.normBias);
      // Padding rows and rows that do not exist stay zero through the norm.
#pragma unroll
      for (int t = 0; t < kTiles; ++t) {
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          int batch, step;
          bool alive = locate(firstRow + t * 16 + r + 8 * h, first, count, tile, &batch, &step);
          if (alive && s.position) alive = s.position[static_cast<long long>(batch) * s.steps + step] >= 0;
#pragma unroll
          for (int g = 0; g < kGroups; ++g) {
            if (!alive) x[t][g][2 * h] = x[t][g][2 * h + 1] = 0.f;
          }
        }
      }
    }
  }

  __device__ float2 origin(int position, int column) const {
    const RowSource& s = p.tdhp.source;
    return __ldg(
        reinterpret_cast<const float2*>(s.origin + static_cast<long long>(position) * s.originStride + column));
  }

  // Bias and position of rows of features (no padding there).
  __device__ void addOrigin(int first, int count, int tile) {
#pragma unroll
    for (int t = 0; t < kTiles; ++t) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        int batch, step;
        if (!locate(firstRow + t * 16 + r + 8 * h, first, count, tile, &batch, &step)) continue;
#pragma unroll
        for (int g = 0; g < kGroups; ++g) {
          const float2 o = origin(step, quarter * kQuarter + g * 8 + 2 * c);
          x[t][g][2 * h] = o.x;
          x[t][g][2 * h + 1] = o.y;
        }
      }
    }
  }

  __device__ int rawStride() const { return (p.embedSlices * 64 + 127) / 128 * 128; }

  __device__ void stageFeatures(int first, int count, int tile) {
    const RowSource& s = p.tdhp.source;
    const int width = p.embedSlices * O::kChunk;
    for (int row = warp; row < rows; row += blockDim.x / 32) {
      int batch, step;
      const bool alive = locate(row, first, count, tile, &batch, &step);
      const float* from = s.features_ + (static_cast<long long>(batch) * s.steps + step) * s.features;
      if (s.features % 4 == 0) {
        for (int k = lane * 4; k < width; k += 128) {
          const float4 v =
              alive && k < s.features ? __ldg(reinterpret_cast<const float4*>(from + k)) : make_float4(0, 0, 0, 0);
          const float four[4] = {v.x, v.y, v.z, v.w};
          storeValues<kBf16>(front, rawStride(), row, k, four);
        }
      } else {
        for (int k = lane; k < width; k += 32) {
          storeOne<kBf16>(front, rawStride(), row, k, alive && k < s.features ? __ldg(from + k) : 0.f);
        }
      }
    }
  }

  __device__ void storeOperands(char* to) {
#pragma unroll
    for (int t = 0; t < kTiles; ++t) {
      const int row = firstRow + t * 16 + r;
#pragma unroll
      for (int g = 0; g < kGroups; ++g) {
        const int column = quarter * kQuarter + g * 8 + 2 * c;
        storePair<kBf16>(to, layout.stride, row, column, x[t][g][0], x[t][g][1]);
        storePair<kBf16>(to, layout.stride, row + 8, column, x[t][g][2], x[t][g][3]);
      }
    }
  }

  // ---- layers ----

  __device__ void layer(int index, int first, int count) {
    const float* vectors = p.vectors + static_cast<long long>(index) * p.vectorStride;
    if (p.packed) {
      const float* keys = reinterpret_cast<const float*>(memory + layout.keys);
      for (int row = warp; row < count; row += blockDim.x / 32) {
        packedAttention<kHidden, kBf16>(keys + row * p.tdhp.segments * kKeyStride, p.tdhp.info[first + row].segments,
                                        p.heads, p.scale, front, back, layout.stride, row, lane);
      }
      // Rows of the tile without a sequence: zero operands.
      for (int row = count + warp; row < rows; row += blockDim.x / 32) {
#pragma unroll
        for (int i = 0; i < kHidden / 32; ++i) storeOne<kBf16>(back, layout.stride, row, lane + 32 * i, 0.f);
      }
    } else {
      const KeyFragments<kHidden, kBf16> keys(memory + layout.keys, p.tdhp.segments);
#pragma unroll 1
      for (int t = 0; t < kTiles; ++t) {
        sharedAttention<kHidden, kBf16>(keys, p.tdhp.info[first].segments, p.heads, front, back, layout.stride,
                                        firstRow + t * 16, quarter, lane);
      }
    }
    float branch[kTiles][kGroups][4];
    if constexpr (kBf16) {
      product(back, layout.stride, kSlices, x);  // the residual is where the sum begins
    } else {
      clear(branch);
      product(back, layout.stride, kSlices, branch);
#pragma unroll
      for (int t = 0; t < kTiles; ++t) {
#pragma unroll
        for (int g = 0; g < kGroups; ++g) {
#pragma unroll
          for (int e = 0; e < 4; ++e) x[t][g][e] += branch[t][g][e];
        }
      }
    }
    normalise(p.norm, vectors + kHidden, vectors + 2 * kHidden);
    storeOperands(front);
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
      const float2 bias = __ldg(reinterpret_cast<const float2*>(vectors + quarter * kQuarter + g * 8 + 2 * c));
#pragma unroll
      for (int t = 0; t < kTiles; ++t) {
#pragma unroll
        for (int e = 0; e < 4; ++e) branch[t][g][e] = e & 1 ? bias.y : bias.x;
      }
    }
    product(front, layout.stride, kSlices, branch);
#pragma unroll
    for (int t = 0; t < kTiles; ++t) {
#pragma unroll
      for (int g = 0; g < kGroups; ++g) {
#pragma unroll
        for (int e = 0; e < 4; ++e) x[t][g][e] += activate(p.activation, branch[t][g][e]);
      }
    }
    normalise(p.norm, vectors + 3 * kHidden, vectors + 4 * kHidden);
    // `back` was last read by the first product, `front` is still being read by the second in other warps.
    storeOperands(back);
    char* swap = front;
    front = back;
    back = swap;
    __syncthreads();
  }

  // A lane has values of 2 kTiles rows, i = 2 t + h, and owns one of them (of one tile: two lanes own the same).
  static constexpr int kOwned = 2 * kTiles;
  __device__ int owner(int i) const { return (lane & ~3) | (kTiles == 2 ? i : 2 * i); }

  // Sums over the four lanes of a row, for its owner. The order is the same for one tile and for two.
  __device__ float ownedSum(const float (&v)[kOwned]) const {
    const bool high = c & 2, odd = c & 1;
    if constexpr (kTiles == 2) {
      const float a = (high ? v[2] : v[0]) + __shfl_xor_sync(kFull, high ? v[0] : v[2], 2);
      const float b = (high ? v[3] : v[1]) + __shfl_xor_sync(kFull, high ? v[1] : v[3], 2);
      return (odd ? b : a) + __shfl_xor_sync(kFull, odd ? a : b, 1);
    } else {
      const float a = (high ? v[1] : v[0]) + __shfl_xor_sync(kFull, high ? v[0] : v[1], 2);
      return a + __shfl_xor_sync(kFull, a, 1);
    }
  }

  // Squares of this warp's columns about each row's centre.
  __device__ float ownedSquares(const float (&centre)[kOwned]) const {
    float sum[kOwned] = {};
#pragma unroll
    for (int i = 0; i < kOwned; ++i) {
#pragma unroll
      for (int g = 0; g < kGroups; ++g) {
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          const float d = x[i / 2][g][i % 2 * 2 + e] - centre[i];
          sum[i] = fmaf(d, d, sum[i]);
        }
      }
    }
    return ownedSum(sum);
  }

  // Mean (0 unless centred) and squares about it of this warp's quarter of the owned row.
  __device__ float2 quarterMoments(bool centred) const {
    float sum[kOwned] = {}, zero[kOwned] = {}, mean = 0.f;
    if (centred) {
#pragma unroll
      for (int i = 0; i < kOwned; ++i) {
#pragma unroll
        for (int g = 0; g < kGroups; ++g) sum[i] += x[i / 2][g][i % 2 * 2] + x[i / 2][g][i % 2 * 2 + 1];
      }
      mean = ownedSum(sum) / kQuarter;
    }
    if constexpr (kBf16) {
      // Squares about zero, less the mean's: one operation less per value. Where that would cancel most digits, about
      // the mean after all.
      const float square = ownedSquares(zero), about = fmaf(-mean * kQuarter, mean, square);
      const bool cancels = !(about >= 0.01f * square);
      if (!__any_sync(kFull, cancels)) return make_float2(mean, about);
      const float exact = aboutMean(mean);
      return make_float2(mean, cancels ? exact : about);
    } else {
      return make_float2(mean, aboutMean(mean));
    }
  }

  __device__ float aboutMean(float mean) const {
    float centre[kOwned];
#pragma unroll
    for (int i = 0; i < kOwned; ++i) centre[i] = __shfl_sync(kFull, mean, owner(i));
    return ownedSquares(centre);
  }

  // Norm of x over the columns. A warp reduces its quarter to (mean, squares about it); the four are combined exactly,
  // by the lanes that own the rows.
  __device__ void normalise(Norm kind, const float* weight, const float* bias) {
    float mean[kTiles][2], scale[kTiles][2];
    if (kind != Norm::affine) {
      const int slot = kTiles == 2 ? lane : lane / 2, groups = blockDim.x / 128;
      float2* shared = reinterpret_cast<float2*>(memory + layout.reduction) + warp / 4 * 16 * kTiles + slot;
      const float2 own = quarterMoments(kind == Norm::layernorm);
      if (kTiles == 2 || c % 2 == 0) shared[quarter * groups * 16 * kTiles] = own;
      __syncthreads();
      float2 part[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) part[i] = shared[i * groups * 16 * kTiles];
      const float m = ((part[0].x + part[1].x) + (part[2].x + part[3].x)) * 0.25f;
      float between = 0.f;
#pragma unroll
      for (int i = 0; i < 4; ++i) between = fmaf(part[i].x - m, part[i].x - m, between);
      const float square = fmaf(between, kQuarter, (part[0].y + part[1].y) + (part[2].y + part[3].y));
      const float unit = 1.f / sqrtf(square / kHidden + kEpsilon);
#pragma unroll
      for (int i = 0; i < kOwned; ++i) {
        mean[i / 2][i % 2] = __shfl_sync(kFull, m, owner(i));
        scale[i / 2][i % 2] = __shfl_sync(kFull, unit, owner(i));
      }
    }
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
      const int column = quarter * kQuarter + g * 8 + 2 * c;
      const float2 w = __ldg(reinterpret_cast<const float2*>(weight + column));
      const float2 b = __ldg(reinterpret_cast<const float2*>(bias + column));
#pragma unroll
      for (int t = 0; t < kTiles; ++t) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const float unit = kind == Norm::affine ? x[t][g][e] : (x[t][g][e] - mean[t][e / 2]) * scale[t][e / 2];
          x[t][g][e] = fmaf(unit, e & 1 ? w.y : w.x, e & 1 ? b.y : b.x);
        }
      }
    }
  }

  // ---- readout (readout.cuh) ----

  __device__ bool isPadding(int batch, int step) const;
  __device__ float* rowsInShared(int first, int count, int tile);
  __device__ float* headScratch(float* rowsEnd);
  __device__ void readRows(int first, int count);
  __device__ void readSteps(int first, int tile);
  __device__ void sumRows(int first, int tile);
  __device__ unsigned tell(unsigned value);
  __device__ void finishSums(int first, int pairs, const float* sums);
};

}  // namespace hpformer::cuda
