"""Inputs at the edge of what there is: nothing crashes, and nothing becomes NaN."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import headstudio.plugin  # noqa: F401  (registers the classes)
import threestudio
from headstudio.flame import FlameParams, HeadModel
from headstudio.motion import Motion, MotionSampler, load_motion, loop, resample, save_motion
from headstudio.paths import find_asset
from headstudio.plugin.geometry import FlameGaussians
from headstudio.render import Cameras
from headstudio.splats import load_avatar
from tests.reliability.conftest import named, trial

PARAMETERS = ("means", "quats", "scales", "opacities", "colors")


def make_geometry(**settings: Any) -> FlameGaussians:
    torch.manual_seed(0)
    return threestudio.find("flame-gaussians")({"n_splats": 300, **settings})


def make_renderer(geometry: FlameGaussians) -> Any:
    return threestudio.find("gsplat-renderer")(
        {},
        geometry=geometry,
        material=threestudio.find("no-material")({}),
        background=threestudio.find("solid-color-background")({"color": [0.0, 0.0, 0.0]}),
    )


def look(distance: float = 2.0, size: int = 16, azimuth: float = 0.0) -> dict[str, Any]:
    cameras = Cameras.orbit(torch.tensor([azimuth]), 0.0, distance, 45.0, height=size, width=size)
    return {"c2w": cameras.c2w[0], "fovy": cameras.fovy[0], "height": size, "width": size}


def assert_trains(geometry: FlameGaussians, **view: Any) -> dict[str, Any]:
    """One step of Adam on a rendered picture leaves pictures, gradients and splats finite."""
    optimizer = torch.optim.Adam(
        [
            {"params": [getattr(geometry.splats, name)], "name": f"geometry.splats.{name}"}
            for name in PARAMETERS
        ],
        lr=0.01,
    )
    out = make_renderer(geometry)(**(look() | view))
    (out["comp_rgb"].square().mean() + out["opacity"].square().mean()).backward()
    geometry.observe(out)
    optimizer.step()
    for name in PARAMETERS:
        parameter = getattr(geometry.splats, name)
        assert parameter.grad.isfinite().all(), name
        assert parameter.isfinite().all(), name
    for name in ("comp_rgb", "opacity", "depth"):
        assert out[name].isfinite().all(), name
    return out


def test_degenerate_triangles() -> None:
    """All splats on triangles that are a line, or a point."""
    geometry = make_geometry(initialisation="per-triangle")
    head = geometry.head
    with torch.no_grad():
        corners = head.faces[: len(head.faces) // 2]
        head.v_template[corners[:, 1]] = head.v_template[corners[:, 0]]
        head.v_template[corners[:200, 2]] = head.v_template[corners[:200, 0]]
    frames = geometry.pose().frames
    assert (frames.area[0] == 0).sum() > 100
    out = assert_trains(geometry)
    assert out["opacity"].max() > 0  # the sound ones are seen
    assert geometry.shape.grad is not None
    assert geometry.shape.grad.isfinite().all()


def test_no_splat_is_visible() -> None:
    geometry = make_geometry()
    away = look()
    away["c2w"] = away["c2w"].clone()
    away["c2w"][:, :3, 3] *= -1  # behind the head, looking away from it
    away["c2w"][:, :3, 3] *= 10
    out = assert_trains(geometry, **away)
    assert out["opacity"].abs().max() == 0
    assert geometry.density.count.sum() == 0
    # Nor does density control trip over having seen nothing.
    geometry.density.cfg.start = geometry.density.cfg.interval = 1
    optimizer = torch.optim.Adam([{"params": [getattr(geometry.splats, n)]} for n in PARAMETERS])
    report = geometry.control_density(1, optimizer)
    assert report is not None
    assert report.n_cloned + report.n_split == 0


@pytest.mark.parametrize("opacity", [1e-6, 0.0])
def test_all_splats_are_to_be_pruned(opacity: float) -> None:
    geometry = make_geometry()
    with torch.no_grad():
        geometry.splats.opacities.fill_(torch.tensor(opacity).logit().clamp_min(-80.0))
    assert_trains(geometry)
    optimizer = torch.optim.Adam([{"params": [getattr(geometry.splats, n)]} for n in PARAMETERS])
    with pytest.warns(UserWarning, match="would leave 0 of 300 splats"):
        report = geometry.control_density(300, optimizer)
    assert report is not None
    assert geometry.splats.n == geometry.density.cfg.min_splats == 100
    assert_trains(geometry)


def test_one_splat(tmp_path: Path) -> None:
    geometry = make_geometry(n_splats=1)
    for step in (300, 600):
        assert_trains(geometry)
        optimizer = torch.optim.Adam(
            [{"params": [getattr(geometry.splats, n)]} for n in PARAMETERS]
        )
        assert geometry.control_density(step, optimizer) is not None
    assert geometry.splats.n >= 1
    from headstudio.splats import save_avatar

    save_avatar(tmp_path / "one.ply", prompt="one", **geometry.export())
    assert load_avatar(tmp_path / "one.ply", geometry.head).splats.n == geometry.splats.n


def test_two_million_splats() -> None:
    resource = pytest.importorskip("resource")

    def peak() -> float:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    before = peak()
    geometry = make_geometry(n_splats=2_000_000, density={"max_splats": 2_000_000})
    with torch.no_grad():
        out = make_renderer(geometry)(**look(size=16))
    assert out["comp_rgb"].isfinite().all()
    assert out["opacity"].max() > 0.5
    # 127 MB of numbers; making them took 520 MB, looking at them no more.
    assert peak() - before < 1500


def test_pictures_of_one_pixel() -> None:
    geometry = make_geometry(n_splats=2000)
    out = assert_trains(geometry, **look(size=1))
    assert out["comp_rgb"].shape == (1, 1, 1, 3)
    assert out["opacity"].max() > 0


def test_a_run_of_pictures_of_one_pixel_with_a_motion_of_one_frame_and_one_splat(
    workplace: Path, training: list[str], launch: Callable[..., int]
) -> None:
    params = FlameParams.zeros(1).replace(jaw_pose=torch.tensor([[0.2, 0.0, 0.0]]))
    still = workplace / "still.npz"
    save_motion(still, Motion(params, fps=25.0, name="still"))
    sizes = [f"data.{kind}{side}=1" for kind in ("", "eval_") for side in ("height", "width")]
    motions = [f"data.motions={still}", f"data.test_motions=[{still}]"]
    few = ["trainer.max_steps=4", "system.geometry.n_splats=1", "system.preview_interval=2"]
    run = named("pixel")
    assert launch(*training, *sizes, *motions, *few, *run, "trainer.val_check_interval=2") == 0
    for name in ("it4-val.png", "it2-train.png", "it4-test.mp4"):
        assert (trial(workplace, "pixel") / "save" / name).is_file()


def test_a_motion_of_one_frame(tmp_path: Path) -> None:
    jaw = torch.tensor([[0.2, 0.0, 0.0]])
    motion = Motion(FlameParams.zeros(1).replace(jaw_pose=jaw), fps=25.0, name="still")
    save_motion(tmp_path / "still.npz", motion)
    motion = load_motion(tmp_path / "still.npz")
    head = HeadModel.load(find_asset("flame/open_head.npz"))
    drawn = MotionSampler([motion], head).sample(5)
    assert torch.equal(drawn.jaw_pose, jaw.expand(5, 3))
    for changed in (resample(motion, 60.0), loop(motion, 7)):
        assert torch.allclose(changed.params.expand().jaw_pose, jaw)
    assert np.isfinite(motion.duration)


PROMPTS = {
    "Korean": "긴 빨간 머리를 한 여자, 안경을 쓴",
    "emoji and control characters": "a man 🧔‍♂️ with\ta hat\u202e\u0000 and a ‘smile’",
    "dots and slashes": "../../a man/woman",
}


@pytest.mark.parametrize("kind", PROMPTS)
def test_prompts(
    kind: str, workplace: Path, training: list[str], launch: Callable[..., int]
) -> None:
    """Whatever is asked for, there is a folder for it, and the avatar says it back."""
    prompt = PROMPTS[kind]
    name = f"prompts-{len(prompt)}"
    asked = [a for a in training if "prompt_processor.prompt=" not in a]
    asked += [f"system.prompt_processor.prompt={prompt}", f"name={name}", "trainer.max_steps=1"]
    assert launch(*asked) == 0
    (run,) = (workplace / "outputs" / name).iterdir()
    asked = ["--config", str(run / "configs" / "parsed.yaml"), "--export", "resume=auto"]
    assert launch(*asked) == 0
    head = HeadModel.load(find_asset("flame/open_head.npz"))
    assert load_avatar(run / "save" / "it1-export" / "avatar.ply", head).prompt == prompt


def test_a_prompt_of_five_hundred_words(
    workplace: Path,
    training: list[str],
    launch: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The prior would read the first few dozen and say nothing of the others."""
    prompt = " ".join(["an old sailor with red hair and"] * 72)
    assert len(prompt.split()) == 504
    asked = [a for a in training if "prompt_processor.prompt=" not in a]
    asked += [f"system.prompt_processor.prompt={prompt}", "name=words"]
    assert launch(*asked) == 2
    assert "fewer words" in capsys.readouterr().err
    assert not (workplace / "outputs" / "words").exists()
