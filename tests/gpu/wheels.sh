#!/usr/bin/env bash
# Collect what the proof needs on a machine with a GPU and no network: ./tests/gpu/wheels.sh DIRECTORY [PART...]
#   base         the tests, PyCUDA, cuda-python and NVRTC
#   onnxruntime  ONNX Runtime with its CUDA provider, CUDA's libraries and cuDNN
#   dali         DALI
#   rtx          TensorRT for RTX
# All of them, if none is named. On x86-64 Linux with g++, under the Python that the other machine has:
#   PYTHON=python3.12 ./tests/gpu/wheels.sh wheels base
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
out=$(realpath -m "${1:?name a directory for the wheels}")
shift
parts=${*:-base onnxruntime dali rtx}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
pip() { "$work/venv/bin/python" -m pip --disable-pip-version-check --quiet "$@"; }

# The lock in blocks: a requirement and its hashes each. `locked` downloads some of them.
awk '/^[a-z]/ { n++ } { print > (d "/" sprintf("%03d", n) ".txt") }' d="$work" requirements-dev.lock
locked() { # DIRECTORY, then what grep is to do with the blocks
    local to=$1
    shift
    grep -E "$@" "$work"/[0-9]*.txt | xargs cat > "$work/part.lock"
    pip download --no-deps --require-hashes --only-binary :all: --requirement "$work/part.lock" --dest "$to"
}
of_dali='^nvidia-(dali|libnv|nv)'
of_rtx='^tensorrt-'

base() {
    locked "$out/base" -L "$of_dali|$of_rtx"
    # PyCUDA has no wheels. It takes CUDA's headers, of 13.0 so that any driver of CUDA 13 will do, and a libcuda to link
    # with: an empty one, since the driver's own is there when it runs.
    pip install --no-index --no-deps "$out"/base/numpy-*.whl
    pip install setuptools wheel "nvidia-cuda-runtime==13.0.*" "nvidia-cuda-crt==13.0.*" "nvidia-cuda-profiler-api==13.0.*"
    cuda=$(dirname "$(dirname "$(find "$work/venv" -path '*/include/cuda.h')")")
    g++ -shared -Wl,-soname,libcuda.so.1 -o "$work/libcuda.so" -x c++ /dev/null
    pip download --no-deps --no-binary pycuda --no-build-isolation pycuda==2026.1 --dest "$work"
    tar -xzf "$work"/pycuda-*.tar.gz -C "$work"
    (
        cd "$work"/pycuda-*/
        "$work/venv/bin/python" configure.py --cuda-root="$cuda" --cudadrv-lib-dir="$work" --cudart-libname= \
            --no-cuda-enable-curand > "$work/configure.log" 2>&1
        LDFLAGS=-Wl,--no-as-needed pip wheel --no-deps --no-build-isolation --wheel-dir "$out/base" .
    )
    pip download --only-binary :all: pytools siphash24 platformdirs typing-extensions --dest "$out/base"
}

onnxruntime() { # in the version of the lock
    locked "$work/cpu" -l '^onnxruntime=='
    version=$(basename "$work"/cpu/onnxruntime-*.whl | cut -d- -f2)
    pip download --only-binary :all: "onnxruntime-gpu[cuda,cudnn]==$version" --dest "$work/all"
    mv "$work"/all/{onnxruntime_gpu,nvidia_}*.whl "$out/onnxruntime"
}

dali() { locked "$out/dali" -l "$of_dali"; }

rtx() { locked "$out/rtx" -l "$of_rtx"; }

for part in $parts; do
    mkdir -p "$out/$part"
    "$part"
    du -sh "$out/$part"
done
