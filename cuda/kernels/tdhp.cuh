// tdhp: segment pooling, extra-segment attention, intra-segment attention and fusion, by one block, of one sequence or
// of several at once.
//
//   pass 1  rows -> segment means            each (segment, quarter) is one warp's work, partial sums through shared
//                                            memory
//           means -> E = softmax(m m^T) m    in shared memory
//   pass 2  rows -> I                        the same split; each warp runs a one-pass online softmax with query E_s
//           K = [E ; I] Wf^T + c             tensor cores in bfloat16, else columns over threads
//
// With absorbed embedding (features, mean) a row is never embedded: the sum of raw rows goes through W once per
// segment, the query goes through W^T, the weighted sum of raw rows goes through W; only the origin (bias + position)
// is added per row. Rows of features that must be embedded one by one (maximum, embedding norm) are, by matrix
// instructions, eight at a time in each pass. Products take the segments of all sequences of the block as
// rows, so that weights are read once. Few and long sequences are shared: a block takes one segment through one pass,
// and segment means meet in memory. The split into quarters and the order of every sum depend neither on the number of
// threads nor on the other sequences nor on who shares, so all launch shapes agree bit for bit. Appended rows and
// padding tokens are zero: they cost no load, only their count enters the softmax.
#pragma once
#include "rows.cuh"

namespace hpformer::cuda {

// The TDHP of sequences first … first + count - 1. Segment s of sequence i is row q = i * perSequence + s of all
// arrays; rows past a sequence's own segments are zero and never used. A share is one row of one sequence.
template <int kHidden, bool kBf16, bool kShared>
class Tdhp {
  static constexpr int kColumns = kHidden / 32;
  static constexpr int kTogetherStride = 2 * kHidden + 4, kRawStride = kRawWidth + 4;
  static constexpr int kEmbeddedFloats = 8 * (kHidden + kKeyPadding);  // of a warp

  const TdhpParams& p;
  const int first, warp, lane, warps;
  const int count, perSequence, rows;
  const int from, own;  // the rows that this block computes
  float* const origin;  // rows of the origin table, if they are staged
  SequenceInfo* const info;
  float *together, *raw, *partial;  // together: [q][E ; I]; raw: [q] in the space of raw rows
  float* const embedded;            // eight rows of each warp, where rows are embedded one by one

 public:
  static constexpr int kKeyStride = kHidden + kKeyPadding;
  float* const keys;  // [q][kKeyStride]: segment means, in the end K_comp

  // `keysAt` null: the keys lie behind the workspace at `base` (layout.h).
  // `share`: this segment only; -1: all of them.
  __device__ Tdhp(const TdhpParams& params, int firstSequence, int sequences, float* base, float* keysAt,
                  int share = -1)
      : p(params),
        first(firstSequence),
        warp(threadIdx.x / 32),
        lane(threadIdx.x % 32),
        warps(blockDim.x / 32),
        count(sequences),
        perSequence(params.segments),
        rows(sequences * params.segments),
        from(kShared ? max(share, 0) : 0),
        own(kShared && share >= 0 ? 1 : rows),
        origin(params.staged ? base : nullptr),
        info(reinterpret_cast<SequenceInfo*>(base + params.staged * kHidden)),
        together(base + params.staged * kHidden + count * kInfoFloats),
        raw(together + rows * kTogetherStride),
        partial(raw + (params.absorbed ? rows * kRawStride : 0)),
        embedded(partial + tdhpScratchFloats(kHidden, rows * params.segments)),
        keys(keysAt ? keysAt : embedded + (params.embedded ? tdhpEmbeddedFloats(kHidden) : 0)) {}

  // Passes begin … end - 1. After the second the keys are valid for all threads; between launches of one pass each,
  // means are in p.means. `stage`: origin rows are not in shared memory yet.
  __device__ void run(bool stage, int begin = 0, int end = 2) const {
    __syncthreads();  // who had this memory before is done
    for (int i = threadIdx.x; i < count * kInfoFloats; i += blockDim.x) {
      reinterpret_cast<int*>(info)[i] = __ldg(reinterpret_cast<const int*>(p.info + first) + i);
    }
    for (int i = threadIdx.x * 4; stage && i < p.staged * kHidden; i += blockDim.x * 4) {
      *reinterpret_cast<float4*>(origin + i) = __ldg(reinterpret_cast<const float4*>(p.source.origin + i));
    }
    if (kShared && begin == 1) copyMeans();
    __syncthreads();
    // Both passes in one loop: the code for rows is there once.
#pragma unroll 1
    for (int pass = kShared ? begin : 0; pass < (kShared ? end : 2); ++pass) {
      if (pass == 1) attend();
      if (pass == 1 && p.absorbed) {
        // The query in the space of raw rows: u_s = W^T E_s.
        product(together, kTogetherStride, p.query, kHidden, p.source.features,
                [&](int q, int n, float sum) { raw[q * kRawStride + n] = sum; });
        __syncthreads();
      }
      readRuns(pass == 1);
      if (p.absorbed) embedSums(pass == 1);
    }
    if (kShared && end == 1) return;
    product(together, kTogetherStride, p.fusion, 2 * kHidden, kHidden,
            [&](int q, int n, float sum) { keys[q * kKeyStride + n] = sum + __ldg(p.fusionBias + n); });
    __syncthreads();
  }

  // Rows of this block, and zeros for segments that a sequence does not have.
  __device__ void writeKeys() const {
    for (int i = 0; i < count; ++i) {
      const int live = infoOf(i * perSequence).segments * kHidden;
      const int top = (from + own < rows ? from + own : p.segmentsMax) * kHidden;
      float* to = p.keys + static_cast<long long>(first + i) * p.segmentsMax * kHidden;
      for (int k = from * kHidden + threadIdx.x; k < top; k += blockDim.x) {
        to[k] = k < live ? keys[(i * perSequence + k / kHidden) * kKeyStride + k % kHidden] : 0.f;
      }
    }
  }

  __device__ void writeMeans() const {
    const int live = min(from + own, infoOf(0).segments);
    float* to = p.means + static_cast<long long>(first) * perSequence * kHidden;
    for (int k = from * kHidden + threadIdx.x; k < live * kHidden; k += blockDim.x) {
      to[k] = keys[k / kHidden * kKeyStride + k % kHidden];
    }
  }

 private:
  __device__ const SequenceInfo& infoOf(int q) const { return info[q / perSequence]; }
  __device__ float* partialOf(int item) const { return partial + item * tdhpPartialWidth(kHidden); }
  // Rows of a segment that exist; the rest of it are appended zero rows.
  static __device__ int realRows(const SequenceInfo& info, int s) {
    return max(0, min(info.steps - s * info.segmentLength, info.segmentLength));
  }

  // What the blocks of the first pass have left in memory, and the zeros that it leaves beyond the features.
  __device__ void copyMeans() const {
    for (int k = threadIdx.x; p.absorbed && k < own * kRawStride; k += blockDim.x) raw[from * kRawStride + k] = 0.f;
    const int live = p.info[first].segments;
    const float* means = p.means + static_cast<long long>(first) * perSequence * kHidden;
    for (int k = threadIdx.x * 4; k < live * kHidden; k += blockDim.x * 4) {
      *reinterpret_cast<float4*>(keys + k / kHidden * kKeyStride + k % kHidden) =
          __ldcg(reinterpret_cast<const float4*>(means + k));
    }
  }

  // use(q, n, sum_k in[q][k] weight[k][n]) for all rows q of this block; each (q, n) once.
  template <typename Use>
  __device__ __forceinline__ void product(const float* in, int stride, const float* weight, int k, int n,
                                          Use use) const {
    in += from * stride;
    if constexpr (kBf16) {
      matrixProduct(in, stride, reinterpret_cast<const char*>(weight), (k + 31) / 32, (n + 7) / 8, use);
    } else {
      plainProduct(in, stride, weight, k, n, use);
    }
  }

  // Columns over threads, then groups of rows, which share a read of the weights: neighbouring threads read
  // neighbouring weights. `weight` is [k][n rounded up to 8].
  template <typename Use>
  __device__ __forceinline__ void plainProduct(const float* in, int stride, const float* weight, int k, int n,
                                               Use use) const {
    constexpr int kAtOnce = 32;
    const int groups = (own + kAtOnce - 1) / kAtOnce, weightStride = (n + 7) / 8 * 8;
    for (int i = threadIdx.x; i < n * groups; i += blockDim.x) {
      const int column = i % n, top = i / n * kAtOnce;
      float sum[kAtOnce] = {};
      int j = 0;
      for (; j + 4 <= k; j += 4) {
        float w[4];
#pragma unroll
        for (int e = 0; e < 4; ++e) w[e] = __ldg(weight + static_cast<long long>(j + e) * weightStride + column);
#pragma unroll
        for (int s = 0; s < kAtOnce; ++s) {
          if (top + s >= own) break;
          const float4 v = *reinterpret_cast<const float4*>(in + (top + s) * stride + j);
          sum[s] = fmaf(v.x, w[0], sum[s]);
          sum[s] = fmaf(v.y, w[1], sum[s]);
          sum[s] = fmaf(v.z, w[2], sum[s]);
          sum[s] = fmaf(v.w, w[3], sum[s]);
        }
      }
      for (; j < k; ++j) {
        const float w = __ldg(weight + static_cast<long long>(j) * weightStride + column);
#pragma unroll
        for (int s = 0; s < kAtOnce; ++s) {
          if (top + s < own) sum[s] = fmaf(in[(top + s) * stride + j], w, sum[s]);
        }
      }
#pragma unroll
      for (int s = 0; s < kAtOnce; ++s) {
        if (top + s < own) use(from + top + s, column, sum[s]);
      }
    }
  }

  // Eight neighbouring values as bfloat16 operands; rows that are not there are zero.
  __device__ Fragment operand(const float* in, int stride, int q, int column) const {
    float4 v = make_float4(0.f, 0.f, 0.f, 0.f), w = v;
    if (q < own) {
      v = *reinterpret_cast<const float4*>(in + q * stride + column);
      w = *reinterpret_cast<const float4*>(in + q * stride + column + 4);
    }
    return {{packBf16(v.x, v.y), packBf16(v.z, v.w), packBf16(w.x, w.y), packBf16(w.z, w.w)}};
  }

  // Tensor cores: operands rounded as they are read, weights straight from memory in the order of the lanes (as the
  // slices of `stack`, mma.cuh). A warp takes kWide groups of 8 columns and all rows, 64 at a time.
  template <typename Use>
  __device__ __forceinline__ void matrixProduct(const float* in, int stride, const char* weight, int chunks, int groups,
                                                Use use) const {
    constexpr int kWide = kHidden >= 128 ? 2 : 1, kHigh = 4;
    const int r = lane / 4, c = lane % 4;
    for (int top = 0; top < own; top += 16 * kHigh) {
      for (int group = warp * kWide; group < groups; group += warps * kWide) {
        float sum[kHigh][kWide][4] = {};
        // The next chunk's weights are on their way while this one's are used. The last group stands in for one beyond
        // it; its sums are dropped.
        uint4 next[kWide];
        const auto load = [&](int chunk) {
#pragma unroll
          for (int g = 0; g < kWide; ++g) {
            const int at = chunk * groups + min(group + g, groups - 1);
            next[g] = __ldg(reinterpret_cast<const uint4*>(weight) + at * 32 + lane);
          }
        };
        load(0);
#pragma unroll 1
        for (int chunk = 0; chunk < chunks; ++chunk) {
          Fragment b[kWide];
#pragma unroll
          for (int g = 0; g < kWide; ++g) b[g] = {{next[g].x, next[g].y, next[g].z, next[g].w}};
          if (chunk + 1 < chunks) load(chunk + 1);
#pragma unroll
          for (int t = 0; t < kHigh; ++t) {
            if (top + 16 * t >= own) break;
            const Fragment low = operand(in, stride, top + 16 * t + r, chunk * 32 + c * 8);
            const Fragment high = operand(in, stride, top + 16 * t + r + 8, chunk * 32 + c * 8);
#pragma unroll
            for (int g = 0; g < kWide; ++g) Operand<true>::multiply(sum[t][g], {low, high}, {b[g]});
          }
        }
        // Odd rows begin with their second column: with row strides of 4 modulo 32 no two lanes then share a bank.
        const int odd = r & 1;
#pragma unroll
        for (int t = 0; t < kHigh; ++t) {
#pragma unroll
          for (int g = 0; g < kWide; ++g) {
#pragma unroll
            for (int h = 0; h < 2; ++h) {
              const int q = top + 16 * t + r + 8 * h, column = (group + g) * 8 + 2 * c;
              if (q >= own || group + g >= groups) continue;
              use(from + q, column + odd, odd ? sum[t][g][2 * h + 1] : sum[t][g][2 * h]);
              use(from + q, column + 1 - odd, odd ? sum[t][g][2 * h] : sum[t][g][2 * h + 1]);
            }
          }
        }
      }
    }
  }

  // ---- passes over the rows ----

  // All segments' runs, kTogether segments at a time: pooled, or with `scanning` the intra-segment attention.
  __device__ void readRuns(bool scanning) const {
    const int width = (scanning || !p.absorbed ? kHidden : 0) + (p.absorbed ? kRawWidth : 0);
    const int end = from + own;
    for (int start = from; start < end; start += kTogether) {
      for (int item = warp; item < kParts * kTogether; item += warps) {
        const int q = start + item / kParts;
        if (q >= end) break;
        if (q % perSequence >= infoOf(q).segments) continue;
        if (scanning) {
          scanRun(q, item % kParts, partialOf(item));
        } else {
          poolRun(q, item % kParts, partialOf(item));
        }
      }
      __syncthreads();
      for (int i = threadIdx.x; i < width * kTogether; i += blockDim.x) {
        const int q = start + i / width, column = i % width;
        if (q >= end) break;
        const float* part = partialOf(i / width * kParts);
        if (!scanning) {
          (p.absorbed ? raw + q * kRawStride : keys + q * kKeyStride)[column] = poolSum(q, part + column);
          continue;
        }
        const float value = scanSum(q, part, column);
        if (column < kHidden) {
          together[q * kTogetherStride + kHidden + column] = value;
        } else {
          raw[q * kRawStride + column - kHidden] = value;
        }
      }
      __syncthreads();
    }
  }

  // Absorbed embedding: W times the sums of raw rows, to what is there already of I, or as the segment means.
  __device__ void embedSums(bool scanning) const {
    product(raw, kRawStride, p.embed, p.source.features, kHidden, [&](int q, int n, float sum) {
      if (scanning) {
        together[q * kTogetherStride + kHidden + n] += sum;
      } else {
        keys[q * kKeyStride + n] = sum;
      }
    });
    __syncthreads();
    if (scanning) return;
    // The sums of bias and positions; sequences of equal length read the same prefixes.
    for (int i = threadIdx.x; i < min(own, perSequence) * kHidden; i += blockDim.x) {
      const int s = from + i / kHidden, n = i % kHidden;
      int lastBegin = -1, lastEnd = -1;
      double sum = 0;
      for (int j = 0; j < count; ++j) {
        const SequenceInfo& own = info[j];
        if (s >= own.segments) continue;
        const int begin = min(s * own.segmentLength, own.steps), end = begin + realRows(own, s);
        if (begin != lastBegin || end != lastEnd) {
          sum = p.prefix[static_cast<long long>(end) * kHidden + n] -
                p.prefix[static_cast<long long>(begin) * kHidden + n];
          lastBegin = begin, lastEnd = end;
        }
        float& mean = keys[(j * perSequence + s) * kKeyStride + n];
        mean = (mean + static_cast<float>(sum)) / static_cast<float>(own.segmentLength);
      }
    }
    __syncthreads();
  }

  // One quarter of a segment's rows: the sum of raw rows, or the sum or maximum of embedded ones.
  __device__ void poolRun(int q, int part, float* out) const {
    const RowReader<kHidden> reader(p, first + q / perSequence, lane, origin);
    const Run run(infoOf(q), q % perSequence, part);
    if (p.absorbed) {
      float sum[4] = {};
#pragma unroll 4
      for (int t = run.begin; t < run.end; ++t) {
        float value[4];
        reader.readRaw(t, value);
        if (!reader.live) continue;
#pragma unroll
        for (int i = 0; i < 4; ++i) sum[i] += value[i];
      }
      reader.storeRaw(out, sum);
      return;
    }
    // A run without rows leaves the neutral element; zero rows count in the maximum below.
    float value[kColumns];
    bool zeroRow = false;
#pragma unroll
    for (int i = 0; i < kColumns; ++i) value[i] = p.max ? -INFINITY : 0.f;
    for (int t = run.begin; t < run.end; ++t) {
      if (p.embedded && (t - run.begin) % 8 == 0) embedRows(reader.base, t, run.end);
      Row<kHidden> row;
      if (!readRow(reader, run.begin, t, &row)) {
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

  // The four quarters together: the sum of raw rows, or the pooled segment.
  __device__ float poolSum(int q, const float* part) const {
    const SequenceInfo& own = infoOf(q);
    const int s = q % perSequence;
    if (s >= own.segments) return 0.f;
    float value = part[0];
#pragma unroll
    for (int j = 1; j < kParts; ++j) {
      const float v = part[j * tdhpPartialWidth(kHidden)];
      value = !p.max ? value + v : (v > value || v != v) ? v : value;
    }
    if (p.absorbed) return value;
    if (p.max) return realRows(own, s) < own.segmentLength && value < 0.f ? 0.f : value;
    return value / static_cast<float>(own.segmentLength);
  }

  // ---- extra-segment attention ----

  __device__ void attend() const {
    float* score = partial;
    // Four products of a row with others of its sequence at a time.
    const int fours = (perSequence + 3) / 4;
    for (int i = warp; i < own * fours; i += warps) {
      const int q = from + i / fours, base = q / perSequence * perSequence, other = i % fours * 4;
      const int live = infoOf(q).segments;
      if (q - base >= live || other >= live) continue;
      float dot[4] = {};
#pragma unroll
      for (int k = 0; k < kColumns; ++k) {
        const float x = keys[q * kKeyStride + lane + 32 * k];
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          if (other + j < live) dot[j] = fmaf(x, keys[(base + other + j) * kKeyStride + lane + 32 * k], dot[j]);
        }
      }
      const float sum = sumOfFour(dot) * (p.scale * kLog2e);
      if (lane % 8 == 0 && other + lane / 8 < live) score[q * perSequence + other + lane / 8] = sum;
    }
    __syncthreads();
    for (int q = from + warp; q < from + own; q += warps) {
      const int base = q / perSequence * perSequence, live = infoOf(q).segments;
      const bool exists = q - base < live;
      float* weight = score + q * perSequence;
      float top = -INFINITY, total = 0.f;
      for (int s = lane; exists && s < live; s += 32) top = fmaxf(top, weight[s]);
      top = warpMax(top);
      for (int s = lane; exists && s < live; s += 32) {
        const float e = exp2Fast(weight[s] - top);
        weight[s] = e;
        total += e;
      }
      total = warpSum(total);
      __syncwarp();
      for (int s = lane; exists && s < live; s += 32) weight[s] /= total;
      __syncwarp();
#pragma unroll
      for (int k = 0; k < kColumns; ++k) {
        float sum = 0.f;
        for (int s = 0; exists && s < live; ++s) {
          sum = fmaf(weight[s], keys[(base + s) * kKeyStride + lane + 32 * k], sum);
        }
        together[q * kTogetherStride + lane + 32 * k] = sum;
      }
    }
    __syncthreads();
  }

  // ---- rows embedded by matrix instructions ----

  // W times the transpose of rows t … t + 7 (below `end`), so that no row of the product is padding: to this warp's
  // place in shared memory, a row of features after the other; bias and position are added by who reads them.
  __device__ void embedRows(long long base, int t, int end) const {
    using O = Operand<kBf16>;
    const int r = lane / 4, c = lane % 4, chunks = (p.source.features + O::kChunk - 1) / O::kChunk;
    float* const to = embedded + warp * kEmbeddedFloats;
    __syncwarp();  // the rows before have been read
#pragma unroll 1
    for (int m = 0; m < kHidden / 16; ++m) {
      float sum[4] = {};
      // Few registers rather than few loads: `stack` has none to spare, and the eight rows stay in the cache.
#pragma unroll 1
      for (int i = 0; i < chunks; ++i) {
        const uint4* w = reinterpret_cast<const uint4*>(p.slices) + (i * (kHidden / 8) + 2 * m) * 32 + lane;
        const uint4 low = __ldg(w), high = __ldg(w + 32);
        const Fragment x = rawOperand(base + t + r, t + r < end, i * O::kChunk + c * (O::kChunk / 4));
        O::multiply(sum, O::prepareA({{low.x, low.y, low.z, low.w}}, {{high.x, high.y, high.z, high.w}}),
                    O::prepareB(x));
      }
      float* place = to + 2 * c * kKeyStride + 16 * m + r;
      place[0] = sum[0], place[kKeyStride] = sum[1];
      place[8] = sum[2], place[kKeyStride + 8] = sum[3];
    }
    __syncwarp();
  }

  // Values `column` … of a row of features: this lane's part of an operand.
  __device__ Fragment rawOperand(long long row, bool exists, int column) const {
    constexpr int kValues = Operand<kBf16>::kChunk / 4;
    const int width = p.source.features;
    const float* from = p.source.features_ + row * width;
    float x[kValues];
#pragma unroll
    for (int i = 0; i < kValues; i += 4) {
      if (width % 4 == 0) {
        const float4 four = exists && column + i < width ? __ldg(reinterpret_cast<const float4*>(from + column + i))
                                                         : make_float4(0.f, 0.f, 0.f, 0.f);
        x[i] = four.x, x[i + 1] = four.y, x[i + 2] = four.z, x[i + 3] = four.w;
      } else {
#pragma unroll
        for (int e = i; e < i + 4; ++e) x[e] = exists && column + e < width ? __ldg(from + column + e) : 0.f;
      }
    }
    Fragment f;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if constexpr (kBf16) {
        f.v[i] = packBf16(x[2 * i], x[2 * i + 1]);
      } else {
        f.v[i] = __float_as_uint(x[i]);
      }
    }
    return f;
  }

  // Row t of a run that began at `begin`; true as RowReader::read.
  __device__ bool readRow(const RowReader<kHidden>& reader, int begin, int t, Row<kHidden>* row) const {
    return reader.read(t, row, p.embedded ? embedded + warp * kEmbeddedFloats + (t - begin) % 8 * kKeyStride : nullptr);
  }

  // ---- intra-segment attention, row by row ----

  __device__ void scanRun(int q, int part, float* out) const {
    constexpr int kRows = 4;
    const RowReader<kHidden> reader(p, first + q / perSequence, lane, origin);
    const Run run(infoOf(q), q % perSequence, part);
    const float scale = p.scale * kLog2e;
    float query[kColumns], rawQuery[4] = {};
#pragma unroll
    for (int i = 0; i < kColumns; ++i) query[i] = together[q * kTogetherStride + lane + 32 * i];
    if (p.absorbed) reader.loadRaw(raw + q * kRawStride, rawQuery);
    float x[kColumns] = {}, rawSum[4] = {}, top = -INFINITY, total = 0.f;
    for (int t = run.begin; t < run.end; t += kRows) {
      if (p.embedded && (t - run.begin) % 8 == 0) embedRows(reader.base, t, run.end);
      Row<kHidden> row[kRows];
      float dot[kRows];
#pragma unroll
      for (int i = 0; i < kRows; ++i) {
        reader.zero(&row[i]);
        if (t + i < run.end) readRow(reader, run.begin, t + i, &row[i]);
      }
#pragma unroll
      for (int i = 0; i < kRows; ++i) {
        dot[i] = 0.f;
#pragma unroll
        for (int k = 0; k < kColumns; ++k) dot[i] = fmaf(query[k], row[i].x[k], dot[i]);
        if (p.absorbed && reader.live) {
#pragma unroll
          for (int k = 0; k < 4; ++k) dot[i] = fmaf(rawQuery[k], row[i].raw[k], dot[i]);
        }
      }
      // Eight lanes end with the score of one row: row lane / 8. Without rows the score is -infinity.
      float score = sumOfFour(dot) * scale;
      if (t + lane / 8 >= run.end) score = -INFINITY;
      float next = fmaxf(score, __shfl_xor_sync(kFull, score, 8));
      next = fmaxf(top, fmaxf(next, __shfl_xor_sync(kFull, next, 16)));
      if (next == -INFINITY) next = 0.f;  // only numbers that are none
      if (next > top) {
        const float shrink = exp2Fast(top - next);
        total *= shrink;
#pragma unroll
        for (int k = 0; k < kColumns; ++k) x[k] *= shrink;
#pragma unroll
        for (int k = 0; k < 4; ++k) rawSum[k] *= shrink;
        top = next;
      }
      const float own = exp2Fast(score - top);
      total += own;
#pragma unroll
      for (int i = 0; i < kRows; ++i) {
        const float weight = __shfl_sync(kFull, own, i * 8);
#pragma unroll
        for (int k = 0; k < kColumns; ++k) x[k] = fmaf(weight, row[i].x[k], x[k]);
        if (p.absorbed && reader.live) {
#pragma unroll
          for (int k = 0; k < 4; ++k) rawSum[k] = fmaf(weight, row[i].raw[k], rawSum[k]);
        }
      }
    }
    total += __shfl_xor_sync(kFull, total, 8);
    total += __shfl_xor_sync(kFull, total, 16);
#pragma unroll
    for (int i = 0; i < kColumns; ++i) out[lane + 32 * i] = x[i];
    if (p.absorbed) reader.storeRaw(out + kHidden, rawSum);
    if (lane == 0) {
      out[kHidden + kRawWidth] = top;
      out[kHidden + kRawWidth + 1] = total;
    }
  }

  // Sums of four values over the warp: lane l gets that of value l / 8.
  __device__ float sumOfFour(const float (&v)[4]) const {
    const bool high = lane & 16, odd = lane & 8;
    const float a = (high ? v[2] : v[0]) + __shfl_xor_sync(kFull, high ? v[0] : v[2], 16);
    const float b = (high ? v[3] : v[1]) + __shfl_xor_sync(kFull, high ? v[1] : v[3], 16);
    float sum = (odd ? b : a) + __shfl_xor_sync(kFull, odd ? a : b, 8);
#pragma unroll
    for (int i = 4; i > 0; i >>= 1) sum += __shfl_xor_sync(kFull, sum, i);
    return sum;
  }

  // The four runs and the appended zero rows (score 0, nothing to add) become one softmax. Lanes j, j + 4, … find the
  // weight of run j.
  __device__ float scanSum(int q, const float* part, int column) const {
    const SequenceInfo& own = infoOf(q);
    const int s = q % perSequence;
    if (s >= own.segments) return 0.f;
    const int zeros = own.segmentLength - realRows(own, s);
    const float* run = part + lane % kParts * tdhpPartialWidth(kHidden) + kHidden + kRawWidth;
    float top = fmaxf(run[0], __shfl_xor_sync(kFull, run[0], 1));
    top = fmaxf(top, __shfl_xor_sync(kFull, top, 2));
    if (zeros > 0) top = fmaxf(top, 0.f);
    float weight = exp2Fast(run[0] - top), total = run[1] * weight;
    total += __shfl_xor_sync(kFull, total, 1);
    total += __shfl_xor_sync(kFull, total, 2);
    if (zeros > 0) total = fmaf(static_cast<float>(zeros), exp2Fast(-top), total);
    weight /= total;
    float value = 0.f;
#pragma unroll
    for (int j = 0; j < kParts; ++j) {
      value = fmaf(part[j * tdhpPartialWidth(kHidden) + column], __shfl_sync(kFull, weight, j), value);
    }
    return value;
  }
};

}  // namespace hpformer::cuda
