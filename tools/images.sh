#!/usr/bin/env bash
# Builds the image of operator and agent. Called by `make images`.
#
#   BASE=…  its base image (Containerfile has the default)     IMAGE=gismo  TAG=the version
#   BUILD_ARGUMENTS=…  more for the engine's build, such as --network=host
#   PUSH=…  a registry and path: tagged and pushed there too   ENGINE=docker|podman|buildah
set -euo pipefail
cd "$(dirname "$0")/.."

engine=${ENGINE:-}
for one in docker podman buildah; do
    [[ -n $engine ]] || ! command -v "$one" >/dev/null || engine=$one
done
[[ -n $engine ]] || { echo 'make images: no docker, podman or buildah here; install one' >&2; exit 1; }

version=$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml | head -n 1)
name=${IMAGE:-gismo}:${TAG:-$version}

rm -f dist/gismo_cxl-*.whl
make dist
build=(build)
[[ $engine == buildah ]] && build=(bud)
read -ra arguments <<<"${BUILD_ARGUMENTS:-}"
[[ -n ${BASE:-} ]] && arguments+=(--build-arg "BASE=$BASE")
"$engine" "${build[@]}" "${arguments[@]}" --file Containerfile --tag "$name" .
echo "make images: $name"
if [[ -n ${PUSH:-} ]]; then
    "$engine" tag "$name" "${PUSH%/}/$name"
    "$engine" push "${PUSH%/}/$name"
    echo "make images: pushed ${PUSH%/}/$name"
fi
