// Small device functions that every kernel shares. Compiled with -fmad=false: a multiply-add happens exactly where fmaf
// is written, so the same step has the same bits in whichever kernel it is inlined.
#pragma once
#include "../params.h"

// A kernel's symbol is its name with this prefix: plain names such as `norm` and `link` are taken.
#define HPFORMER_KERNEL(threads, name) extern "C" __global__ void __launch_bounds__ threads hpformer_##name

namespace hpformer::cuda {

constexpr unsigned kFull = 0xffffffffu;
constexpr float kLog2e = 1.44269504088896340736f;
constexpr float kEpsilon = 1e-5f;

__device__ __forceinline__ float warpSum(float v) {
#pragma unroll
  for (int i = 16; i > 0; i >>= 1) v += __shfl_xor_sync(kFull, v, i);
  return v;
}

// fmaxf drops NaN, which is right for the shift of a softmax: the NaN itself still reaches the sum.
__device__ __forceinline__ float warpMax(float v) {
#pragma unroll
  for (int i = 16; i > 0; i >>= 1) v = fmaxf(v, __shfl_xor_sync(kFull, v, i));
  return v;
}

// Sum over the block in a fixed order; `scratch` holds one float per warp. All threads get the result.
__device__ __forceinline__ float blockSum(float v, float* scratch) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = blockDim.x / 32;
  v = warpSum(v);
  if (lane == 0) scratch[warp] = v;
  __syncthreads();
  float sum = 0;
  for (int i = 0; i < warps; ++i) sum += scratch[i];
  __syncthreads();
  return sum;
}

__device__ __forceinline__ float blockMax(float v, float* scratch) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = blockDim.x / 32;
  v = warpMax(v);
  if (lane == 0) scratch[warp] = v;
  __syncthreads();
  float top = scratch[0];
  for (int i = 1; i < warps; ++i) top = fmaxf(top, scratch[i]);
  __syncthreads();
  return top;
}

// A counter in memory that blocks of one launch hand work over by: everything that this block wrote before is seen by
// whoever finds the new value, and after a barrier by its block. Thread 0 gets the old one. What was handed over is
// read by __ldcg.
__device__ __forceinline__ unsigned publish(unsigned* counter) {
  __syncthreads();
  if (threadIdx.x != 0) return 0u;
  __threadfence();
  const unsigned before = atomicAdd(counter, 1u);
  __threadfence();
  return before;
}
__device__ __forceinline__ unsigned acquire(const unsigned* counter) {
  unsigned value;
  asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(value) : "l"(counter) : "memory");
  return value;
}
// A store to a place that two blocks of a launch write, one after the other.
__device__ __forceinline__ void storeStrong(float* to, float value) {
  asm volatile("st.relaxed.gpu.global.f32 [%0], %1;" ::"l"(to), "f"(value) : "memory");
}

// 2^x, with results below the normal numbers as zero: enough where they meet a sum of order 1.
__device__ __forceinline__ float exp2Fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

__device__ __forceinline__ float activate(Act act, float x) {
  switch (act) {
    case Act::relu: return x < 0.f ? 0.f : x;  // NaN stays NaN
    case Act::silu: return x / (1.f + exp2Fast(-kLog2e * x));
    case Act::gelu: return 0.5f * x * erfcf(-0.70710678118654752440f * x);
    case Act::geluTanh: return 0.5f * x * (1.f + tanhf(0.79788456080286535588f * fmaf(0.044715f * x * x, x, x)));
    default: return x;
  }
}

__device__ __forceinline__ float sigmoid(float x) {
  const float e = exp2Fast(-kLog2e * fabsf(x));  // never overflows
  return x >= 0.f ? 1.f / (1.f + e) : e / (1.f + e);
}

// Round to nearest even to 8 bits of significand, NaN kept.
__device__ __forceinline__ float roundBf16(float x) {
  unsigned bits = __float_as_uint(x);
  if (x != x) return x;
  bits += 0x7fffu + ((bits >> 16) & 1u);
  return __uint_as_float(bits & 0xffff0000u);
}

}  // namespace hpformer::cuda
