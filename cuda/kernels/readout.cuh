// The end of a tile in `stack`: its rows to the head, or their weighted sum to memory and, by the last tile of a
// sequence, to the head. Members of Stack that live beside it.
#pragma once
#include "stack.cuh"

namespace hpformer::cuda {

template <int kHidden, bool kBf16, int kTiles, int kStages>
__device__ inline bool Stack<kHidden, kBf16, kTiles, kStages>::isPadding(int batch, int step) const {
  const int* position = p.tdhp.source.position;
  return position && position[static_cast<long long>(batch) * p.tdhp.source.steps + step] < 0;
}

// The rows as float32 [rows][kRowStride] in the operand area; padding rows are zero.
template <int kHidden, bool kBf16, int kTiles, int kStages>
__device__ inline float* Stack<kHidden, kBf16, kTiles, kStages>::rowsInShared(int first, int count, int tile) {
  float* out = reinterpret_cast<float*>(memory + layout.operands);
#pragma unroll
  for (int t = 0; t < kTiles; ++t) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int row = firstRow + t * 16 + r + 8 * h;
      int batch, step;
      const bool zero = !locate(row, first, count, tile, &batch, &step) || isPadding(batch, step);
#pragma unroll
      for (int g = 0; g < kGroups; ++g) {
        const int column = quarter * kQuarter + g * 8 + 2 * c;
        const float2 v = zero ? make_float2(0.f, 0.f) : make_float2(x[t][g][2 * h], x[t][g][2 * h + 1]);
        *reinterpret_cast<float2*>(out + row * kRowStride + column) = v;
      }
    }
  }
  __syncthreads();
  return out;
}

template <int kHidden, bool kBf16, int kTiles, int kStages>
__device__ inline float* Stack<kHidden, kBf16, kTiles, kStages>::headScratch(float* rowsEnd) {
  return rowsEnd + warp * 2 * p.head.widest;
}

template <int kHidden, bool kBf16, int kTiles, int kStages>
__device__ inline void Stack<kHidden, kBf16, kTiles, kStages>::readRows(int first, int count) {
  const float* row = rowsInShared(first, count, 0);
  float* scratch = headScratch(reinterpret_cast<float*>(memory + layout.operands) + rows * kRowStride);
  for (int i = warp; i < count; i += blockDim.x / 32) {
    for (int k = lane; p.pooled && k < kHidden; k += 32) {
      p.pooled[static_cast<long long>(first + i) * kHidden + k] = row[i * kRowStride + k];
    }
    if (p.head.layers) headRow<false>(p.head, row + i * kRowStride, scratch, first + i, true);
  }
}

template <int kHidden, bool kBf16, int kTiles, int kStages>
__device__ inline void Stack<kHidden, kBf16, kTiles, kStages>::readSteps(int first, int tile) {
  const float* row = rowsInShared(first, 1, tile);
  float* scratch = headScratch(reinterpret_cast<float*>(memory + layout.operands) + rows * kRowStride);
  for (int i = warp; i < rows; i += blockDim.x / 32) {
    const int step = tile * rows + i;
    if (step >= p.tdhp.source.steps) break;
    const long long at = static_cast<long long>(first) * p.tdhp.source.steps + step;
    for (int k = lane; p.encoded && k < kHidden; k += 32) p.encoded[at * kHidden + k] = row[i * kRowStride + k];
    if (p.head.layers) headRow<false>(p.head, row + i * kRowStride, scratch, at, step < p.tdhp.info[first].steps);
  }
}

// Weighted sum of the tile's rows: 16 by shuffles, then a tree over these sixteens. Of two neighbouring tiles the
// second to arrive adds the first one's sum, of all pairs the last adds the pairs' in their order: memory holds half
// as many sums as there are tiles. Sums of kSumRows rows come out the same for every size of tiles.
template <int kHidden, bool kBf16, int kTiles, int kStages>
__device__ inline void Stack<kHidden, kBf16, kTiles, kStages>::sumRows(int first, int tile) {
  float* const shared = reinterpret_cast<float*>(memory + layout.operands);
  const bool upper = warp / 4 == 1;  // of at most two groups
  float weight[kTiles][2];
#pragma unroll
  for (int t = 0; t < kTiles; ++t) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      int batch, step;
      const bool exists =
          locate(firstRow + t * 16 + r + 8 * h, first, 1, tile, &batch, &step) && !isPadding(batch, step);
      weight[t][h] = !exists ? 0.f
                     : p.pick == Pick::weights
                         ? p.readoutWeights[static_cast<long long>(batch) * p.tdhp.source.steps + step]
                         : 1.f;
    }
  }
  float total[kGroups][2];
#pragma unroll
  for (int g = 0; g < kGroups; ++g) {
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      float sum[kTiles];
#pragma unroll
      for (int t = 0; t < kTiles; ++t) {
        // A row that is not read must not count even if it is not a number.
        const float low = weight[t][0] != 0.f ? x[t][g][e] * weight[t][0] : 0.f;
        const float high = weight[t][1] != 0.f ? x[t][g][2 + e] * weight[t][1] : 0.f;
        sum[t] = low + high;
#pragma unroll
        for (int i = 4; i < 32; i <<= 1) sum[t] += __shfl_xor_sync(kFull, sum[t], i);
      }
      total[g][e] = kTiles == 2 ? sum[0] + sum[kTiles - 1] : sum[0];
    }
  }
  // Both groups' sums, one after the other; then threads have columns.
#pragma unroll
  for (int g = 0; g < kGroups; ++g) {
    if (r == 0) {
      float* to = shared + (upper ? kHidden : 0) + quarter * kQuarter + g * 8 + 2 * c;
      *reinterpret_cast<float2*>(to) = make_float2(total[g][0], total[g][1]);
    }
  }
  const int tiles = max(1, (p.tdhp.info[first].rows + rows - 1) / rows), pairs = (tiles + 1) / 2;
  const int pairsMax = (p.tiles + 1) / 2, pair = tile / 2;
  unsigned* const done = p.counters + 1 + 2 * p.batch + first;
  unsigned* const met = p.counters + 1 + 3 * p.batch + static_cast<long long>(first) * pairsMax + pair;
  float* const sums = p.partial + static_cast<long long>(first) * pairsMax * kHidden;
  const bool single = (tile ^ 1) >= tiles, two = blockDim.x > 128;
  const bool second = !single && tell(threadIdx.x == 0 ? atomicAdd(met, 1u) : 0u) > 0;
  if (second) {
    if (threadIdx.x == 0) {
      while (acquire(met) < 3) __nanosleep(100);  // two that came and one that has written
    }
  }
  __syncthreads();
  for (int i = threadIdx.x; i < kHidden; i += blockDim.x) {
    const float own = two ? shared[i] + shared[kHidden + i] : shared[i];
    const float other = second ? __ldcg(sums + pair * kHidden + i) : 0.f;
    storeStrong(sums + pair * kHidden + i, second || single ? own + other : own);
  }
  if (!second && !single) {
    publish(met);
    return;
  }
  if (tell(publish(done)) == static_cast<unsigned>(pairs - 1)) finishSums(first, pairs, sums);
}

// What thread 0 knows.
template <int kHidden, bool kBf16, int kTiles, int kStages>
__device__ inline unsigned Stack<kHidden, kBf16, kTiles, kStages>::tell(unsigned value) {
  unsigned* const word = reinterpret_cast<unsigned*>(memory + layout.word);
  __syncthreads();
  if (threadIdx.x == 0) *word = value;
  __syncthreads();
  return *word;
}

template <int kHidden, bool kBf16, int kTiles, int kStages>
__device__ inline void Stack<kHidden, kBf16, kTiles, kStages>::finishSums(int first, int pairs, const float* sums) {
  float* const row = reinterpret_cast<float*>(memory);
  const SequenceInfo& info = p.tdhp.info[first];
  const int perUnit = kSumRows / (2 * rows);  // pairs
  float* const joined = p.joined ? p.joined + static_cast<long long>(first) * p.inputs * kHidden : nullptr;
  __syncthreads();  // `word` has been read by all
  for (int i = threadIdx.x; i < kHidden; i += blockDim.x) {
    float sum = 0.f;
    for (int t = 0; t < pairs; t += perUnit) {
      float part[4] = {};
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        if (j < perUnit && t + j < pairs) part[j] = __ldcg(sums + static_cast<long long>(t + j) * kHidden + i);
      }
      sum += (part[0] + part[1]) + (part[2] + part[3]);  // a tree over four, two or one
    }
    if (p.pick == Pick::mean) sum /= info.divisor;
    row[p.input * kHidden + i] = sum;
    if (p.pooled) p.pooled[static_cast<long long>(first) * kHidden + i] = sum;
    if (joined) joined[p.input * kHidden + i] = sum;
    // What an earlier launch has left.
    if (p.head.layers && p.inputs == 2) row[(1 - p.input) * kHidden + i] = joined[(1 - p.input) * kHidden + i];
  }
  if (p.head.layers == 0) return;
  __syncthreads();
  headRow<true>(p.head, row, row + p.inputs * kHidden, first, true);
}

}  // namespace hpformer::cuda
