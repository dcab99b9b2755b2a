// One batch through the CPU engine: which sequences and tokens run together, on which threads.
//
// Whole sequences are shared out while there are enough of them; the last few, or a single long one, are shared out by
// segment, layer and token tile instead, so that all threads work in either case. Neither choice changes a bit.
#include "run.h"

#include <algorithm>
#include <limits>
#include <mutex>

#include "context.h"

namespace hpformer::cpu {
namespace {

class Run {
 public:
  Run(const Context& c, const Request<float>& request) : c_(c), r_(request) {}

  Status all() {
    if (Status status = prepareTables(); !status.ok()) return status;
    const int64_t d = c_.spec.hidden;
    if (c_.spec.readout == Readout::steps) return eachSequence(r_.feed, r_.out, nullptr);
    Arena& arena = Arena::local();
    Arena::Scope scope(arena);
    float* first = r_.out.pooled ? r_.out.pooled : arena.take<float>(r_.batch * d);
    float* second = nullptr;
    if (Status status = pooled(r_.feed, r_.out, first); !status.ok()) return status;
    if (c_.spec.sequences == 2) {
      second = r_.outSecond.pooled ? r_.outSecond.pooled : arena.take<float>(r_.batch * d);
      if (Status status = pooled(r_.second, r_.outSecond, second); !status.ok()) return status;
    }
    if (r_.logits || r_.probabilities || r_.head) head(first, second);
    return {};
  }

 private:
  Status prepareTables() {
    const int64_t extra = c_.spec.padding >= 0 ? c_.spec.padding + 1 : 0;
    const int64_t steps = std::max(r_.feed.steps, r_.second.steps);
    if (c_.spec.positions != PositionKind::none) {
      int64_t count = steps + extra;
      if (c_.spec.positions == PositionKind::learned) count = std::min(count, c_.spec.maximum + extra);
      if (Status status = c_.packed.tables->positions.ensure(count); !status.ok()) return status;
    }
    if (!absorbsEmbedding(c_, 1)) return {};
    int64_t longest = 0;  // rows that exist: padding beyond a valid length needs no table
    for (int64_t b = 0; b < r_.batch; ++b) {
      const int64_t own = c_.spec.over == Over::valid ? r_.feed.lengths[b] : r_.feed.steps;
      if (absorbsEmbedding(c_, own)) longest = std::max(longest, own);
    }
    if (Status status = c_.packed.tables->scores->ensure(longest); !status.ok()) return status;
    return c_.packed.tables->fusion->ensure(longest);
  }

  Status pooled(const Feed<float>& feed, const SequenceOutputs<float>& out, float* rows) {
    const bool oneStep = c_.spec.readout == Readout::step && !r_.readoutWeights;
    const bool everything = out.encoded || out.layers;
    return oneStep && c_.plan.readoutPruning && !everything ? steps(feed, out, rows) : eachSequence(feed, out, rows);
  }

  // Keeps the first failure of any thread.
  template <typename Body>
  Status share(int64_t count, int threads, Body&& body) {
    std::mutex mutex;
    Status first;
    std::atomic<bool> stop{false};
    parallelFor(count, threads, [&](int64_t i) {
      if (stop.load(std::memory_order_relaxed)) return;
      const TileRelease release{c_.k};
      Status status = c_.cancelled() ? Status{StatusCode::aborted, "aborted"} : guarded([&] { return body(i); });
      if (status.ok()) return;
      stop = true;
      std::lock_guard<std::mutex> lock(mutex);
      if (first.ok()) first = std::move(status);
    });
    return first;
  }

  template <typename Body>
  static Status guarded(Body&& body) {
    try {
      return body();
    } catch (const std::bad_alloc&) {
      return {StatusCode::memory, "out of memory for the scratch buffers of a run"};
    }
  }

  // Sequences side by side: few enough to keep all threads busy to the end, many enough to share the weights' traffic.
  int64_t groupSize() const {
    int64_t best = 1;
    double least = std::numeric_limits<double>::infinity();
    const auto consider = [&](int64_t size) {
      const int64_t groups = (r_.batch + size - 1) / size, rounds = (groups + c_.threads - 1) / c_.threads;
      const int64_t together = std::min(size, r_.batch), registers = (together + c_.k.width - 1) / c_.k.width;
      const double lanes =
          static_cast<double>(c_.k.width) * (static_cast<double>(registers) + (registers % 3 ? kUneven : 0));
      const double one = together < kAlone ? static_cast<double>(together) * (1 + kTraffic) : lanes + kTraffic;
      const double cost = static_cast<double>(rounds) * one;
      if (cost > least) return;
      least = cost;
      best = size;
    };
    for (int64_t size = 1; size < kAlone && c_.runsRows(); ++size) consider(size);
    for (int64_t size = roundUp(kAlone, c_.k.width); size <= c_.k.group; size += c_.k.width) consider(size);
    return best;
  }

  // One step of every sequence: sequences side by side.
  Status steps(const Feed<float>& feed, const SequenceOutputs<float>& out, float* rows) {
    const int64_t d = c_.spec.hidden;
    const int64_t group = groupSize();
    return share((r_.batch + group - 1) / group, c_.threads, [&](int64_t i) -> Status {
      Arena& arena = Arena::local();
      Arena::Scope scope(arena);
      const int64_t from = i * group, n = std::min(group, r_.batch - from);
      auto* sequences = arena.take<Sequence>(n);
      float** keys = arena.take<float*>(n);
      float** to = arena.take<float*>(n);
      for (int64_t j = 0; j < n; ++j) {
        sequences[j] = Sequence{};
        if (Status status = makeSequence(c_, feed, out, from + j, arena, &sequences[j]); !status.ok()) return status;
        keys[j] = arena.take<float>(sequences[j].segments.count * d);
        to[j] = rows + (from + j) * d;
      }
      if (Status status = tdhp(c_, sequences, n, keys, 1); !status.ok()) return status;
      return stackSteps(c_, sequences, n, r_.step + from, keys, to);
    });
  }

  Status eachSequence(const Feed<float>& feed, const SequenceOutputs<float>& out, float* rows) {
    const int64_t together = c_.threads > 1 ? r_.batch / c_.threads * c_.threads : r_.batch;
    Status status = share(together, c_.threads, [&](int64_t b) { return sequence(feed, out, b, rows, 1); });
    for (int64_t b = together; b < r_.batch && status.ok(); ++b)
      status = guarded([&] { return sequence(feed, out, b, rows, c_.threads); });
    return status;
  }

  Status sequence(const Feed<float>& feed, const SequenceOutputs<float>& out, int64_t b, float* rows, int threads) {
    Arena& arena = Arena::local();
    Arena::Scope scope(arena);
    const int64_t d = c_.spec.hidden;
    Sequence s;
    if (Status status = makeSequence(c_, feed, out, b, arena, &s); !status.ok()) return status;
    float* keys = arena.take<float>(s.segments.count * d);
    if (Status status = tdhp(c_, &s, 1, &keys, threads); !status.ok()) return status;
    if (out.embedded) storeEmbedded(s);
    clearBeyond(s);

    const bool stepsRead = c_.spec.readout == Readout::steps;
    const float* weights = r_.readoutWeights ? r_.readoutWeights + b * feed.steps : nullptr;
    if (c_.spec.readout == Readout::step && !weights) {  // one step through the general path: weights that pick it
      float* one = arena.take<float>(s.steps);
      std::fill_n(one, s.steps, 0.0f);
      one[r_.step[b]] = 1.0f;
      weights = one;
    }
    const bool attentionPerStep = out.attention && (c_.spec.readout != Readout::step || r_.readoutWeights);
    const bool everything = out.encoded || out.layers || attentionPerStep;
    const auto read = [&](int64_t t) {
      if (!c_.plan.readoutPruning || stepsRead) return true;
      return weights ? weights[t] != 0 : !s.padding(c_.spec, t);
    };
    int32_t* list = arena.take<int32_t>(s.steps);
    Tokens tokens{list};
    if (c_.spec.readout == Readout::step && !r_.readoutWeights) tokens.attentionStep = r_.step[b];
    for (int64_t t = 0; t < s.steps; ++t)
      if (read(t)) list[tokens.read++] = static_cast<int32_t>(t);
    tokens.count = tokens.read;
    for (int64_t t = 0; everything && t < s.steps; ++t)
      if (!read(t)) list[tokens.count++] = static_cast<int32_t>(t);
    float* pooled = rows ? rows + b * d : nullptr;
    const Request<float>* head = stepsRead ? &r_ : nullptr;
    if (Status status = stackSequence(c_, s, keys, tokens, weights, pooled, head, threads); !status.ok()) return status;
    if (pooled && c_.spec.readout == Readout::mean) {
      const float divisor = static_cast<float>(feed.lengths[b]);
      for (int64_t i = 0; i < d; ++i) pooled[i] /= divisor;
    }
    return {};
  }

  void storeEmbedded(const Sequence& s) {
    Arena& arena = Arena::local();
    Arena::Scope scope(arena);
    int32_t* steps = arena.take<int32_t>(s.steps);
    for (int64_t t = 0; t < s.steps; ++t) steps[t] = static_cast<int32_t>(t);
    embedRows(c_, s, steps, s.steps, s.out->embedded + s.index * s.padded * c_.spec.hidden);
  }

  // Steps beyond the sequence's own length are zero in every per-step output.
  void clearBeyond(const Sequence& s) {
    const int64_t missing = s.padded - s.steps;
    if (missing == 0) return;
    const SequenceOutputs<float>& out = *s.out;
    const auto clear = [&](float* to, int64_t width) {
      if (to) std::fill_n(to + (s.index * s.padded + s.steps) * width, missing * width, 0.0f);
    };
    const int64_t d = c_.spec.hidden;
    clear(out.embedded, d);
    clear(out.encoded, d);
    for (int64_t l = 0; out.layers && l < c_.spec.layers; ++l) clear(out.layers[l], d);
    if (c_.spec.readout != Readout::step || r_.readoutWeights)
      clear(out.attention, c_.spec.layers * c_.spec.heads * out.segmentsMax);
    if (c_.spec.readout != Readout::steps) return;
    clear(r_.logits, c_.spec.labels);
    clear(r_.probabilities, c_.spec.labels);
    for (size_t j = 0; r_.head && j < c_.spec.headLayers.size(); ++j) clear(r_.head[j], c_.spec.headLayers[j].size);
  }

  // The head over the batch; two sequences enter as [second ; first] (upstream order).
  void head(const float* first, const float* second) {
    const int64_t d = c_.spec.hidden, tile = c_.k.tile, ld = roundUp(std::min(tile, r_.batch), c_.k.width);
    shareOut(c_, (r_.batch + tile - 1) / tile, c_.threads, [&](int64_t i) {
      Arena& arena = Arena::local();
      Arena::Scope scope(arena);
      const int64_t from = i * tile, n = std::min(tile, r_.batch - from);
      float* x = arena.take<float>(c_.spec.headInput() * ld);
      const float** in = arena.take<const float*>(n);
      int64_t* rows = arena.take<int64_t>(n);
      float* at = x;
      for (const float* source : {second, first}) {
        if (!source) continue;
        for (int64_t j = 0; j < n; ++j) in[j] = source + (from + j) * d;
        c_.k.toLanes(in, n, d, at, ld);
        at += d * ld;
      }
      for (int64_t j = 0; j < n; ++j) rows[j] = from + j;
      headLanes(c_, x, ld, n, rows, r_);
    });
  }

  const Context& c_;
  const Request<float>& r_;
};

}  // namespace

Status runBatch(const Packed& packed, const Request<float>& request, const Plan& plan, const CancelFlag& cancel,
                int threads) {
  const Context context{packed, packed.spec, plan, packed.level, cancel, threads};
  const TileRelease release{context.k};
  try {
    return Run(context, request).all();
  } catch (const std::bad_alloc&) {
    return {StatusCode::memory, "out of memory for the scratch buffers of a run"};
  }
}

}  // namespace hpformer::cpu
