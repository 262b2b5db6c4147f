"""What lets other guidances train our system, and our guidance other systems."""

from __future__ import annotations

import json

import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor2_0

import threestudio
from headstudio.errors import HeadStudioError
from headstudio.plugin._attention_lora import LoRAAttnProcessor, _hand_on_the_scale
from headstudio.plugin._cameras import aim_again, look_at
from headstudio.plugin._prompts import with_fitting_prompts
from headstudio.plugin.guidance import call_guidance
from tests.fixtures.tiny_prior import TEXT_WIDTH, make_tiny_prior
from threestudio.data.uncond import RandomCameraDataModuleConfig, RandomCameraIterableDataset
from threestudio.utils.config import parse_structured
from threestudio.utils.ops import get_mvp_matrix

VIEWS = {name: torch.arange(3.0) for name in ("elevation", "azimuth", "camera_distances")}


@pytest.fixture(scope="module")
def prior(tmp_path_factory: pytest.TempPathFactory):
    return make_tiny_prior(tmp_path_factory.mktemp("mixing") / "prior")


# ------------------------------------------------------------------------- three cameras


def test_cameras_look_where_they_should():
    """Against the embedded host's, which are right for any number of cameras."""
    cfg = parse_structured(
        RandomCameraDataModuleConfig,
        {"batch_size": 5, "camera_perturb": 0.0, "center_perturb": 0.0, "up_perturb": 0.0},
    )
    batch = RandomCameraIterableDataset(cfg).collate(None)
    origin, up = torch.zeros(5, 3), torch.tensor([0.0, 0.0, 1.0]).expand(5, 3)
    c2w = look_at(batch["camera_positions"], origin, up)
    torch.testing.assert_close(c2w, batch["c2w"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("perturb", [0.0, 0.1])
def test_what_threestudio_makes_of_three_cameras_is_put_right(make_data, monkeypatch, perturb):
    settings = {"camera_perturb": perturb, "center_perturb": perturb, "up_perturb": perturb}
    data = make_data(batch_size=3, **settings)
    collate = RandomCameraIterableDataset.collate

    def skewed(self, batch):
        """Cross products along the cameras' dimension, as in threestudio 0.2.3."""
        drawn = collate(self, batch)
        forward = -torch.nn.functional.normalize(drawn["camera_positions"], dim=-1)
        right = torch.linalg.cross(forward, torch.eye(3)[2].expand(3, 3), dim=0)
        drawn["c2w"][:, :3, 0] = torch.nn.functional.normalize(right, dim=-1)
        return drawn

    monkeypatch.setattr(RandomCameraIterableDataset, "collate", skewed)
    for _, batch in zip(range(5), data.train_dataloader(), strict=False):
        c2w = batch["c2w"]
        rotation = c2w[:, :3, :3]
        identity = torch.eye(3).expand(3, 3, 3)
        torch.testing.assert_close(rotation.mT @ rotation, identity, atol=1e-5, rtol=0)
        torch.testing.assert_close(torch.linalg.det(rotation), torch.ones(3))
        torch.testing.assert_close(c2w[:, :3, 3], batch["camera_positions"])
        outward = torch.nn.functional.normalize(batch["camera_positions"], dim=-1)
        aligned = (rotation[:, :, 2] * outward).sum(-1)
        assert (aligned > (0.9999 if perturb == 0 else 0.8)).all()
        assert (aligned < 0.99999).any() == (perturb > 0)
        expected = get_mvp_matrix(c2w, batch["proj_mtx"])
        torch.testing.assert_close(batch["mvp_mtx"], expected)


def test_other_numbers_of_cameras_are_left_as_they_are():
    batch = {"camera_positions": torch.randn(4, 3), "c2w": "the host's"}
    aim_again(batch, 0.1, 0.1)
    assert batch["c2w"] == "the host's"


# ------------------------------------------------------------------------------- prompts


def test_prompts_that_are_too_long_lose_their_last_phrases(prior, monkeypatch):
    said = []
    monkeypatch.setattr(threestudio, "warn", said.append)
    cfg = {
        "pretrained_model_name_or_path": str(prior),  # a token for each letter, 16 in all
        "prompt": "red, a, b, c, d, e, f, g, h",
        "negative_prompt": "bad",
        "use_perp_neg": False,
    }
    fitted = with_fitting_prompts(cfg)
    assert fitted == cfg | {"prompt": fitted["prompt"]}
    assert fitted["prompt"].startswith("red, a, b")
    (warning,) = said
    left_out = warning.partition("left out of it: ")[2]
    assert f"{fitted['prompt']}, {left_out}" == cfg["prompt"]
    with pytest.raises(HeadStudioError, match="prompt is too long"):
        with_fitting_prompts(cfg | {"prompt": "an endless sentence without commas"})


def test_a_tokenizer_with_code_of_its_own_is_not_run(tmp_path, monkeypatch):
    """Transformers would ask whether to run it, and somebody would say yes."""
    folder, trace = tmp_path / "prior/tokenizer", tmp_path / "ran"
    folder.mkdir(parents=True)
    for place in (folder, folder.parent):
        (place / "own.py").write_text(f"open({str(trace)!r}, 'w')\nclass Own: ...\n")
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["own.Own", None]}})
    )
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("builtins.input", lambda *args: "y")
    cfg = {"pretrained_model_name_or_path": str(tmp_path / "prior"), "prompt": "a face"}
    assert with_fitting_prompts(cfg) == cfg
    assert not trace.exists()


# ------------------------------------------------------------------- one view at a time


def test_a_guidance_that_draws_its_own_control_gets_every_view_by_itself():
    class Drawing:
        def __call__(self, rgb, cond_rgb, prompt_utils, **kwargs):
            assert rgb.shape == cond_rgb.shape == (1, 4, 4, 3)
            assert prompt_utils == "prompts"
            return {"loss_sds": (rgb * cond_rgb).sum(), "min_step": 20}

    rgb = torch.rand(3, 4, 4, 3, requires_grad=True)
    pose = torch.rand(3, 4, 4, 3)
    out = call_guidance(Drawing(), rgb, "prompts", VIEWS, None, True, draw_pose=lambda: pose)
    out["loss_sds"].backward()
    torch.testing.assert_close(rgb.grad, pose / 3)
    assert out["min_step"] == 20


def test_sdi_gets_every_view_with_its_camera():
    class Inverting:
        def __call__(
            self, rgb, prompt_utils, elevation, azimuth, camera_distances,
            rgb_as_latents=False, call_with_defined_noise=None, **kwargs,
        ):  # fmt: skip
            assert elevation.shape == azimuth.shape == camera_distances.shape == (1,)
            return {"loss_sdi": rgb.sum() * elevation[0]}

    rgb = torch.ones(3, 2, 2, 3)
    out = call_guidance(Inverting(), rgb, None, {**VIEWS, "height": 2}, None, False)
    assert out["loss_sdi"] == pytest.approx(12 * (0 + 1 + 2) / 3)


def test_a_guidance_that_returns_no_loss_is_named():
    class Editing:
        def __call__(self, rgb, cond_rgb, prompt_utils):
            return {"edit_images": rgb}

    rgb = torch.ones(2, 4, 4, 3)
    with pytest.raises(HeadStudioError, match=r"Editing returned no loss.*use_sds=true"):
        call_guidance(Editing(), rgb, None, {}, None, False, draw_pose=lambda: rgb)


# -------------------------------------------------------------------------------- LoRA


@pytest.fixture
def unet() -> UNet2DConditionModel:
    torch.manual_seed(0)
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        norm_num_groups=4,
        attention_head_dim=4,
        cross_attention_dim=TEXT_WIDTH,
    )


def put_lora(unet: UNet2DConditionModel) -> list[LoRAAttnProcessor]:
    """Into every attention layer, as threestudio does."""
    layers = {}
    for name in unet.attn_processors:
        attention = unet.get_submodule(name.removesuffix(".processor"))
        tokens = None if "attn1" in name else TEXT_WIDTH
        layers[name] = LoRAAttnProcessor(attention.query_dim, tokens)
    made = list(layers.values())
    unet.set_attn_processor(layers)  # which empties the dictionary
    unet.register_forward_pre_hook(_hand_on_the_scale, with_kwargs=True)
    return made


def test_lora_begins_as_nothing_and_is_of_the_strength_it_is_given(unet):
    inputs = (torch.randn(2, 4, 8, 8), torch.tensor([5, 500]), torch.randn(2, 16, TEXT_WIDTH))
    unet.set_attn_processor(AttnProcessor2_0())
    plain = unet(*inputs).sample
    layers = put_lora(unet)
    torch.testing.assert_close(unet(*inputs).sample, plain)
    for layer in layers:
        for part in (layer.to_q_lora, layer.to_k_lora, layer.to_v_lora, layer.to_out_lora):
            torch.nn.init.normal_(part.up.weight, std=0.3)
    full = unet(*inputs, cross_attention_kwargs={"scale": 1.0}).sample
    none = unet(*inputs, cross_attention_kwargs={"scale": 0.0}).sample
    assert (full - plain).abs().max() > 1e-2
    torch.testing.assert_close(none, plain)
    torch.testing.assert_close(unet(*inputs).sample, full)
    # The projections with their additions, multiplied out.
    for layer, name in zip(layers, unet.attn_processors, strict=True):
        attention = unet.get_submodule(name.removesuffix(".processor"))
        for linear, part in (
            (attention.to_q, layer.to_q_lora),
            (attention.to_k, layer.to_k_lora),
            (attention.to_v, layer.to_v_lora),
            (attention.to_out[0], layer.to_out_lora),
        ):
            linear.weight.data += part.up.weight @ part.down.weight
    unet.set_attn_processor(AttnProcessor2_0())
    torch.testing.assert_close(unet(*inputs).sample, full, atol=1e-5, rtol=1e-4)


# ------------------------------------------------------------ our guidance, elsewhere


def test_our_guidance_serves_a_system_that_has_no_control_image(
    prior, batch, make_geometry, make_renderer, tmp_path, monkeypatch
):
    """Called as threestudio's dreamfusion-system calls its guidance, with the whole batch."""
    monkeypatch.chdir(tmp_path)
    processor = threestudio.find("stable-diffusion-prompt-processor")(
        {"pretrained_model_name_or_path": str(prior), "prompt": "red"}
    )
    guidance = threestudio.find("flame-controlnet-guidance")(
        {"pretrained_model_name_or_path": str(prior)}
    )
    geometry = make_geometry()
    out = make_renderer(geometry)(**batch)
    guided = guidance(out["comp_rgb"], processor(), **batch, rgb_as_latents=False)
    guided["loss_sds"].backward()
    assert geometry.splats.colors.grad.abs().max() > 0
    assert all(not name.startswith("loss_") or value.ndim == 0 for name, value in guided.items())
