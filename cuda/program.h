// One batch (or a slice of one) as a list of device work over one arena, and its execution on a lane.
#pragma once
#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "device.h"
#include "model.h"

namespace hpformer::cuda {

// Inputs, outputs and workspace share one block of device memory in that order, so that a batch needs one copy in and
// one copy out; inputs and outputs have the same offsets in pinned host memory. Programs are built twice: dry, to learn
// the sizes, then with the addresses.
class Arena {
 public:
  enum Region { input, output, work };

  size_t take(Region region, size_t bytes) {
    const size_t at = start_[region] + used_[region];
    used_[region] += (bytes + 255) / 256 * 256;
    return at;
  }
  void place(CUdeviceptr device, char* host) {
    start_ = {0, used_[input], used_[input] + used_[output]};
    used_ = {0, 0, 0};
    device_ = device;
    host_ = host;
  }
  bool dry() const { return host_ == nullptr; }
  size_t inputBytes() const { return used_[input]; }
  size_t outputBytes() const { return used_[output]; }
  size_t bytes() const { return used_[input] + used_[output] + used_[work]; }
  template <typename T>
  T* device(size_t offset) const {
    return reinterpret_cast<T*>(device_ + offset);
  }
  template <typename T>
  T* host(size_t offset) const {
    return reinterpret_cast<T*>(host_ + offset);
  }

 private:
  std::array<size_t, 3> start_{}, used_{};
  CUdeviceptr device_ = 0;
  char* host_ = nullptr;
};

struct Grid {
  int64_t x = 1, y = 1;
};

class Program {
 public:
  Arena arena;

  // Space for an input; the caller fills host memory when this is not the dry pass.
  template <typename T>
  T* stage(int64_t count, T** host) {
    const size_t at = arena.take(Arena::input, static_cast<size_t>(count) * sizeof(T));
    *host = arena.dry() ? nullptr : arena.host<T>(at);
    return arena.device<T>(at);
  }
  // Space for results that go to `to` at the end, or plain workspace when nobody asked (`to` null).
  template <typename T>
  T* result(T* to, int64_t count) {
    if (!to) return scratch<T>(count);
    const size_t bytes = static_cast<size_t>(count) * sizeof(T);
    const size_t at = arena.take(Arena::output, bytes);
    results_.push_back({to, at, bytes});
    return arena.device<T>(at);
  }
  template <typename T>
  T* scratch(int64_t count) {
    return arena.device<T>(arena.take(Arena::work, static_cast<size_t>(count) * sizeof(T)));
  }

  template <typename Params>
  void launch(const std::string& kernel, Grid grid, int threads, size_t shared, const Params& params) {
    Step step{kernel, grid, threads, shared, 0, 0, {}};
    step.params.resize(sizeof(Params));
    Params copy = params;
#if defined(__has_builtin)
#if __has_builtin(__builtin_clear_padding)
    __builtin_clear_padding(&copy);  // chance bytes there would make equal launches look different (fingerprint)
#endif
#endif
    std::memcpy(step.params.data(), &copy, sizeof(Params));
    steps_.push_back(std::move(step));
  }
  // out[m, n] = activation([a, b][m, k] weight[n, k]^T + bias); b and bias may be null, b begins at column `split`.
  // `rounds`: operands in bfloat16. More rows than a grid is high go in parts.
  void dense(const float* a, const float* b, int64_t split, const float* weight, const float* bias, int64_t m,
             int64_t n, int64_t k, Act activation, float* out, int rounds = 0) {
    constexpr int64_t kMost = int64_t{65535} * 64;
    const auto size = [](int64_t value) { return static_cast<int>(value); };
    for (int64_t first = 0; first < m; first += kMost) {
      const int64_t rows = std::min(m - first, kMost);
      const DenseParams p{a + first * split,
                          b ? b + first * (k - split) : nullptr,
                          weight,
                          bias,
                          out + first * n,
                          size(rows),
                          size(n),
                          size(k),
                          size(split),
                          activation,
                          rounds};
      launch("dense", {(n + 63) / 64, (rows + 63) / 64}, 256, 0, p);
    }
  }
  void clear(const void* device, int64_t bytes) {
    steps_.push_back({"", {}, 0, 0, reinterpret_cast<CUdeviceptr>(device), static_cast<size_t>(bytes), {}});
  }
  // Keeps something alive until the program has run.
  void hold(std::shared_ptr<void> thing) { held_.push_back(std::move(thing)); }

  void restart() {  // between the dry pass and the real one
    steps_.clear();
    results_.clear();
    held_.clear();
  }

  // Queues copy in, all steps, copy out. Shapes that repeat run as a CUDA graph.
  Status start(Device& device, Lane& lane);
  // The steps once more on what a finished run has left in device memory, without copies.
  Status repeat(Device& device, Lane& lane);
  // Waits for the lane, then moves results to their owners unless start() failed.
  Status finish(Device& device, Lane& lane, bool complete);

 private:
  struct Step {
    std::string kernel;  // empty: clear memory
    Grid grid;
    int threads = 0;
    size_t shared = 0;
    CUdeviceptr address = 0;
    size_t bytes = 0;
    std::vector<char> params;
  };
  struct Result {
    void* to;
    size_t at, bytes;
  };

  Status run(Device& device, Lane& lane);
  Status enqueue(Device& device, Lane& lane);
  int64_t blocks() const;
  Status capture(Device& device, Lane& lane, CUgraphExec* out);
  std::string fingerprint() const;

  std::vector<Step> steps_;
  std::vector<Result> results_;
  std::vector<std::shared_ptr<void>> held_;
  bool asleep_ = false;  // the lane's event is recorded behind this program
};

}  // namespace hpformer::cuda
