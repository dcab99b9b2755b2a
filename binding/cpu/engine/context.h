// What one run carries through embedding, TDHP, stack and head. Every piece below works on one sequence or one tile and
// takes its scratch memory from the calling thread's Arena.
#pragma once
#include <atomic>
#include <cstdint>
#include <new>

#include "binding/contract/plan.h"
#include "binding/contract/request.h"
#include "binding/contract/segments.h"
#include "binding/cpu/arena.h"
#include "binding/cpu/engine/tuning.h"
#include "binding/cpu/kernels.h"
#include "binding/cpu/packed.h"
#include "binding/cpu/threads.h"

namespace hpformer::cpu {

struct Context {
  const Packed& packed;
  const Spec& spec;
  const Plan& plan;
  const Kernels& k;
  const CancelFlag& cancel;
  int threads;

  bool cancelled() const { return cancel.load(std::memory_order_relaxed); }
  // One step of few sequences may run as rows. Tiles have no form for a row, and its bits must be those of its lane in
  // a larger batch: in float32 the layers of a single step therefore stay off the tiles, which they would not fill.
  bool runsRows() const { return k.tileDepth == 0 || packed.precision == Precision::float32; }
};

// One sequence of the batch: the rows that exist and how they are cut.
struct Sequence {
  const Feed<float>* feed = nullptr;
  const SequenceOutputs<float>* out = nullptr;
  int64_t index = 0;   // in the batch
  int64_t padded = 0;  // L of the batch
  int64_t steps = 0;   // rows that exist: L, or the sequence's own length
  Segments segments;
  const float* features = nullptr;
  const int32_t* tokens = nullptr;
  const float* values = nullptr;
  const int32_t* positions = nullptr;  // [steps], tokens only

  bool padding(const Spec& spec, int64_t t) const { return tokens && spec.padding >= 0 && tokens[t] == spec.padding; }
};

// Fills the views; positions go to the arena of the calling thread.
Status makeSequence(const Context& c, const Feed<float>& feed, const SequenceOutputs<float>& out, int64_t index,
                    Arena& arena, Sequence* sequence);

// Embedded rows (positions added, embedding norm applied, padding rows zero) of the listed steps: as rows, as lanes.
void embedRows(const Context& c, const Sequence& s, const int32_t* steps, int64_t count, float* rows);
void embedLanes(const Context& c, const Sequence& s, const int32_t* steps, int64_t count, float* lanes, int64_t ld);
// One step of each of several sequences.
void embedSteps(const Context& c, const Sequence* sequences, int64_t count, const int32_t* steps, float* lanes,
                int64_t ld);

// One step of one sequence as a row, with the bits of its lane.
void embedStep(const Context& c, const Sequence& s, int64_t step, float* row);

// TDHP of one or several sequences: keys[j] receives K_comp [S][hidden] of sequences[j]. With `threads` > 1 the
// segments of a single sequence are shared out.
Status tdhp(const Context& c, const Sequence* sequences, int64_t count, float* const* keys, int threads);
bool absorbsEmbedding(const Context& c, int64_t steps);
Status tdhpAbsorbed(const Context& c, const Sequence* sequences, int64_t count, float* const* keys);
Status tdhpExplicit(const Context& c, const Sequence& s, float* keys, int threads);
void storeIntraAttention(const Sequence& s, const float* scores, int64_t from, int64_t count, float maximum, float sum);
void storeSegmentRows(const Context& c, const Sequence& s, const float* rows, float* to);

// Around a piece of work that may use tile registers.
struct TileRelease {
  const Kernels& k;
  ~TileRelease() {
    if (k.release) k.release();
  }
};

// parallelFor whose body may run out of memory: the exception comes out on the calling thread.
template <typename Body>
void shareOut(const Context& c, int64_t count, int threads, Body&& body) {
  std::atomic<bool> failed{false};
  parallelFor(count, threads, [&](int64_t i) {
    if (c.cancelled() || failed.load(std::memory_order_relaxed)) return;
    const TileRelease release{c.k};
    try {
      body(i);
    } catch (const std::bad_alloc&) {
      failed = true;
    }
  });
  if (failed) throw std::bad_alloc();
}

// Layers, then readout. `steps`: the tokens to run; `use(first, n, x)` receives each finished tile [hidden][ld].
struct Tokens {
  const int32_t* steps = nullptr;
  int64_t read = 0;            // the first of them are what the readout reads; their tiles never hold any other
  int64_t count = 0;           // the rest runs only for the outputs of single steps
  int64_t attentionStep = -1;  // -1: attention is stored per step; else only this step's, once per sequence
};
// Keys of one sequence for a level with tiles (tile_keys.cc). Null where a product does not fit tiles.
struct TileKeys {
  const uint16_t* scores = nullptr;  // KeyScores::tiles
  int64_t block = 0;
  uint16_t* mixed = nullptr;  // M of every layer as tiles [hidden / 16][heads * S / 32], one layer every `stride`
  int64_t stride = 0, part = 0;
};
TileKeys tileKeys(const Context& c, const float* keys, int64_t segments, float scale, bool folded, Arena& arena,
                  int threads);

// All listed tokens of one sequence. pooled (may be null) receives sum of weight * row; logits rows go out when the
// readout is 'steps'.
Status stackSequence(const Context& c, const Sequence& s, const float* keys, const Tokens& tokens, const float* weights,
                     float* pooled, const Request<float>* stepsHead, int threads);
// One token of each of `count` <= group sequences side by side; fewer than kAlone are faster one by one.
Status stackSteps(const Context& c, const Sequence* sequences, int64_t count, const int32_t* steps,
                  const float* const* keys, float* const* pooled);

// Head on lanes [headInput][ld]; writes logits, probabilities and head layers of `count` rows through the row index.
void headLanes(const Context& c, const float* x, int64_t ld, int64_t count, const int64_t* rows,
               const Request<float>& r);

NormLanes normOf(const PackedNorm& n, const float* x, float* y, int64_t channels, int64_t ld, int64_t cols);
inline int64_t roundUp(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

}  // namespace hpformer::cpu
