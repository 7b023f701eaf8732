#!/usr/bin/env bash
# Builds the C core in build/dev and installs it into the source tree, gismo_core/_lib. Called by `make build`.
set -euo pipefail
exec >&2 # what follows may be redirected: make bench-ray ARGS=--json >FILE
cd "$(dirname "$0")/.."

cmake=.venv/bin/cmake
log=build/dev.log
mkdir -p build

# Also again, not only the first time: it costs half a second, and the environment may be a new one.
if ! { "$cmake" -S gismo_core/native -B build/dev -G 'Unix Makefiles' -DGISMO_INPLACE=ON -DPython_ROOT_DIR="$PWD/.venv" &&
    "$cmake" --build build/dev --parallel "$(nproc)" && "$cmake" --install build/dev; } >"$log" 2>&1; then
    cat "$log" >&2
    echo "make build: the C core does not build (see above; also in $log)" >&2
    exit 1
fi
# Anything else that compiled may warn; nothing does, by -Werror.
touch gismo_core/_lib/libgismo.so
echo "make build: $(cd gismo_core && ls -1 _lib/*.so _fast*.so 2>/dev/null | paste -sd' ')"
