#!/bin/sh
# Runs the AVX-512 kernels, emulated by SIMDe, against the scalar ones.
#
# Usage: tools/test_avx512.sh BUILD_DIR SIMDE_INCLUDE [LAYOUTS [SEED]]
# SIMDE_INCLUDE holds simde/ (0.8 or later): what simde_py.get_include() prints.
set -eu
build=$1 simde=$2
shift 2
cmake -S "$(dirname "$0")/../qzf/_native" -B "$build" -DQZF_TESTS=ON -DQZF_WERROR=ON -DQZF_SIMDE="$simde" \
  -DQZF_SANITIZE=address,undefined
cmake --build "$build" --parallel
"$build/kernels_test" "$@"
for program in lanes_test rans_test encode_test chunks_test strings_test; do
  "$build/$program" 1
done
"$build/dequant_test" 20
