"""The datamodule: threestudio's cameras, our poses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import threestudio
from headstudio.errors import HeadStudioError
from headstudio.motion import load_motion


def first(loader):
    return next(iter(loader))


def test_a_batch_has_cameras_and_a_pose_for_each(make_data):
    batch = first(make_data().train_dataloader())
    for name, shape in {
        "c2w": (3, 4, 4),
        "mvp_mtx": (3, 4, 4),
        "camera_positions": (3, 3),
        "light_positions": (3, 3),
        "elevation": (3,),
        "azimuth": (3,),
        "camera_distances": (3,),
        "fovy": (3,),
    }.items():
        assert batch[name].shape == shape, name
    assert (batch["height"], batch["width"]) == (24, 24)
    assert "rays_o" not in batch
    assert batch["flame"]["jaw_pose"].shape == (3, 3)
    assert batch["flame"]["expression"].shape == (3, 100)


def test_poses_are_frames_of_the_motions(make_data, motion_file):
    frames = load_motion(motion_file).params.expand()
    loader = iter(make_data(batch_size=16).train_dataloader())
    flame = next(loader)["flame"]
    face = torch.cat([flame["expression"], flame["jaw_pose"]], 1)
    known = torch.cat([frames.expression, frames.jaw_pose], 1)
    distance = torch.cdist(face, known).amin(1)
    assert distance.max() < 1e-6
    assert len(torch.unique(flame["jaw_pose"], dim=0)) > 3
    # Neck and eyes rest unless they are asked to move.
    assert not flame["neck_pose"].any()
    assert not flame["leye_pose"].any()
    moved = first(make_data(animation={"neck": True, "eyes": True}).train_dataloader())["flame"]
    assert moved["neck_pose"].any()
    assert moved["leye_pose"].any()


def test_one_pose_may_be_shared_and_animation_left_out(make_data):
    shared = first(make_data(pose_per_view=False).train_dataloader())
    assert shared["flame"]["jaw_pose"].shape == (1, 3)
    assert len(shared["c2w"]) == 3
    still = first(make_data(training_with_animation=False).train_dataloader())
    assert still["flame"] == {}


def test_the_same_seed_draws_the_same_batches(make_data):
    def draw():
        threestudio_seed(5)
        return first(make_data().train_dataloader())

    a, b = draw(), draw()
    assert torch.equal(a["c2w"], b["c2w"])
    assert torch.equal(a["flame"]["jaw_pose"], b["flame"]["jaw_pose"])


def threestudio_seed(seed: int) -> None:
    import pytorch_lightning as pl

    pl.seed_everything(seed, verbose=False)


def test_cameras_stand_all_around_from_the_first_step_on(make_data):
    """threestudio's own ramp of angles is at its beginning in step 0, even where it is off."""
    module = make_data(batch_size=8)
    module.train_dataset.begin(seed=0)
    azimuths = first(module.train_dataloader())["azimuth"]
    assert azimuths.max() - azimuths.min() > 180

    ramped = make_data(batch_size=8, progressive_until=10)
    ramped.train_dataset.begin(seed=0)
    assert first(ramped.train_dataloader())["azimuth"].abs().max() == 0


def test_close_ups_come_nearer_and_look_where_they_should(make_data):
    close_up = {
        "probability": 1.0,
        "start_step": 10,
        "end_step": 20,
        "distance_range": [0.4, 0.5],
        "azimuth_range": [80.0, 100.0],
        "offset": 0.3,
    }
    still = {"camera_perturb": 0.0, "center_perturb": 0.0, "up_perturb": 0.0}
    module = make_data(close_ups=[close_up], camera_distance_range=[2.0, 3.0], **still)
    dataset = module.train_dataset
    dataset.update_step(0, 9)
    assert first(module.train_dataloader())["camera_distances"].min() >= 2.0
    dataset.update_step(0, 15)
    near = first(module.train_dataloader())
    assert near["camera_distances"].max() <= 0.5
    assert (near["azimuth"] - 90).abs().max() <= 10
    assert torch.allclose(near["camera_positions"], near["c2w"][:, :3, 3])
    # What was the origin's place in the picture is now that of the point above it.
    target = torch.tensor([0.0, 0.0, 0.3, 1.0])
    clip = near["mvp_mtx"] @ target
    assert clip[:, :2].abs().max() < 1e-5
    dataset.update_step(0, 21)
    assert first(module.train_dataloader())["camera_distances"].min() >= 2.0


def test_fixed_cameras_are_the_hosts(make_data):
    module = make_data(n_test_views=8, eval_elevation_deg=20.0, eval_camera_distance=2.5)
    ours = [module.test_views[i] for i in range(8)]
    host = threestudio.find("random-camera-datamodule")(
        {
            "n_val_views": 8,
            "eval_elevation_deg": 20.0,
            "eval_camera_distance": 2.5,
            "eval_height": 24,
            "eval_width": 24,
        }
    )
    host.setup("validate")
    for index, view in enumerate(ours):
        expected = host.val_dataset[index]
        for name in ("c2w", "mvp_mtx", "camera_positions", "azimuth", "elevation", "fovy"):
            assert torch.allclose(
                torch.as_tensor(view[name]), torch.as_tensor(expected[name]), atol=1e-5
            ), name


def test_the_turntable_plays_the_motions_through(make_data, motion_file):
    frames = load_motion(motion_file).params.expand()
    module = make_data(n_test_views=20, test_turns=2, test_repeats=2)
    views = [module.test_views[i] for i in range(20)]
    azimuth = torch.stack([view["azimuth"] for view in views])
    assert torch.allclose(azimuth, torch.arange(20) * 36.0 % 360, atol=1e-4)
    jaws = torch.stack([view["flame"]["jaw_pose"] for view in views])
    # Twenty views of twice ten frames: every frame once, in order, and all again.
    assert torch.allclose(jaws, torch.cat([frames.jaw_pose, frames.jaw_pose]), atol=1e-5)
    indices = [int(batch["index"]) for batch in module.test_dataloader()]
    assert indices == list(range(20))


def test_validation_views_open_the_jaw_where_told(make_data):
    module = make_data(val_azimuths_deg=[0, 90], val_jaws_deg=[0, 10])
    views = list(module.val_dataloader())
    assert [float(view["azimuth"]) for view in views] == [0, 90]
    jaw = [float(view["flame"]["jaw_pose"][0, 0]) for view in views]
    assert jaw == pytest.approx([0, np.deg2rad(10)])


def test_bundled_files_are_found_from_anywhere(make_data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert len(make_data(motions="load/motion/*.npz").train_dataset.sampler) > 100


def test_mistakes_are_explained(make_data, tmp_path: Path):
    with pytest.raises(HeadStudioError, match=r"nothing/\*\.npz matches nothing"):
        make_data(motions="nothing/*.npz")
    with pytest.raises(HeadStudioError, match="go together view by view"):
        make_data(val_azimuths_deg=[0, 90], val_jaws_deg=[0])
    with pytest.raises(HeadStudioError, match=r"absent\.npz"):
        make_data(head_model=str(tmp_path / "absent.npz"))
    broken = tmp_path / "broken.npz"
    np.savez(broken, jaw_pose=np.zeros((5, 4)), fps=30.0)
    with pytest.raises(HeadStudioError, match=r"jaw_pose has shape \[5, 4\]"):
        make_data(motions=str(broken))
    with pytest.raises(ValueError, match="probabilty"):
        make_data(close_ups=[{"probabilty": 1.0}])
