#!/bin/sh
# Installs the Debian packages the build needs, where they are missing. Nothing to do on a machine that has them.
# usage: tools/setup-system.sh [build|test|fuzz]...
set -eu
missing=""
want() { # want PACKAGE COMMAND...: COMMAND succeeding means the package is not needed
    package=$1
    shift
    "$@" >/dev/null 2>&1 || missing="$missing $package"
}
python=${PYTHON:-python3}
for group in "${@:-build}"; do
    case $group in
    build)
        want pkg-config pkg-config --version
        want gcc sh -c 'command -v gcc'
        want libc6-dev test -e /usr/include/stdio.h
        want liblz4-dev pkg-config --exists liblz4
        want libzstd-dev pkg-config --exists libzstd
        want libsnappy-dev pkg-config --exists snappy
        want zlib1g-dev pkg-config --exists zlib
        want python3-venv "$python" -c 'import ensurepip, venv'
        want python3-dev "$python" -c 'import os, sysconfig
raise SystemExit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))'
        ;;
    test)
        want kcat sh -c 'command -v kcat'
        want strace sh -c 'command -v strace'
        want valgrind sh -c 'command -v valgrind'
        ;;
    fuzz)
        want clang sh -c 'command -v clang'
        want libclang-rt-14-dev sh -c 'test -e "$(clang -print-file-name=libclang_rt.fuzzer-x86_64.a)" ||
            test -e "$(clang -print-resource-dir)/lib/linux/libclang_rt.fuzzer-x86_64.a"'
        ;;
    esac
done
[ -n "$missing" ] || exit 0
if ! command -v apt-get >/dev/null 2>&1; then
    echo "setup-system: please install the equivalents of these Debian packages:$missing" >&2
    exit 1
fi
sudo=""
if [ "$(id -u)" != 0 ]; then
    if ! command -v sudo >/dev/null 2>&1; then
        echo "setup-system: not root and no sudo; please run: apt-get install$missing" >&2
        exit 1
    fi
    sudo=sudo
fi
echo "setup-system: installing$missing" >&2
export DEBIAN_FRONTEND=noninteractive
$sudo apt-get update -qq >&2
# The compiler runtime of clang has the version of clang in its name.
case "$missing" in
*libclang-rt-14-dev*)
    missing=$(echo "$missing" | sed 's/ libclang-rt-14-dev//')
    version=$(apt-cache depends clang 2>/dev/null | sed -n 's/.*Depends: clang-\([0-9]*\)$/\1/p' | head -n 1)
    missing="$missing libclang-rt-${version:-14}-dev"
    ;;
esac
# shellcheck disable=SC2086
$sudo apt-get install -y -qq --no-install-recommends $missing >&2
