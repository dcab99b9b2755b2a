// A request as `submit` and `runSync` take it: values at fixed places, in the order that src/native/request.ts writes
// them. A property by name would cost an interned string and a look-up each, a tenth of a small run.
#pragma once
#include <node_api.h>

#include <cstdint>

#include "values.h"

namespace hpformer::addon {

enum class Slot : size_t { done, batch, rewrites, trace, step, readoutWeights, logits, probabilities, head, count };

// Blocks that follow the slots above: feed, outputs, feed and outputs of the second sequence.
enum class FeedSlot : size_t { steps, input, lengths, count };
enum class OutSlot : size_t {
  segmentsMax,
  pooled,
  keys,
  segments,
  attention,
  segmentAttention,
  intraAttention,
  embedded,
  segmentPool,
  extraSegment,
  intraSegment,
  layers,
  encoded,
  count
};

constexpr size_t feedSlots(bool second) {
  return static_cast<size_t>(Slot::count) +
         (second ? static_cast<size_t>(FeedSlot::count) + static_cast<size_t>(OutSlot::count) : 0);
}
constexpr size_t outSlots(bool second) { return feedSlots(second) + static_cast<size_t>(FeedSlot::count); }
constexpr size_t kMostSlots = outSlots(true) + static_cast<size_t>(OutSlot::count);

// The arguments of one call, and the array that holds them all for as long as the run lasts.
struct SlotValues {
  napi_value holder = nullptr;
  napi_value values[kMostSlots];
  size_t count = 0;
};

// One block of slots.
class SlotReader : public ValueReader {
 public:
  SlotReader(napi_env env, const SlotValues& slots, size_t first, Status* status)
      : ValueReader(env, status), slots_(slots), first_(first) {}

  // False when the slot is undefined or null, or something failed before.
  template <typename Name>
  bool get(Name slot, napi_value* out) {
    const size_t at = first_ + static_cast<size_t>(slot);
    return at < slots_.count && present(*out = slots_.values[at]);
  }
  template <typename Name>
  int64_t integer(Name slot, const char* name, int64_t least, int64_t most) {
    napi_value value = nullptr;
    return integerOf(get(slot, &value) ? value : nullptr, name, least, most);
  }
  template <typename Name>
  bool boolean(Name slot, const char* name) {
    napi_value value = nullptr;
    return booleanOf(get(slot, &value) ? value : nullptr, name);
  }
  // A typed array of exactly `count` elements of T; null when absent.
  template <typename T, typename Name>
  T* array(Name slot, const char* name, int64_t count, bool* shared = nullptr) {
    napi_value value = nullptr;
    return get(slot, &value) ? arrayOf<T>(value, name, count, shared) : nullptr;
  }

 private:
  const SlotValues& slots_;
  const size_t first_;
};

}  // namespace hpformer::addon
