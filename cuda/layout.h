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
constexpr int kMostStages = 3;    // stack: slices of weights in shared memory, one less in flight
constexpr int kLeastStages = 2;   // the same where shared memory has no room for more
constexpr int kRowPadding = 8;    // stack: floats after a row on its way to the head
constexpr int kSumRows = 128;     // stack: readouts that sum rows: in trees over so many

// Floats of one run's partial result: hidden, raw row, top and total.
HPFORMER_BOTH inline int tdhpPartialWidth(int hidden) { return hidden + kRawWidth + 4; }

// Rows of E, I, keys and raw sums are 4 floats longer than their values: rows then begin four banks apart.
constexpr int kKeyPadding = 4;

// Partial results of the runs; the scores of E borrow their place.
HPFORMER_BOTH inline int tdhpScratchFloats(int hidden, int scores) {
  const int partial = kParts * kTogether * tdhpPartialWidth(hidden), rounded = (scores + 3) / 4 * 4;
  return partial > rounded ? partial : rounded;
}

constexpr int kInfoFloats = 8;  // of a SequenceInfo

// Eight rows for each of up to eight warps.
HPFORMER_BOTH inline int tdhpEmbeddedFloats(int hidden) { return 8 * 8 * (hidden + kKeyPadding); }

// Floats that TDHP of `count` sequences together needs, the keys not included; `staged` rows of the origin table.
HPFORMER_BOTH inline int tdhpFloats(int hidden, int segments, int count, int absorbed, int staged, int embedded) {
  const int rows = count * segments;
  return staged * hidden + count * kInfoFloats + rows * (2 * hidden + 4 + (absorbed ? kRawWidth + 4 : 0)) +
         tdhpScratchFloats(hidden, rows * segments) + (embedded ? tdhpEmbeddedFloats(hidden) : 0);
}

// Floats of the keys of as many rows.
HPFORMER_BOTH inline int keyFloats(int hidden, int rows) { return rows * (hidden + kKeyPadding); }

// Whether `stack` has an instance with two tiles of rows per warp: wider models would spill registers
// (kernels/fused.cu).
HPFORMER_BOTH inline bool hasTwoTiles(int hidden, bool bfloat16) { return hidden <= (bfloat16 ? 160 : 128); }

// Whether `stack` has an instance with kLeastStages, for devices with 99 KB of shared memory for a block (8.6, 8.9).
HPFORMER_BOTH inline bool hasTight(int hidden, bool bfloat16) { return hidden == 256 && !bfloat16; }

struct StackLayout {
  int stride;                                           // bytes of an operand row
  int weights, operands, reduction, word, keys, total;  // byte offsets; `word` is what one thread tells the others

  // `segments`: the most of any sequence of the launch. `single`: sequences whose TDHP the block computes together; a
  // block that computes keys for others has all of the memory for that. `joined`: inputs of the head together, where
  // the readout sums rows; the head is then the last to use the memory.
  HPFORMER_BOTH StackLayout(int hidden, int element, int stages, int rows, int embedSlices, int segments, int packed,
                            int single, int absorbed, int staged, int embedded, int headWidest, int headInside,
                            int joined) {
    stride = (hidden * element + 127) / 128 * 128;
    weights = 0;
    operands = stages * 64 * hidden;
    // P and Q; raw rows, TDHP's workspace (or keys on their way from memory) and the rows of the head take the same
    // place at other times.
    int area = 2 * rows * stride;
    const int raw = rows * ((embedSlices * 64 + 127) / 128 * 128);
    const int tdhp = single   ? 4 * (tdhpFloats(hidden, segments, single, absorbed, staged, embedded) +
                                   (packed ? 0 : keyFloats(hidden, segments)))
                     : packed ? 0
                              : 4 * keyFloats(hidden, 16);
    const int head = headInside ? 4 * (rows * (hidden + kRowPadding) + rows / 4 * 2 * headWidest) : 0;
    area = area > raw ? area : raw;
    area = area > tdhp ? area : tdhp;
    area = area > head ? area : head;
    reduction = operands + (area + 127) / 128 * 128;
    word = reduction + rows * 4 * 8;
    keys = word + 16;
    total =
        keys + (packed ? 4 * keyFloats(hidden, packed * segments) : 2 * ((segments + 15) / 16 * 16) * hidden * element);
    const int ahead =
        single ? 0 : 4 * (tdhpFloats(hidden, segments, 1, absorbed, 0, embedded) + keyFloats(hidden, segments));
    const int last = joined ? 4 * (joined * hidden + 2 * headWidest) : 0;
    total = total > ahead ? total : ahead;
    total = total > last ? total : last;
  }
};

}  // namespace hpformer::cuda
