// Every allocation of this program through operators that count what is alive and fail on demand. Include it in one
// source of a program only.
#pragma once
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>

namespace hpformer::test {

enum class Failing { once, fromThere };  // one allocation, or it and all that follow

inline std::atomic<int64_t> alive{0};        // blocks of watched threads
inline thread_local bool watched = true;     // allocations of this thread count, and can fail
inline thread_local int64_t countdown = -1;  // -1: none fails; n: the n-th from now on does, counted from 0
inline thread_local Failing failing = Failing::once;
inline thread_local bool failed = false;

namespace memory {

// In front of every block, so that whoever releases it knows what it is.
struct Header {
  void* base;
  bool counted;
};
constexpr size_t kHeader =
    (sizeof(Header) + alignof(std::max_align_t) - 1) / alignof(std::max_align_t) * alignof(std::max_align_t);

inline void* allocate(size_t size, size_t alignment) {
  if (watched && countdown >= 0) {
    if (countdown == 0) {
      failed = true;
      if (failing == Failing::once) countdown = -1;
      return nullptr;
    }
    --countdown;
  }
  const size_t front = alignment > kHeader ? alignment : kHeader;
  void* base = nullptr;
  if (size > SIZE_MAX - front || posix_memalign(&base, front, size + front) != 0) return nullptr;
  char* block = static_cast<char*>(base) + front;
  *reinterpret_cast<Header*>(block - kHeader) = {base, watched};
  alive += watched;
  return block;
}

inline void* allocateOrThrow(size_t size, size_t alignment) {
  void* p = allocate(size, alignment);
  if (!p) throw std::bad_alloc();
  return p;
}

inline void release(void* p) {
  if (!p) return;
  const Header header = *reinterpret_cast<Header*>(static_cast<char*>(p) - kHeader);
  alive -= header.counted;
  std::free(header.base);
}

}  // namespace memory
}  // namespace hpformer::test

void* operator new(std::size_t n) { return hpformer::test::memory::allocateOrThrow(n, alignof(std::max_align_t)); }
void* operator new[](std::size_t n) { return hpformer::test::memory::allocateOrThrow(n, alignof(std::max_align_t)); }
void* operator new(std::size_t n, std::align_val_t a) {
  return hpformer::test::memory::allocateOrThrow(n, static_cast<std::size_t>(a));
}
void* operator new[](std::size_t n, std::align_val_t a) {
  return hpformer::test::memory::allocateOrThrow(n, static_cast<std::size_t>(a));
}
void* operator new(std::size_t n, const std::nothrow_t&) noexcept {
  return hpformer::test::memory::allocate(n, alignof(std::max_align_t));
}
void* operator new[](std::size_t n, const std::nothrow_t&) noexcept {
  return hpformer::test::memory::allocate(n, alignof(std::max_align_t));
}
void* operator new(std::size_t n, std::align_val_t a, const std::nothrow_t&) noexcept {
  return hpformer::test::memory::allocate(n, static_cast<std::size_t>(a));
}
void* operator new[](std::size_t n, std::align_val_t a, const std::nothrow_t&) noexcept {
  return hpformer::test::memory::allocate(n, static_cast<std::size_t>(a));
}
void operator delete(void* p) noexcept { hpformer::test::memory::release(p); }
void operator delete[](void* p) noexcept { hpformer::test::memory::release(p); }
void operator delete(void* p, std::size_t) noexcept { hpformer::test::memory::release(p); }
void operator delete[](void* p, std::size_t) noexcept { hpformer::test::memory::release(p); }
void operator delete(void* p, std::align_val_t) noexcept { hpformer::test::memory::release(p); }
void operator delete[](void* p, std::align_val_t) noexcept { hpformer::test::memory::release(p); }
void operator delete(void* p, std::size_t, std::align_val_t) noexcept { hpformer::test::memory::release(p); }
void operator delete[](void* p, std::size_t, std::align_val_t) noexcept { hpformer::test::memory::release(p); }
void operator delete(void* p, const std::nothrow_t&) noexcept { hpformer::test::memory::release(p); }
void operator delete[](void* p, const std::nothrow_t&) noexcept { hpformer::test::memory::release(p); }
void operator delete(void* p, std::align_val_t, const std::nothrow_t&) noexcept { hpformer::test::memory::release(p); }
void operator delete[](void* p, std::align_val_t, const std::nothrow_t&) noexcept {
  hpformer::test::memory::release(p);
}
