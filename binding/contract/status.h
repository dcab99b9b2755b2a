// How native code reports: a code and one sentence. Nothing below the addon throws across a boundary or prints.
#pragma once
#include <string>
#include <utility>

namespace hpformer {

// Mirrors src/errors.ts (src/native/status.ts maps by number).
enum class StatusCode : int {
  ok = 0,
  shape = 1,
  type = 2,
  range = 3,
  input = 4,
  config = 5,
  checkpoint = 6,
  file = 7,
  device = 8,
  limit = 9,
  memory = 10,
  disposed = 11,
  internal = 12,
  aborted = 13,  // becomes signal.reason in TypeScript, never an HPformerError
};

struct [[nodiscard]] Status {
  StatusCode code = StatusCode::ok;
  std::string message;

  Status() = default;
  Status(StatusCode c, std::string m) : code(c), message(std::move(m)) {}
  // Reports of exhausted memory are literals: when there is none for the text either, the code alone goes up.
  Status(StatusCode c, const char* m) noexcept : code(c) {
    try {
      message = m;
    } catch (...) {
    }
  }
  bool ok() const { return code == StatusCode::ok; }
};

}  // namespace hpformer
