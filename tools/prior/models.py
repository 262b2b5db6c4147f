"""The four networks of the prior, at their sizes, and its noise schedule."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from diffusers import AutoencoderKL, ControlNetModel, DDIMScheduler, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from tools.prior.settings import Sizes
from tools.prior.tokenizer import CONTEXT


def make_autoencoder(sizes: Sizes) -> AutoencoderKL:
    """Pictures ``[n, 3, s, s]`` in -1..1 to latents ``[n, 4, s/4, s/4]`` and back, for s px."""
    levels = len(sizes.autoencoder_channels)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=sizes.autoencoder_channels,
        layers_per_block=1,
        latent_channels=sizes.latent_channels,
        norm_num_groups=sizes.norm_groups,
        sample_size=sizes.image,
    )


def make_text_encoder(sizes: Sizes, tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """Token ids ``[n, 77]`` to one state per token ``[n, 77, text_hidden]``."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=sizes.text_hidden,
            intermediate_size=4 * sizes.text_hidden,
            projection_dim=sizes.text_hidden,
            num_hidden_layers=sizes.text_layers,
            num_attention_heads=sizes.text_heads,
            max_position_embeddings=CONTEXT,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def make_unet(sizes: Sizes) -> UNet2DConditionModel:
    """The denoiser: text is attended to on every level but the finest."""
    below = len(sizes.unet_channels) - 1
    return UNet2DConditionModel(
        sample_size=sizes.latent,
        in_channels=sizes.latent_channels,
        out_channels=sizes.latent_channels,
        layers_per_block=1,
        block_out_channels=sizes.unet_channels,
        down_block_types=("DownBlock2D",) + ("CrossAttnDownBlock2D",) * below,
        up_block_types=("CrossAttnUpBlock2D",) * below + ("UpBlock2D",),
        cross_attention_dim=sizes.text_hidden,
        attention_head_dim=sizes.attention_heads,  # diffusers means the number of heads by it
        norm_num_groups=sizes.norm_groups,
    )


def make_controlnet(sizes: Sizes, unet: UNet2DConditionModel) -> ControlNetModel:
    """A copy of the denoiser's encoder that reads the control image.

    Its embedding halves the picture once per channel count after the first, which has to bring
    the picture's size to the latents'.
    """
    channels = sizes.control_channels
    if 2 ** (len(channels) - 1) != sizes.downsampling:
        raise ValueError(f"{channels} does not downsample by {sizes.downsampling}")
    return ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=channels)


def make_scheduler() -> DDIMScheduler:
    """Stable Diffusion 1.5's noise schedule: betas linear in their square root, 1000 steps."""
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type="epsilon",
    )


class AttributeHeads(nn.Module):
    """Linear classifiers on a caption's states, which bind words to attributes early.

    The denoising loss alone needs thousands of steps before "blue" means blue. Both the state of
    the end token and the mean over the caption's tokens are read: the first teaches the encoder to
    gather, the second makes each word carry what it says, which is where cross-attention looks.
    The heads are dropped after training.
    """

    def __init__(self, hidden: int, n_classes: list[int]) -> None:
        super().__init__()
        self.n_attributes, self.width = len(n_classes), max(n_classes)
        self.heads = nn.ModuleList(
            nn.Linear(hidden, self.n_attributes * self.width) for _ in range(2)
        )
        valid = torch.arange(self.width) < torch.tensor(n_classes)[:, None]
        self.register_buffer("valid", valid, persistent=False)  # [A, W]

    def forward(self, states: Tensor, token_ids: Tensor, end_id: int) -> Tensor:
        """Logits ``[2, n, A, W]`` from states ``[n, 77, H]``; -1e4 where there is no class."""
        end = (token_ids == end_id).int().argmax(1)  # padding is the end token too: take the first
        pooled = states[torch.arange(len(states), device=states.device), end]
        position = torch.arange(token_ids.shape[1], device=states.device)
        said = ((position > 0) & (position < end[:, None])).to(states.dtype)[..., None]
        mean = (states * said).sum(1) / said.sum(1).clamp(min=1)
        logits = torch.stack([h(x) for h, x in zip(self.heads, (pooled, mean), strict=True)])
        logits = logits.reshape(2, len(states), self.n_attributes, self.width).float()
        return logits.masked_fill(~self.valid, -1e4)


@dataclass
class Denoiser:
    """What is trained together in the second phase."""

    text_encoder: CLIPTextModel
    unet: UNet2DConditionModel
    controlnet: ControlNetModel
    heads: AttributeHeads

    def modules(self) -> dict[str, nn.Module]:
        """The networks by name, in the order their parameters are optimised in."""
        return {
            "text_encoder": self.text_encoder,
            "unet": self.unet,
            "controlnet": self.controlnet,
            "heads": self.heads,
        }


def make_denoiser(sizes: Sizes, tokenizer: CLIPTokenizer, n_classes: list[int]) -> Denoiser:
    """Freshly initialised networks of the second phase."""
    unet = make_unet(sizes)
    return Denoiser(
        make_text_encoder(sizes, tokenizer),
        unet,
        make_controlnet(sizes, unet),
        AttributeHeads(sizes.text_hidden, n_classes),
    )


def predict_noise(
    unet: nn.Module,
    controlnet: nn.Module,
    noisy: Tensor,
    timesteps: Tensor,
    text: Tensor,
    control: Tensor,
    control_weight: Tensor,
) -> Tensor:
    """The noise in ``noisy``.

    Args:
        noisy: latents ``[n, 4, h, w]``.
        timesteps: ``[n]`` int64.
        text: ``[n, 77, H]``.
        control: control images ``[n, 3, H, W]`` in 0..1.
        control_weight: ``[n]``, what the ControlNet's residuals are multiplied by.

    Returns:
        ``[n, 4, h, w]``.
    """
    weight = control_weight.to(noisy.dtype).reshape(-1, 1, 1, 1)
    down, middle = controlnet(
        noisy,
        timesteps,
        encoder_hidden_states=text,
        controlnet_cond=control,
        return_dict=False,
    )
    return unet(
        noisy,
        timesteps,
        encoder_hidden_states=text,
        down_block_additional_residuals=[d * weight for d in down],
        mid_block_additional_residual=middle * weight,
        return_dict=False,
    )[0]
