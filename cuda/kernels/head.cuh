// The head of one row: linear layers with activations, the output layer, the link. Rows sit in shared memory.
#pragma once
#include "common.cuh"

namespace hpformer::cuda {

// Who works on a row: a warp, or a whole block. The order of every sum is the same for both.
template <bool kBlock>
struct Crew {
  static __device__ int warp() { return kBlock ? threadIdx.x / 32 : 0; }
  static __device__ int warps() { return kBlock ? blockDim.x / 32 : 1; }
  static __device__ void sync() {
    if (kBlock) {
      __syncthreads();
    } else {
      __syncwarp();
    }
  }
};

// out[o] = act(x w^T + bias). Wide layers: an output per lane, weights read across lanes; narrow ones: lanes share the
// sum.
template <bool kBlock>
__device__ void headLayer(const HeadLayerParams& layer, const float* x, float* out) {
  using C = Crew<kBlock>;
  const int lane = threadIdx.x % 32;
  if (layer.out >= 32) {
    for (int o = C::warp() * 32 + lane; o < layer.out; o += C::warps() * 32) {
      float sum = 0.f;
#pragma unroll 8
      for (int k = 0; k < layer.in; ++k) sum = fmaf(x[k], __ldg(layer.transposed + k * layer.out + o), sum);
      out[o] = activate(layer.activation, layer.bias ? sum + __ldg(layer.bias + o) : sum);
    }
  } else {
    for (int o = C::warp(); o < layer.out; o += C::warps()) {
      float sum = 0.f;
      for (int k = lane; k < layer.in; k += 32) sum = fmaf(x[k], __ldg(layer.weight + o * layer.in + k), sum);
      sum = warpSum(sum);
      if (lane == 0) out[o] = activate(layer.activation, layer.bias ? sum + __ldg(layer.bias + o) : sum);
    }
  }
  C::sync();
}

// x: [layer[0].in]; scratch: 2 * widest floats; `row` counts rows of the outputs. `exists` false writes zeros.
template <bool kBlock>
__device__ void headRow(const HeadParams& p, const float* x, float* scratch, long long row, bool exists) {
  using C = Crew<kBlock>;
  const int lane = threadIdx.x % 32;
  float* out = scratch;
  if (exists) {
    for (int j = 0; j < p.layers; ++j) {
      out = scratch + (j & 1) * p.widest;
      headLayer<kBlock>(p.layer[j], x, out);
      x = out;
    }
  }
  if (C::warp() == 0) {
    float top = -INFINITY, total = 0.f;
    if (exists && p.link == 2) {
      for (int i = lane; i < p.labels; i += 32) top = fmaxf(top, out[i]);
      top = warpMax(top);
      for (int i = lane; i < p.labels; i += 32) total += exp2f((out[i] - top) * kLog2e);
      total = warpSum(total);
    }
    for (int i = lane; i < p.labels; i += 32) {
      const float v = exists ? out[i] : 0.f;
      float probability = v;
      if (p.link == 1) probability = sigmoid(v);
      if (p.link == 2) probability = exp2f((v - top) * kLog2e) / total;
      if (p.logits) p.logits[row * p.labels + i] = v;
      if (p.probabilities) p.probabilities[row * p.labels + i] = exists ? probability : 0.f;
    }
  }
  C::sync();
}

}  // namespace hpformer::cuda
