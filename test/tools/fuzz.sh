#!/usr/bin/env bash
# Fuzzes every reader: test/tools/fuzz.sh [seconds for each target, default 60] [target ...]
# With Jazzer.js (coverage as a guide) where its binary loads (glibc 2.38 or newer), else by seeded mutation alone.
# Then native code with libFuzzer (fuzz-native.sh), unless targets are named.
# A search begins with the seeds and test/fuzz/corpus, and grows build-fuzz/corpus; KEEP=1 minimises that into test/fuzz/corpus.
# Findings are written to build-fuzz/: keep each in test/fuzz/findings, named <target>-<what>.
set -euo pipefail
cd "$(dirname "$0")/../.."
seconds=${1:-60}
shift || true
node_modules/.bin/tsc -p tsconfig.json --noEmit false --rootDir . --outDir build-fuzz
ln -sfn "$PWD/test/fixtures" build-fuzz/test/fixtures
ln -sfn "$PWD/examples" build-fuzz/examples
[ -d test/fuzz/node_modules ] || npm install --prefix test/fuzz --ignore-scripts --no-audit --no-fund --no-package-lock ||
  echo "Jazzer.js could not be installed"
if ! (cd test/fuzz && node -e "require('@jazzer.js/fuzzer')") 2>build-fuzz/jazzer.log; then
  echo "fuzz: skipped Jazzer.js, which does not load here ($(grep -m1 -oE "version .* not found|Cannot find module [^ ]*" build-fuzz/jazzer.log || echo unknown)); mutating without coverage"
  node build-fuzz/test/fuzz/long.js "$seconds" "$@"
  if [ $# -eq 0 ]; then exec bash test/tools/fuzz-native.sh "$seconds"; fi
  exit 0
fi

all=$(node build-fuzz/test/fuzz/jazzer.js build-fuzz/corpus test/fuzz/corpus)
instrumented="--includes build-fuzz/src --excludes node_modules"
limits="-timeout=5 -rss_limit_mb=2048"
jazzer() { # target, then what Jazzer.js and libFuzzer are told
  FUZZ_TARGET=$1 node test/fuzz/node_modules/@jazzer.js/core/dist/cli.js build-fuzz/test/fuzz/jazzer "${@:2:$#-1}"
}
quick() { # target, file: in time in one of three tries
  for _ in 1 2 3; do
    if jazzer "$1" "$2" $instrumented -- $limits; then return 0; fi
  done
  return 1
}
# One target for its time. What took too long is tried again alone: a machine that stood still is no finding.
executed=0 covered=0
search() { # target
  local target=$1 log=build-fuzz/$1.log end=$((SECONDS + seconds)) status found
  executed=0
  while :; do
    rm -f build-fuzz/"$target"-timeout-*
    status=0
    jazzer "$target" build-fuzz/corpus/"$target" $instrumented -- $limits -max_total_time=$((end - SECONDS)) -max_len=65536 \
      -print_final_stats=1 -artifact_prefix=build-fuzz/"$target"- >"$log" 2>&1 || status=$?
    executed=$((executed + $(grep -oE 'number_of_executed_units: *[0-9]+' "$log" | tail -n 1 | grep -oE '[0-9]+$' || echo 0)))
    covered=$(grep -oE 'cov: [0-9]+' "$log" | tail -n 1 | grep -oE '[0-9]+' || echo 0)
    if [ $status -eq 0 ]; then return 0; fi
    found=$(ls build-fuzz/"$target"-timeout-* 2>/dev/null | head -n 1)
    if [ -z "$found" ] || ! quick "$target" "$found" >>"$log" 2>&1; then return 1; fi
    echo "$target: stood still, not a finding"
    if [ $((end - SECONDS)) -lt 5 ]; then return 0; fi
  done
}
count=0 total=0 edges=0 findings=0
for target in ${*:-$all}; do
  verdict="no finding"
  # A target that fails does not keep the others from being searched.
  if ! search "$target"; then
    verdict="FINDING, see build-fuzz/$target.log"
    findings=$((findings + 1))
    grep -vE '^#[0-9]+' build-fuzz/"$target".log | tail -n 30
  fi
  count=$((count + 1)) total=$((total + executed)) edges=$((edges + covered))
  echo "$target: $executed executions in $seconds s, $covered edges, $verdict"
done
echo "fuzz: Jazzer.js: $count readers, $seconds s each: $total executions, $edges edges, $findings findings"

if [ -n "${KEEP:-}" ]; then
  for target in ${*:-$all}; do
    rm -rf build-fuzz/kept/"$target"
    mkdir -p build-fuzz/kept/"$target"
    jazzer "$target" build-fuzz/kept/"$target" build-fuzz/corpus/"$target" $instrumented -- \
      $limits -merge=1 -max_len=16384 >build-fuzz/"$target"-merge.log 2>&1 || echo "$target: not minimised"
  done
  node build-fuzz/test/fuzz/jazzer.js keep build-fuzz/kept test/fuzz/corpus
fi
[ "$findings" -eq 0 ] || exit 1
if [ $# -eq 0 ]; then exec bash test/tools/fuzz-native.sh "$seconds"; fi
