// Shared memory of the fused kernels, computed alike by host (to choose a launch shape) and device.
#pragma once

#if defined(__CUDACC__)
#define HPFORMER_BOTH __host__ __device__
#else
#define HPFORMER_BOTH
#endif

namespace hpformer::cuda {

constexpr int kParts = 4;         // tdhp: a segment's rows are cut into this many runs
constexpr int kTogether = 4;      // tdhp: segments in flight, kParts * kTogether runs
constexpr int kRawWidth = 128;    // tdhp: widest raw row
constexpr int kMaxSegments = 64;  // stack: S of the fused path
constexpr int kStages = 3;        // stack: slices of weights in flight

// Floats of one run's partial result: hidden, raw row, top and total.
HPFORMER_BOTH inline int tdhpPartialWidth(int hidden) { return hidden + kRawWidth + 4; }

// Floats that TDHP of one sequence needs; the scores of E borrow the partial results' place.
HPFORMER_BOTH inline int tdhpFloats(int hidden, int segments) {
  const int scores = (segments * segments + 3) / 4 * 4;
  const int partial = kParts * kTogether * tdhpPartialWidth(hidden);
  return segments * (3 * hidden + kRawWidth) + (partial > scores ? partial : scores);
}

// Whether `stack` has an instance with two tiles of rows per warp: wider models would spill registers
// (kernels/fused.cu).
HPFORMER_BOTH inline bool hasTwoTiles(int hidden, bool bfloat16) { return hidden <= (bfloat16 ? 192 : 128); }

struct StackLayout {
  int stride;                                     // bytes of an operand row
  int weights, operands, reduction, keys, total;  // byte offsets

  HPFORMER_BOTH StackLayout(int hidden, int element, int rows, int embedSlices, int segments, int packed, int single,
                            int headWidest, int headInside) {
    stride = (hidden * element + 127) / 128 * 128;
    weights = 0;
    operands = kStages * 64 * hidden;
    // P and Q; raw rows, TDHP's workspace and the rows of the head take the same place at other times.
    int area = 2 * rows * stride;
    const int raw = rows * ((embedSlices * 64 + 127) / 128 * 128);
    const int tdhp = single ? 4 * tdhpFloats(hidden, segments) : 0;
    const int head = headInside ? 4 * (rows * hidden + rows / 4 * 2 * headWidest) : 0;
    area = area > raw ? area : raw;
    area = area > tdhp ? area : tdhp;
    area = area > head ? area : head;
    reduction = operands + (area + 127) / 128 * 128;
    keys = reduction + rows * 4 * 8;
    total = keys + (packed ? packed * segments * hidden * 4 : 2 * ((segments + 15) / 16 * 16) * hidden * element);
  }
};

}  // namespace hpformer::cuda
