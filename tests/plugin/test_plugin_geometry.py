"""The geometry: a head that carries splats through poses, checkpoints and density control."""

from __future__ import annotations

import pytest
import torch

from headstudio.errors import HeadStudioError
from headstudio.flame import FlameParams, HeadModel
from headstudio.splats import load_avatar, pose_splats, save_avatar, triangle_frames

JAWS = torch.tensor([[0.0, 0.0, 0.0], [0.2, 0.0, 0.0], [0.1, 0.0, 0.0]])
NAMES = ("means", "quats", "scales", "opacities", "colors")


def adam(geometry):
    groups = [
        {"params": [getattr(geometry.splats, name)], "name": f"geometry.splats.{name}", "lr": 0.01}
        for name in NAMES
    ]
    groups.append({"params": [geometry.shape], "name": "geometry.shape", "lr": 0.01})
    return torch.optim.Adam(groups)


def test_posing_is_the_head_model_then_the_rig(make_geometry):
    geometry = make_geometry()
    with torch.no_grad():
        geometry.shape[:3] = torch.tensor([1.0, -0.5, 2.0])
    posed = geometry.pose({"jaw_pose": JAWS, "shape": torch.full((1, 300), 9.0)})
    head = geometry.head
    params = FlameParams.zeros(3).replace(jaw_pose=JAWS, shape=geometry.shape.expand(3, -1))
    vertices = head.world_frame(1.5).to_world(head(params))
    expected = pose_splats(geometry.splats.splats, triangle_frames(vertices, head.faces))
    assert torch.allclose(posed.vertices, vertices, atol=1e-6)
    assert torch.allclose(posed.splats.means, expected.means, atol=1e-6)
    assert posed.splats.means.shape == (3, 300, 3)


def test_the_head_model_runs_once_for_all_poses(make_geometry, make_renderer, batch, monkeypatch):
    geometry = make_geometry()
    rows = []
    forward = HeadModel.forward

    def counted(self, params):
        rows.append(params.batch_size)
        return forward(self, params)

    monkeypatch.setattr(HeadModel, "forward", counted)
    out = make_renderer(geometry)(**batch)
    assert rows == [3]
    assert out["comp_rgb"].shape[0] == 3
    batch["flame"] = {name: value[:1] for name, value in batch["flame"].items()}
    make_renderer(geometry)(**batch)
    assert rows == [3, 1]


def test_neutral_head_stands_in_the_world_as_agreed(make_geometry):
    vertices = make_geometry(extent=1.2).pose().vertices[0]
    low, high = vertices.detach().amin(0), vertices.detach().amax(0)
    assert float((high - low).max()) == pytest.approx(1.2, rel=1e-4)
    assert torch.allclose(low + high, torch.zeros(3), atol=1e-4)


def test_initialisation_is_switchable(make_geometry):
    uniform = make_geometry(n_splats=500)
    assert uniform.splats.n == 500
    per_triangle = make_geometry(initialisation="per-triangle")
    assert per_triangle.splats.n == len(per_triangle.head.faces)
    assert torch.equal(per_triangle.splats.face, torch.arange(per_triangle.splats.n))
    dense = make_geometry(n_splats=2000, region_weights={"lips": 20.0})
    plain = make_geometry(n_splats=2000)
    lips = dense.head.region_mask("lips")
    assert lips[dense.splats.face].sum() > 5 * lips[plain.splats.face].sum()
    red = make_geometry(n_splats=2000, region_colors={"lips": [0.9, 0.1, 0.2]}, initial_color=0.4)
    of_lips = lips[red.splats.face]
    rgb = red.splats.splats.rgb()
    assert torch.allclose(rgb[of_lips], torch.tensor([0.9, 0.1, 0.2]), atol=1e-3)
    assert torch.allclose(rgb[~of_lips], torch.tensor(0.4), atol=1e-3)
    assert torch.allclose(make_geometry(initial_shape=[0.5, 1.0]).shape[:2], torch.tensor([0.5, 1]))


def test_the_seed_decides_where_splats_start(make_geometry):
    torch.manual_seed(3)
    one = make_geometry().splats.means
    torch.manual_seed(3)
    two = make_geometry().splats.means
    torch.manual_seed(4)
    assert torch.equal(one, two)
    assert not torch.equal(one, make_geometry().splats.means)


@pytest.mark.parametrize(
    ("cfg", "message"),
    [
        ({"initialisation": "random"}, "one of uniform, per-triangle"),
        ({"region_weights": {"horns": 2.0}}, "names horns"),
        ({"region_colors": {"horns": [0, 0, 0]}}, "region_colors names horns"),
        ({"region_colors": {"lips": [0, 0, 256]}}, "each from 0 to 1"),
        ({"initial_shape": [0.0] * 301}, "301 coefficients"),
        ({"n_splats": 0}, "at least 1"),
        ({"head_model": "load/flame/no_such_head.npz"}, "no_such_head"),
        ({"density": {"intervall": 100}}, "intervall"),
        ({"n_splat": 10}, "n_splat"),
    ],
)
def test_mistakes_are_explained(make_geometry, cfg, message):
    with pytest.raises(ValueError, match=message):
        make_geometry(**cfg)


def test_shape_learns_until_its_step(make_geometry, make_renderer, batch):
    geometry = make_geometry(shape_until_step=5)
    geometry.update_step(0, 4)
    make_renderer(geometry)(**batch)["comp_rgb"].sum().backward()
    assert geometry.shape.grad.abs().max() > 0
    geometry.shape.grad = None
    geometry.update_step(0, 5)
    make_renderer(geometry)(**batch)["comp_rgb"].sum().backward()
    assert geometry.shape.grad is None
    fixed = make_geometry(learn_shape=False)
    fixed.update_step(0, 0)
    assert not fixed.shape.requires_grad


def trained(geometry, renderer, batch, steps, optimizer, loss_scale=1.0):
    for _ in range(steps):
        optimizer.zero_grad()
        out = renderer(**batch)
        (out["comp_rgb"].square().mean() * loss_scale).backward()
        geometry.observe(out, loss_scale=loss_scale)
        optimizer.step()


def test_density_control_keeps_parameters_optimiser_and_checkpoint_together(
    make_geometry, make_renderer, batch
):
    density = {"start": 3, "interval": 3, "end": 9, "prune_opacity": 0.0, "grad_threshold": 0.05}
    geometry = make_geometry(density=density, initial_opacity=0.5)
    renderer, optimizer = make_renderer(geometry), adam(geometry)
    trained(geometry, renderer, batch, 3, optimizer)
    assert geometry.control_density(2, optimizer) is None
    report = geometry.control_density(3, optimizer)
    assert report.n_cloned + report.n_split > 0
    assert geometry.splats.n == report.n > 300
    # The optimiser holds the very parameters that are rendered.
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for p in geometry.parameters()}
    before = geometry.splats.means.detach().clone()
    trained(geometry, renderer, batch, 1, optimizer)
    assert not torch.equal(before, geometry.splats.means)

    # A new geometry has another number of splats, until it reads the checkpoint.
    torch.manual_seed(1)
    again = make_geometry(density=density)
    again.load_state_dict(geometry.state_dict())
    for name, value in geometry.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    assert torch.equal(again.pose().splats.means, geometry.pose().splats.means)


def test_splats_of_another_head_are_refused(make_geometry, other_head):
    state = make_geometry().state_dict()
    other = make_geometry(head_model=str(other_head))
    before = other.splats.means.detach().clone()
    for strict in (True, False):
        with pytest.raises(HeadStudioError, match=r"rides on .*'open-head'.* is 'larger'"):
            other.load_state_dict(state, strict=strict)
    assert torch.equal(other.splats.means, before)
    assert all(isinstance(value, torch.Tensor) for value in state.values())
    for damaged in (torch.tensor([0.5, float("inf")]), "text", None):
        with pytest.raises(HeadStudioError, match="rides on"):
            make_geometry().load_state_dict(state | {"_extra_state": damaged})


def test_the_same_head_by_another_name_and_an_older_checkpoint_are_taken(make_geometry, make_head):
    state = make_geometry().state_dict()
    again = make_geometry(head_model=str(make_head("mine")))
    again.load_state_dict(state)
    del state["_extra_state"]  # as before heads were kept
    again.load_state_dict(state)
    assert torch.equal(again.splats.means, state["splats.means"])


def test_density_control_can_be_left_out(make_geometry, make_renderer, batch):
    density = {"start": 1, "interval": 1, "grad_threshold": 0.0}
    geometry = make_geometry(density_control=False, density=density)
    optimizer = adam(geometry)
    trained(geometry, make_renderer(geometry), batch, 1, optimizer)
    assert geometry.control_density(1, optimizer) is None
    assert geometry.splats.n == 300


def test_density_control_needs_the_gradient_it_decides_by(make_geometry, make_renderer, batch):
    geometry = make_geometry()
    out = make_renderer(geometry)(**batch)
    with pytest.raises(HeadStudioError, match="density control got no gradient"):
        geometry.observe(out)
    make_geometry(density_control=False).observe(out)


def test_a_scaled_loss_decides_the_same(make_geometry, make_renderer, batch):
    sums = []
    for scale in (1.0, 1024.0):
        torch.manual_seed(0)
        geometry = make_geometry(density={"grad_units": "ndc"})
        trained(geometry, make_renderer(geometry), batch, 1, adam(geometry), scale)
        sums.append(geometry.density.grad_sum)
    assert torch.allclose(*sums, rtol=1e-4)


@pytest.mark.parametrize("grad_units", ["relative", "ndc"])
def test_gathered_batches_decide_as_one_does(make_geometry, make_renderer, batch, grad_units):
    """Three views in batches of one and two, whose losses a trainer divides by their number."""
    geometries = [make_geometry(density={"grad_units": grad_units}) for _ in range(2)]
    together, apart = geometries
    apart.load_state_dict(together.state_dict())
    views = {name: batch[name] for name in ("c2w", "fovy", "height", "width")}
    out = make_renderer(together)(**views)
    out["comp_rgb"].square().mean().backward()
    together.observe(out)
    outs = []
    for some in (slice(0, 1), slice(1, 3)):
        few = views | {name: views[name][some] for name in ("c2w", "fovy")}
        outs.append(make_renderer(apart)(**few))
        # As the mean over all three.
        (outs[-1]["comp_rgb"].square().mean() * len(few["c2w"]) / 3).backward()
    apart.observe(*outs)
    for name in ("grad_sum", "count", "screen_size"):
        one, other = (getattr(geometry.density, name) for geometry in geometries)
        assert one.any(), name
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-7), name


def test_export_is_what_an_avatar_is_saved_from(make_geometry, tmp_path):
    geometry = make_geometry()
    with torch.no_grad():
        geometry.shape[0] = 1.5
    path = tmp_path / "avatar.ply"
    save_avatar(path, prompt="a man", **geometry.export())
    avatar = load_avatar(path, geometry.head)
    assert float(avatar.shape[0]) == 1.5
    assert torch.allclose(avatar.splats.means, geometry.splats.means, atol=1e-3)


def test_an_avatar_exporter_refuses_other_geometries(make_geometry):
    import threestudio

    exporter = threestudio.find("avatar-exporter")
    (output,) = exporter({}, geometry=make_geometry(), material=None, background=None)()
    assert (output.save_name, output.save_type) == ("avatar.ply", "avatar")
    with pytest.raises(HeadStudioError, match="not Linear"):
        exporter({}, geometry=torch.nn.Linear(1, 1), material=None, background=None)()
