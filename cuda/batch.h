// A slice of a request (some of its sequences) and what the host prepares for the kernels: per-sequence facts,
// positions.
#pragma once
#include <memory>
#include <vector>

#include "binding/contract/plan.h"
#include "binding/contract/request.h"
#include "model.h"
#include "program.h"

namespace hpformer::cuda {

// Tests cut batches into slices of at most so many sequences; 0: by their bytes, as ever. No run may be under way.
void sliceSequencesForTests(int64_t most);

// The request, moved to sequences first … first + count - 1.
struct Slice {
  const Request<float>* request = nullptr;
  const Plan* plan = nullptr;
  int64_t first = 0, count = 0;

  template <typename T>
  T* at(T* base, int64_t perSequence) const {
    return base ? base + first * perSequence : nullptr;
  }
};

// One of the at most two inputs of a slice, staged for the device.
struct Input {
  const Feed<float>* feed = nullptr;
  const SequenceOutputs<float>* out = nullptr;
  int64_t steps = 0;        // L
  int64_t positions = 0;    // rows of source.origin; fewer than L where padding goes beyond learned positions
  int64_t segmentsMax = 0;  // row stride of everything per segment
  int64_t segments = 0;     // the most that a sequence of the slice has
  int64_t rowsMax = 0;      // most rows of one sequence that enter the layers (fused)
  RowSource source{};
  const SequenceInfo* info = nullptr;
  const int* position = nullptr;
  const double* prefix = nullptr;  // OriginTable::prefix
  const int* rowList = nullptr;    // [batch, steps]: the steps that enter the layers, when not all do
};

enum class RowSelection { all, read };  // read: only rows that the readout needs (fused kernels), as a list

// Stages inputs of the slice: features/tokens/values, SequenceInfo, positions, row lists. `second`: the second
// sequence.
Status stageInput(DeviceModel& model, const Slice& slice, bool second, RowSelection rows, Program* program,
                  Input* input);

// Builds all launches of the unfused path: one kernel per step, every output offered.
// `only` narrows it: extras leaves out what the fused path has computed (logits, probabilities, pooled, keys,
// segments).
enum class Wanted { everything, extras };
Status buildUnfused(DeviceModel& model, const Slice& slice, Wanted wanted, Program* program);

// The head over device rows [rows, headInput], for both paths.
struct HeadInput {
  const float* x = nullptr;
  const SequenceInfo* info = nullptr;
  int64_t rows = 1;     // per sequence
  bool masked = false;  // rows beyond a sequence's steps become 0
};
void buildHead(DeviceModel& model, const Slice& slice, const HeadInput& in, Wanted wanted, Program* program);

// Whether sequence b of the request takes the fused path: by the model, the device and its own S, never by its mates.
bool takesFused(DeviceModel& model, const Request<float>& request, const Plan& plan, int64_t b);

// The fused path, for a slice whose sequences all take it.
Status buildFused(DeviceModel& model, const Slice& slice, Program* program);

}  // namespace hpformer::cuda
