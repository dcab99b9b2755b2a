#!/usr/bin/env bash
# libFuzzer over what native code takes from strangers, with ASan and UBSan: test/tools/fuzz-native.sh [seconds each, default 60]
# Needs clang++ with its run-time libraries (CLANG names another); without it one line says that it was skipped.
# The corpus grows in build-fuzz/native/corpus; what crashed is kept in test/fuzz/findings and tried first.
set -euo pipefail
cd "$(dirname "$0")/../.."
seconds=${1:-60}
clang=${CLANG:-$(command -v clang++ clang++-{19,18,17,16,15} | head -n 1 || true)}
out=build-fuzz/native
mkdir -p "$out"
if [ -z "$clang" ] || ! echo 'extern "C" int LLVMFuzzerTestOneInput(const unsigned char*, unsigned long) { return 0; }' |
  "$clang" -x c++ - -fsanitize=fuzzer,address,undefined -o "$out/probe" 2>"$out/probe.log"; then
  echo "fuzz: skipped 2 native targets: clang++ with libFuzzer is not installed"
  exit 0
fi
flags="-std=c++20 -g -O1 -I. -DHPFORMER_HAVE_baseline -ffp-contract=off -Wno-psabi"
# The kernel tables are built without run-time type information, which the check of function types would need.
cores="-fsanitize=fuzzer-no-link,address,undefined -fno-sanitize=function -fno-sanitize-recover=all"
for source in binding/contract/*.cc binding/model/*.cc binding/cpu/*.cc binding/cpu/engine/*.cc cuda/absent.cc binding/cpu/isa/kernels.cc; do
  object="$out/$(echo "$source" | tr / _).o"
  if [ ! -f "$object" ] || [ -n "$(find binding cuda -newer "$object" -name '*.[chi]*' -print -quit)" ]; then
    isa=""
    if [ "$source" = binding/cpu/isa/kernels.cc ]; then isa="-DHPFORMER_ISA=baseline -fno-exceptions -fno-rtti"; fi
    "$clang" $flags $cores $isa -c "$source" -o "$object"
  fi
done
for target in run kernel; do
  "$clang" $flags $cores -fsanitize=fuzzer "test/fuzz/native/${target}_fuzz.cc" "$out"/*.o -lpthread -ldl -o "$out/$target"
  mkdir -p "$out/corpus/$target"
  for finding in test/fuzz/findings/native-"$target"-*; do if [ -f "$finding" ]; then "$out/$target" "$finding" 2>/dev/null || { echo "fuzz: FINDING again: $finding"; exit 1; }; fi; done
  log="$out/$target.log"
  if ! "$out/$target" "$out/corpus/$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -max_len=4096 \
    -malloc_limit_mb=1024 -print_final_stats=1 -artifact_prefix="$out/$target-" >"$log" 2>&1; then
    tail -n 60 "$log"
    echo "fuzz: FINDING in native $target: keep the file as test/fuzz/findings/native-$target-<what>"
    exit 1
  fi
  executions=$(grep -oE 'stat::number_of_executed_units: *[0-9]+' "$log" | grep -oE '[0-9]+$')
  covered=$(grep -oE 'cov: [0-9]+' "$log" | tail -n 1)
  echo "fuzz: native $target: $executions executions in $seconds s, $covered edges, no finding"
done
