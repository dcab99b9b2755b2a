// K-key attention inside `stack`, two forms. Rows of one sequence share their keys: matrix instructions with the keys
// as operand fragments in shared memory. Rows of different sequences ("packed") have keys of their own: plain
// arithmetic.
#pragma once
#include "../layout.h"
#include "mma.cuh"

namespace hpformer::cuda {

// Keys [S][hidden] as operand fragments, both for scores (columns are k) and for the weighted sum (segments are k).
// Layout of `scores`: [chunk of k][8 segments][lane][16 bytes]. Layout of `values`: [16 segments][8 or 16
// columns][lane][16 bytes]; k there is permuted so that the scores of a lane are its operand of the second product
// without any exchange.
template <int kHidden, bool kBf16>
struct KeyFragments {
  using O = Operand<kBf16>;
  static constexpr int kChunks = kHidden / O::kChunk;
  static constexpr int kColumns = kBf16 ? 16 : 8;  // columns of one 16-byte value fragment

  char *scores, *values;
  int padded;  // segments rounded up to 16

  __host__ __device__ static int bytes(int segments) { return 2 * ((segments + 15) / 16 * 16) * kHidden * O::kElement; }
  __device__ KeyFragments(char* base, int segments)
      : scores(base), values(base + bytes(segments) / 2), padded((segments + 15) / 16 * 16) {}

  __device__ Fragment scoreFragment(int chunk, int tile, int lane) const {
    return load16(scores + ((chunk * (padded / 8) + tile) * 32 + lane) * 16);
  }
  __device__ Fragment valueFragment(int group, int column, int lane) const {
    return load16(values + ((group * (kHidden / kColumns) + column) * 32 + lane) * 16);
  }

  // Segments 16 group …, by the whole block; `keys`: their rows in shared memory, `live` of them. The scale of the
  // scores goes into their operands.
  __device__ void fill(int group, const float* keys, int live, float scale) const {
    constexpr int kStride = kHidden + kKeyPadding;
    constexpr int kWords = kBf16 ? 8 : 4;  // values in 16 bytes
    constexpr int kUnits = 16 * kHidden / kWords;
    for (int i = threadIdx.x; i < kUnits; i += blockDim.x) {
      const int lane = i % 32, r = lane / 4, c = lane % 4, tile = i / 32 % 2, chunk = i / 64;
      const int segment = tile * 8 + r;
      float v[8] = {};
      if (segment < live) {
#pragma unroll
        for (int e = 0; e < kWords; e += 4) {
          const float4 w =
              *reinterpret_cast<const float4*>(keys + segment * kStride + chunk * O::kChunk + c * kWords + e);
          v[e] = w.x * scale, v[e + 1] = w.y * scale, v[e + 2] = w.z * scale, v[e + 3] = w.w * scale;
        }
      }
      store(scores + ((chunk * (padded / 8) + group * 2 + tile) * 32 + lane) * 16, v);
    }
    for (int i = threadIdx.x; i < kUnits; i += blockDim.x) {
      const int lane = i % 32, r = lane / 4, c = lane % 4, column = i / 32 * kColumns + r;
      float v[8];
#pragma unroll
      for (int e = 0; e < kWords; ++e) {
        const int segment = 2 * c + (e & 1) + (e & 2) * 4;
        v[e] = segment < live ? keys[segment * kStride + column + (e >> 2) * 8] : 0.f;
      }
      store(values + (group * kUnits + i) * 16, v);
    }
  }

 private:
  static __device__ void store(char* to, const float (&v)[8]) {
    if constexpr (kBf16) {
      *reinterpret_cast<uint4*>(to) =
          make_uint4(packBf16(v[0], v[1]), packBf16(v[2], v[3]), packBf16(v[4], v[5]), packBf16(v[6], v[7]));
    } else {
      *reinterpret_cast<float4*>(to) = make_float4(v[0], v[1], v[2], v[3]);
    }
  }
};

// Zeroes what lies outside columns [begin, end) of the chunk: k values of lane c start at column `first`.
template <bool kBf16>
__device__ __forceinline__ void maskColumns(Fragment* f, int first, int begin, int end) {
  if constexpr (kBf16) {
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const int column = first + 2 * e;
      if (column < begin || column >= end) f->v[e] &= 0xffff0000u;
      if (column + 1 < begin || column + 1 >= end) f->v[e] &= 0x0000ffffu;
    }
  } else {
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      if (first + e < begin || first + e >= end) f->v[e] = 0u;
    }
  }
}

// Row tile of 16 rows at `row`: heads warp, warp + 4, …; x from `in`, result as operand rows to `out`.
template <int kHidden, bool kBf16>
__device__ __forceinline__ void sharedAttention(const KeyFragments<kHidden, kBf16>& keys, int segments, int heads,
                                                char* in, char* out, int stride, int row, int warp, int lane) {
  using O = Operand<kBf16>;
  const int r = lane / 4, c = lane % 4, width = kHidden / heads;
  for (int head = warp; head < heads; head += 4) {
    const int begin = head * width, end = begin + width;
    float score[kMaxSegments / 8][4];
#pragma unroll
    for (int t = 0; t < kMaxSegments / 8; ++t) {
#pragma unroll
      for (int e = 0; e < 4; ++e) score[t][e] = 0.f;
    }
    const bool whole = width % O::kChunk == 0;
    for (int chunk = begin / O::kChunk; chunk * O::kChunk < end; ++chunk) {
      const auto a = O::prepareA(load16(unitOf(in, stride, row + r, chunk * 4 + c)),
                                 load16(unitOf(in, stride, row + r + 8, chunk * 4 + c)));
#pragma unroll
      for (int t = 0; t < kMaxSegments / 8; ++t) {
        if (t * 8 < segments) {
          Fragment f = keys.scoreFragment(chunk, t, lane);
          if (!whole) maskColumns<kBf16>(&f, chunk * O::kChunk + c * (O::kChunk / 4), begin, end);
          O::multiply(score[t], a, O::prepareB(f));
        }
      }
    }
    // Softmax over the segments: rows r (e 0, 1) and r + 8 (e 2, 3), spread over the four lanes of a quad.
    float top[2] = {-INFINITY, -INFINITY}, total[2] = {};
#pragma unroll
    for (int t = 0; t < kMaxSegments / 8; ++t) {
      if (t * 8 < segments) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          if (t * 8 + 2 * c + (e & 1) >= segments) score[t][e] = -INFINITY;
          top[e / 2] = fmaxf(top[e / 2], score[t][e]);
        }
      }
    }
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      top[h] = fmaxf(top[h], __shfl_xor_sync(kFull, top[h], 1));
      top[h] = fmaxf(top[h], __shfl_xor_sync(kFull, top[h], 2));
    }
#pragma unroll
    for (int t = 0; t < kMaxSegments / 8; ++t) {
      if (t * 8 < segments) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          score[t][e] = exp2Fast(score[t][e] - top[e / 2]);
          total[e / 2] += score[t][e];
        }
      }
    }
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      total[h] += __shfl_xor_sync(kFull, total[h], 1);
      total[h] += __shfl_xor_sync(kFull, total[h], 2);
      total[h] = 1.f / total[h];
    }
    // The division goes where there are fewer values.
    const bool late = (segments + 7) / 8 * 8 > width;
#pragma unroll
    for (int t = 0; t < kMaxSegments / 8; ++t) {
      if (!late && t * 8 < segments) {
#pragma unroll
        for (int e = 0; e < 4; ++e) score[t][e] *= total[e / 2];
      }
    }
    // The weights of a lane are its operand. Eight columns at a time; only the head's own are stored.
    for (int tile = begin / 8; tile * 8 < end; ++tile) {
      float sum[4] = {};
#pragma unroll
      for (int g = 0; g < kMaxSegments / 16; ++g) {
        if (g * 16 < segments) {
          const float(&even)[4] = score[2 * g];
          const float(&odd)[4] = score[2 * g + 1];
          if constexpr (kBf16) {
            const Fragment f = keys.valueFragment(g, tile >> 1, lane);
            const bool second = tile & 1;
            mmaBf16(sum, packBf16(even[0], even[1]), packBf16(even[2], even[3]), packBf16(odd[0], odd[1]),
                    packBf16(odd[2], odd[3]), second ? f.v[2] : f.v[0], second ? f.v[3] : f.v[1]);
          } else {
            const auto value = [](float x) { return __float_as_uint(x); };
            const Fragment low = {{value(even[0]), value(even[1]), value(odd[0]), value(odd[1])}};
            const Fragment high = {{value(even[2]), value(even[3]), value(odd[2]), value(odd[3])}};
            O::multiply(sum, O::prepareA(low, high), O::prepareB(keys.valueFragment(g, tile, lane)));
          }
        }
      }
      const int column = tile * 8 + 2 * c;
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const float x = late ? sum[2 * h] * total[h] : sum[2 * h],
                    y = late ? sum[2 * h + 1] * total[h] : sum[2 * h + 1];
        const int at = row + r + 8 * h;
        if (column >= begin && column + 1 < end) {
          storePair<kBf16>(out, stride, at, column, x, y);
        } else {
          if (column >= begin && column < end) storeOne<kBf16>(out, stride, at, column, x);
          if (column + 1 >= begin && column + 1 < end) storeOne<kBf16>(out, stride, at, column + 1, y);
        }
      }
    }
  }
}

// One row with keys of its own ([S][hidden + padding] floats in shared memory), by one warp: lane l has columns l *
// hidden / 32 …, so 32 / heads lanes make a head (heads divides 32).
template <int kHidden, bool kBf16>
__device__ __forceinline__ void packedAttention(const float* keys, int segments, int heads, float scale, char* in,
                                                char* out, int stride, int row, int lane) {
  constexpr int kColumns = kHidden / 32;
  const int column = lane * kColumns, lanes = 32 / heads;
  float x[kColumns], sum[kColumns] = {}, top = -INFINITY, total = 0.f;
  loadValues<kBf16>(in, stride, row, column, x);
  for (int s = 0; s < segments; ++s) {
    float key[kColumns], score = 0.f;
    loadFloats(keys + s * (kHidden + kKeyPadding) + column, key);
#pragma unroll
    for (int i = 0; i < kColumns; ++i) {
      if (kBf16) key[i] = __bfloat162float(__float2bfloat16_rn(key[i]));
      score = fmaf(x[i], key[i], score);
    }
    for (int i = lanes / 2; i > 0; i >>= 1) score += __shfl_xor_sync(kFull, score, i);
    score *= scale;
    const float next = fmaxf(top, score);
    const float shrink = exp2Fast(top - next), weight = exp2Fast(score - next);
    total = fmaf(total, shrink, weight);
#pragma unroll
    for (int i = 0; i < kColumns; ++i) sum[i] = fmaf(weight, key[i], sum[i] * shrink);
    top = next;
  }
#pragma unroll
  for (int i = 0; i < kColumns; ++i) sum[i] /= total;
  storeValues<kBf16>(out, stride, row, column, sum);
}

}  // namespace hpformer::cuda
