"""Control images that samples share or do without, and how the networks are run, change nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from headstudio.guidance import DiffusionPrior, ScoreDistillation
from tests.fixtures.tiny_prior import IMAGE_SIZE, LATENT_SIZE

VIEWS = 3
# As score distillation asks: prompt and empty prompt of each view, the negative one of some.
PICTURE = torch.tensor([0, 1, 2, 0, 1, 2, 2, 0])
ASKED = {
    "everybody": (1, 1, 1, 1, 1, 1, 1, 1),
    "nobody": (0, 0, 0, 0, 0, 0, 0, 0),
    "one view": (0, 1, 0, 0, 1, 0, 0, 0),
    "two views": (1, 0, 1, 1, 0, 1, 1, 1),
    "one sample": (0, 0, 0, 0, 0, 0, 1, 0),
    "all but the first": (0, 1, 1, 1, 1, 1, 1, 1),
}

pytestmark = pytest.mark.usefixtures("one_thread")


class Samples:
    """What a prior is asked about eight samples of three views."""

    def __init__(self, prior: DiffusionPrior) -> None:
        generator = torch.Generator().manual_seed(0)
        n = len(PICTURE)
        self.latents = torch.randn(n, 4, LATENT_SIZE, LATENT_SIZE, generator=generator)
        self.t = torch.linspace(5, 995, n).long()
        self.text = prior.embed_text([f"a woman with red hair {i}" for i in range(n)])
        self.control = torch.rand(VIEWS, IMAGE_SIZE, IMAGE_SIZE, 3, generator=generator)
        self.weight = torch.linspace(0.5, 1.5, n)

    def plain(self, prior: DiffusionPrior, asked: Tensor) -> Tensor:
        """Every sample with a picture of its own, and with weight 0 where it is not asked for."""
        return prior.predict_noise(
            self.latents, self.t, self.text, self.control[PICTURE], self.weight * asked
        )

    def shared(self, prior: DiffusionPrior, asked: Tensor | None = None) -> Tensor:
        """The same with three pictures."""
        weight = self.weight if asked is None else self.weight * asked
        return prior.predict_noise(
            self.latents, self.t, self.text, self.control, weight, picture=PICTURE, asked=asked
        )


@pytest.fixture
def samples(prior: DiffusionPrior) -> Samples:
    return Samples(prior)


@pytest.fixture
def fresh(prior_folder: Path) -> DiffusionPrior:
    """Of the same weights as ``prior``, to be altered."""
    return DiffusionPrior.from_pretrained(prior_folder)


class Rows:
    """How many rows a network is given, call by call."""

    def __init__(self, network: nn.Module) -> None:
        self.given: list[int] = []
        self._hook = network.register_forward_pre_hook(self._note)

    def _note(self, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self.given.append(len(inputs[0]))

    def stop(self) -> None:
        self._hook.remove()


@pytest.fixture
def asked_rows(prior: DiffusionPrior) -> Iterator[list[int]]:
    """Samples that the ControlNet is asked about."""
    rows = Rows(prior.controlnet)
    yield rows.given
    rows.stop()


@pytest.fixture
def embedded_rows(prior: DiffusionPrior) -> Iterator[list[int]]:
    """Control images that are embedded."""
    rows = Rows(first_of_embedding(prior))
    yield rows.given
    rows.stop()


def first_of_embedding(prior: DiffusionPrior) -> nn.Module:
    (first,) = (
        module
        for name, module in prior.controlnet.controlnet_cond_embedding.named_modules()
        if name.split(".")[-1] == "conv_in"
    )
    return first


@pytest.mark.parametrize("who", ASKED)
def test_whom_the_controlnet_is_not_asked_about_is_weight_zero(
    prior: DiffusionPrior, samples: Samples, asked_rows: list[int], who: str
) -> None:
    asked = torch.tensor(ASKED[who], dtype=torch.bool)
    found = samples.shared(prior, asked)
    # It is asked about these samples alone, and not called for none.
    assert asked_rows == [int(asked.sum())] * bool(asked.any())
    torch.testing.assert_close(found, samples.plain(prior, asked), atol=1e-5, rtol=1e-4)
    # Each of them hears it, and nobody else.
    without = prior.predict_noise(samples.latents, samples.t, samples.text)
    difference = (found - without).abs().amax(dim=(1, 2, 3))
    assert (difference[asked] > 1e-2).all()
    assert (difference[~asked] < 1e-5).all()


def test_each_sample_is_shown_its_own_picture(prior: DiffusionPrior, samples: Samples) -> None:
    """Nobody's answer changes but theirs who are shown the picture that changes."""
    before = samples.shared(prior)
    for view in range(VIEWS):
        other = Samples(prior)
        other.control[view] = 1 - other.control[view]
        shown = torch.eq(PICTURE, view)
        difference = (other.shared(prior) - before).abs().amax(dim=(1, 2, 3))
        assert (difference[shown] > 1e-3).all()
        assert (difference[~shown] < 1e-5).all()


@pytest.mark.parametrize("who", ["everybody", "nobody", "one view", "one sample"])
@pytest.mark.parametrize("at_once", [1, 2])
def test_passes_of_fewer_views_show_and_ask_the_same(
    prior: DiffusionPrior,
    samples: Samples,
    monkeypatch: pytest.MonkeyPatch,
    asked_rows: list[int],
    who: str,
    at_once: int,
) -> None:
    asked = torch.tensor(ASKED[who], dtype=torch.bool)
    expected = samples.plain(prior, asked)
    asked_rows.clear()
    monkeypatch.setattr(prior, "views_at_once", at_once)
    torch.testing.assert_close(samples.shared(prior, asked), expected, atol=1e-5, rtol=1e-4)
    passes = [int(rows.sum()) for rows in asked.split(3 * at_once)]
    assert asked_rows == [rows for rows in passes if rows]


def test_a_picture_is_embedded_once_for_all_who_look_at_it(
    prior: DiffusionPrior, samples: Samples, embedded_rows: list[int]
) -> None:
    found = samples.shared(prior)
    assert embedded_rows == [VIEWS]
    embedded_rows.clear()
    # One after the other, by diffusers alone: the picture is embedded for each who looks at it.
    for i, view in enumerate(PICTURE.tolist()):
        one = slice(i, i + 1)
        with torch.no_grad():
            down, middle = prior.controlnet(
                samples.latents[one],
                samples.t[one],
                encoder_hidden_states=samples.text[one],
                controlnet_cond=samples.control[view : view + 1].movedim(-1, 1),
                conditioning_scale=float(samples.weight[i]),
                return_dict=False,
            )
            expected = prior.unet(
                samples.latents[one],
                samples.t[one],
                encoder_hidden_states=samples.text[one],
                down_block_additional_residuals=down,
                mid_block_additional_residual=middle,
            ).sample
        torch.testing.assert_close(found[one], expected, atol=1e-5, rtol=1e-4)
    assert embedded_rows == [1] * len(PICTURE)


def test_a_preview_embeds_each_picture_once(
    prior: DiffusionPrior, samples: Samples, embedded_rows: list[int]
) -> None:
    ScoreDistillation(prior).preview(
        torch.rand(VIEWS, 20, 20, 3), samples.text[:VIEWS], control=samples.control
    )
    assert embedded_rows == [VIEWS]


def test_a_controlnet_that_wants_blue_first_gets_it(
    prior: DiffusionPrior, samples: Samples, prior_folder: Path, tmp_path: Path
) -> None:
    """diffusers turns the picture around before it embeds it: embedded beforehand, it would not."""
    shutil.copytree(prior_folder, tmp_path / "prior")
    file = tmp_path / "prior" / "controlnet" / "config.json"
    config = json.loads(file.read_text())
    config["controlnet_conditioning_channel_order"] = "bgr"
    file.write_text(json.dumps(config))
    blue_first = DiffusionPrior.from_pretrained(tmp_path / "prior")
    found = samples.shared(blue_first)
    assert (found - samples.shared(prior)).abs().max() > 1e-3
    samples.control = samples.control.flip(-1)
    torch.testing.assert_close(found, samples.shared(prior), atol=1e-5, rtol=1e-4)


def test_the_order_in_memory_changes_nothing(
    prior: DiffusionPrior, fresh: DiffusionPrior, samples: Samples
) -> None:
    asked = torch.tensor(ASKED["two views"], dtype=torch.bool)
    rgb = torch.rand(2, 20, 20, 3, generator=torch.Generator().manual_seed(1))

    def results(of: DiffusionPrior) -> list[Tensor]:
        picture = rgb.clone().requires_grad_()
        latents = of.encode(picture)
        latents.square().sum().backward()
        without = of.predict_noise(samples.latents, samples.t, samples.text)
        return [samples.shared(of, asked), without, latents.detach(), picture.grad]

    def channels_last(of: DiffusionPrior) -> list[bool]:
        convolutions = (of.unet.conv_in, first_of_embedding(of), of.vae.encoder.conv_in)
        return [one.weight.is_contiguous(memory_format=torch.channels_last) for one in convolutions]

    expected = results(prior)
    assert channels_last(prior) == [False] * 3
    for last in (True, False):
        fresh.speed_up(compile=False, channels_last=last)
        assert channels_last(fresh) == [last] * 3
        for found, wanted in zip(results(fresh), expected, strict=True):
            torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)


def test_features_lie_in_the_order_of_the_weights(fresh: DiffusionPrior, samples: Samples) -> None:
    """Else each convolution turns them around anew."""
    seen: list[bool] = []

    def note(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen.append(inputs[0].is_contiguous(memory_format=torch.channels_last))

    fresh.speed_up(compile=False, channels_last=True)
    for first in (fresh.unet.conv_in, first_of_embedding(fresh), fresh.vae.encoder.conv_in):
        first.register_forward_pre_hook(note)
    samples.shared(fresh)
    fresh.encode(torch.rand(2, 20, 20, 3))
    assert seen == [True] * 3
