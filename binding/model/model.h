// One loaded model: its spec, its weights where a backend still needs them, and the backend.
#pragma once
#include <cstdint>
#include <memory>
#include <string>

#include "binding/contract/backend.h"
#include "binding/contract/request.h"
#include "binding/contract/spec.h"
#include "feeds.h"
#include "intake.h"

namespace hpformer {

struct ModelOptions {
  std::string device = "cpu";  // reference, cpu, cuda:<n> or cuda:all
  Precision precision = Precision::float32;
  int threads = 0;
  std::string key;
  bool rejectNonFinite = false;
};

// The plan whose rewrites are the set bits, in the order of its fields.
Plan planOf(uint32_t rewrites, Precision precision);

// Immutable; runs may overlap. Nothing here throws.
class Model {
 public:
  static Status create(const Spec& spec, const NamedArrays& arrays, const ModelOptions& options,
                       std::shared_ptr<const Model>* out);
  // The same, giving back the memory of each array as soon as it was taken.
  static Status create(const Spec& spec, NamedArrays&& arrays, const ModelOptions& options,
                       std::shared_ptr<const Model>* out);

  const Spec& spec() const { return spec_; }
  bool isReference() const { return !backend_; }
  int64_t packedBytes() const { return packedBytes_; }

  // Blocks until the batch is done. `defaults` must outlive the call. The form that isReference() does not ask for
  // fails.
  Status run(Request<float>* request, uint32_t rewrites, FeedDefaults* defaults, const CancelFlag& cancel) const;
  Status run(Request<double>* request, uint32_t rewrites, FeedDefaults* defaults, const CancelFlag& cancel) const;

 private:
  template <typename Arrays>
  static Status createFrom(const Spec& spec, Arrays&& arrays, const ModelOptions& options,
                           std::shared_ptr<const Model>* out);
  template <typename Real, typename Compute>
  Status guarded(Request<Real>* request, FeedDefaults* defaults, const CancelFlag& cancel, Compute compute) const;
  Status connect(const ModelOptions& options);

  Spec spec_;
  Precision precision_ = Precision::float32;
  bool rejectNonFinite_ = false;
  std::shared_ptr<const Weights> weights_;  // kept by the reference; backends keep what they packed
  std::unique_ptr<Backend> backend_;
  int64_t packedBytes_ = 0;
};

}  // namespace hpformer
