#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# ./run check finds what it is for: a small repository with one fault of each kind.
#
#     tests/check_test.sh SOURCE WORK
set -euo pipefail
source=$(realpath "$1") work=$2
command -v git >/dev/null && command -v perl >/dev/null || { echo "SKIPPED: git or perl is not installed"; exit 0; }
rm -rf "$work"
mkdir -p "$work/tests" "$work/include/retain/core"
cp "$source/run" "$source/.clang-format" "$source/.clang-tidy" "$work"
cp "$source/tests/wings.cmake" "$work/tests"
cd "$work"
licence='// SPDX-License-Identifier: MIT'
printf '%s\n#pragma once\n' "$licence" >include/retain/right.hpp
git init -q .
git add -A
./run check | tail -n 1 | grep -q 'nothing to mend' || { echo "a repository without faults is refused"; exit 1; }

printf '#pragma once\n' >include/retain/unlicensed.hpp
printf '%s\n#pragma once\n// %0100d\n' "$licence" 0 >include/retain/wide.hpp
{ printf '%s\n' "$licence"; printf '//\n%.0s' {1..350}; } >include/retain/long.hpp
printf '%s\n#pragma once\n#include <retain/terms/x.hpp>\n' "$licence" >include/retain/core/upward.hpp
git add -A
if ./run check >found 2>&1; then echo "a repository with faults passes"; cat found; exit 1; fi
for fault in 'unlicensed.hpp' 'wide.hpp:3' 'long.hpp: 351' 'core/upward.hpp: core/ may not include terms/'; do
  grep -q "$fault" found || { echo "not found: $fault"; cat found; exit 1; }
done
grep -q 'right.hpp' found && { echo "what is right is named"; cat found; exit 1; }
echo "every fault was found"
