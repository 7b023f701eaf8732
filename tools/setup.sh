#!/usr/bin/env bash
# Makes .venv at the root of the checkout with all that development needs. Called by `make setup`.
#
# Quiet and quick when there is nothing to do: the stamp .venv/.gismo-setup holds a hash of all that the
# environment depends on. As root it installs missing Debian packages; otherwise it names them and goes on.
# PYTHON=python3.12 make setup chooses another interpreter.
set -euo pipefail
exec >&2 # what follows may be redirected: make bench-ray ARGS=--json >FILE
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
stamp=.venv/.gismo-setup

command -v "$python" >/dev/null || { echo "make setup: no $python here; install Python 3.10 or later" >&2; exit 1; }

# Scripts in .venv hold its path, and wheels are for one Python: another path or Python needs another .venv.
place() { echo "$PWD $("$python" -c 'import sys; print(sys.base_prefix, sys.version.replace("\n", " "))')"; }
wanted() {
    { cat pyproject.toml tools/setup.sh gismo_core/ray/gismo.pth; place; } | sha256sum
}
want=$(wanted)
if [[ -x .venv/bin/python && -f $stamp && $(<"$stamp") == "$want" ]]; then
    exit 0
fi

"$python" - <<'PY'
import platform, sys
if sys.version_info < (3, 10):
    sys.exit(f"make setup: Gismo needs Python 3.10 or later, this is {platform.python_version()}; PYTHON=... chooses another")
if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
    sys.exit(f"make setup: Gismo runs on Linux x86-64 only, this is {platform.system()} {platform.machine()}")
PY

# ---- Debian packages ----

works() { "$@" >/dev/null 2>&1; }
has_headers() { echo '#include <pthread.h>' | gcc -E - ; }
has_libfuzzer() {
    local dir rc=0
    dir=$(mktemp -d)
    echo 'int LLVMFuzzerTestOneInput(const char *d, unsigned long n) { return d == 0 && n > 1; }' >"$dir/f.c"
    clang -fsanitize=fuzzer,address "$dir/f.c" -o "$dir/f" || rc=1
    rm -rf "$dir"
    return $rc
}

required=()
optional=()
works command -v gcc || required+=(gcc)
works has_headers || required+=(libc6-dev)
works command -v make || required+=(make)
works command -v objdump || required+=(binutils)
works "$python" -c 'import ensurepip, venv' || required+=(python3-venv)
if [[ -f gismo_core/_fast.c ]]; then
    works "$python" -c 'import pathlib, sys, sysconfig; sys.exit(not (pathlib.Path(sysconfig.get_path("include")) / "Python.h").exists())' ||
        optional+=(python3-dev)
fi
works command -v spin || optional+=(spin)
works has_libfuzzer || optional+=(clang libclang-rt-dev)

missing=("${required[@]}" "${optional[@]}")
if ((${#missing[@]})); then
    if [[ $(id -u) == 0 ]] && works command -v apt-get; then
        echo "make setup: installing ${missing[*]}"
        log=$(mktemp)
        export DEBIAN_FRONTEND=noninteractive
        if ! { apt-get -qq update && apt-get -qq install -y --no-install-recommends "${missing[@]}"; } >"$log" 2>&1 </dev/null; then
            tail -n 20 "$log" >&2
            echo "make setup: apt-get could not install ${missing[*]}" >&2
            if ((${#required[@]})); then exit 1; fi
        fi
        rm -f "$log"
    elif ((${#required[@]})); then
        echo "make setup: missing; install with: apt-get install ${missing[*]}" >&2
        exit 1
    else
        echo "make setup: tests that need them will be skipped; install with: apt-get install ${optional[*]}"
    fi
fi

# ---- the environment ----

if [[ ! -x .venv/bin/python || ! -f .venv/.gismo-place || $(<.venv/.gismo-place) != "$(place)" ]]; then
    echo "make setup: making .venv with $("$python" --version)"
    "$python" -m venv --clear .venv
    place >.venv/.gismo-place
fi

pip=(.venv/bin/python -m pip --disable-pip-version-check --no-input)
echo 'make setup: installing Python packages (some minutes when nothing is cached)'
"${pip[@]}" install --quiet 'pip>=24'
# Editable, so that the source tree is what is imported. Without CMake: `make build` puts the library beside
# the sources, again and quickly after each change of the C core.
"${pip[@]}" install --quiet --config-settings=wheel.cmake=false --editable '.[dev,bench,deviceplugin,operator,ray]'

# What the wheel has CMake install beside the package.
beside=$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
cp gismo_core/ray/gismo.pth "$beside"
ln -sf "$PWD/gismo_core/ray/gismo_boot.py" "$beside"

wanted >"$stamp" # anew: apt-get may just have brought another build of Python
