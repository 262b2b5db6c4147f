"""What is typed wrongly: one sentence, status 2, and nothing written."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture
def refused(launch, workplace, small_training, tmp_path, capsys):
    """Run with further settings; returns the message, having checked that nothing was written."""

    def run(*settings: str, written_to: Path = tmp_path / "outputs") -> str:
        status = launch(*small_training, f"exp_root_dir={written_to}", *settings)
        error = capsys.readouterr().err
        assert status == 2, error
        assert "Traceback" not in error
        assert not written_to.is_dir() or not any(written_to.rglob("*"))
        return error.split("error: ", 1)[1]

    return run


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("system.geometry.n_splat=5", "did you mean 'n_splats'?"),
        ("system.geometry.density.intervall=5", "did you mean 'interval'?"),
        ("system.guidance.guidance_scal=5", "did you mean 'guidance_scale'?"),
        ("data.pose_per_wiew=true", "did you mean 'pose_per_view'?"),
        ("system.loss.lambda_sdss=1", "lambda_sdss"),
        ("system.learning_rates.geometry=[0,1,2,3]", "not in system.optimizer.params"),
        ("system.guidance.method=vsd", "choose one of denoised, sds"),
        ("system.renderer.backend=cuda", "one of auto, gsplat, numba, reference"),
        ("system.prompt_processor.prompt=", "the prompt is empty"),
        ("system.prompt_processor.prompt='  '", "the prompt is empty"),
        ("system.prompt_processor.prompt=???", "system.prompt_processor.prompt"),
        ("system.geometry.head_model=load/flame/none.npz", "none.npz was not found"),
        ("system.guidance.pretrained_model_name_or_path=load/none", "load/none was not found"),
        ("data.motions=nowhere/*.npz", "nowhere/*.npz matches nothing"),
        ("resume=nowhere/last.ckpt", "nowhere/last.ckpt does not exist"),
        ("system.renderer_type=gsplat-render", "did you mean 'gsplat-renderer'?"),
    ],
)
def test_settings(refused, setting, message):
    assert message in refused(setting)


def test_a_prior_with_a_missing_part(refused, workplace, tmp_path):
    prior = tmp_path / "prior"
    shutil.copytree(workplace / "prior", prior)
    next((prior / "unet").glob("*.safetensors")).unlink()
    message = refused(f"system.prompt_processor.pretrained_model_name_or_path={prior}")
    assert "unet" in message
    assert "safetensors" in message


def test_a_damaged_head(refused, tmp_path):
    head = tmp_path / "head.npz"
    head.write_bytes(b"PK\x03\x04 this was a head once")
    assert "head.npz" in refused(f"system.geometry.head_model={head}")


def test_a_head_that_would_execute_something(refused, tmp_path):
    marker = tmp_path / "executed"
    head = tmp_path / "head.pkl"
    head.write_bytes(f"cos\nsystem\n(S'touch {marker}'\ntR.".encode())
    message = refused(f"system.geometry.head_model={head}")
    assert "head.pkl" in message
    assert not marker.exists()


def test_a_motion_with_wrong_shapes(refused, tmp_path):
    motion = tmp_path / "motion.npz"
    np.savez(motion, jaw_pose=np.zeros((10, 4), np.float32), fps=30.0)
    message = refused(f"data.motions={motion}")
    assert "jaw_pose has shape [10, 4]" in message


def test_an_output_folder_that_cannot_be_written(refused, tmp_path):
    # A file where a folder should be stops even root.
    in_the_way = tmp_path / "taken"
    in_the_way.write_text("not a folder")
    assert "cannot be written" in refused(written_to=in_the_way)
    assert in_the_way.read_text() == "not a folder"
