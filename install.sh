#!/usr/bin/env bash
# Sets everything up in .venv/; then, if asked, makes an avatar or runs the tests.
# `./install.sh --help` says more. Works in bash 3.2, which macOS still has.
set -euo pipefail

CALLER=$PWD
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$ROOT"
VENV_PYTHON=.venv/bin/python
STAMP=.venv/installed # what the environment was made from; absent until it is complete
MADE_IN=.venv/made-in
LOG=.venv/install.log
CONFIG=custom/threestudio-headstudio/configs/headstudio-mini.yaml
RUNS=outputs/headstudio-mini
RENDERER=custom/threestudio-headstudio/headstudio/render
COMPILED=.venv/kernels # what numba's cache was made from
# A third of all the Python in the packages, next to none of which we import.
SELDOM='/(tests|transformers/models/(?!auto/|clip/)\w+|diffusers/(modular_)?pipelines)/'
DEFAULT_PROMPT="a woman with blue skin and long red hair"

usage() {
  cat <<EOF
./install.sh                    set up: Python packages into .venv/
./install.sh demo ["a prompt"]  set up; make an avatar, animate it, say where it is
./install.sh test [options]     set up; check style and types, run the tests (options: pytest's)
./install.sh --threestudio [DIR] [--uninstall]
                                set up; make the threestudio checkout DIR able to run us (links into
                                it, missing packages); without DIR, clone one into checkouts/

Nothing outside this folder, and DIR if it is given, is touched, and what is done already is not
done again.

PYTHON=python3.12        the Python to use, 3.10 to 3.12 (default: the first that is found)
TORCH_INDEX_URL=URL      a further package index, for another build of PyTorch: without a GPU,
                         PyTorch's index of CPU builds spares gigabytes of CUDA libraries
PIP_INDEX_URL, HTTPS_PROXY, CUDA_VISIBLE_DEVICES … mean what they always mean.
EOF
}

say() { printf '==> %s\n' "$*"; }

die() { # message, status
  printf 'error: %s\n' "$1" >&2
  exit "${2:-1}"
}

# ---------------------------------------------------------------------------------- Python

supported() { # whether a command is a Python that can be used; some are shims that only complain
  "$1" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' >/dev/null 2>&1
}

version_of() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || echo none; }

has_venv() { "$1" -c 'import ensurepip, venv' >/dev/null 2>&1; }

find_python() { # prints a command
  local candidate found="" without_venv=""
  if [ -n "${PYTHON:-}" ]; then
    command -v "$PYTHON" >/dev/null 2>&1 || die "PYTHON=$PYTHON is not a command here."
    supported "$PYTHON" ||
      die "PYTHON=$PYTHON is Python $(version_of "$PYTHON"); 3.10, 3.11 or 3.12 is needed."
    has_venv "$PYTHON" || die "$(venv_advice "$PYTHON")"
    echo "$PYTHON"
    return
  fi
  for candidate in python3.11 python3.12 python3.10 python3 python; do
    command -v "$candidate" >/dev/null 2>&1 || continue
    if ! supported "$candidate"; then
      [ "$(version_of "$candidate")" = none ] || found="$found $candidate ($(version_of "$candidate"))"
    elif has_venv "$candidate"; then
      echo "$candidate"
      return
    else
      without_venv=$candidate
    fi
  done
  [ -z "$without_venv" ] || die "$(venv_advice "$without_venv")"
  die "no Python 3.10, 3.11 or 3.12 was found${found:+, only$found}. Install one (Debian and Ubuntu: \
sudo apt-get install python3.11 python3.11-venv; macOS: brew install python@3.11; anywhere: \
python.org), or name one: PYTHON=/path/to/python3.11 ./install.sh"
}

venv_advice() {
  echo "$1 lacks the modules venv and ensurepip, which make .venv/. Install them (Debian and Ubuntu:" \
    "sudo apt-get install python$(version_of "$1")-venv), or name another Python: PYTHON=…"
}

# --------------------------------------------------------------------------------- install

moved() { # whether .venv/ was made in another folder, which its programs name
  if [ -f "$MADE_IN" ]; then
    [ ! "$(cat "$MADE_IN")" -ef . ] # by whichever name
  else # by hand, or by an earlier version of this
    [ -f .venv/bin/activate ] &&
      ! grep -qF -e "$ROOT/.venv" -e "$(pwd -P)/.venv" .venv/bin/activate
  fi
}

check_machine() {
  [ "$(uname -sm)" != "Darwin x86_64" ] || [ -n "${TORCH_INDEX_URL:-}" ] ||
    die "PyTorch is not built for Intel Macs any more. Use a Mac with Apple silicon (there, a\
 terminal without Rosetta), or Linux; or name an index that has a build: TORCH_INDEX_URL=…"
}

make_environment() {
  local python
  if moved; then
    say "this folder was moved or copied: .venv/ names the old one, and is made anew"
  elif supported "$VENV_PYTHON" && "$VENV_PYTHON" -c 'import pip' 2>/dev/null; then
    python=${PYTHON:+$(find_python)}
    if [ -n "$python" ] && [ "$(version_of "$python")" != "$(version_of "$VENV_PYTHON")" ]; then
      die ".venv/ was made with Python $(version_of "$VENV_PYTHON"), PYTHON=$PYTHON is\
 $(version_of "$python"). Remove it (rm -r .venv) and run this again."
    fi
    return
  fi
  python=$(find_python)
  say "making .venv/ with $python ($(version_of "$python"))"
  # --clear: what is there is broken, was interrupted, or names the folder it was made in.
  "$python" -m venv --clear .venv ||
    die "$python could not make .venv/ in $ROOT. Is the folder writable, and the disk not full?"
  pwd -P >"$MADE_IN"
}

fingerprint() { # changes when the packages have to be looked at again
  {
    cat pyproject.toml constraints.txt
    echo "$ROOT ${TORCH_INDEX_URL:-}"
    "$VENV_PYTHON" -VV
  } | cksum
}

install() {
  local wanted
  check_machine
  make_environment
  wanted=$(fingerprint)
  if [ -f "$STAMP" ] && [ "$(cat "$STAMP")" = "$wanted" ]; then
    return
  fi
  rm -f "$STAMP"
  say "installing packages (what pip says: $LOG)"
  if ! install_packages 2>&1 | progress; then
    tail -n 15 "$LOG" >&2
    die "$(pip_advice) All that pip said is in $ROOT/$LOG."
  fi
  echo "$wanted" >"$STAMP"
  say "installed, in $SECONDS s. Use it with: source .venv/bin/activate; headstudio doctor"
}

install_packages() {
  # The pip that comes with Python takes two minutes to choose the versions, a newer one a quarter
  # of that. Where it cannot be had, the old one will do, or says why nothing can be had.
  pip_install --retries 1 pip || true
  pip_install --no-compile ${TORCH_INDEX_URL:+--extra-index-url "$TORCH_INDEX_URL"} \
    --editable '.[test]' || return
  # Which pip would do on one core, for every file. What is left out is compiled if it is imported;
  # and files that are not Python of this version are no error.
  "$VENV_PYTHON" -m compileall -qq -j 0 -x "$SELDOM" .venv/lib || true
}

pip_install() { # options, packages
  PYTHONUNBUFFERED=1 "$VENV_PYTHON" -m pip install --disable-pip-version-check \
    --constraint constraints.txt "$@"
}

progress() { # pip's output to the log; of it, to the terminal, what is being done
  local line width=${COLUMNS:-80}
  : >"$LOG"
  while IFS= read -r line || [ -n "$line" ]; do
    printf '%s\n' "$line" >>"$LOG"
    case $line in
      Collecting* | *Downloading* | *Building* | *Preparing* | Installing*) ;;
      *) continue ;;
    esac
    line="    ${line#"${line%%[![:space:]]*}"}"
    if [ -t 1 ]; then
      printf '\r\033[K%s' "${line:0:$((width - 1))}"
    else
      case $line in # in a log file, only what takes long
        *Downloading*" MB)" | *Downloading*" GB)" | *Installing*) printf '%s\n' "${line:0:100}" ;;
      esac
    fi
  done
  [ ! -t 1 ] || printf '\r\033[K'
}

pip_advice() { # what the log means, most telling first
  said() { grep -qiE "$1" "$LOG"; }
  if said 'No space left on device|Errno 28'; then
    echo "The disk is full. Make room where $ROOT and ${TMPDIR:-/tmp} lie (another place for" \
      "temporary files: TMPDIR=…), then run this again."
  elif said 'CERTIFICATE_VERIFY_FAILED|SSLError'; then
    echo "The package index's certificate was not accepted. Behind a company's proxy, give its" \
      "certificate: PIP_CERT=/path/to/ca.pem ./install.sh"
  elif said 'name resolution|new connection|Max retries|unreachable|timed out|ProxyError|Connection(Reset|Refused|Aborted)'; then
    echo "The package index could not be reached. Check the connection (proxy: HTTPS_PROXY; mirror:" \
      "PIP_INDEX_URL), then run this again: what was downloaded is kept."
  elif said 'Permission denied|Errno 13'; then
    echo "A file could not be written. Is all of $ROOT yours (ls -l)? Then run this again."
  elif said 'No matching distribution|Could not find a version'; then
    echo "The package index has no $(sed -n 's/.*No matching distribution found for \([^ ]*\).*/\1/p' \
      "$LOG" | tail -n 1) for Python $(version_of "$VENV_PYTHON") on $(uname -sm). Try another Python" \
      "(rm -r .venv; PYTHON=python3.11 ./install.sh) or another index (PIP_INDEX_URL)."
  else
    echo "pip could not install the packages; its last lines are above. Running this again goes on" \
      "from what is there; rm -r .venv starts afresh."
  fi
}

activate() { # as `source .venv/bin/activate` does
  export VIRTUAL_ENV="$ROOT/.venv" PATH="$ROOT/.venv/bin:$PATH"
  unset PYTHONHOME
}

# ------------------------------------------------------------------------------ demo, test

quoted() { # the words of a command as one would type them
  local word
  for word in "$@"; do
    case $word in
      *[\"\$\`\\!]*) printf ' %q' "$word" ;;
      *=*[!a-zA-Z0-9_./=@:,+-]*) printf ' %s="%s"' "${word%%=*}" "${word#*=}" ;;
      *[!a-zA-Z0-9_./=@:,+-]*) printf ' "%s"' "$word" ;;
      *) printf ' %s' "$word" ;;
    esac
  done
}

run() {
  printf '\n$%s\n' "$(quoted "$@")"
  "$@"
}

choose_device() { # sets `device`, more options for launch.py
  device=()
  headstudio doctor >.venv/doctor.txt && return
  if headstudio doctor --cpu >.venv/doctor-cpu.txt; then
    grep -A 12 PROBLEM .venv/doctor.txt || true
    say "the GPU cannot be used yet, for the reason above: going on without it"
    device=(--gpu -1)
  else
    cat .venv/doctor-cpu.txt
    die "what \`headstudio doctor\` calls a PROBLEM, above, stands in the way."
  fi
}

compile_kernels() { # parts, each in a process of its own; afterwards they are in numba's cache
  local part sources
  # numba's files are of one version of these, and the next does not take them.
  sources=$(cat "$RENDERER"/*.py | cksum)
  if [ -f "$COMPILED" ] && [ "$(cat "$COMPILED")" = "$sources" ] &&
    compgen -G "$RENDERER/__pycache__/*.nbi" >/dev/null; then return; fi
  say "compiling the CPU renderer's kernels, once"
  for part in "$@"; do # what is wrong, the pictures or a test will say
    # shellcheck disable=SC2086 # all of them is no argument, not an empty one
    python -m headstudio.app.kernels $part >".venv/kernels$part.log" 2>&1 &
  done
  wait
  echo "$sources" >"$COMPILED"
}

newest_run() { # prints the folder of the run that began after the file $1 was made
  local folder newest=""
  for folder in "$RUNS"/*/; do
    folder=${folder%/}
    if [ -f "$folder/ckpts/last.ckpt" ] && [ "$folder/cmd.txt" -nt "$1" ]; then
      if [ -z "$newest" ] || [ "$folder/cmd.txt" -nt "$newest/cmd.txt" ]; then newest=$folder; fi
    fi
  done
  echo "$newest"
}

show() { # what it is, files (those that exist)
  local what=$1 file
  shift
  for file in "$@"; do
    [ ! -e "$file" ] || printf '  %-10s %s\n' "$what" "$ROOT/$file"
  done
}

demo() {
  local prompt=$1 folder began compiling
  case $prompt in
    *[![:space:]]*) ;;
    *) die 'the prompt is empty; give a sentence: ./install.sh demo "an old man with a white beard"' 2 ;;
  esac
  install
  activate
  compile_kernels training pictures & # or the first step would, one by one
  compiling=$!
  choose_device
  wait "$compiling"
  began=.venv/demo-began
  : >"$began"
  # bash before 4.4 takes an empty array for an unset variable.
  run python launch.py --config "$CONFIG" --train ${device[@]+"${device[@]}"} \
    "system.prompt_processor.prompt=$prompt" ||
    die "training stopped, for the reason above."
  folder=$(newest_run "$began")
  [ -n "$folder" ] || die "training ended, but left no $RUNS/*/ckpts/last.ckpt."
  run python launch.py --config "$folder/configs/parsed.yaml" --export ${device[@]+"${device[@]}"} \
    "resume=$folder/ckpts/last.ckpt" ||
    die "the avatar could not be exported, for the reason above."
  printf '\n'
  say "done, in $((SECONDS / 60)) min $((SECONDS % 60)) s"
  show video "$folder"/save/*-test.mp4
  show pictures "$folder"/save/*-val.png
  show avatar "$folder"/save/*-export/avatar.ply
}

tests() {
  local compiling
  install
  activate
  run ruff check .
  run ruff format --check .
  compile_kernels "" & # on a core that mypy leaves idle, or all processes would at once
  compiling=$!
  run mypy
  wait "$compiling"
  # By file, as tests of one file share what is dear to make; in their own order, as that of the
  # number of tests has the longest files last.
  run python -m pytest --numprocesses logical --maxprocesses 4 --dist loadfile \
    --no-loadscope-reorder "$@"
}

threestudio() { # the folder as the caller named it, options
  install
  (cd "$CALLER" && "$ROOT/$VENV_PYTHON" -m headstudio.app.checkout "$@")
}

case ${1:-} in
  "") [ $# -eq 0 ] || die "the first argument is empty; see ./install.sh --help" 2; install; say "everything is installed" ;;
  demo)
    case ${2-} in
      -h | --help) usage; exit ;;
      -*) die "demo has no option '$2'; it takes a prompt: ./install.sh demo \"$DEFAULT_PROMPT\"" 2 ;;
    esac
    [ $# -le 2 ] || die "the prompt is $(($# - 1)) words; put it in quotes: ./install.sh demo \"${*:2}\"" 2
    demo "${2-$DEFAULT_PROMPT}"
    ;;
  test) shift; tests "$@" ;;
  --threestudio) shift; threestudio "$@" ;;
  -h | --help | help) usage ;;
  *) die "unknown command '$1'; there are demo, test and --threestudio, and ./install.sh alone. See ./install.sh --help" 2 ;;
esac
