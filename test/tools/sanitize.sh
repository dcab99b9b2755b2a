#!/usr/bin/env bash
# Runs the native tests and jest under a tool that watches memory or threads: test/tools/sanitize.sh address|thread|valgrind [jest arguments]
# address: ASan + UBSan, native tests with leak check, then the addon inside Node under jest   thread: TSan, the same
# valgrind: memcheck over native tests and a run inside Node   Needs g++ with its sanitizer libraries, or valgrind.
# Under jest: address watches every suite but the package and the house rules (they run compilers and linters, not the addon), the
# benchmarks (times), and the CUDA suites whose host code is watched in the native tests (cuda.sh); thread those in which threads meet.
# Random tests run fewer times than in npm test (CHILDREN, ABORTS, TIMES, REPEATS, FUZZ_SECONDS set more): each run is 5 to 20 times
# slower.
set -euo pipefail
cd "$(dirname "$0")/../.."
kind=${1:-address}
shift || true
case "$kind" in
  address) flags=address,undefined library=libasan.so models=120 ;;
  # Threads meet in every model alike; how many models there are is the arithmetic's matter.
  thread) flags=thread library=libtsan.so models=${MODELS:-12} ;;
  valgrind) exec bash test/tools/valgrind.sh ;;
  *) echo "usage: test/tools/sanitize.sh address|thread|valgrind [jest arguments]" >&2; exit 2 ;;
esac
build="build-sanitize-$kind"
source test/tools/cuda.sh
cmake -S . -B "$build" -DCMAKE_BUILD_TYPE=RelWithDebInfo -DHPFORMER_TESTS=ON -DHPFORMER_CUDA="$cuda" \
  -DHPFORMER_SANITIZE="$flags" -DHPFORMER_TEST_MODELS="$models" -DHPFORMER_OUTPUT_DIRECTORY="$PWD/$build/build/Release"
cuda_kernels "$build"
cmake --build "$build" --parallel "${JOBS:-2}"

export ASAN_OPTIONS="halt_on_error=1:detect_stack_use_after_return=1"
export UBSAN_OPTIONS="halt_on_error=1:print_stacktrace=1"
export TSAN_OPTIONS="halt_on_error=1:second_deadlock_stack=1:suppressions=$PWD/test/tools/tsan.supp"
# Once more on another capability, or with other sums, the host code does nothing new. A program with an operator new of its own is
# the stand-in driver's allocator too, and what its threads do is not watched.
without='^cuda.*_(cc90|truncated)$'
[ "$kind" = thread ] && without="$without|^cuda_allocation_test$"
ctest --test-dir "$build" --exclude-regex "$without" --output-on-failure --parallel "${JOBS:-2}" | tail -n 30

# The addon inside an ordinary Node: the run time is preloaded, leaks are left to the native tests (Node itself keeps much).
runtime=$(${CXX:-g++} -print-file-name="$library")
export ASAN_OPTIONS="$ASAN_OPTIONS:detect_leaks=0"
export LD_PRELOAD="$(readlink -f "$runtime")"
# node-gyp-build looks into build/Release below the folder that <NAME>_PREBUILD names.
export HPFORMER_PREBUILD="$PWD/$build"
if [ $# -eq 0 ]; then
  export CHILDREN=${CHILDREN:-2} ABORTS=${ABORTS:-60} TIMES=${TIMES:-40} REPEATS=${REPEATS:-10} FUZZ_SECONDS=${FUZZ_SECONDS:-2}
  set -- test/session test/trust test/unit/model test/unit/native
  if [ "$kind" = address ]; then
    set -- test/golden test/session test/trust test/unit test/cli test/fuzz
    [ "$cuda" = ON ] && set -- "$@" test/cuda/kernels test/cuda/life
  fi
fi
node node_modules/jest/bin/jest.js --runInBand --silent --testTimeout=900000 "$@"
