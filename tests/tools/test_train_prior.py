"""``python -m tools.train_prior`` as it is typed."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from diffusers import (
    UNet2DConditionModel,
)

from headstudio.errors import HeadStudioError
from tests.fixtures.prior_training import (
    Discs,
)
from tools import train_prior
from tools.prior.saving import unpack
from tools.prior.settings import preset


def test_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(train_prior, "open_datasets", lambda *_: (Discs(), Discs()))
    common = [
        "--preset", "tiny", "--device", "cpu", "--out", str(tmp_path / "prior"),
        "--state", str(tmp_path / "state"), "--logs", str(tmp_path / "logs"),
    ]  # fmt: skip
    start = time.monotonic()
    assert train_prior.main([*common, "--stop-after-minutes", "0"]) == 0
    assert "run the same command again" in capsys.readouterr().out
    assert not (tmp_path / "prior").exists()
    assert train_prior.main([*common, "--pack", str(tmp_path / "packed")]) == 0
    assert "complete" in capsys.readouterr().out
    assert time.monotonic() - start < 120
    archives = sorted(str(f) for f in (tmp_path / "packed").glob("prior_*.tar"))
    assert train_prior.main(["--unpack", *archives, "--out", str(tmp_path / "copy")]) == 0
    UNet2DConditionModel.from_pretrained(tmp_path / "copy", subfolder="unet")
    assert len(list((tmp_path / "packed").iterdir())) <= 8


@pytest.mark.parametrize(
    ("preset", "out"), [("full", "load/prior"), ("tiny", "outputs/prior/tiny")]
)
def test_only_a_full_training_replaces_the_bundled_prior(
    preset: str, out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Path] = []
    monkeypatch.setattr(train_prior, "open_datasets", lambda *_: (Discs(), Discs()))
    monkeypatch.setattr(train_prior, "train", lambda *words: given.append(words[-1]))
    assert train_prior.main(["--preset", preset, "--device", "cpu"]) == 0
    assert given == [Path(out)]


@pytest.mark.parametrize("complete", [True, False])
def test_what_was_made_is_packed_and_not_what_was_there(complete: bool, tmp_path: Path) -> None:
    folders = {"out": "finished", "state/unfinished": "half", "logs": "log"}
    for folder, text in folders.items():
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "text").write_text(text)
    words = [f"--{name}={tmp_path / name}" for name in ("out", "state", "logs", "pack")]
    train_prior.pack_everything(train_prior.parser().parse_args(words), complete)
    assert unpack(sorted((tmp_path / "pack").glob("prior_*.tar")), tmp_path / "back") == 1
    assert (tmp_path / "back/text").read_text() == ("finished" if complete else "half")


def test_command_line_says_what_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train_prior.main(["--preset", "tiny", "--pictures-diffusion", "3"]) == 1
    assert "less than one chunk" in capsys.readouterr().err
    assert train_prior.main(["--unpack", str(tmp_path / "no.tar")]) == 1
    assert "cannot be unpacked" in capsys.readouterr().err
    with pytest.raises(HeadStudioError, match="choose full"):
        preset("huge")
