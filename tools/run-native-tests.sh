#!/bin/sh
# Runs every native test of a build directory, one process each; prints what fails and a count.
# usage: tools/run-native-tests.sh build/asan
set -u
passed=0
failed=0
export ASAN_OPTIONS=${ASAN_OPTIONS:-detect_leaks=1:abort_on_error=0}
export TSAN_OPTIONS=${TSAN_OPTIONS:-halt_on_error=1}
export UBSAN_OPTIONS=${UBSAN_OPTIONS:-print_stacktrace=1}
for test in "$1"/tests/test_*; do
    case $test in *.d | *.log) continue ;; esac
    log=$test.log
    if timeout 300 "$test" >"$log" 2>&1; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "FAILED: $test"
        tail -n 40 "$log"
    fi
done
echo "$passed passed, $failed failed"
[ "$failed" = 0 ] && [ "$passed" -gt 0 ]
