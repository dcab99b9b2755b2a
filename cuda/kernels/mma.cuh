// Tensor-core building blocks of `stack`, the same shape for both precisions.
//
// Everything moves in chunks of 64 bytes of k: 32 bfloat16 or 16 float32 values. Inside a chunk lane (r, c) = (lane /
// 4, lane % 4) owns 16 consecutive bytes of row r, which feeds two matrix instructions: bfloat16 m16n8k16 twice, or
// float32 m16n8k8 twice (each as three TF32 products). The order of k inside an instruction is thereby permuted,
// equally for both operands, which a sum does not notice. So every operand fragment is one 16-byte load:
// - weights are stored by the host in exactly that order ([chunk][8 columns][lane][16 bytes]): consecutive lanes, no
// conflicts;
// - activations are rows of a multiple of 128 bytes whose 16-byte units are swizzled by unit ^ reverse(row % 8): the 8
// lanes
//   of a load phase (two rows, four units) and the 8 rows of a store phase then hit all banks once.
#pragma once
#include <cuda_bf16.h>

#include "common.cuh"

namespace hpformer::cuda {

struct Fragment {
  unsigned v[4];
};

__device__ __forceinline__ unsigned sharedAddress(const void* p) {
  return static_cast<unsigned>(__cvta_generic_to_shared(p));
}

__device__ __forceinline__ void copyAsync16(void* shared, const void* global) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(sharedAddress(shared)), "l"(global) : "memory");
}
__device__ __forceinline__ void commitAsync() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int kPending>
__device__ __forceinline__ void waitAsync() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

__device__ __forceinline__ int swizzle(int row) { return ((row & 1) << 2) | (row & 2) | ((row >> 2) & 1); }

// Address of 16-byte unit `unit` of row `row`.
__device__ __forceinline__ char* unitOf(char* base, int stride, int row, int unit) {
  return base + row * stride + ((unit ^ swizzle(row)) << 4);
}

__device__ __forceinline__ Fragment load16(const char* p) {
  const uint4 v = *reinterpret_cast<const uint4*>(p);
  return {{v.x, v.y, v.z, v.w}};
}

__device__ __forceinline__ unsigned packBf16(float low, float high) {
  const __nv_bfloat162 v = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const unsigned*>(&v);
}

__device__ __forceinline__ void mmaBf16(float (&d)[4], unsigned a0, unsigned a1, unsigned a2, unsigned a3, unsigned b0,
                                        unsigned b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

__device__ __forceinline__ void mmaTf32(float (&d)[4], unsigned a0, unsigned a1, unsigned a2, unsigned a3, unsigned b0,
                                        unsigned b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

// x = high + low, both with TF32's 11 bits of significand: the tensor core drops what low has beyond them.
struct Split {
  unsigned high, low;
};
__device__ __forceinline__ Split split(float x) {
  unsigned high;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(high) : "f"(x));
  return {high, __float_as_uint(x - __uint_as_float(high))};
}

struct SplitFragment {
  unsigned high[4], low[4];
};
__device__ __forceinline__ SplitFragment split(const Fragment& f) {
  SplitFragment s;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const Split part = split(__uint_as_float(f.v[i]));
    s.high[i] = part.high;
    s.low[i] = part.low;
  }
  return s;
}

// One chunk of a row tile (rows r and r + 8) times one chunk of 8 columns.
template <bool kBf16>
struct Operand;

template <>
struct Operand<true> {
  static constexpr int kElement = 2;  // bytes
  static constexpr int kChunk = 32;   // values of k in 64 bytes
  struct A {
    Fragment low, high;  // rows r and r + 8
  };
  struct B {
    Fragment f;
  };
  static __device__ __forceinline__ A prepareA(const Fragment& low, const Fragment& high) { return {low, high}; }
  static __device__ __forceinline__ B prepareB(const Fragment& f) { return {f}; }
  static __device__ __forceinline__ void multiply(float (&d)[4], const A& a, const B& b) {
    mmaBf16(d, a.low.v[0], a.high.v[0], a.low.v[1], a.high.v[1], b.f.v[0], b.f.v[1]);
    mmaBf16(d, a.low.v[2], a.high.v[2], a.low.v[3], a.high.v[3], b.f.v[2], b.f.v[3]);
  }
};

template <>
struct Operand<false> {
  static constexpr int kElement = 4;
  static constexpr int kChunk = 16;
  struct A {
    SplitFragment low, high;
  };
  struct B {
    SplitFragment f;
  };
  static __device__ __forceinline__ A prepareA(const Fragment& low, const Fragment& high) {
    return {split(low), split(high)};
  }
  static __device__ __forceinline__ B prepareB(const Fragment& f) { return {split(f)}; }
  // The chunk is summed from zero and then added: the tensor core truncates, relative to the largest term, so short
  // sums keep the error of long ones down. Small products first.
  static __device__ __forceinline__ void multiply(float (&d)[4], const A& a, const B& b) {
    float t[4] = {0.f, 0.f, 0.f, 0.f};
    products(t, a.low.low, a.high.low, b.f.high);
    products(t, a.low.high, a.high.high, b.f.low);
    products(t, a.low.high, a.high.high, b.f.high);
#pragma unroll
    for (int i = 0; i < 4; ++i) d[i] += t[i];
  }

 private:
  static __device__ __forceinline__ void products(float (&t)[4], const unsigned (&low)[4], const unsigned (&high)[4],
                                                  const unsigned (&b)[4]) {
    mmaTf32(t, low[0], high[0], low[1], high[1], b[0], b[1]);
    mmaTf32(t, low[2], high[2], low[3], high[3], b[2], b[3]);
  }
};

// Two neighbouring values of one row (columns 2c, 2c + 1 of an aligned group of 8) as operands.
template <bool kBf16>
__device__ __forceinline__ void storePair(char* base, int stride, int row, int column, float x, float y) {
  const int at = column * Operand<kBf16>::kElement;
  char* p = unitOf(base, stride, row, at >> 4) + (at & 15);
  if constexpr (kBf16) {
    *reinterpret_cast<unsigned*>(p) = packBf16(x, y);
  } else {
    *reinterpret_cast<float2*>(p) = make_float2(x, y);
  }
}

template <bool kBf16>
__device__ __forceinline__ void storeOne(char* base, int stride, int row, int column, float x) {
  const int at = column * Operand<kBf16>::kElement;
  char* p = unitOf(base, stride, row, at >> 4) + (at & 15);
  if constexpr (kBf16) {
    *reinterpret_cast<__nv_bfloat16*>(p) = __float2bfloat16_rn(x);
  } else {
    *reinterpret_cast<float*>(p) = x;
  }
}

template <bool kBf16>
__device__ __forceinline__ float loadOne(char* base, int stride, int row, int column) {
  const int at = column * Operand<kBf16>::kElement;
  const char* p = unitOf(base, stride, row, at >> 4) + (at & 15);
  if constexpr (kBf16) {
    return __bfloat162float(*reinterpret_cast<const __nv_bfloat16*>(p));
  } else {
    return *reinterpret_cast<const float*>(p);
  }
}

// kCount consecutive values of a row, starting at a multiple of kCount: widest accesses that stay within a 16-byte
// unit, so that neighbouring lanes do not meet in a bank.
template <bool kBf16, int kCount>
__device__ __forceinline__ void loadValues(char* base, int stride, int row, int column, float (&x)[kCount]) {
  if constexpr (kCount % 4 == 0) {
#pragma unroll
    for (int i = 0; i < kCount; i += 4) {
      const int at = (column + i) * Operand<kBf16>::kElement;
      const char* p = unitOf(base, stride, row, at >> 4) + (at & 15);
      if constexpr (kBf16) {
        const uint2 v = *reinterpret_cast<const uint2*>(p);
        x[i] = __uint_as_float(v.x << 16), x[i + 1] = __uint_as_float(v.x & 0xffff0000u);
        x[i + 2] = __uint_as_float(v.y << 16), x[i + 3] = __uint_as_float(v.y & 0xffff0000u);
      } else {
        const float4 v = *reinterpret_cast<const float4*>(p);
        x[i] = v.x, x[i + 1] = v.y, x[i + 2] = v.z, x[i + 3] = v.w;
      }
    }
  } else {
#pragma unroll
    for (int i = 0; i < kCount; ++i) x[i] = loadOne<kBf16>(base, stride, row, column + i);
  }
}

template <bool kBf16, int kCount>
__device__ __forceinline__ void storeValues(char* base, int stride, int row, int column, const float (&x)[kCount]) {
  if constexpr (kCount % 4 == 0) {
#pragma unroll
    for (int i = 0; i < kCount; i += 4) {
      const int at = (column + i) * Operand<kBf16>::kElement;
      char* p = unitOf(base, stride, row, at >> 4) + (at & 15);
      if constexpr (kBf16) {
        *reinterpret_cast<uint2*>(p) = make_uint2(packBf16(x[i], x[i + 1]), packBf16(x[i + 2], x[i + 3]));
      } else {
        *reinterpret_cast<float4*>(p) = make_float4(x[i], x[i + 1], x[i + 2], x[i + 3]);
      }
    }
  } else {
#pragma unroll
    for (int i = 0; i < kCount; ++i) storeOne<kBf16>(base, stride, row, column + i, x[i]);
  }
}

// The same from a row of floats.
template <int kCount>
__device__ __forceinline__ void loadFloats(const float* from, float (&x)[kCount]) {
  if constexpr (kCount % 4 == 0) {
#pragma unroll
    for (int i = 0; i < kCount; i += 4) {
      const float4 v = *reinterpret_cast<const float4*>(from + i);
      x[i] = v.x, x[i + 1] = v.y, x[i + 2] = v.z, x[i + 3] = v.w;
    }
  } else if constexpr (kCount % 2 == 0) {
#pragma unroll
    for (int i = 0; i < kCount; i += 2) {
      const float2 v = *reinterpret_cast<const float2*>(from + i);
      x[i] = v.x, x[i + 1] = v.y;
    }
  } else {
#pragma unroll
    for (int i = 0; i < kCount; ++i) x[i] = from[i];
  }
}

}  // namespace hpformer::cuda
