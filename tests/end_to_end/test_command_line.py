"""From a sentence to an avatar, as it is typed."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import imageio.v3 as iio
import pytest
import torch

from headstudio.flame import HeadModel
from headstudio.paths import find_asset
from headstudio.splats import load_avatar
from tests.end_to_end.conftest import REPOSITORY


@pytest.fixture(scope="module")
def run(workplace, small_training) -> Path:
    """The folder of a run of six steps that densified twice."""
    command = [sys.executable, str(REPOSITORY / "launch.py"), *small_training]
    done = subprocess.run(
        [*command, "name=first", "timestamp=@now"],
        cwd=workplace,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    folder = workplace / "outputs" / "first" / "red_hair@now"
    assert folder.is_dir(), done.stdout[-3000:]
    return folder


def exported(launch, folder: Path) -> Path:
    status = launch(
        "--config",
        str(folder / "configs" / "parsed.yaml"),
        "--export",
        f"resume={folder / 'ckpts' / 'last.ckpt'}",
    )
    assert status == 0
    return folder / "save" / "it6-export" / "avatar.ply"


def metrics(folder: Path) -> list[dict[str, str]]:
    with open(folder / "csv_logs" / "version_0" / "metrics.csv") as file:
        return list(csv.DictReader(file))


def test_training_leaves_what_was_promised(run):
    for name in ("it3-val.png", "it6-val.png", "it0-train.png", "it4-train.png"):
        assert (run / "save" / name).is_file(), name
    # Two views below each other: render, control image, driving mesh.
    assert iio.imread(run / "save" / "it6-val.png").shape == (64, 96, 3)
    video = iio.imread(run / "save" / "it6-test.mp4")
    assert video.shape == (3, 32, 32, 3)
    for name in ("ckpts/last.ckpt", "configs/parsed.yaml", "configs/raw.yaml", "cmd.txt"):
        assert (run / name).is_file(), name


def test_every_loss_and_the_number_of_splats_are_logged(run):
    rows = [row for row in metrics(run) if row["train/loss"]]
    assert len(rows) == 6
    for name in ("loss_sds", "loss_position", "loss_scaling", "grad_norm", "n_nonfinite"):
        assert all(float(row[f"train/{name}"]) >= 0 for row in rows), name
    counts = [int(float(row["train/n_splats"])) for row in rows]
    assert counts[:3] == [400] * 3
    assert counts[3] > 400
    # What weighs nothing is not computed.
    assert "train/loss_opaque" not in rows[0]
    assert float(rows[0]["train_params/lambda_sds"]) == 1


def test_an_avatar_is_exported_and_opens(run, launch):
    path = exported(launch, run)
    head = HeadModel.load(find_asset("flame/open_head.npz"))
    avatar = load_avatar(path, head)
    state = torch.load(run / "ckpts" / "last.ckpt", weights_only=True)["state_dict"]
    assert avatar.prompt == "red hair"
    assert avatar.splats.n == len(state["geometry.splats.face"])
    assert torch.equal(avatar.splats.face, state["geometry.splats.face"])
    assert torch.allclose(avatar.splats.colors, state["geometry.splats.colors"], atol=1e-5)
    assert torch.allclose(avatar.shape, state["geometry.shape"])


def test_the_same_seed_gives_the_same_avatar_bit_for_bit(run, launch, workplace, small_training):
    threads = torch.get_num_threads()
    # As the first run was started. OMP_NUM_THREADS is not looked at once torch is there.
    torch.set_num_threads(1)
    try:
        for name, seed in (("second", 0), ("other", 1)):
            assert launch(*small_training, f"name={name}", "timestamp=@now", f"seed={seed}") == 0
    finally:
        torch.set_num_threads(threads)
    first = exported(launch, run).read_bytes()
    assert exported(launch, workplace / "outputs" / "second" / "red_hair@now").read_bytes() == first
    assert exported(launch, workplace / "outputs" / "other" / "red_hair@now").read_bytes() != first


def test_training_goes_on_from_a_checkpoint(run, launch):
    before = torch.load(run / "ckpts" / "last.ckpt", weights_only=True)["state_dict"]
    status = launch(
        "--config",
        str(run / "configs" / "parsed.yaml"),
        "--train",
        f"resume={run / 'ckpts' / 'last.ckpt'}",
        "name=resumed",
        "trainer.max_steps=8",
    )
    assert status == 0
    resumed = run.parents[1] / "resumed" / run.name
    after = torch.load(resumed / "ckpts" / "last.ckpt", weights_only=True)
    assert after["global_step"] == 8
    # Step 6 is one of density control: it is made up for after the checkpoint that step 6 wrote.
    assert len(after["state_dict"]["geometry.splats.face"]) > len(before["geometry.splats.face"])
    assert (resumed / "save" / "it8-test.mp4").is_file()


def test_validating_needs_no_prior(run, launch, workplace):
    (workplace / "prior").rename(workplace / "prior away")
    try:
        status = launch(
            "--config",
            str(run / "configs" / "parsed.yaml"),
            "--validate",
            f"resume={run / 'ckpts' / 'last.ckpt'}",
            "name=validated",
        )
    finally:
        (workplace / "prior away").rename(workplace / "prior")
    assert status == 0
    picture = run.parents[1] / "validated" / run.name / "save" / "it6-val.png"
    assert picture.read_bytes() == (run / "save" / "it6-val.png").read_bytes()


@pytest.mark.parametrize(
    "ablation",
    [
        "system.geometry.initialisation=per-triangle",
        "data.training_with_animation=false",
        "system.use_control=false",
        "system.guidance.use_controlnet=false",
        "system.guidance.method=sds",
        "system.geometry.learn_shape=false",
        "system.geometry.density_control=false",
        "data.pose_per_view=false",
    ],
)
def test_each_component_can_be_switched(launch, workplace, small_training, ablation):
    name = f"name={ablation.replace('=', '-')}"
    assert launch(*small_training, ablation, name, "trainer.max_steps=1") == 0


def test_regularisers_can_be_switched(launch, workplace, small_training):
    off = ["system.loss.lambda_position=0", "system.loss.lambda_scaling=0"]
    others = ["system.loss.lambda_shape=1", "system.loss.lambda_opaque=1", "trainer.max_steps=1"]
    assert launch(*small_training, *off, *others, "name=losses", "timestamp=@now") == 0
    (row,) = (r for r in metrics(workplace / "outputs/losses/red_hair@now") if r["train/loss"])
    assert "train/loss_position" not in row
    assert float(row["train/loss_opaque"]) > 0


def test_learning_rates_follow_their_schedules(launch, workplace, small_training):
    schedule = "system.learning_rates={geometry.splats.means: [0, 1.0e-2, 1.0e-4, 4]}"
    off = "system.geometry.density_control=false"
    assert launch(*small_training, schedule, off, "name=rates", "timestamp=@now") == 0
    rows = metrics(workplace / "outputs" / "rates" / "red_hair@now")
    rates = [float(r["lr-Adam/geometry.splats.means"]) for r in rows if r["train/loss"] == ""]
    # Lightning reads them before the step sets its own: each row is the previous step's.
    expected = [10 ** -(2 + min(step, 4) / 2) for step in range(5)]
    assert rates[1:6] == pytest.approx(expected, rel=1e-3)
