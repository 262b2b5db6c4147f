"""``install.sh`` with a stand-in for Python that records what it is asked to do."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.app.conftest import REPOSITORY

# Answers what install.sh asks a Python. VERSION is substituted; behaviour is set by variables of
# the environment. `launch.py` leaves what a run leaves.
PYTHON = r"""#!/usr/bin/env bash
here=$(cd "$(dirname "$0")" && pwd)
case "$1 ${2:-}" in
  "-c "*"version_info[:2] <= "*) [ "%(supported)s" = yes ] ;;
  "-c "*version_info*) echo "%(version)s" ;;
  "-c "*ensurepip*) [ -z "${NO_VENV:-}" ] ;;
  "-c "*pip*) exit 0 ;;
  "-VV "*) echo "Python %(version)s" ;;
  "-m venv")
    echo "venv" >>"$CALLS"
    mkdir -p .venv/bin
    cp "$0" .venv/bin/python
    cp "$here/headstudio" .venv/bin/headstudio
    ;;
  "-m pip")
    case "$*" in
      *--editable*) echo "pip $*" >>"$CALLS" ;;
      *) echo "newer $*" >>"$CALLS"; [ -z "${NO_NEWER_PIP:-}" ] || exit 1; exit 0 ;;
    esac
    printf 'Collecting torch\n  Downloading torch.whl (12.5 MB)\n%%s\n' "${PIP_SAYS:-}"
    exit "${PIP_STATUS:-0}"
    ;;
  "-m compileall") echo "compileall $*" >>"$CALLS"; exit 1 ;; # not all that is installed is Python
  "-m headstudio.app.kernels") echo "kernels ${3:-}" >>"$CALLS"; exit "${KERNELS_STATUS:-0}" ;;
  "-m headstudio.app.checkout") echo "$PWD: $*" >>"$CALLS" ;;
  "launch.py "*)
    echo "python $*" >>"$CALLS"
    case "$*" in
      *--train*)
        [ -z "${TRAIN_FAILS:-}" ] || exit 2
        run="outputs/headstudio-mini/a b@now"
        mkdir -p "$run/ckpts" "$run/configs" "$run/save"
        touch "$run/cmd.txt" "$run/ckpts/last.ckpt" "$run/save/it9-test.mp4" "$run/save/it9-val.png"
        ;;
      *) mkdir -p "outputs/headstudio-mini/a b@now/save/it9-export"
         touch "outputs/headstudio-mini/a b@now/save/it9-export/avatar.ply" ;;
    esac
    ;;
  *) echo "unexpected: $*" >&2; exit 99 ;;
esac
"""
HEADSTUDIO = r"""#!/usr/bin/env bash
echo "headstudio $*" >>"$CALLS"
case "$* ${DOCTOR:-ready}" in
  *" ready" | *"--cpu no-nvcc") echo "Ready" ;;
  *) echo "  PROBLEM  no nvcc"; exit 1 ;;
esac
"""


class Newcomer:
    """Someone with a fresh clone, in a folder with a space, who types from elsewhere."""

    def __init__(self, place: Path) -> None:
        self.clone = place / "a clone"
        self.clone.mkdir()
        for name in ("install.sh", "pyproject.toml", "constraints.txt"):
            shutil.copy(REPOSITORY / name, self.clone)
        self.elsewhere = place / "elsewhere"
        self.elsewhere.mkdir()
        self.bin = place / "bin"
        self.bin.mkdir()
        for tool in ("bash", "env", "cat", "cksum", "cp", "dirname", "grep", "head", "mkdir", "rm",
                     "sed", "tail", "touch", "uname"):  # fmt: skip
            (self.bin / tool).symlink_to(shutil.which(tool) or tool)
        self.renderer = self.clone / "custom/threestudio-headstudio/headstudio/render"
        (self.renderer / "__pycache__").mkdir(parents=True)
        (self.renderer / "kernels.py").touch()
        self.program("headstudio", HEADSTUDIO)
        self.log = place / "calls"

    def program(self, name: str, text: str) -> None:
        (self.bin / name).write_text(text)
        (self.bin / name).chmod(0o755)

    def python(self, name: str, version: str, supported: bool = True) -> None:
        self.program(name, PYTHON % {"version": version, "supported": "yes" if supported else "no"})

    def types(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        self.log.write_text("")
        return subprocess.run(
            [str(self.clone / "install.sh"), *arguments],
            cwd=self.elsewhere,
            env={"PATH": str(self.bin), "CALLS": str(self.log), **environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=200,
        )

    def calls(self, word: str) -> list[str]:
        return [line for line in self.log.read_text().splitlines() if line.startswith(word)]


@pytest.fixture
def newcomer(tmp_path: Path) -> Newcomer:
    person = Newcomer(tmp_path)
    person.python("python3.11", "3.11")
    return person


# ------------------------------------------------------------------------- what was typed


@pytest.mark.parametrize("arguments", [["--help"], ["demo", "--help"], ["demo", "-h"]])
def test_help_does_nothing(newcomer, arguments):
    done = newcomer.types(*arguments)
    assert done.returncode == 0
    assert "./install.sh demo" in done.stdout
    assert not (newcomer.clone / ".venv").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["dmeo"], "unknown command 'dmeo'"),
        (["demo", ""], "the prompt is empty"),
        (["demo", "  "], "the prompt is empty"),
        (["demo", "--hlep"], "demo has no option '--hlep'; it takes a prompt"),
        (["demo", "red", "hair"], 'put it in quotes: ./install.sh demo "red hair"'),
        ([""], "the first argument is empty"),
    ],
)
def test_a_wrong_command_line_ends_before_anything_is_done(newcomer, arguments, said):
    done = newcomer.types(*arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert not (newcomer.clone / ".venv").exists()


# --------------------------------------------------------------------------------- Python


def test_a_python_that_is_too_new_is_passed_over(newcomer):
    newcomer.python("python3.12", "3.12")
    newcomer.python("python3.11", "broken", supported=False)
    newcomer.python("python3", "3.13", supported=False)
    done = newcomer.types()
    assert done.returncode == 0, done.stderr
    assert "making .venv/ with python3.12" in done.stdout


def test_no_python_is_explained(newcomer):
    (newcomer.bin / "python3.11").unlink()
    newcomer.python("python3", "3.13", supported=False)
    done = newcomer.types()
    assert done.returncode == 1
    assert "no Python 3.10, 3.11 or 3.12 was found, only python3 (3.13)" in done.stderr
    assert "PYTHON=" in done.stderr


@pytest.mark.parametrize(
    ("given", "said"), [("pythom", "is not a command"), ("python3.9", "is Python 3.9; 3.10")]
)
def test_a_named_python_that_will_not_do_is_explained(newcomer, given, said):
    newcomer.python("python3.9", "3.9", supported=False)
    done = newcomer.types(PYTHON=given)
    assert done.returncode == 1
    assert f"PYTHON={given} {said}" in done.stderr


def test_a_python_without_venv_is_told_the_package(newcomer):
    done = newcomer.types(NO_VENV="1")
    assert done.returncode == 1
    assert "python3.11-venv" in done.stderr
    assert not (newcomer.clone / ".venv").exists()


def test_another_python_than_that_of_the_environment_is_refused(newcomer):
    assert newcomer.types().returncode == 0
    newcomer.python("python3.12", "3.12")
    done = newcomer.types(PYTHON="python3.12")
    assert done.returncode == 1
    assert ".venv/ was made with Python 3.11, PYTHON=python3.12 is 3.12" in done.stderr


@pytest.mark.parametrize("name", ["a clone elsewhere", 'it\'s "$HOME"'])
def test_an_environment_that_was_moved_is_made_anew(newcomer, name):
    newcomer.types()
    newcomer.clone = newcomer.clone.rename(newcomer.clone.with_name(name))
    (newcomer.clone / ".venv" / "of the old one").touch()
    done = newcomer.types()
    assert done.returncode == 0, done.stderr
    assert "this folder was moved or copied: .venv/ names the old one" in done.stdout
    assert newcomer.calls("venv") == ["venv"]
    assert len(newcomer.calls("pip")) == 1
    assert newcomer.types().returncode == 0
    assert newcomer.calls("") == []


@pytest.mark.parametrize(("named", "made"), [("{}/.venv", []), ("/old/clone/.venv", ["venv"])])
def test_of_an_environment_made_by_hand_its_programs_tell(newcomer, named, made):
    newcomer.types()
    (newcomer.clone / ".venv" / "made-in").unlink()
    activate = newcomer.clone / ".venv" / "bin" / "activate"
    activate.write_text(f'VIRTUAL_ENV="{named.format(newcomer.clone)}"')
    assert newcomer.types().returncode == 0
    assert newcomer.calls("venv") == made
    assert newcomer.types().returncode == 0
    assert newcomer.calls("venv") == []


def test_an_environment_by_another_name_of_its_folder_is_kept(newcomer):
    newcomer.types()
    link = newcomer.clone.with_name("link")
    link.symlink_to(newcomer.clone)
    newcomer.clone = link
    assert newcomer.types().returncode == 0
    assert newcomer.calls("venv") == []


def test_an_intel_mac_is_told_at_once(newcomer):
    (newcomer.bin / "uname").unlink()
    newcomer.program("uname", "#!/usr/bin/env bash\necho Darwin x86_64\n")
    done = newcomer.types("demo")
    assert done.returncode == 1
    assert "not built for Intel Macs" in done.stderr
    assert newcomer.calls("") == []
    assert newcomer.types(TORCH_INDEX_URL="https://index.example").returncode == 0


# -------------------------------------------------------------------------------- install


def test_it_installs_once_under_the_pins(newcomer):
    done = newcomer.types()
    assert done.returncode == 0, done.stderr
    (pip,) = newcomer.calls("pip")
    assert "--constraint constraints.txt" in pip
    assert "--editable .[test]" in pip
    (compiled,) = newcomer.calls("compileall")
    assert compiled.startswith("compileall -m compileall -qq -j 0 ")
    assert compiled.endswith(" .venv/lib")
    assert "--extra-index-url" not in pip
    assert "Downloading torch.whl (12.5 MB)" in done.stdout
    assert newcomer.types().returncode == 0
    assert newcomer.calls("") == []


@pytest.mark.parametrize("newer", [{}, {"NO_NEWER_PIP": "1"}])
def test_it_asks_for_a_newer_pip_first_and_does_without(newcomer, newer):
    done = newcomer.types(**newer)
    assert done.returncode == 0, done.stderr
    called = [line for line in newcomer.calls("") if "-m pip" in line]
    assert [line.split()[0] for line in called] == ["newer", "pip"]
    assert called[0].endswith("--constraint constraints.txt --retries 1 pip")


@pytest.mark.parametrize("name", ["constraints.txt", "pyproject.toml"])
def test_it_installs_again_when_what_is_needed_changed(newcomer, name):
    newcomer.types()
    with open(newcomer.clone / name, "a") as file:
        file.write("# changed\n")
    newcomer.types()
    assert len(newcomer.calls("pip")) == 1
    assert newcomer.calls("venv") == []


def test_another_index_is_handed_to_pip(newcomer):
    newcomer.types(TORCH_INDEX_URL="https://index.example/cpu")
    assert "--extra-index-url https://index.example/cpu" in newcomer.calls("pip")[0]


@pytest.mark.parametrize(
    ("pip_says", "advice"),
    [
        ("OSError: [Errno 28] No space left on device", "The disk is full"),
        (
            "WARNING: Retrying: Temporary failure in name resolution\n"
            "ERROR: No matching distribution found for torch==2.13.0",
            "could not be reached",
        ),
        ("ERROR: No matching distribution found for torch==2.13.0", "no torch==2.13.0 for Python"),
        ("SSLError: CERTIFICATE_VERIFY_FAILED", "PIP_CERT"),
        ("PermissionError: [Errno 13] Permission denied", "could not be written"),
        ("a bolt from the blue", "goes on from what is there"),
    ],
)
def test_a_failure_of_pip_is_explained_and_tried_again(newcomer, pip_says, advice):
    done = newcomer.types(PIP_STATUS="1", PIP_SAYS=pip_says)
    assert done.returncode == 1
    assert pip_says in done.stderr
    assert advice in done.stderr.replace("\n", " ")
    assert pip_says in (newcomer.clone / ".venv" / "install.log").read_text()
    assert newcomer.types().returncode == 0
    assert len(newcomer.calls("pip")) == 1


# ----------------------------------------------------------------------------------- demo


def test_the_demo_is_the_public_commands(newcomer):
    done = newcomer.types("demo", "a man with $5 and a red beard")
    assert done.returncode == 0, done.stderr
    config = "custom/threestudio-headstudio/configs/headstudio-mini.yaml"
    run = "outputs/headstudio-mini/a b@now"
    train, export = newcomer.calls("python")
    assert train == (
        f"python launch.py --config {config} --train "
        "system.prompt_processor.prompt=a man with $5 and a red beard"
    )
    assert export == (
        f"python launch.py --config {run}/configs/parsed.yaml --export resume={run}/ckpts/last.ckpt"
    )
    for name in ("it9-test.mp4", "it9-val.png", "it9-export/avatar.ply"):
        assert f"{run}/save/{name}\n" in done.stdout


def test_the_demo_compiles_kernels_once_and_first(newcomer):
    done = newcomer.types("demo", KERNELS_STATUS="1")  # training can do without
    assert done.returncode == 0, done.stderr
    assert sorted(newcomer.calls("kernels")) == ["kernels pictures", "kernels training"]
    order = newcomer.log.read_text()
    assert order.rindex("kernels ") < order.index("python launch.py")
    (newcomer.renderer / "__pycache__" / "paint.nbi").touch()
    assert newcomer.types("demo").returncode == 0
    assert newcomer.calls("kernels") == []
    (newcomer.renderer / "kernels.py").write_text("# changed: numba compiles anew")
    assert newcomer.types("demo").returncode == 0
    assert len(newcomer.calls("kernels")) == 2


@pytest.mark.parametrize("prompt", ["a woman with blue skin", 'it\'s "$HOME" `x` \\ !', "bald"])
def test_what_is_echoed_can_be_typed(newcomer, prompt):
    done = newcomer.types("demo", prompt)
    echoed = [line[2:] for line in done.stdout.splitlines() if line.startswith("$ ")]
    assert len(echoed) == 2
    program = "import sys; print(*sys.argv[1:])"
    for command, called in zip(echoed, newcomer.calls("python"), strict=True):
        shown = command.replace("python ", f"'{sys.executable}' -c '{program}' ", 1)
        typed = subprocess.run(["bash", "-c", shown], capture_output=True, text=True, check=True)
        assert typed.stdout.rstrip("\n") == called.removeprefix("python ")


def test_the_demo_has_a_prompt_of_its_own(newcomer):
    done = newcomer.types("demo")
    assert (
        'system.prompt_processor.prompt="a woman with blue skin and long red hair"' in done.stdout
    )


def test_the_demo_takes_the_new_run_not_an_old_one(newcomer):
    old = newcomer.clone / "outputs" / "headstudio-mini" / "z@later"
    (old / "ckpts").mkdir(parents=True)
    for name in ("cmd.txt", "ckpts/last.ckpt"):
        (old / name).touch()
        os.utime(old / name, (0, 0))
    done = newcomer.types("demo", "bald")
    assert done.returncode == 0, done.stderr
    assert "z@later" not in done.stdout


def test_a_gpu_that_cannot_render_yet_is_done_without(newcomer):
    done = newcomer.types("demo", "bald", DOCTOR="no-nvcc")
    assert done.returncode == 0, done.stderr
    assert "PROBLEM  no nvcc" in done.stdout
    assert "going on without it" in done.stdout
    assert all("--gpu -1" in call for call in newcomer.calls("python"))


def test_what_the_doctor_finds_stops_the_demo(newcomer):
    done = newcomer.types("demo", "bald", DOCTOR="nothing")
    assert done.returncode == 1
    assert "stands in the way" in done.stderr
    assert newcomer.calls("python") == []


def test_training_that_fails_is_not_exported(newcomer):
    done = newcomer.types("demo", "bald", TRAIN_FAILS="1")
    assert done.returncode == 1
    assert "training stopped" in done.stderr
    assert len(newcomer.calls("python")) == 1


# ----------------------------------------------------------------------------------- test


@pytest.mark.parametrize("kernels", ["0", "1"])
def test_the_tests_come_last_and_take_options(newcomer, kernels):
    newcomer.types()
    for name in ("ruff", "mypy"):
        shutil.copy(newcomer.bin / "headstudio", newcomer.clone / ".venv" / "bin" / name)
    python = newcomer.clone / ".venv" / "bin" / "python"
    python.write_text(
        python.read_text().replace('"-m pip")', '"-m pytest") echo "$@" ;;\n  "-m pip")')
    )
    done = newcomer.types("test", "tests/app", "-m", "not gpu", KERNELS_STATUS=kernels)
    assert done.returncode == 0, done.stderr
    distributed = "--numprocesses logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder"
    assert done.stdout.endswith(f"-m pytest {distributed} tests/app -m not gpu\n")
    assert "$ ruff check .\n" in done.stdout
    assert "$ mypy\n" in done.stdout
    assert newcomer.calls("kernels") == ["kernels "]
    (newcomer.renderer / "__pycache__" / "paint.nbi").touch()
    assert newcomer.types("test").returncode == 0
    assert newcomer.calls("kernels") == []


@pytest.mark.parametrize("name", ["ruff", "mypy"])
def test_style_and_types_come_before_the_tests(newcomer, name):
    newcomer.types()
    for program in ("ruff", "mypy"):
        shutil.copy(newcomer.bin / "headstudio", newcomer.clone / ".venv" / "bin" / program)
    wrong = newcomer.clone / ".venv" / "bin" / name
    wrong.write_text("#!/usr/bin/env bash\necho this is wrong; exit 3\n")
    done = newcomer.types("test")
    assert done.returncode == 3
    assert "this is wrong" in done.stdout
    assert "pytest" not in done.stdout


def test_a_checkout_is_named_as_seen_from_where_one_stands(newcomer):
    done = newcomer.types("--threestudio", "three studio", "--uninstall")
    assert done.returncode == 0, done.stderr
    module = "-m headstudio.app.checkout"
    assert newcomer.calls("/") == [f"{newcomer.elsewhere}: {module} three studio --uninstall"]
    newcomer.types("--threestudio")
    assert newcomer.calls("/") == [f"{newcomer.elsewhere}: {module}"]


def test_continuous_integration_runs_the_command_of_the_readme():
    script = (REPOSITORY / ".ci" / "run").read_text().splitlines()
    assert script[-1] == "./install.sh test"
    assert os.access(REPOSITORY / ".ci" / "run", os.X_OK)
    assert "./install.sh test" in (REPOSITORY / "README.md").read_text()
