# Sourced by the scripts beside it, never run. It gives them
#
#   environment demo|dev|bench   a virtual environment with what requirements/<name>.txt pins and this package
#                                (editable); sets VENV and puts its programs first on PATH
#   frontend [--packages]        the tab's bundle, built where it is absent or stale; with --packages also what the
#                                front end's own tests and checks need
#
# Both do their work once and then notice that nothing has changed. DEADUNITS_VENV puts the environment elsewhere,
# PYTHON chooses the interpreter it is made with.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
VENV=${DEADUNITS_VENV:-$ROOT/.venv}

say() { printf '%s\n' "$*" >&2; }
fail() { say "error: $*"; exit 1; }

fits() { "$1" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' >/dev/null 2>&1; }

find_python() {
  local candidate
  if [ -n "${PYTHON:-}" ]; then
    fits "$PYTHON" || fail "PYTHON=$PYTHON is not a Python 3.10 to 3.13"
    printf '%s' "$PYTHON"
    return
  fi
  # Also by version: the default python3 may be too old, or newer than what TensorFlow is published for.
  for candidate in python3 python3.13 python3.12 python3.11 python3.10 python; do
    if fits "$candidate"; then
      command -v "$candidate"
      return
    fi
  done
  fail "no Python 3.10 to 3.13 found (TensorFlow is published for these): install one, or name it: PYTHON=/path/to/python $0"
}

make_venv() {
  local python
  python=$(find_python) || exit 1
  say "making a virtual environment in $VENV with $("$python" --version)"
  "$python" -m venv --clear "$VENV" >/dev/null 2>&1 && return
  # Debian ships venv without ensurepip; where pip itself is there, it can install into an environment that has none.
  "$python" -m venv --clear --without-pip "$VENV" >/dev/null 2>&1 \
    && "$python" -m pip --python "$VENV/bin/python" install --quiet pip >/dev/null 2>&1 && return
  fail "$python cannot make virtual environments: on Debian and Ubuntu install it with 'apt-get install python3-venv'"
}

# pip's output, on a terminal as one line that moves; whole in a file, shown if something failed.
pip_install() {
  local log=$VENV/install.log
  if [ -t 2 ]; then
    "$VENV/bin/python" -m pip install --disable-pip-version-check "$@" 2>&1 | tee "$log" | while IFS= read -r line; do
      case $line in Collecting*|*Downloading*|Installing*|Building*) printf '\r\033[K%.100s' "$line" >&2 ;; esac
    done
    printf '\r\033[K' >&2
  else
    "$VENV/bin/python" -m pip install --disable-pip-version-check "$@" >"$log" 2>&1
  fi || { tail -n 30 "$log" >&2; fail "installing failed; the whole output is in $log"; }
}

# Hash of what an environment is made of. The path counts too: a virtual environment does not survive a move.
state_of() { { printf '%s\n' "$ROOT" "$VENV"; cat "$ROOT/requirements/$1.txt" "$ROOT"/{setup.py,pyproject.toml,deadunits_tb/native/reductions.c}; } | cksum; }

is_current() { [ -f "$VENV/.deadunits-$1" ] && [ "$(cat "$VENV/.deadunits-$1")" = "$(state_of "$1")" ]; }

environment() {
  export PATH="$VENV/bin:$PATH" VENV PIP_NO_INPUT=1
  fits "$VENV/bin/python" && "$VENV/bin/python" -m pip --version >/dev/null 2>&1 || make_venv
  # What the benchmarks need includes what the tests need, and that what the demo needs.
  local name sufficient size
  case $1 in
    demo) sufficient="demo dev bench" size="TensorFlow alone is 250 MB to fetch" ;;
    dev) sufficient="dev bench" size="with TensorFlow, PyTorch and JAX 1 GB to fetch" ;;
    bench) sufficient="bench" size="with TensorFlow, PyTorch and JAX 1 GB to fetch" ;;
  esac
  for name in $sufficient; do
    if is_current "$name"; then return; fi
  done
  say "installing what requirements/$1.txt pins (once; $size)"
  pip_install -r "$ROOT/requirements/$1.txt"
  # The bundle comes first: an editable install passes over a build that failed.
  frontend
  pip_install --no-build-isolation --no-deps --editable "$ROOT"
  state_of "$1" >"$VENV/.deadunits-$1"
}

frontend() {
  local log=$VENV/frontend.log build=("$VENV/bin/python" "$ROOT/setup.py" --quiet build_frontend "$@")
  "${build[@]}" >"$log" 2>&1 && return
  # Only setup.py knows whether there is anything to build, and whether the Node.js here is new enough for it.
  if grep -q 'needs Node.js' "$log"; then
    say "no Node.js here that is new enough: installing it as a Python wheel"
    pip_install -r "$ROOT/requirements/node.txt"
    hash -r
    "${build[@]}" >"$log" 2>&1 && return
  fi
  cat "$log" >&2
  fail "the tab was not built"
}
