"""Splats as tensors and as a module that fits itself to a checkpoint."""

from __future__ import annotations

import copy

import pytest
import torch

from headstudio.errors import HeadStudioError
from headstudio.splats import PARAMETER_WIDTHS, SplatModule, Splats, rgb_to_sh, sh_to_rgb


def random_splats(n, seed=0):
    g = torch.Generator().manual_seed(seed)
    return Splats(
        means=torch.randn(n, 3, generator=g),
        quats=torch.randn(n, 4, generator=g),
        scales=torch.randn(n, 3, generator=g),
        opacities=torch.randn(n, generator=g),
        colors=torch.randn(n, 3, generator=g),
        face=torch.randint(20, (n,), generator=g),
    )


def loss(module):
    return sum((value**2).sum() for value in module.splats.parameters().values())


def test_colours_convert_both_ways_and_are_clamped_at_zero() -> None:
    rgb = torch.tensor([[0.0, 0.5, 1.0]])
    torch.testing.assert_close(sh_to_rgb(rgb_to_sh(rgb)), rgb)
    assert sh_to_rgb(torch.tensor([-5.0])).item() == 0.0


def test_selecting_and_joining() -> None:
    splats = random_splats(10)
    mask = splats.face > 8
    joined = Splats.cat([splats[mask], splats[~mask]])
    assert joined.n == 10
    order = torch.cat([mask.nonzero(), (~mask).nonzero()])[:, 0]
    assert torch.equal(joined.means, splats.means[order])
    assert torch.equal(joined.face, splats.face[order])


@pytest.mark.parametrize("name", [*PARAMETER_WIDTHS, "face"])
def test_shapes_that_do_not_fit_are_refused(name) -> None:
    values = vars(random_splats(10)).copy()
    values[name] = values[name][:9]
    if name == "means":
        with pytest.raises(HeadStudioError, match="expected"):
            Splats(**values)
    else:
        with pytest.raises(HeadStudioError, match=name):
            Splats(**values)


def test_the_module_hands_out_its_own_parameters() -> None:
    source = random_splats(6)
    module = SplatModule(source)
    loss(module).backward()
    for name, parameter in module.named_parameters():
        torch.testing.assert_close(parameter.grad, 2 * getattr(source, name))
    assert set(module.state_dict()) == {*PARAMETER_WIDTHS, "face"}


def test_loading_a_checkpoint_of_another_size() -> None:
    big, small = SplatModule(random_splats(50, 1)), SplatModule(random_splats(7, 2))
    host = torch.nn.ModuleDict({"splats": small})  # loaded through a parent, as a host does
    before = dict(small.named_parameters())
    loss(small).backward()  # leaves gradients of the old size behind
    host.load_state_dict(torch.nn.ModuleDict({"splats": big}).state_dict())
    for name, value in big.state_dict().items():
        assert torch.equal(small.state_dict()[name], value)
    assert all(before[name] is parameter for name, parameter in small.named_parameters())
    loss(small).backward()
    assert small.means.grad.shape == (50, 3)


@pytest.mark.parametrize("build_optimizer_first", [True, False])
def test_training_resumes_exactly_where_it_stopped(build_optimizer_first) -> None:
    def optimizer_of(module):
        groups = [{"params": [p], "name": n} for n, p in module.named_parameters()]
        return torch.optim.Adam(groups, lr=0.1)

    def train(module, optimizer, steps):
        for _ in range(steps):
            optimizer.zero_grad()
            loss(module).backward()
            optimizer.step()

    first = SplatModule(random_splats(50, 1))
    optimizer = optimizer_of(first)
    train(first, optimizer, 3)
    checkpoint = {
        "model": {k: v.clone() for k, v in first.state_dict().items()},
        "optimizer": copy.deepcopy(optimizer.state_dict()),
    }
    resumed = SplatModule(random_splats(7, 2))
    if build_optimizer_first:
        other = optimizer_of(resumed)
        resumed.load_state_dict(checkpoint["model"])
    else:
        resumed.load_state_dict(checkpoint["model"])
        other = optimizer_of(resumed)
    other.load_state_dict(checkpoint["optimizer"])
    train(resumed, other, 2)
    train(first, optimizer, 2)
    for name, value in first.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value)


def test_a_checkpoint_that_contradicts_itself_is_refused() -> None:
    module = SplatModule(random_splats(7))
    state = SplatModule(random_splats(50)).state_dict()
    state["colors"] = state["colors"][:49]
    with pytest.raises(RuntimeError, match="colors has shape"):
        module.load_state_dict(state)
    assert module.n == 7
    del state["colors"]
    with pytest.raises(RuntimeError, match="colors"):
        module.load_state_dict(state)
