#!/usr/bin/env bash
# Builds the real inference servers that the end-to-end tests run against, and a tiny model for them, from sources
# that the package registries carry. What is already there in the wanted version is left alone.
#
#   build_engines.sh [FOLDER]       FOLDER defaults to .engines in the project
#
# Leaves FOLDER/bin/llama-server, FOLDER/bin/ollama and FOLDER/models/tiny.gguf. Needs python3, cmake, a C++ compiler
# and Go. JOBS sets how many compilers run at once (default: all cores); on one core it takes a quarter of an hour.
set -euo pipefail

LLAMA_CPP_PYTHON_VERSION=${LLAMA_CPP_PYTHON_VERSION:-0.3.36} # its source distribution holds llama.cpp whole
OLLAMA_VERSION=${OLLAMA_VERSION:-v0.17.4}
GGUF_VERSION=${GGUF_VERSION:-0.19.0}
JOBS=${JOBS:-$(getconf _NPROCESSORS_ONLN)}

scripts=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${1:-$scripts/../.engines}
mkdir -p "$cache/bin" "$cache/models"
cache=$(cd "$cache" && pwd)
work=$cache/unfinished

say() { printf '%s\n' "build_engines: $*"; }

# give_up LOG: the end of what the compiler said.
give_up() {
  tail -n 30 "$1" >&2
  exit 1
}

require() {
  local missing=() tool
  for tool in "$@"; do command -v "$tool" >/dev/null || missing+=("$tool"); done
  [ ${#missing[@]} -eq 0 ] || { say "missing: ${missing[*]}" >&2; exit 2; }
}

# is_built FILE VERSION: a file counts only with the note that it was finished in this version.
is_built() { [ -e "$1" ] && [ "$(cat "$1.version" 2>/dev/null)" = "$2" ]; }

# finish BUILT FILE VERSION: the note comes last, so that an interrupted run starts this part again.
finish() {
  rm -f "$2.version"
  mv -f "$1" "$2"
  printf '%s\n' "$3" >"$2.version"
}

python_in() {
  [ -x "$cache/venv/bin/python" ] || python3 -m venv "$cache/venv"
  "$cache/venv/bin/python" "$@"
}

# Both engines need this tree: llama.cpp to be built, Ollama for the headers that its module lacks.
fetch_llama_cpp() {
  local release=llama_cpp_python-$LLAMA_CPP_PYTHON_VERSION
  llama_cpp=$work/$release/vendor/llama.cpp
  [ -e "$llama_cpp/CMakeLists.txt" ] && return
  say "fetching llama.cpp from llama-cpp-python $LLAMA_CPP_PYTHON_VERSION"
  python_in -m pip download --quiet --no-deps --no-binary llama-cpp-python --dest "$work" \
    "llama-cpp-python==$LLAMA_CPP_PYTHON_VERSION"
  mkdir -p "$work/unpacked"
  tar -xzf "$work/$release.tar.gz" -C "$work/unpacked"
  mv "$work/unpacked/$release" "$work/$release"
}

build_llama_server() {
  is_built "$cache/bin/llama-server" "$LLAMA_CPP_PYTHON_VERSION" && return
  require cmake c++ cc
  fetch_llama_cpp
  say "building llama-server"
  {
    cmake -S "$llama_cpp" -B "$work/llama-build" -DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=OFF \
      -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_APP=OFF -DLLAMA_BUILD_UI=OFF \
      -DLLAMA_USE_PREBUILT_UI=OFF -DLLAMA_OPENSSL=OFF -DGGML_OPENMP=OFF &&
      cmake --build "$work/llama-build" --target llama-server --parallel "$JOBS"
  } >"$work/llama-server.log" 2>&1 || give_up "$work/llama-server.log"
  finish "$work/llama-build/bin/llama-server" "$cache/bin/llama-server" "$LLAMA_CPP_PYTHON_VERSION"
}

build_ollama() {
  is_built "$cache/bin/ollama" "$OLLAMA_VERSION" && return
  require go c++ cc
  fetch_llama_cpp
  say "fetching Ollama $OLLAMA_VERSION"
  local module
  module=$(cd "$work" && go mod download -json "github.com/ollama/ollama@$OLLAMA_VERSION" |
    python_in -c 'import json, sys; print(json.load(sys.stdin)["Dir"])')
  rm -rf "$work/ollama"
  cp -R "$module" "$work/ollama"
  chmod -R u+w "$work/ollama"
  # A module's archive leaves out every folder named vendor, and llama.cpp keeps its headers in one.
  cp -R "$llama_cpp/vendor" "$work/ollama/llama/llama.cpp/vendor"
  say "building Ollama"
  # The plain CPU backend is linked in, so that no library has to lie beside the program.
  (cd "$work/ollama" && CGO_ENABLED=1 GOMAXPROCS=$JOBS go build -p "$JOBS" -buildvcs=false \
    -ldflags "-X github.com/ollama/ollama/version.Version=${OLLAMA_VERSION#v}" -o "$work/ollama-built" .) \
    >"$work/ollama.log" 2>&1 || give_up "$work/ollama.log"
  finish "$work/ollama-built" "$cache/bin/ollama" "$OLLAMA_VERSION"
}

make_model() {
  local version
  version=$(cksum <"$scripts/make_tiny_gguf.py")
  is_built "$cache/models/tiny.gguf" "$version" && return
  say "making the tiny model"
  python_in -m pip install --quiet "gguf==$GGUF_VERSION"
  python_in "$scripts/make_tiny_gguf.py" "$work/tiny.gguf"
  finish "$work/tiny.gguf" "$cache/models/tiny.gguf" "$version"
}

require python3
mkdir -p "$work"
make_model
build_llama_server
build_ollama
rm -rf "$work"
say "ready in $cache"
