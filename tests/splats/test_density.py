"""Density control: what is gathered, what grows, what goes, and what the optimiser remembers."""

from __future__ import annotations

import warnings

import pytest
import torch
import trimesh
from gsplat import DefaultStrategy
from omegaconf import OmegaConf

from headstudio.errors import HeadStudioError
from headstudio.splats import (
    DensityControl,
    SplatModule,
    Splats,
    pose_splats,
    triangle_frames,
)

MESH = trimesh.creation.icosphere(subdivisions=2)
FACES = torch.tensor(MESH.faces, dtype=torch.int64)
FRAMES = triangle_frames(torch.tensor(MESH.vertices).float()[None], FACES)
GROW, GROW_LATE, PRUNE_ONLY = 600, 1800, 2700


def make_splats(n=200, world_scale=0.02, opacity=0.5, seed=0):
    g = torch.Generator().manual_seed(seed)
    face = torch.randint(len(FACES), (n,), generator=g)
    local = (torch.tensor(world_scale) / FRAMES.scale[0, face]).log()
    splats = Splats(
        means=torch.randn(n, 3, generator=g),
        quats=torch.randn(n, 4, generator=g),
        scales=local[:, None].repeat(1, 3),
        opacities=torch.full((n,), opacity).logit(),
        colors=torch.randn(n, 3, generator=g),
        face=face,
    )
    # A colour is a name here: each splat is found again by it.
    splats.colors[:, 0] = torch.arange(n).float()
    return SplatModule(splats)


def make_optimizer(module, extra=True):
    groups = [
        {"params": [p], "name": f"splats.{n}", "lr": 1e-9} for n, p in module.named_parameters()
    ]
    if extra:
        groups.insert(2, {"params": [torch.nn.Parameter(torch.zeros(300))], "name": "shape"})
    return torch.optim.Adam(groups, lr=1e-9, eps=1e-15)


def train_once(module, optimizer, seed=1):
    optimizer.zero_grad()
    g = torch.Generator().manual_seed(seed)
    posed = pose_splats(module.splats, FRAMES)
    weights = torch.randn(posed.means.shape, generator=g)
    loss = (posed.means * weights).sum() + posed.scales.square().sum() + posed.quats[..., 1].sum()
    (loss + (posed.opacities * 2).sum() + module.colors.square().sum()).backward()
    optimizer.step()


def observe(control, high, n, level=1.0):
    """Every splat is seen once, and those in ``high`` have a gradient."""
    grad = torch.zeros(1, n, 2)
    grad[0, high, 0] = level
    control.observe(grad, torch.full((1, n), 5.0), 128, 128)


def names(module):
    return module.colors.detach()[:, 0].round().long()


# ------------------------------------------------------------------ what is gathered


def random_views(n=50, views=4, seed=0):
    g = torch.Generator().manual_seed(seed)
    grad = torch.randn(views, n, 2, generator=g)
    radii = 20 * torch.rand(views, n, generator=g)
    radii[torch.rand(views, n, generator=g) < 0.4] = 0
    return grad * (radii > 0)[..., None], radii


def test_ndc_units_are_gsplats() -> None:
    control = DensityControl(DensityControl.Config(grad_units="ndc"))
    strategy = DefaultStrategy(refine_scale2d_stop_iter=10_000)
    state = strategy.initialize_state()
    for seed in range(3):
        grad, radii = random_views(seed=seed)
        control.observe(grad.reshape(2, 2, 50, 2), radii.reshape(2, 2, 50), 160, 96)
        means2d = torch.zeros_like(grad, requires_grad=True)
        means2d.grad = grad
        info = {
            "width": 160,
            "height": 96,
            "n_cameras": 4,
            "radii": radii[..., None].expand(-1, -1, 2),
            "gaussian_ids": None,
            "means2d": means2d,
        }
        strategy._update_state({"means": torch.zeros(50, 3)}, state, info)
    torch.testing.assert_close(control.grad_sum, state["grad2d"])
    torch.testing.assert_close(control.count, state["count"])
    seen = torch.stack([random_views(seed=s)[1] for s in range(3)]).amax((0, 1)) / 160
    torch.testing.assert_close(control.screen_size, seen)


def test_relative_units_do_not_depend_on_the_scale_of_the_loss() -> None:
    grad, radii = random_views()
    controls = [DensityControl() for _ in range(3)]
    controls[0].observe(grad, radii, 128, 128)
    controls[1].observe(1000 * grad, radii, 128, 128)
    controls[2].observe(grad * 2.0**16, radii, 128, 128, loss_scale=2.0**16)
    norms = grad.norm(dim=-1).sum(0)
    for control in controls:
        torch.testing.assert_close(control.grad_sum, norms / norms.norm())
        assert torch.equal(control.count, (radii > 0).any(0).float())


def test_radii_may_come_per_axis() -> None:
    grad, radii = random_views()
    one, two = DensityControl(), DensityControl()
    one.observe(grad, radii, 128, 128)
    two.observe(grad, torch.stack([radii, 0.5 * radii], dim=-1), 128, 128)
    assert torch.equal(one.screen_size, two.screen_size)
    with pytest.raises(HeadStudioError, match="radii"):
        one.observe(grad, radii[:, 1:], 128, 128)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("units", ["relative", "ndc"])
def test_gradients_that_overflowed_are_left_out(bad, units) -> None:
    control = DensityControl(DensityControl.Config(grad_units=units))
    grad, radii = random_views()
    grad[0, 3] = bad
    control.observe(grad, radii, 128, 128)
    assert torch.isfinite(control.grad_sum).all()


def test_what_was_gathered_travels_with_a_checkpoint() -> None:
    control, other = DensityControl(), DensityControl()
    control.observe(*random_views(), 128, 128)
    other.observe(*random_views(n=7), 128, 128)
    other.load_state_dict(control.state_dict())
    assert torch.equal(other.grad_sum, control.grad_sum)
    assert torch.equal(other.screen_size, control.screen_size)
    DensityControl().load_state_dict(control.state_dict())


# --------------------------------------------------------------------- the schedule


def test_the_schedule_is_the_papers() -> None:
    control = DensityControl()
    assert [s for s in range(10_000) if control.grows_at(s)] == [300 * i for i in range(1, 8)]
    assert [s for s in range(10_000) if control.prunes_at(s)] == [2400, 2700, 3000, 3300]


def test_nothing_happens_between_the_steps() -> None:
    module = make_splats()
    before = dict(module.named_parameters())
    control = DensityControl()
    observe(control, slice(None), module.n)
    assert control.step(601, module, make_optimizer(module), FRAMES) is None
    assert all(before[name] is parameter for name, parameter in module.named_parameters())
    assert control.count.sum() == module.n


def test_the_config_can_come_from_omegaconf() -> None:
    cfg = OmegaConf.structured(DensityControl.Config)
    cfg.merge_with({"start": 10, "grad_units": "ndc"})
    assert OmegaConf.to_object(cfg) == DensityControl.Config(start=10, grad_units="ndc")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"grad_units": "pixels"}, "relative, ndc"),
        ({"interval": 0}, "interval is 0"),
        ({"min_splats": 0}, "min_splats"),
        ({"max_splats": 5}, "above"),
    ],
)
def test_a_bad_config_is_refused(change, message) -> None:
    with pytest.raises(HeadStudioError, match=message):
        DensityControl(DensityControl.Config(**change))


# ------------------------------------------------------------------------- growing


def test_small_splats_are_cloned_and_large_ones_split() -> None:
    module = make_splats(200)
    old = Splats(**{k: v.detach().clone() for k, v in module.state_dict().items()})
    module.scales.data[100:] += torch.tensor(3.0).log()  # 0.02 -> 0.06 of 0.04 allowed
    control = DensityControl()
    high = torch.cat([torch.arange(0, 20), torch.arange(100, 130)])
    observe(control, high, 200)
    report = control.step(GROW, module, make_optimizer(module), FRAMES)
    assert (report.n_cloned, report.n_split, report.n_pruned) == (20, 30, 0)
    assert report.n == module.n == 250

    children = names(module)
    counts = torch.bincount(children, minlength=200)
    assert (counts[high] == 2).all()
    assert counts.sum() == 250
    assert torch.equal(module.face, old.face[children])  # a child keeps its parent's triangle
    cloned = children < 20
    assert torch.equal(module.means[cloned], old.means[children[cloned]])
    split = (children >= 100) & (children < 130)
    shrunk = old.scales[children[split]] + torch.tensor(3.0 / 1.6).log()
    torch.testing.assert_close(module.scales[split].detach(), shrunk)
    assert (module.means[split] - old.means[children[split]]).norm(dim=-1).min() > 1e-4
    # What was gathered starts afresh, for the new number of splats.
    assert control.grad_sum.shape == (250,)
    assert not control.grad_sum.any()
    assert not control.screen_size.any()


def test_split_children_are_drawn_from_their_parent_in_triangle_units() -> None:
    n = 4000
    module = make_splats(n, world_scale=0.1)
    local = torch.tensor([0.5, 1.0, 2.0])
    quat = torch.nn.functional.normalize(torch.tensor([1.0, 0.3, -0.2, 0.5]), dim=0)
    module.means.data[:] = torch.tensor([1.0, 2, 3])
    module.quats.data[:] = quat * 2.5  # need not be normalised
    module.scales.data[:] = local.log()
    control = DensityControl(DensityControl.Config(clone_size=1e-6, grad_threshold=0.0))
    observe(control, slice(None), n)
    control.step(GROW, module, make_optimizer(module), FRAMES)
    assert module.n == 2 * n
    w, x, y, z = quat.tolist()
    rotation = torch.tensor(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )
    covariance = rotation @ torch.diag(local**2) @ rotation.T
    means = module.means.detach()
    torch.testing.assert_close(means.mean(0), torch.tensor([1.0, 2, 3]), atol=0.1, rtol=0)
    torch.testing.assert_close(torch.cov(means.T), covariance, atol=0.2, rtol=0)


def test_the_spread_of_split_children_can_be_narrowed() -> None:
    def split(spread):
        module = make_splats(50, world_scale=0.1)
        start = module.means.detach().clone()
        control = DensityControl(DensityControl.Config(split_spread=spread))
        observe(control, slice(None), 50)
        control.step(GROW, module, make_optimizer(module), FRAMES)
        return module.means.detach() - start[names(module)]

    torch.testing.assert_close(split(0.01), 0.01 * split(1.0), atol=1e-6, rtol=1e-3)


def test_a_step_splits_the_same_way_every_time_and_leaves_other_draws_alone() -> None:
    def split(step, global_seed):
        module = make_splats(50, world_scale=0.1)
        control = DensityControl()
        observe(control, slice(None), 50)
        torch.manual_seed(global_seed)
        control.step(step, module, make_optimizer(module), FRAMES)
        return module.means.detach(), torch.rand(3)

    first, draw = split(GROW, 1)
    again, _ = split(GROW, 2)
    other, _ = split(GROW + 300, 1)
    torch.manual_seed(1)
    assert torch.equal(draw, torch.rand(3))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_only_gradients_from_the_threshold_on_grow() -> None:
    module = make_splats(100)
    control = DensityControl(DensityControl.Config(grad_units="ndc", grad_threshold=64.0))
    grad = torch.zeros(1, 100, 2)
    grad[0, :, 1] = torch.linspace(0.5, 1.5, 100)
    # 128 px: 1 px is 64 half pictures. Unseen splats have no gradient, whatever stands there.
    radii = torch.full((1, 100), 5.0)
    radii[0, 99] = 0
    control.observe(grad, radii, 128, 128)
    report = control.step(GROW, module, make_optimizer(module), FRAMES)
    assert report.n_cloned == int((grad[0, :99, 1] >= 1).sum())


def test_growth_stops_at_the_cap_with_the_largest_gradients_first() -> None:
    module = make_splats(100)
    control = DensityControl(DensityControl.Config(max_splats=110, min_splats=10))
    grad = torch.zeros(1, 100, 2)
    order = torch.randperm(100, generator=torch.Generator().manual_seed(0))
    grad[0, order, 0] = torch.arange(1, 101).float()
    control.observe(grad, torch.full((1, 100), 5.0), 128, 128)
    report = control.step(GROW, module, make_optimizer(module), FRAMES)
    assert report.n_cloned == 10
    assert set(names(module)[100:].tolist()) == set(order[-10:].tolist())
    observe(control, slice(None), 110)
    assert control.step(GROW + 300, module, make_optimizer(module), FRAMES).n_cloned == 0


# ------------------------------------------------------------------------- pruning


def quiet(control, module, screen=None):
    radii = torch.full((1, module.n), 5.0) if screen is None else screen[None]
    control.observe(torch.zeros(1, module.n, 2), radii, 512, 256)


def config(**changes):
    return DensityControl.Config(min_splats=1, **changes)


def test_faint_splats_go_at_the_opacity_of_the_phase() -> None:
    opacities = torch.linspace(0.0007, 0.2, 200)
    for step, threshold in ((GROW, 0.05), (PRUNE_ONLY, 0.005)):
        module = make_splats(200)
        module.opacities.data = opacities.logit()
        control = DensityControl(config())
        quiet(control, module)
        report = control.step(step, module, make_optimizer(module), FRAMES)
        assert report.n_pruned == int((opacities < threshold).sum())
        assert module.opacities.sigmoid().min() >= threshold


def test_large_splats_go_by_their_size_in_the_world_and_only_later() -> None:
    for step, expected in ((GROW, 0), (GROW_LATE, 50), (PRUNE_ONLY, 50)):
        module = make_splats(200, world_scale=0.02)
        module.scales.data[:50, 1] += torch.tensor(6.1).log()  # one axis 0.122 of 0.03 * 4
        module.scales.data[50:60, 1] += torch.tensor(5.9).log()
        control = DensityControl(config())
        quiet(control, module)
        report = control.step(step, module, make_optimizer(module), FRAMES)
        assert report.n_pruned == expected
        assert set(range(50, 200)) <= set(names(module).tolist())


def test_splats_large_on_screen_go_in_proportion_to_the_picture() -> None:
    for step, expected in ((GROW, 0), (GROW_LATE, 100), (PRUNE_ONLY, 0)):
        module = make_splats(200)
        radii = torch.full((200,), 29.0)  # 60 px at 1024 are 30 at 512
        radii[:100] = 31.0
        control = DensityControl(config())
        quiet(control, module, radii)
        quiet(control, module)  # seen small afterwards; the largest counts
        report = control.step(step, module, make_optimizer(module), FRAMES)
        assert report.n_pruned == expected


def test_split_children_are_as_small_on_screen_as_they_are() -> None:
    module = make_splats(200, world_scale=0.1)
    control = DensityControl(config())
    grad = torch.ones(1, 200, 2)
    radii = torch.full((1, 200), 60.0)
    radii[0, :100] = 80.0  # the children of 80 px splats are 50 px; of 60 px, 37.5
    radii[0, 100:120] = 100.0
    control.observe(grad, radii, 1024, 1024)
    report = control.step(GROW_LATE, module, make_optimizer(module), FRAMES)
    assert report.n_split == 200
    assert report.n_pruned == 40


def test_pruning_never_leaves_fewer_than_the_minimum() -> None:
    module = make_splats(200)
    module.opacities.data = torch.linspace(0.0001, 0.004, 200).logit()
    control = DensityControl(DensityControl.Config(min_splats=30))
    with pytest.warns(UserWarning, match="leave 0 of 200 splats"):
        report = control.step(GROW, module, make_optimizer(module), FRAMES)
    assert report.n == module.n == 30
    assert names(module).tolist() == list(range(170, 200))  # the most opaque
    # Good ones are not exchanged for opaque but oversized ones.
    module = make_splats(200, opacity=0.2)
    module.scales.data[20:] += 3.0
    module.opacities.data[20:] = 5.0
    with pytest.warns(UserWarning, match="leave 20"):
        control.step(PRUNE_ONLY, module, make_optimizer(module), FRAMES)
    assert set(range(20)) <= set(names(module).tolist())


# ------------------------------------------------------- what the optimiser remembers


@pytest.mark.parametrize("shared", [True, False])
def test_moments_survive_growing_and_pruning(shared) -> None:
    module = make_splats(200)
    module.scales.data[100:] += torch.tensor(3.0).log()
    module.opacities.data[:40] = -5.0
    if shared:
        optimizer = make_optimizer(module)
        optimizers = {name: optimizer for name, _ in module.named_parameters()}
    else:
        optimizer = {n: torch.optim.Adam([p], lr=1e-9) for n, p in module.named_parameters()}
        optimizers = optimizer
    for seed in range(3):
        for each in {id(o): o for o in optimizers.values()}.values():
            each.zero_grad()
        g = torch.Generator().manual_seed(seed)
        sum((p * torch.randn(p.shape, generator=g)).sum() for p in module.parameters()).backward()
        for each in {id(o): o for o in optimizers.values()}.values():
            each.step()
    moments = {
        name: {key: value.clone() for key, value in optimizers[name].state[p].items()}
        for name, p in module.named_parameters()
    }
    control = DensityControl(DensityControl.Config(min_splats=10))
    high = torch.cat([torch.arange(50, 70), torch.arange(150, 170)])
    observe(control, high, 200)
    report = control.step(GROW, module, optimizer, FRAMES)
    assert (report.n_cloned, report.n_split, report.n_pruned, report.n) == (20, 20, 40, 200)

    seen, who = set(), names(module)
    is_child = torch.zeros(200, dtype=torch.bool)
    for i, name in enumerate(who.tolist()):
        is_child[i] = name in seen or 150 <= name < 170
        seen.add(name)
    assert int(is_child.sum()) == 60
    for name, parameter in module.named_parameters():
        state = optimizers[name].state[parameter]
        assert state["step"].item() == 3
        for key in ("exp_avg", "exp_avg_sq"):
            assert state[key].shape == parameter.shape
            assert torch.equal(state[key][~is_child], moments[name][key][who[~is_child]])
            assert not state[key][is_child].any()


def test_the_shared_optimizer_goes_on_and_other_groups_are_left_alone() -> None:
    module = make_splats(200)
    optimizer = make_optimizer(module)
    shape = optimizer.param_groups[2]["params"][0]
    learning_rates = [group["lr"] for group in optimizer.param_groups]
    control = DensityControl()
    for step in (GROW, GROW + 300, PRUNE_ONLY):
        train_once(module, optimizer)
        observe(control, slice(0, 50), module.n)
        control.step(step, module, optimizer, FRAMES)
        held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        assert held == {id(p) for p in module.parameters()} | {id(shape)}
        assert [group["lr"] for group in optimizer.param_groups] == learning_rates
        assert set(optimizer.state) <= {p for g in optimizer.param_groups for p in g["params"]}
    train_once(module, optimizer)
    # A checkpoint written now can be read by an optimiser made for a module of that size.
    other = make_splats(10)
    other.load_state_dict(module.state_dict())
    make_optimizer(other).load_state_dict(optimizer.state_dict())


def test_growing_before_the_first_optimizer_step() -> None:
    module = make_splats(50)
    optimizer = make_optimizer(module)
    control = DensityControl()
    observe(control, slice(None), 50)
    assert control.step(GROW, module, optimizer, FRAMES).n == 100
    train_once(module, optimizer)
    assert optimizer.state[module.means]["exp_avg"].shape == (100, 3)


def test_parameters_that_share_a_group_are_refused() -> None:
    module = make_splats(50)
    control = DensityControl()
    observe(control, slice(None), 50)
    with pytest.raises(HeadStudioError, match="group"):
        control.step(GROW, module, torch.optim.Adam(module.parameters()), FRAMES)
    with pytest.raises(HeadStudioError, match="quats is trainable but not"):
        control.step(GROW, module, torch.optim.Adam([module.means]), FRAMES)
    assert module.n == 50


def test_frozen_parameters_need_no_optimizer() -> None:
    module = make_splats(50)
    module.quats.requires_grad_(False)
    groups = [{"params": [p]} for n, p in module.named_parameters() if n != "quats"]
    control = DensityControl()
    observe(control, slice(None), 50)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        control.step(GROW, module, torch.optim.Adam(groups), FRAMES)
    assert module.quats.shape == (100, 4)
    assert not module.quats.requires_grad
