// createModel: a spec and named arrays copied on the JavaScript thread, checked and packed on a loader thread.
#pragma once
#include <memory>

#include "environment.h"

namespace hpformer::addon {

class LoadJob final : public EnvironmentJob {
 public:
  // The outcome is in `status`.
  void read(napi_env env, napi_value spec, napi_value weights, napi_value options);
  void hold(napi_env env, napi_value done) { done_.hold(env, done); }

  void work() override;
  void deliver(Environment& environment) override;

 private:
  void readWeights(napi_env env, napi_value weights);

  Spec spec_;
  ModelOptions options_;
  NamedArrays arrays_;
  std::shared_ptr<const Model> model_;
  Held done_;
};

}  // namespace hpformer::addon
