"""What ``headstudio bench`` says of a ``--config`` that is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from headstudio.app import main as app
from headstudio.app.bench import CONFIG
from headstudio.evaluation.training import OWN_SETTINGS, Trainer, read_settings

BAD = {
    "broken": (b"system: [1, 2", "is no configuration"),
    "control characters": (b"a: \x00\x01", "is no configuration"),
    "latin 1": ("name: H\u00e4upter".encode("latin-1"), "is no configuration"),
    "a list": (b"- 1", "holds no settings"),
    "empty": (b"", "holds no settings"),
    "missing": (None, "No such file"),
}


@pytest.mark.parametrize("benchmark", ["closed-world", "ablations"])
@pytest.mark.parametrize(("content", "message"), BAD.values(), ids=BAD.keys())
def test_what_is_no_configuration_is_said(
    benchmark: str,
    content: bytes | None,
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "config.yaml"
    if content is not None:
        path.write_bytes(content)
    out = tmp_path / "out"
    assert app.main(["bench", benchmark, "--config", str(path), "--out", str(out)]) == 2
    said = capsys.readouterr().err
    assert f"{path} is no configuration: " in said
    assert message in said
    assert not out.exists()


@pytest.mark.parametrize("setting", ["seed=3", "system.prompt_processor.prompt=a man", "tag=x"])
def test_what_the_benchmark_sets_itself_is_not_set_for_all(
    setting: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    words = ["bench", "closed-world", "--prompts", "1", "--out", str(out), "--set", setting]
    assert app.main(words) == 2
    assert f"--set {setting}: the benchmark gives" in capsys.readouterr().err
    assert not out.exists()
    command = Trainer(CONFIG, "cpu").train_command("a man", 0, out)
    assert {word.partition("=")[0] for word in command} >= set(OWN_SETTINGS)


def test_the_default_is_read() -> None:
    assert read_settings(CONFIG)["system_type"] == "headstudio-system"
