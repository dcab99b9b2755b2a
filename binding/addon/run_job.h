// One run on its way: arrays of JavaScript read into a Request, inputs copied to staging memory that is kept between
// runs.
#pragma once
#include <memory>
#include <vector>

#include "environment.h"
#include "slots.h"

namespace hpformer::addon {

// Memory that only grows, aligned for any vector load.
class Staging {
 public:
  // False when memory is short; the old content is lost either way.
  bool reserve(size_t bytes);
  std::byte* data() const { return memory_.get(); }
  size_t bytes() const { return bytes_; }

 private:
  struct Free {
    void operator()(std::byte* p) const;
  };
  std::unique_ptr<std::byte[], Free> memory_;
  size_t bytes_ = 0;
};

template <typename Real>
struct RequestArrays {
  Request<Real> request;
  std::vector<Real*> layers, secondLayers, head;
};

class RunJob final : public EnvironmentJob {
 public:
  // Reads a request (NativeRequest of src/native/addon.ts) for `model`. With `copy`, inputs are staged; without, they
  // are read in place where nothing can change them in a way that breaks memory. The outcome is in `status`.
  void read(napi_env env, const SlotValues& slots, std::shared_ptr<const Model> model, bool copy);
  // What must live until delivery, the arrays and the callback: the array that holds all slots.
  void hold(napi_env env, napi_value holder) { request_.hold(env, holder); }
  void clear();
  size_t stagingBytes() const { return staging_.bytes(); }

  void work() override;
  void deliver(Environment& environment) override;

 private:
  struct Input {
    const void** slot;  // where the request points
    size_t bytes;
    bool copy;
  };

  template <typename Real>
  void readAs(napi_env env, const SlotValues& slots, RequestArrays<Real>* arrays);
  template <typename Real>
  void readFeed(SlotReader reader, int64_t batch, Feed<Real>* feed);
  template <typename Real>
  void readOutputs(SlotReader reader, int64_t batch, int64_t steps, bool oneStep, SequenceOutputs<Real>* out,
                   std::vector<Real*>* layers);
  template <typename Real>
  void readList(SlotReader& reader, napi_value list, const char* name, size_t items, std::vector<Real*>* out,
                int64_t (*size)(const Spec&, size_t item, int64_t rows), int64_t rows);
  template <typename T, typename Name>
  void input(SlotReader& reader, Name slot, const char* name, int64_t count, bool required, bool mayStay,
             const T** out);
  void stage();

  std::shared_ptr<const Model> model_;
  uint32_t rewrites_ = 0;
  bool copy_ = true;
  RequestArrays<float> narrow_;
  RequestArrays<double> wide_;
  std::vector<Input> inputs_;
  Staging staging_;
  FeedDefaults defaults_;
  Held request_;
};

}  // namespace hpformer::addon
