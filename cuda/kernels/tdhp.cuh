// tdhp: segment pooling, extra-segment attention, intra-segment attention and fusion of one sequence by one block.
//
//   pass 1  rows -> segment means            each (segment, quarter) is one warp's work, partial sums through shared
//   memory
//           means -> E = softmax(m m^T) m    in shared memory
//   pass 2  rows -> I                        the same split; each warp runs a one-pass online softmax with query E_s
//           K = [E ; I] Wf^T + c             columns over threads, four segments at a time
//
// With absorbed embedding (features, mean) a row is never embedded: the mean of raw rows goes through W once per
// segment, the query goes through W^T, the sum of raw rows goes through W; only the origin (bias + position) is added
// per row. The split into quarters and the order of every sum do not depend on the number of threads, so all launch
// shapes agree bit for bit. Appended rows and padding tokens are zero: they cost no load, only their count enters the
// softmax.
#pragma once
#include "../layout.h"
#include "common.cuh"

namespace hpformer::cuda {

// Shared memory of one sequence, in floats. `together` is [S][2 hidden]: E then I. The keys replace the means.
struct TdhpShared {
  float *together, *means, *raw, *partial;
  int partialStride;
  __device__ TdhpShared(float* base, int hidden, int segments)
      : together(base),
        means(base + segments * 2 * hidden),
        raw(means + segments * hidden),
        partial(raw + segments * kRawWidth),
        partialStride(tdhpPartialWidth(hidden)) {}
};

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
  bool vectors;  // raw rows by float4

  __device__ RowReader(const TdhpParams& params, int batch, int laneIndex)
      : p(params),
        base(static_cast<long long>(batch) * params.source.steps),
        lane(laneIndex),
        vectors(params.source.features % 4 == 0) {}

  // A raw row of kRawWidth values in shared memory, in the lanes' order: four neighbours, or every 32nd.
  __device__ void storeRaw(float* to, const float (&raw)[4]) const {
    if (vectors) {
      *reinterpret_cast<float4*>(to + lane * 4) = make_float4(raw[0], raw[1], raw[2], raw[3]);
    } else {
#pragma unroll
      for (int i = 0; i < 4; ++i) to[lane + 32 * i] = raw[i];
    }
  }
  // Columns beyond the features are zero in memory or meet a zero of the row.
  __device__ void loadRaw(const float* from, float (&raw)[4]) const {
    if (vectors) {
      const float4 v = *reinterpret_cast<const float4*>(from + lane * 4);
      raw[0] = v.x, raw[1] = v.y, raw[2] = v.z, raw[3] = v.w;
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
  __device__ bool read(int t, Row<kHidden>* row) const {
    const RowSource& s = p.source;
    const int position = s.position ? s.position[base + t] : t;
    if (position < 0) return false;
    if (s.kind == Embed::rows) {
#pragma unroll
      for (int i = 0; i < kColumns; ++i) row->x[i] = __ldg(s.rows + (base + t) * kHidden + lane + 32 * i);
      return true;
    }
    const float* origin = s.origin + static_cast<long long>(position) * s.originStride;
#pragma unroll
    for (int i = 0; i < kColumns; ++i) row->x[i] = __ldg(origin + lane + 32 * i);
    if (s.kind == Embed::features) {
      readRaw(t, row->raw);
      return true;
    }
    if (s.kind == Embed::tokens) {
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

// out[s][n] = sum_k in[s][k] weight[k][n] for s of [first, first + kTogether) below `count`, handed to use(s, n, sum).
// Columns over threads, then groups of segments: neighbouring threads read neighbouring weights.
template <typename Use>
__device__ __forceinline__ void smallProduct(const float* in, int inStride, const float* weight, int weightStride,
                                             int k, int n, int count, Use use) {
  const int groups = (count + kTogether - 1) / kTogether;
  for (int i = threadIdx.x; i < n * groups; i += blockDim.x) {
    const int column = i % n, first = i / n * kTogether;
    float sum[kTogether] = {};
    int j = 0;
    for (; j + 4 <= k; j += 4) {
      float w[4];
#pragma unroll
      for (int e = 0; e < 4; ++e) w[e] = __ldg(weight + static_cast<long long>(j + e) * weightStride + column);
#pragma unroll
      for (int s = 0; s < kTogether; ++s) {
        if (first + s >= count) break;
        const float4 v = *reinterpret_cast<const float4*>(in + (first + s) * inStride + j);
        sum[s] = fmaf(v.x, w[0], sum[s]);
        sum[s] = fmaf(v.y, w[1], sum[s]);
        sum[s] = fmaf(v.z, w[2], sum[s]);
        sum[s] = fmaf(v.w, w[3], sum[s]);
      }
    }
    for (; j < k; ++j) {
      const float w = __ldg(weight + static_cast<long long>(j) * weightStride + column);
#pragma unroll
      for (int s = 0; s < kTogether; ++s) {
        if (first + s < count) sum[s] = fmaf(in[(first + s) * inStride + j], w, sum[s]);
      }
    }
#pragma unroll
    for (int s = 0; s < kTogether; ++s) {
      if (first + s < count) use(first + s, column, sum[s]);
    }
  }
}

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

template <int kHidden>
__device__ void poolSegments(const TdhpParams& p, const SequenceInfo& info, int batch, const TdhpShared& shared) {
  constexpr int kColumns = kHidden / 32;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = blockDim.x / 32;
  const RowReader<kHidden> reader(p, batch, lane);
  for (int first = 0; first < info.segments; first += kTogether) {
    for (int item = warp; item < kParts * kTogether; item += warps) {
      const int s = first + item / kParts;
      if (s >= info.segments) break;
      const Run run(info, s, item % kParts);
      float* out = shared.partial + item * shared.partialStride;
      if (p.absorbed) {
        float sum[4] = {};
#pragma unroll 4
        for (int t = run.begin; t < run.end; ++t) {
          float raw[4];
          reader.readRaw(t, raw);
#pragma unroll
          for (int i = 0; i < 4; ++i) sum[i] += raw[i];
        }
        reader.storeRaw(out, sum);
      } else {
        // A run without rows leaves the neutral element; zero rows count in the maximum below.
        float value[kColumns];
        bool zeroRow = false;
#pragma unroll
        for (int i = 0; i < kColumns; ++i) value[i] = p.max ? -INFINITY : 0.f;
        for (int t = run.begin; t < run.end; ++t) {
          Row<kHidden> row;
          if (!reader.read(t, &row)) {
            zeroRow = true;
            continue;
          }
#pragma unroll
          for (int i = 0; i < kColumns; ++i) {
            const float v = row.x[i];
            value[i] = !p.max ? value[i] + v : (v > value[i] || v != v) ? v : value[i];
          }
        }
#pragma unroll
        for (int i = 0; i < kColumns; ++i) {
          if (p.max && zeroRow && value[i] < 0.f) value[i] = 0.f;
          out[lane + 32 * i] = value[i];
        }
      }
    }
    __syncthreads();
    const int width = p.absorbed ? kRawWidth : kHidden;
    for (int i = threadIdx.x; i < width * kTogether; i += blockDim.x) {
      const int s = first + i / width, column = i % width;
      if (s >= info.segments) break;
      const float* part = shared.partial + i / width * kParts * shared.partialStride + column;
      float value = part[0];
#pragma unroll
      for (int j = 1; j < kParts; ++j) {
        const float v = part[j * shared.partialStride];
        value = !p.max ? value + v : (v > value || v != v) ? v : value;
      }
      if (p.absorbed) {
        shared.raw[s * kRawWidth + column] = value;
      } else {
        const bool appended =
            min(info.steps, (s + 1) * info.segmentLength) - s * info.segmentLength < info.segmentLength;
        if (p.max && appended && value < 0.f) value = 0.f;
        shared.means[s * kHidden + column] = p.max ? value : value / static_cast<float>(info.segmentLength);
      }
    }
    __syncthreads();
  }
  if (!p.absorbed) return;
  smallProduct(shared.raw, kRawWidth, p.embedTransposed, kHidden, p.source.features, kHidden, info.segments,
               [&](int s, int n, float sum) {
                 const int begin = min(s * info.segmentLength, info.steps);
                 const int end = min(begin + info.segmentLength, info.steps);
                 const double origin = p.prefix[static_cast<long long>(end) * kHidden + n] -
                                       p.prefix[static_cast<long long>(begin) * kHidden + n];
                 shared.means[s * kHidden + n] =
                     (sum + static_cast<float>(origin)) / static_cast<float>(info.segmentLength);
               });
  __syncthreads();
}

template <int kHidden>
__device__ void attendSegments(const TdhpParams& p, const SequenceInfo& info, const TdhpShared& shared) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = blockDim.x / 32, count = info.segments;
  float* score = shared.partial;
  for (int i = warp; i < count * count; i += warps) {
    const float* a = shared.means + i / count * kHidden;
    const float* b = shared.means + i % count * kHidden;
    float sum = 0.f;
#pragma unroll
    for (int k = 0; k < kHidden / 32; ++k) sum = fmaf(a[lane + 32 * k], b[lane + 32 * k], sum);
    sum = warpSum(sum);
    if (lane == 0) score[i] = sum * (p.scale * kLog2e);
  }
  __syncthreads();
  for (int q = warp; q < count; q += warps) {
    float top = -INFINITY, total = 0.f;
    for (int s = lane; s < count; s += 32) top = fmaxf(top, score[q * count + s]);
    top = warpMax(top);
    for (int s = lane; s < count; s += 32) {
      const float e = exp2f(score[q * count + s] - top);
      score[q * count + s] = e;
      total += e;
    }
    total = warpSum(total);
    __syncwarp();
    for (int s = lane; s < count; s += 32) score[q * count + s] /= total;
    __syncwarp();
#pragma unroll
    for (int k = 0; k < kHidden / 32; ++k) {
      float sum = 0.f;
      for (int s = 0; s < count; ++s) sum = fmaf(score[q * count + s], shared.means[s * kHidden + lane + 32 * k], sum);
      shared.together[q * 2 * kHidden + lane + 32 * k] = sum;
    }
  }
  __syncthreads();
}

// One warp's run of the scan: acc and total relative to 2^top.
template <int kHidden>
struct Scan {
  static constexpr int kColumns = kHidden / 32;
  float raw[4] = {}, x[kColumns] = {}, top = -INFINITY, total = 0.f;

  // Rows `row` with scores in log2 units; a score of -infinity is no row.
  template <int kRows>
  __device__ __forceinline__ void add(const Row<kHidden> (&row)[kRows], const float (&score)[kRows], bool absorbed) {
    float next = top;
#pragma unroll
    for (int i = 0; i < kRows; ++i) next = fmaxf(next, score[i]);
    if (next == -INFINITY) next = 0.f;
    const float shrink = exp2f(top - next);
    float weight[kRows];
    total *= shrink;
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      weight[i] = exp2f(score[i] - next);
      total += weight[i];
    }
#pragma unroll
    for (int k = 0; k < kColumns; ++k) {
      x[k] *= shrink;
#pragma unroll
      for (int i = 0; i < kRows; ++i) x[k] = fmaf(weight[i], row[i].x[k], x[k]);
    }
    if (absorbed) {
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        raw[k] *= shrink;
#pragma unroll
        for (int i = 0; i < kRows; ++i) raw[k] = fmaf(weight[i], row[i].raw[k], raw[k]);
      }
    }
    top = next;
  }
};

template <int kHidden>
__device__ void scanSegments(const TdhpParams& p, const SequenceInfo& info, int batch, const TdhpShared& shared) {
  constexpr int kColumns = kHidden / 32, kRows = 4;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = blockDim.x / 32;
  const RowReader<kHidden> reader(p, batch, lane);
  if (p.absorbed) {
    // The query in the space of raw rows: u_s = W^T E_s.
    smallProduct(shared.together, 2 * kHidden, p.embed, (p.source.features + 7) / 8 * 8, kHidden, p.source.features,
                 info.segments, [&](int s, int n, float sum) { shared.raw[s * kRawWidth + n] = sum; });
    __syncthreads();
  }
  const float scale = p.scale * kLog2e;
  for (int first = 0; first < info.segments; first += kTogether) {
    for (int item = warp; item < kParts * kTogether; item += warps) {
      const int s = first + item / kParts;
      if (s >= info.segments) break;
      const Run run(info, s, item % kParts);
      float query[kColumns], rawQuery[4] = {};
#pragma unroll
      for (int i = 0; i < kColumns; ++i) query[i] = shared.together[s * 2 * kHidden + lane + 32 * i];
      if (p.absorbed) reader.loadRaw(shared.raw + s * kRawWidth, rawQuery);
      Scan<kHidden> scan;
      for (int t = run.begin; t < run.end; t += kRows) {
        Row<kHidden> row[kRows];
        float score[kRows];
#pragma unroll
        for (int i = 0; i < kRows; ++i) {
          reader.zero(&row[i]);
          if (t + i < run.end) reader.read(t + i, &row[i]);
        }
#pragma unroll
        for (int i = 0; i < kRows; ++i) {
          float sum = 0.f;
#pragma unroll
          for (int k = 0; k < kColumns; ++k) sum = fmaf(query[k], row[i].x[k], sum);
#pragma unroll
          for (int k = 0; k < 4; ++k) sum = fmaf(rawQuery[k], row[i].raw[k], sum);
          sum = warpSum(sum);
          score[i] = t + i < run.end ? sum * scale : -INFINITY;
        }
        scan.template add<kRows>(row, score, p.absorbed);
      }
      float* out = shared.partial + item * shared.partialStride;
#pragma unroll
      for (int i = 0; i < kColumns; ++i) out[lane + 32 * i] = scan.x[i];
      if (p.absorbed) reader.storeRaw(out + kHidden, scan.raw);
      if (lane == 0) {
        out[kHidden + kRawWidth] = scan.top;
        out[kHidden + kRawWidth + 1] = scan.total;
      }
    }
    __syncthreads();
    // The four runs and the appended zero rows (score 0, nothing to add) become one softmax.
    const int width = kHidden + (p.absorbed ? kRawWidth : 0);
    for (int i = threadIdx.x; i < width * kTogether; i += blockDim.x) {
      const int s = first + i / width, column = i % width;
      if (s >= info.segments) break;
      const float* part = shared.partial + i / width * kParts * shared.partialStride;
      const int real = max(0, min(info.steps - s * info.segmentLength, info.segmentLength));
      const int zeros = info.segmentLength - real;
      float top = zeros > 0 ? 0.f : -INFINITY, total = 0.f, value = 0.f;
#pragma unroll
      for (int j = 0; j < kParts; ++j) top = fmaxf(top, part[j * shared.partialStride + kHidden + kRawWidth]);
#pragma unroll
      for (int j = 0; j < kParts; ++j) {
        const float* from = part + j * shared.partialStride;
        const float weight = exp2f(from[kHidden + kRawWidth] - top);
        total = fmaf(from[kHidden + kRawWidth + 1], weight, total);
        value = fmaf(from[column], weight, value);
      }
      if (zeros > 0) total = fmaf(static_cast<float>(zeros), exp2f(-top), total);
      value /= total;
      if (column < kHidden) {
        shared.together[s * 2 * kHidden + kHidden + column] = value;
      } else {
        shared.raw[s * kRawWidth + column - kHidden] = value;
      }
    }
    __syncthreads();
  }
  if (!p.absorbed) return;
  smallProduct(shared.raw, kRawWidth, p.embedTransposed, kHidden, p.source.features, kHidden, info.segments,
               [&](int s, int n, float sum) { shared.together[s * 2 * kHidden + kHidden + n] += sum; });
  __syncthreads();
}

// All of TDHP for one sequence; the keys [S][hidden] end in shared.means (valid for all threads on return).
template <int kHidden>
__device__ void tdhpSequence(const TdhpParams& p, int batch, const TdhpShared& shared) {
  const SequenceInfo info = p.info[batch];
  poolSegments<kHidden>(p, info, batch, shared);
  attendSegments<kHidden>(p, info, shared);
  scanSegments<kHidden>(p, info, batch, shared);
  smallProduct(shared.together, 2 * kHidden, p.fusionTransposed, kHidden, 2 * kHidden, kHidden, info.segments,
               [&](int s, int n, float sum) { shared.means[s * kHidden + n] = sum + __ldg(p.fusionBias + n); });
  __syncthreads();
}

template <int kHidden>
__device__ void writeKeys(const TdhpParams& p, int batch, const TdhpShared& shared) {
  const int count = p.info[batch].segments;
  float* keys = p.keys + static_cast<long long>(batch) * p.segmentsMax * kHidden;
  for (int i = threadIdx.x; i < p.segmentsMax * kHidden; i += blockDim.x) {
    keys[i] = i < count * kHidden ? shared.means[i] : 0.f;
  }
}

// grid (batch)
template <int kHidden>
__device__ void tdhpKernel(const TdhpParams& p) {
  extern __shared__ __align__(16) float block[];
  const TdhpShared shared(block, kHidden, p.info[blockIdx.x].segments);
  tdhpSequence<kHidden>(p, blockIdx.x, shared);
  writeKeys<kHidden>(p, blockIdx.x, shared);
}

}  // namespace hpformer::cuda
