#!/bin/sh
# Runs every fuzzer for some seconds on its committed corpus. Findings stay beside the binary.
# usage: tools/run-fuzzers.sh build/fuzz SECONDS
set -u
passed=0
failed=0
for fuzzer in "$1"/fuzz/fuzz_*; do
    case $fuzzer in *.d | *.log | *-work | *crash* | *.log.*) continue ;; esac
    name=$(basename "$fuzzer")
    work=$fuzzer-work
    mkdir -p "$work" "native/fuzz/corpus/$name"
    if "$fuzzer" -max_total_time="$2" -rss_limit_mb=2048 -timeout=10 -artifact_prefix="$fuzzer-crash-" \
        "$work" "native/fuzz/corpus/$name" >"$fuzzer.log" 2>&1; then
        passed=$((passed + 1))
        echo "$name: $(grep -c . "$fuzzer.log") lines, $(sed -n 's/^Done \([0-9]*\) runs.*/\1 runs/p' "$fuzzer.log")"
    else
        failed=$((failed + 1))
        echo "FAILED: $name"
        tail -n 30 "$fuzzer.log"
    fi
done
echo "$passed passed, $failed failed"
[ "$failed" = 0 ] && [ "$passed" -gt 0 ]
