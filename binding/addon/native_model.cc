#include "native_model.h"

#include <algorithm>
#include <exception>
#include <new>

#include "run_job.h"

namespace hpformer::addon {
namespace {

const Status& disposed() {
  static const Status* status =
      new Status(StatusCode::disposed, "model: expected a live model, got one that was disposed");
  return *status;
}

// submit(slots, ...slots): the array itself keeps everything alive, the spread makes every value an argument.
bool slotsOf(const Napi::CallbackInfo& info, SlotValues* out) {
  if (info.Length() < outSlots(false) || !info[0].IsArray()) return false;
  out->holder = info[0];
  out->count = std::min(info.Length() - 1, kMostSlots);
  for (size_t i = 0; i < out->count; ++i) out->values[i] = info[i + 1];
  return true;
}

}  // namespace

Napi::Object statusObject(Napi::Env env, const Status& status) {
  Napi::Object result = Napi::Object::New(env);
  result.Set("code", static_cast<double>(status.code));
  result.Set("message", stringValue(env, status.message));
  return result;
}

Napi::Function NativeModel::define(Napi::Env env) {
  return DefineClass(env, "NativeModel",
                     {InstanceMethod<&NativeModel::submit>("submit"), InstanceMethod<&NativeModel::runSync>("runSync"),
                      InstanceMethod<&NativeModel::cancel>("cancel"), InstanceMethod<&NativeModel::dispose>("dispose"),
                      InstanceAccessor<&NativeModel::packedBytes>("packedBytes")});
}

NativeModel::NativeModel(const Napi::CallbackInfo& info) : Napi::ObjectWrap<NativeModel>(info) {
  model_ = std::move(Environment::of(info.Env()).modelToWrap);
  if (!model_) throw Napi::TypeError::New(info.Env(), "NativeModel: only createModel makes these");
  packedBytes_ = model_->packedBytes();
  Napi::MemoryManagement::AdjustExternalMemory(info.Env(), packedBytes_);
}

NativeModel::~NativeModel() {
  if (!model_) return;
  int64_t after = 0;
  napi_adjust_external_memory(Env(), -packedBytes_, &after);
}

Napi::Value NativeModel::submit(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  SlotValues slots;
  if (!slotsOf(info, &slots) || !info[1].IsFunction()) throw Napi::TypeError::New(env, "submit: expected a request");
  try {
    Environment& environment = Environment::of(env);
    std::unique_ptr<RunJob> job = environment.takeRunJob();
    if (model_) {
      job->read(env, slots, model_, true);
    } else {
      job->status = disposed();
    }
    job->hold(env, slots.holder);
    return Napi::Number::New(env, static_cast<double>(environment.start(std::move(job), runQueue())));
  } catch (const std::bad_alloc&) {
    throw Napi::Error::New(env, "hpformer: the run could not be queued: out of memory");
  }
}

Napi::Value NativeModel::runSync(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (!model_) return statusObject(env, disposed());
  SlotValues slots;
  if (!slotsOf(info, &slots)) throw Napi::TypeError::New(env, "runSync: expected a request");
  try {
    Environment& environment = Environment::of(env);
    std::unique_ptr<RunJob> job = environment.takeRunJob();
    job->read(env, slots, model_, false);
    if (job->status.ok()) job->work();
    const Napi::Value result = job->status.ok() ? env.Undefined() : statusObject(env, job->status);
    environment.recycle(std::move(job));
    return result;
  } catch (const std::bad_alloc&) {
    return statusObject(env, {StatusCode::memory, "the run could not be prepared"});
  }
}

void NativeModel::cancel(const Napi::CallbackInfo& info) {
  if (info[0].IsNumber()) Environment::of(info.Env()).cancel(info[0].As<Napi::Number>().Int64Value());
}

void NativeModel::dispose(const Napi::CallbackInfo& info) {
  if (!model_) return;
  model_.reset();
  Napi::MemoryManagement::AdjustExternalMemory(info.Env(), -packedBytes_);
}

Napi::Value NativeModel::packedBytes(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), model_ ? static_cast<double>(packedBytes_) : 0.0);
}

}  // namespace hpformer::addon
