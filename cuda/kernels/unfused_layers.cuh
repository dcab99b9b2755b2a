// The layers one step at a time: keyAttention, dense, norm, readout, link. Any shape.
#pragma once
#include "common.cuh"

namespace hpformer::cuda {

// grid (rows, batch), 128 threads, shared: headsAtOnce * segmentsMax floats. One block per row.
HPFORMER_KERNEL((128), keyAttention)(KeyAttentionParams p) {
  extern __shared__ float score[];
  const int row = blockIdx.x, batch = blockIdx.y, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const SequenceInfo info = p.info[batch];
  const int width = p.hidden / p.heads, count = info.segments;
  const long long at = static_cast<long long>(batch) * p.rows + row;
  const float* x = p.x + at * p.hidden;
  const float* keys = p.keys + static_cast<long long>(batch) * p.segmentsMax * p.hidden;
  float* out = p.out + at * p.hidden;
  const bool exists = p.rows == 1 || row < info.steps;
  const auto operand = [&](float v) { return p.roundOperands ? roundBf16(v) : v; };
  for (int first = 0; first < p.heads; first += p.headsAtOnce) {
    const int heads = min(p.headsAtOnce, p.heads - first);
    for (int i = threadIdx.x; i < heads * count; i += blockDim.x) {
      const int g = i / count, s = i % count, column = (first + g) * width;
      float sum = 0.f;
      for (int k = 0; k < width; ++k) sum = fmaf(operand(x[column + k]), operand(keys[s * p.hidden + column + k]), sum);
      score[i] = sum * p.scale;
    }
    __syncthreads();
    for (int g = warp; g < heads; g += 4) {
      float top = -INFINITY, total = 0.f;
      for (int s = lane; s < count; s += 32) top = fmaxf(top, score[g * count + s]);
      top = warpMax(top);
      for (int s = lane; s < count; s += 32) {
        const float e = exp2f((score[g * count + s] - top) * kLog2e);
        score[g * count + s] = e;
        total += e;
      }
      total = warpSum(total);
      __syncwarp();
      for (int s = lane; s < p.segmentsMax; s += 32) {
        const float weight = s < count ? score[g * count + s] / total : 0.f;
        if (s < count) score[g * count + s] = weight;
        if (p.weights) p.weights[at * p.weightStride + (first + g) * p.segmentsMax + s] = exists ? weight : 0.f;
      }
    }
    __syncthreads();
    for (int i = threadIdx.x; i < heads * width; i += blockDim.x) {
      const int g = i / width, column = first * width + i;
      float sum = 0.f;
      for (int s = 0; s < count; ++s) {
        sum = fmaf(operand(score[g * count + s]), operand(keys[s * p.hidden + column]), sum);
      }
      out[column] = sum;
    }
    __syncthreads();
  }
}

// 64 x 64 outputs per block of 256 threads, 4 x 4 per thread, k in slices of 16 through shared memory.
HPFORMER_KERNEL((256), dense)(DenseParams p) {
  __shared__ float tileA[16][68], tileW[16][68];  // 68: rows shift by 4 banks, so the transposing stores spread
  const int m0 = blockIdx.y * 64, n0 = blockIdx.x * 64;
  const int tx = threadIdx.x % 16, ty = threadIdx.x / 16;
  float sum[4][4] = {};
  for (int k0 = 0; k0 < p.k; k0 += 16) {
    for (int i = threadIdx.x; i < 64 * 16; i += 256) {
      const int r = i / 16, c = i % 16, k = k0 + c, m = m0 + r, n = n0 + r;
      float a = 0.f, w = 0.f;
      if (k < p.k && m < p.m) {
        a = k < p.split ? p.a[static_cast<long long>(m) * p.split + k]
                        : p.b[static_cast<long long>(m) * (p.k - p.split) + k - p.split];
      }
      if (k < p.k && n < p.n) w = p.weight[static_cast<long long>(n) * p.k + k];
      tileA[c][r] = p.roundOperands ? roundBf16(a) : a;
      tileW[c][r] = p.roundOperands ? roundBf16(w) : w;
    }
    __syncthreads();
#pragma unroll
    for (int k = 0; k < 16; ++k) {
      const float4 a = *reinterpret_cast<const float4*>(&tileA[k][ty * 4]);
      const float4 w = *reinterpret_cast<const float4*>(&tileW[k][tx * 4]);
      const float av[4] = {a.x, a.y, a.z, a.w}, wv[4] = {w.x, w.y, w.z, w.w};
#pragma unroll
      for (int i = 0; i < 4; ++i) {
#pragma unroll
        for (int j = 0; j < 4; ++j) sum[i][j] = fmaf(av[i], wv[j], sum[i][j]);
      }
    }
    __syncthreads();
  }
  for (int i = 0; i < 4; ++i) {
    const int m = m0 + ty * 4 + i;
    for (int j = 0; j < 4; ++j) {
      const int n = n0 + tx * 4 + j;
      if (m >= p.m || n >= p.n) continue;
      p.out[static_cast<long long>(m) * p.n + n] = activate(p.activation, p.bias ? sum[i][j] + p.bias[n] : sum[i][j]);
    }
  }
}

// One warp per row; in place allowed.
HPFORMER_KERNEL((128), norm)(NormParams p) {
  const long long row = static_cast<long long>(blockIdx.x) * 4 + threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  if (row >= p.rows) return;
  const float* x = p.x + row * p.hidden;
  const float* branch = p.branch ? p.branch + row * p.hidden : nullptr;
  float* out = p.out + row * p.hidden;
  float sum = 0.f;
  for (int i = lane; i < p.hidden; i += 32) {
    const float v = branch ? x[i] + branch[i] : x[i];
    out[i] = v;
    sum += v;
  }
  const float width = static_cast<float>(p.hidden);
  if (p.kind == Norm::affine) {
    for (int i = lane; i < p.hidden; i += 32) out[i] = fmaf(out[i], p.weight[i], p.bias[i]);
    return;
  }
  const float mean = p.kind == Norm::layernorm ? warpSum(sum) / width : 0.f;
  float square = 0.f;
  for (int i = lane; i < p.hidden; i += 32) square = fmaf(out[i] - mean, out[i] - mean, square);
  const float scale = 1.f / sqrtf(warpSum(square) / width + kEpsilon);
  for (int i = lane; i < p.hidden; i += 32) {
    const float unit = (out[i] - mean) * scale;
    if (p.kind == Norm::layernorm) {
      out[i] = fmaf(unit, p.weight[i], p.bias[i]);
    } else {
      out[i] = unit * p.weight[p.kind == Norm::scalenorm ? 0 : i];
    }
  }
}

// What the readout takes from encoded rows. Pick::steps: grid (steps, batch), else (1, batch).
HPFORMER_KERNEL((128), readout)(ReadoutParams p) {
  const int batch = blockIdx.y;
  const SequenceInfo info = p.info ? p.info[batch] : SequenceInfo{};
  const long long base = static_cast<long long>(batch) * p.steps;
  const auto dead = [&](int t) { return t >= info.steps || (p.position && p.position[base + t] < 0); };
  if (p.pick == Pick::steps) {
    const int t = blockIdx.x;
    const bool zero = p.keepPadding ? t >= info.steps : dead(t);
    for (int i = threadIdx.x; i < p.hidden; i += blockDim.x) {
      p.out[(base + t) * p.hidden + i] = zero ? 0.f : p.x[(base + t) * p.hidden + i];
    }
    return;
  }
  float* out = p.out + static_cast<long long>(batch) * p.outStride;
  for (int i = threadIdx.x; i < p.hidden; i += blockDim.x) {
    float sum = 0.f;
    if (p.gathered) {
      sum = p.gathered == 1 && dead(info.step) ? 0.f : p.x[static_cast<long long>(batch) * p.hidden + i];
    } else if (p.pick == Pick::step) {
      sum = dead(info.step) ? 0.f : p.x[(base + info.step) * p.hidden + i];
    } else {
      for (int t = 0; t < info.steps; ++t) {
        if (dead(t)) continue;
        const float weight = p.pick == Pick::weights ? p.weights[base + t] : 1.f;
        if (weight != 0.f) sum = fmaf(weight, p.x[(base + t) * p.hidden + i], sum);
      }
      if (p.pick == Pick::mean) sum /= info.divisor;
    }
    out[i] = sum;
  }
}

// One warp per row.
HPFORMER_KERNEL((128), link)(LinkParams p) {
  const long long row = static_cast<long long>(blockIdx.x) * 4 + threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  if (row >= static_cast<long long>(p.batch) * p.rows) return;
  const float* in = p.in + row * p.width;
  float* out = p.out + row * p.width;
  const int within = static_cast<int>(row % p.rows), batch = static_cast<int>(row / p.rows);
  const bool zero = p.masked && within >= (p.masked == 1 ? p.info[batch].steps : p.info[batch].segments);
  float top = -INFINITY, total = 0.f;
  if (p.link == 2 && !zero) {
    for (int i = lane; i < p.width; i += 32) top = fmaxf(top, in[i]);
    top = warpMax(top);
    for (int i = lane; i < p.width; i += 32) total += exp2f((in[i] - top) * kLog2e);
    total = warpSum(total);
  }
  for (int i = lane; i < p.width; i += 32) {
    const float v = in[i];
    float result = v;
    if (p.link == 1) result = sigmoid(v);
    if (p.link == 2) result = exp2f((v - top) * kLog2e) / total;
    out[i] = zero ? 0.f : result;
  }
}

}  // namespace hpformer::cuda
