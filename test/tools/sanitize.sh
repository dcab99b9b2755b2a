#!/usr/bin/env bash
# Runs the native tests, and with `address` jest too, under sanitizers: test/tools/sanitize.sh address|thread [jest arguments]
# address: ASan + UBSan (native tests with leak check, then the addon inside Node)   thread: TSan   Needs g++ and its sanitizer libraries.
set -euo pipefail
cd "$(dirname "$0")/../.."
kind=${1:-address}
shift || true
case "$kind" in
  address) flags=address,undefined library=libasan.so ;;
  thread) flags=thread library=libtsan.so ;;
  *) echo "usage: test/tools/sanitize.sh address|thread [jest arguments]" >&2; exit 2 ;;
esac
build="build-sanitize-$kind"
cmake -S . -B "$build" -DCMAKE_BUILD_TYPE=RelWithDebInfo -DHPFORMER_TESTS=ON -DHPFORMER_CUDA="${HPFORMER_CUDA:-OFF}" \
  -DHPFORMER_SANITIZE="$flags" -DHPFORMER_OUTPUT_DIRECTORY="$PWD/$build/build/Release"
cmake --build "$build" --parallel "${JOBS:-2}"

export ASAN_OPTIONS="halt_on_error=1:detect_stack_use_after_return=1"
export UBSAN_OPTIONS="halt_on_error=1:print_stacktrace=1"
export TSAN_OPTIONS="halt_on_error=1:second_deadlock_stack=1"
ctest --test-dir "$build" --output-on-failure

# The addon inside an ordinary Node: the run time is preloaded, leaks are left to the native tests (Node itself keeps much).
runtime=$(${CXX:-g++} -print-file-name="$library")
export ASAN_OPTIONS="$ASAN_OPTIONS:detect_leaks=0"
export LD_PRELOAD="$(readlink -f "$runtime")"
# node-gyp-build looks into build/Release below the folder that <NAME>_PREBUILD names.
export HPFORMER_PREBUILD="$PWD/$build"
if [ $# -eq 0 ]; then set -- test/golden test/session test/unit; fi
node node_modules/jest/bin/jest.js --runInBand --passWithNoTests "$@"
