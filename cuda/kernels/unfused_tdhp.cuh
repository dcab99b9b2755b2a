// TDHP one step at a time: embed, segmentPool, extraSegment, intraSegment (fusion is `dense` with a split operand).
// Any shape; the baseline of benches, the path of trace and of shapes that the fused kernels do not take.
#pragma once
#include "common.cuh"

namespace hpformer::cuda {

// One warp per row.
HPFORMER_KERNEL((128), embed)(EmbedParams p) {
  const RowSource& s = p.source;
  const long long row = static_cast<long long>(blockIdx.x) * 4 + threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  if (row >= static_cast<long long>(p.batch) * s.steps) return;
  const int batch = static_cast<int>(row / s.steps), t = static_cast<int>(row % s.steps);
  float* out = p.out + row * s.hidden;
  int position = t;
  const bool exists = t < p.info[batch].steps;
  if (exists && s.position) position = s.position[row];
  if (!exists || position < 0) {
    for (int i = lane; i < s.hidden; i += 32) out[i] = 0.f;
    return;
  }
  const float* origin = s.origin + static_cast<long long>(position) * s.originStride;
  const float* table = s.kind == Embed::tokens ? s.table + static_cast<long long>(s.tokens[row]) * s.hidden : s.table;
  const float value = s.kind == Embed::scalar ? s.values[row] : 0.f;
  float sum = 0.f;
  for (int i = lane; i < s.hidden; i += 32) {
    float x;
    if (s.kind == Embed::features) {
      x = out[i] + origin[i];
    } else if (s.kind == Embed::tokens) {
      x = table[i] + origin[i];
    } else {
      x = fmaf(value, table[i], origin[i]);
    }
    out[i] = x;
    sum += x;
  }
  if (!s.normWeight) return;
  const float mean = warpSum(sum) / static_cast<float>(s.hidden);
  float square = 0.f;
  for (int i = lane; i < s.hidden; i += 32) square = fmaf(out[i] - mean, out[i] - mean, square);
  const float scale = 1.f / sqrtf(warpSum(square) / static_cast<float>(s.hidden) + kEpsilon);
  for (int i = lane; i < s.hidden; i += 32) out[i] = fmaf((out[i] - mean) * scale, s.normWeight[i], s.normBias[i]);
}

// grid (segmentsMax, batch)
HPFORMER_KERNEL((128), segmentPool)(PoolParams p) {
  const int s = blockIdx.x, batch = blockIdx.y;
  const SequenceInfo info = p.info[batch];
  float* out = p.pool + (static_cast<long long>(batch) * p.segmentsMax + s) * p.hidden;
  const int begin = s * info.segmentLength, end = min(info.steps, begin + info.segmentLength);
  const float* x = p.x + static_cast<long long>(batch) * p.steps * p.hidden;
  for (int i = threadIdx.x; i < p.hidden; i += blockDim.x) {
    float value = 0.f;
    if (s < info.segments && !p.max) {
      for (int t = begin; t < end; ++t) value += x[static_cast<long long>(t) * p.hidden + i];
      value /= static_cast<float>(info.segmentLength);
    } else if (s < info.segments) {
      // An appended zero row takes part in the maximum; NaN wins over everything.
      const bool zeroRow = end - begin < info.segmentLength;
      value = zeroRow ? 0.f : x[static_cast<long long>(begin) * p.hidden + i];
      for (int t = begin; t < end; ++t) {
        const float v = x[static_cast<long long>(t) * p.hidden + i];
        value = (v > value || v != v) ? v : value;
      }
    }
    out[i] = value;
  }
}

// grid (segmentsMax, batch), shared: segmentsMax floats. Row = query.
HPFORMER_KERNEL((128), extraSegment)(ExtraParams p) {
  extern __shared__ float score[];
  __shared__ float scratch[4];
  const int q = blockIdx.x, batch = blockIdx.y, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int count = p.info[batch].segments;
  const float* pool = p.pool + static_cast<long long>(batch) * p.segmentsMax * p.hidden;
  const long long at = static_cast<long long>(batch) * p.segmentsMax + q;
  if (q >= count) {
    for (int i = threadIdx.x; i < p.hidden; i += blockDim.x) p.extra[at * p.hidden + i] = 0.f;
    for (int s = threadIdx.x; p.weights && s < p.segmentsMax; s += blockDim.x) p.weights[at * p.segmentsMax + s] = 0.f;
    return;
  }
  for (int s = warp; s < count; s += 4) {
    float sum = 0.f;
    for (int i = lane; i < p.hidden; i += 32) sum = fmaf(pool[q * p.hidden + i], pool[s * p.hidden + i], sum);
    sum = warpSum(sum);
    if (lane == 0) score[s] = sum * p.scale;
  }
  __syncthreads();
  float top = -INFINITY, total = 0.f;
  for (int s = threadIdx.x; s < count; s += blockDim.x) top = fmaxf(top, score[s]);
  top = blockMax(top, scratch);
  for (int s = threadIdx.x; s < count; s += blockDim.x) {
    score[s] = exp2f((score[s] - top) * kLog2e);
    total += score[s];
  }
  total = blockSum(total, scratch);
  for (int i = threadIdx.x; i < p.hidden; i += blockDim.x) {
    float sum = 0.f;
    for (int s = 0; s < count; ++s) sum = fmaf(score[s], pool[s * p.hidden + i], sum);
    p.extra[at * p.hidden + i] = sum / total;
  }
  for (int s = threadIdx.x; p.weights && s < p.segmentsMax; s += blockDim.x) {
    p.weights[at * p.segmentsMax + s] = s < count ? score[s] / total : 0.f;
  }
}

// grid (segmentsMax, batch). `weights` must be zero where no row exists (the host clears it).
HPFORMER_KERNEL((128), intraSegment)(IntraParams p) {
  __shared__ float scratch[4];
  const int s = blockIdx.x, batch = blockIdx.y, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const SequenceInfo info = p.info[batch];
  const long long at = static_cast<long long>(batch) * p.segmentsMax + s;
  float* out = p.intra + at * p.hidden;
  const int begin = s * info.segmentLength, end = min(info.steps, begin + info.segmentLength);
  const int rows = max(0, end - begin);
  if (s >= info.segments || rows == 0) {  // an all-zero segment: weights 1/b on zero rows
    for (int i = threadIdx.x; i < p.hidden; i += blockDim.x) out[i] = 0.f;
    return;
  }
  const float* x = p.x + (static_cast<long long>(batch) * p.steps + begin) * p.hidden;
  const float* query = p.extra + at * p.hidden;
  float* score = p.weights + static_cast<long long>(batch) * p.steps + begin;
  for (int t = warp; t < rows; t += 4) {
    float sum = 0.f;
    for (int i = lane; i < p.hidden; i += 32) sum = fmaf(query[i], x[static_cast<long long>(t) * p.hidden + i], sum);
    sum = warpSum(sum);
    if (lane == 0) score[t] = sum * p.scale;
  }
  __syncthreads();
  const int zeros = info.segmentLength - rows;  // each scores 0 and adds nothing to the sum of rows
  float top = zeros > 0 ? 0.f : -INFINITY, total = 0.f;
  for (int t = threadIdx.x; t < rows; t += blockDim.x) top = fmaxf(top, score[t]);
  top = blockMax(top, scratch);
  for (int t = threadIdx.x; t < rows; t += blockDim.x) {
    const float e = exp2f((score[t] - top) * kLog2e);
    score[t] = e;
    total += e;
  }
  total = blockSum(total, scratch);
  if (zeros > 0) total = fmaf(static_cast<float>(zeros), exp2f(-top * kLog2e), total);
  for (int i = threadIdx.x; i < p.hidden; i += blockDim.x) {
    float sum = 0.f;
    for (int t = 0; t < rows; ++t) sum = fmaf(score[t], x[static_cast<long long>(t) * p.hidden + i], sum);
    out[i] = sum / total;
  }
  __syncthreads();
  for (int t = threadIdx.x; t < rows; t += blockDim.x) score[t] /= total;
}

}  // namespace hpformer::cuda
