"""The guidance: threestudio's call, with a control image, over any prior."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

import threestudio
from headstudio.errors import HeadStudioError
from headstudio.plugin.guidance import call_guidance
from tests.fixtures.tiny_prior import make_tiny_prior


@pytest.fixture(scope="module")
def prior(tmp_path_factory) -> str:
    return str(make_tiny_prior(tmp_path_factory.mktemp("prior")))


@pytest.fixture
def make_guidance(prior):
    def make(**cfg):
        defaults = {"pretrained_model_name_or_path": prior}
        return threestudio.find("flame-controlnet-guidance")({**defaults, **cfg})

    return make


@pytest.fixture
def prompt_utils(prior, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the prompt processor's cache is kept in the working directory
    processor = threestudio.find("stable-diffusion-prompt-processor")(
        {"pretrained_model_name_or_path": prior, "prompt": "red hair", "negative_prompt": "hat"}
    )
    return processor()


VIEW = {
    "elevation": torch.tensor([0.0, 10.0]),
    "azimuth": torch.tensor([0.0, 170.0]),
    "camera_distances": torch.tensor([2.0, 2.0]),
}


def gradient(guidance, prompt_utils, **options):
    torch.manual_seed(0)
    rgb = torch.linspace(0, 1, 2 * 20 * 20 * 3).reshape(2, 20, 20, 3).requires_grad_()
    out = guidance(rgb, prompt_utils, **VIEW, c2w=None, **options)
    out["loss_sds"].backward()
    return rgb.grad, out


def test_control_and_its_weight_matter_and_zero_is_none(make_guidance, prompt_utils):
    guidance = make_guidance()
    control = torch.rand(2, 16, 16, 3)
    without, out = gradient(guidance, prompt_utils)
    assert torch.isfinite(out["loss_sds"])
    assert without.abs().max() > 0
    with_control, _ = gradient(guidance, prompt_utils, control=control)
    assert not torch.allclose(without, with_control)
    weights = torch.tensor([0.0, 1.0])
    mixed, _ = gradient(guidance, prompt_utils, control=control, control_weight=weights)
    scale = without.abs().max()
    assert torch.allclose(mixed[0], without[0], atol=1e-4 * scale)
    assert torch.allclose(mixed[1], with_control[1], atol=1e-4 * scale)
    off, _ = gradient(make_guidance(use_controlnet=False), prompt_utils, control=control)
    assert torch.allclose(off, without, atol=1e-4 * scale)


def test_an_empty_negative_prompt_costs_nothing(make_guidance, prior, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    guidance = make_guidance(min_step_percent=0.5)  # late: the negative prompt has its part
    outs = {}
    for negative in ("", "hat", ""):
        processor = threestudio.find("stable-diffusion-prompt-processor")(
            {
                "pretrained_model_name_or_path": prior,
                "prompt": "red hair",
                "negative_prompt": negative,
            }
        )
        outs[negative] = gradient(guidance, processor())
    assert outs["hat"][1]["n_predictions"] == 6
    assert outs[""][1]["n_predictions"] == 4
    assert not torch.allclose(outs["hat"][0], outs[""][0])


def test_the_prompts_follow_the_views(make_guidance, prompt_utils):
    seen, _ = gradient(make_guidance(), prompt_utils)
    blind, _ = gradient(make_guidance(view_dependent_prompting=False), prompt_utils)
    assert not torch.allclose(seen, blind)


def test_schedules_are_followed(make_guidance):
    guidance = make_guidance(
        min_step_percent=0.1, max_step_percent=[10, 0.9, 0.5, 20], grad_clip=[0, 4.0, 2.0, 20]
    )
    for step, highest in ((0, 900), (15, 700), (20, 500), (99, 500)):
        guidance.update_step(0, step)
        assert (guidance.distillation.min_step, guidance.distillation.max_step) == (100, highest)
    assert guidance.distillation.config.grad_clip == 2.0


def test_a_preview_shows_what_the_guidance_sees(make_guidance, prompt_utils):
    control = torch.rand(2, 16, 16, 3)
    out = gradient(make_guidance(), prompt_utils, control=control, guidance_eval=True)[1]["eval"]
    assert out["imgs_1step"].shape == (2, 16, 16, 3)
    assert torch.allclose(out["control"], control)


def test_plain_sds_is_a_key_away(make_guidance, prompt_utils):
    denoised, _ = gradient(make_guidance(), prompt_utils)
    plain, _ = gradient(make_guidance(method="sds"), prompt_utils)
    assert not torch.allclose(denoised, plain)


@pytest.mark.parametrize(
    ("cfg", "message"),
    [
        ({"method": "vsd"}, "denoised, sds"),
        ({"pretrained_model_name_or_path": "load/no_such_prior"}, "no_such_prior"),
        ({"guidance_scal": 7.5}, "guidance_scal"),
        ({"min_step_percent": 0.9, "max_step_percent": 0.1}, "above max_step_percent"),
        (
            {"min_step_percent": [40, 0.7, 0.02, 110], "max_step_percent": [0, 0.98, 0.3, 60]},
            "above max_step_percent, .* at step 40",
        ),
        ({"compile": True, "cuda_graphs": True}, "choose one"),
        ({"views_at_once": 1, "cuda_graphs": True}, "one encoding at a time"),
    ],
)
def test_mistakes_are_explained(make_guidance, cfg, message):
    with pytest.raises(ValueError, match=message):
        make_guidance(**cfg)


def test_prompts_of_another_model_are_refused(make_guidance, prompt_utils):
    prompt_utils.text_embeddings_vd = torch.zeros(4, 77, 768)
    prompt_utils.uncond_text_embeddings_vd = torch.zeros(4, 77, 768)
    with pytest.raises(HeadStudioError, match="the same pretrained_model_name_or_path"):
        gradient(make_guidance(), prompt_utils)
    prompt_utils.use_perp_neg = True
    with pytest.raises(HeadStudioError, match="Perp-Neg"):
        gradient(make_guidance(), prompt_utils)


def test_other_guidances_are_called_as_threestudio_calls_them():
    calls = []

    class Foreign:
        def __call__(
            self, rgb, prompt_utils, elevation, azimuth, camera_distances,
            rgb_as_latents=False, guidance_eval=False, **kwargs,
        ):  # fmt: skip
            calls.append(kwargs)
            return {"loss_sds": rgb.sum()}

    rgb, prompts = torch.ones(2, 4, 4, 3), SimpleNamespace()
    control = (torch.zeros(2, 4, 4, 3), torch.ones(2))
    out = call_guidance(Foreign(), rgb, prompts, {**VIEW, "fovy": 1}, control, False)
    assert out["loss_sds"] == 96
    assert calls == [{"fovy": 1}]
