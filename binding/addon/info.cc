#include "info.h"

#include <fstream>
#include <string>

#include "binding/cpu/backend.h"
#include "cuda/backend.h"

namespace hpformer::addon {
namespace {

std::string cpuName() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    const size_t colon = line.find(": ");
    if (line.starts_with("model name") && colon != std::string::npos) return line.substr(colon + 2);
  }
#if defined(__aarch64__) || defined(_M_ARM64)
  return "arm64";
#else
  return "x64";
#endif
}

Napi::Object device(Napi::Env env, const std::string& id, const char* kind, const std::string& name,
                    const std::string& reason, int64_t memory, const std::string& level) {
  Napi::Object result = Napi::Object::New(env);
  result.Set("id", id);
  result.Set("kind", kind);
  result.Set("name", name);
  result.Set("available", reason.empty());
  result.Set("reason", reason);
  result.Set("memory", static_cast<double>(memory));
  result.Set("level", level);
  return result;
}

}  // namespace

Napi::Value info(const Napi::CallbackInfo& call) {
  const Napi::Env env = call.Env();
  Napi::Object result = Napi::Object::New(env);
  result.Set("version", HPFORMER_VERSION);
  result.Set("isa", isaInUse());
  Napi::Array levels = Napi::Array::New(env);
  for (const std::string& level : isaLevels()) levels.Set(levels.Length(), level);
  result.Set("isaLevels", levels);
  Napi::Object tile = Napi::Object::New(env);
  tile.Set("tokens", static_cast<double>(tileInUse().tokens));
  tile.Set("sequences", static_cast<double>(tileInUse().sequences));
  result.Set("tile", tile);
  result.Set("threads", defaultThreads());
  result.Set("cudaCompiled", cudaCompiledIn());
  // What V8 itself counts towards its collections; process.memoryUsage().external shows array buffers only.
  int64_t external = 0;
  napi_adjust_external_memory(env, 0, &external);
  result.Set("externalMemory", static_cast<double>(external));
  Napi::Array devices = Napi::Array::New(env);
  devices.Set(0u, device(env, "cpu", "cpu", cpuName(), "", 0, isaInUse()));
  std::string reason;
  const std::vector<CudaDeviceInfo> cuda = cudaDevices(&reason);
  for (const CudaDeviceInfo& one : cuda) {
    devices.Set(devices.Length(),
                device(env, "cuda:" + std::to_string(one.ordinal), "cuda", one.name, "", one.memory, one.capability));
  }
  if (cuda.empty()) {
    devices.Set(devices.Length(), device(env, "cuda", "cuda", "", reason.empty() ? "no device" : reason, 0, ""));
  }
  result.Set("devices", devices);
  return result;
}

}  // namespace hpformer::addon
