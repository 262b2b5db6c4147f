"""``headstudio`` as it is typed."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from headstudio.app import main as app
from headstudio.errors import HeadStudioError
from tests.app.conftest import REPOSITORY

TALK = str(REPOSITORY / "load" / "motion" / "talk.npz")


def python(code: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a program in a Python that can import the library and nothing more."""
    library = str(REPOSITORY / "custom" / "threestudio-headstudio")
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": library},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_help_lists_the_commands_without_loading_pytorch(tmp_path):
    done = python(
        "import sys\n"
        "from headstudio.app.main import main\n"
        "try:\n"
        "    main(['--help'])\n"
        "finally:\n"
        "    assert 'torch' not in sys.modules\n",
        tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "doctor" in done.stdout


def test_the_doctor_finds_a_complete_workplace_ready(complete):
    done = python(
        "import sys\n"
        "from headstudio.app.main import main\n"
        "status = main(['doctor', '--json', '--cpu'])\n"
        # Importing this starts a compiler.
        "assert 'gsplat.cuda._backend' not in sys.modules\n"
        "sys.exit(status)\n",
        complete,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert report["ready"] is True
    sections = report["sections"]
    assert list(sections) == [
        "machine",
        "packages",
        "device",
        "head models",
        "diffusion priors",
        "motions",
        "hosts",
    ]
    assert any("open-head" in finding["text"] for finding in sections["head models"])
    assert sections["device"][-1]["details"] == {"device": "cpu"}
    assert sections["packages"][-1]["details"]["installed"]["torch"].startswith("2.")


def test_the_exit_status_says_that_something_is_missing(workplace, capsys):
    (workplace / "load" / "flame" / "open_head.npz").unlink()
    assert app.main(["doctor", "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["ready"] is False
    problems = [f for f in report["sections"]["head models"] if f["status"] == "problem"]
    assert "load/flame/open_head.npz is missing" in problems[0]["text"]
    assert problems[0]["fix"] == f"git -C '{workplace}' restore load/flame/open_head.npz"


def test_an_unknown_command_is_named(capsys):
    with pytest.raises(SystemExit) as stop:
        app.main(["docter"])
    assert stop.value.code == 2
    assert "'docter'" in capsys.readouterr().err


def test_an_option_of_another_command_is_refused(capsys):
    with pytest.raises(SystemExit) as stop:
        app.main(["doctor", "--jason"])
    assert stop.value.code == 2
    assert "--jason" in capsys.readouterr().err


def test_a_mistake_of_the_users_is_one_sentence_and_status_2(monkeypatch, capsys):
    def fail() -> None:
        raise HeadStudioError("no such thing; give another.")

    monkeypatch.setattr("headstudio.app.doctor.examine", fail)
    assert app.main(["doctor"]) == 2
    assert capsys.readouterr().err == "error: no such thing; give another.\n"


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("arguments", [["motion", "info", TALK], ["--help"], ["motion", "--help"]])
def test_a_reader_that_has_had_enough_is_no_error(arguments, unbuffered):
    """As in ``headstudio motion info talk.npz | head -1``."""
    library = str(REPOSITORY / "custom" / "threestudio-headstudio")
    command = shlex.join([sys.executable, "-m", "headstudio.app.main", *arguments])
    done = subprocess.run(
        # The reader has surely gone before the command writes.
        ["bash", "-c", f"set -o pipefail; (sleep 0.2; {command}) | true"],
        env={**os.environ, "PYTHONPATH": library, "PYTHONUNBUFFERED": unbuffered},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode in (0, 141)
    assert done.stderr == ""
