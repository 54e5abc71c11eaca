#!/bin/sh
# Cross-compiles the kernels for 64-bit ARM and runs the NEON ones against the scalar ones under qemu.
#
# Usage: tools/test_neon.sh BUILD_DIR [LAYOUTS [SEED]]
# Needs a cross compiler and a user-mode emulator (Debian: g++-aarch64-linux-gnu, qemu-user-static).
set -eu
build=$1
shift
cxx=${AARCH64_CXX:-aarch64-linux-gnu-g++}
qemu=${AARCH64_QEMU:-$(command -v qemu-aarch64-static || command -v qemu-aarch64)}
cmake -S "$(dirname "$0")/../qzf/_native" -B "$build" -DQZF_TESTS=ON -DQZF_WERROR=ON \
  -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 -DCMAKE_CXX_COMPILER="$cxx" \
  -DCMAKE_EXE_LINKER_FLAGS=-static
cmake --build "$build" --parallel
"$qemu" "$build/kernels_test" "$@"
for program in lanes_test rans_test encode_test chunks_test strings_test; do
  "$qemu" "$build/$program" 1
done
"$qemu" "$build/dequant_test" 20
