// Rows of a sequence as TDHP reads them: embedded on the fly, a row a warp, values spread over the lanes.
#pragma once
#include "../layout.h"
#include "mma.cuh"

namespace hpformer::cuda {

// One row in registers: `raw` 4 values of the raw features, `x` hidden / 32 values (columns lane + 32 i).
template <int kHidden>
struct Row {
  float raw[4];
  float x[kHidden / 32];
};

template <int kHidden>
struct RowReader {
  static constexpr int kColumns = kHidden / 32;
  const TdhpParams& p;
  long long base;  // batch * steps
  int lane;
  bool vectors;         // raw rows by float4
  bool live;            // the lane has values of raw rows
  const float* staged;  // origin rows in shared memory, or null

  __device__ RowReader(const TdhpParams& params, int batch, int laneIndex, const float* stagedOrigin)
      : p(params),
        base(static_cast<long long>(batch) * params.source.steps),
        lane(laneIndex),
        vectors(params.source.features % 4 == 0),
        live((vectors ? 4 : 1) * laneIndex < params.source.features),
        staged(stagedOrigin) {}

  // A raw row of kRawWidth values in shared memory, in the lanes' order: four neighbours, or every 32nd. Assembly,
  // since the compiler merges the two branches into single words with conflicts.
  __device__ void storeRaw(float* to, const float (&raw)[4]) const {
    if (vectors) {
      asm volatile("st.shared.v4.f32 [%0], {%1, %2, %3, %4};" ::"r"(sharedAddress(to + lane * 4)), "f"(raw[0]),
                   "f"(raw[1]), "f"(raw[2]), "f"(raw[3])
                   : "memory");
    } else {
#pragma unroll
      for (int i = 0; i < 4; ++i) to[lane + 32 * i] = raw[i];
    }
  }
  // Columns beyond the features are zero in memory or meet a zero of the row.
  __device__ void loadRaw(const float* from, float (&raw)[4]) const {
    if (vectors) {
      asm volatile("ld.shared.v4.f32 {%0, %1, %2, %3}, [%4];"
                   : "=f"(raw[0]), "=f"(raw[1]), "=f"(raw[2]), "=f"(raw[3])
                   : "r"(sharedAddress(from + lane * 4))
                   : "memory");
    } else {
#pragma unroll
      for (int i = 0; i < 4; ++i) raw[i] = from[lane + 32 * i];
    }
  }

  __device__ void zero(Row<kHidden>* row) const {
#pragma unroll
    for (int i = 0; i < 4; ++i) row->raw[i] = 0.f;
#pragma unroll
    for (int i = 0; i < kColumns; ++i) row->x[i] = 0.f;
  }

  __device__ void readRaw(int t, float (&raw)[4]) const {
    const int width = p.source.features;
    const float* from = p.source.features_ + (base + t) * width;
    if (vectors) {
      const float4 v = lane * 4 < width ? __ldg(reinterpret_cast<const float4*>(from) + lane) : make_float4(0, 0, 0, 0);
      raw[0] = v.x, raw[1] = v.y, raw[2] = v.z, raw[3] = v.w;
    } else {
#pragma unroll
      for (int i = 0; i < 4; ++i) raw[i] = lane + 32 * i < width ? __ldg(from + lane + 32 * i) : 0.f;
    }
  }

  // False for a row that stays zero.
  // `embedded`: W x of the row, where kind features has rows embedded one by one.
  __device__ bool read(int t, Row<kHidden>* row, const float* embedded) const {
    const RowSource& s = p.source;
    const int position = s.position ? s.position[base + t] : t;
    if (position < 0) return false;
    if (s.kind == Embed::rows) {
#pragma unroll
      for (int i = 0; i < kColumns; ++i) row->x[i] = __ldg(s.rows + (base + t) * kHidden + lane + 32 * i);
      return true;
    }
    const float* origin = s.origin + static_cast<long long>(position) * s.originStride;
    if (staged) {
#pragma unroll
      for (int i = 0; i < kColumns; ++i) row->x[i] = staged[position * kHidden + lane + 32 * i];
    } else {
#pragma unroll
      for (int i = 0; i < kColumns; ++i) row->x[i] = __ldg(origin + lane + 32 * i);
    }
    if (s.kind == Embed::features && !embedded) {
      readRaw(t, row->raw);
      return true;
    }
    if (embedded) {
#pragma unroll
      for (int i = 0; i < kColumns; ++i) row->x[i] = embedded[lane + 32 * i] + row->x[i];
    } else if (s.kind == Embed::tokens) {
      const float* table = s.table + static_cast<long long>(s.tokens[base + t]) * kHidden;
#pragma unroll
      for (int i = 0; i < kColumns; ++i) row->x[i] = __ldg(table + lane + 32 * i) + row->x[i];
    } else {
      const float value = s.values[base + t];
#pragma unroll
      for (int i = 0; i < kColumns; ++i) row->x[i] = fmaf(value, __ldg(s.table + lane + 32 * i), row->x[i]);
    }
    if (s.normWeight) normalise(row);
    return true;
  }

  __device__ void normalise(Row<kHidden>* row) const {
    float sum = 0.f, square = 0.f;
#pragma unroll
    for (int i = 0; i < kColumns; ++i) sum += row->x[i];
    const float mean = warpSum(sum) / kHidden;
#pragma unroll
    for (int i = 0; i < kColumns; ++i) square = fmaf(row->x[i] - mean, row->x[i] - mean, square);
    const float scale = 1.f / sqrtf(warpSum(square) / kHidden + kEpsilon);
#pragma unroll
    for (int i = 0; i < kColumns; ++i) {
      const int column = lane + 32 * i;
      row->x[i] =
          fmaf((row->x[i] - mean) * scale, __ldg(p.source.normWeight + column), __ldg(p.source.normBias + column));
    }
  }
};

// The rows of quarter `part` of segment `s`: [begin, end).
struct Run {
  int begin, end;
  __device__ Run(const SequenceInfo& info, int s, int part) {
    const int first = s * info.segmentLength;
    const int rows = max(0, min(info.steps - first, info.segmentLength));
    const int length = (rows + kParts - 1) / kParts;
    begin = first + min(part * length, rows);
    end = first + min((part + 1) * length, rows);
  }
};

}  // namespace hpformer::cuda
