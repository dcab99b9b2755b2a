// Scratch memory of one compute thread: a stack of aligned blocks that keeps its high-water mark, so that nothing is
// allocated per call after warm-up. Throws std::bad_alloc, which the engine turns into StatusCode::memory.
#pragma once
#include <cstdint>
#include <new>
#include <utility>
#include <vector>

namespace hpformer {

class Arena {
 public:
  static constexpr std::size_t kAlign = 64;

  static Arena& local() {
    thread_local Arena arena;
    return arena;
  }
  ~Arena() {
    for (auto& b : blocks_) ::operator delete(b.data, std::align_val_t{kAlign});
  }

  template <typename T>
  T* take(int64_t count) {
    // An odd number of cache lines between buffers, so that those walked together do not alias modulo 4096.
    const std::size_t bytes = (static_cast<std::size_t>(count) * sizeof(T) + kAlign - 1) / kAlign * kAlign + kAlign;
    while (block_ < blocks_.size() && blocks_[block_].size - used_ < bytes) {
      ++block_;
      used_ = 0;
    }
    if (block_ == blocks_.size()) {
      const std::size_t size = bytes > kBlock ? bytes : kBlock;
      blocks_.reserve(blocks_.size() + 1);
      void* data = ::operator new(size, std::align_val_t{kAlign});
      blocks_.push_back({static_cast<char*>(data), size});
      used_ = 0;
    }
    T* out = reinterpret_cast<T*>(blocks_[block_].data + used_);
    used_ += bytes;
    return out;
  }

  // Gives back everything taken since its construction.
  class Scope {
   public:
    explicit Scope(Arena& arena) : arena_(arena), block_(arena.block_), used_(arena.used_) {}
    ~Scope() {
      arena_.block_ = block_;
      arena_.used_ = used_;
    }
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    Arena& arena_;
    std::size_t block_, used_;
  };

 private:
  static constexpr std::size_t kBlock = 1 << 20;
  struct Block {
    char* data;
    std::size_t size;
  };
  std::vector<Block> blocks_;
  std::size_t block_ = 0, used_ = 0;
};

}  // namespace hpformer
