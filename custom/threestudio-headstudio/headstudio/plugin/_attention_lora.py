"""The LoRA attention layers that threestudio's VSD guidances train, for a current diffusers.

``stable-diffusion-vsd-guidance`` and ``stable-diffusion-unified-guidance`` put a
``LoRAAttnProcessor`` into every attention layer of a UNet, train it, and pass its strength through
``cross_attention_kwargs={"scale": ...}``. diffusers has kept the name and emptied the class, and
takes ``scale`` out of the arguments before the layers see it. The class is given to those two
modules of threestudio here, in memory, and only where diffusers' own is empty.
"""

import importlib
import inspect
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import threestudio

RANK = 4  # diffusers' default, by which threestudio makes its layers


class _LowRank(nn.Module):
    """Adds ``up(down(x))``, nothing at first, computed in the precision of its own weights."""

    def __init__(self, width_in: int, width_out: int) -> None:
        super().__init__()
        self.down = nn.Linear(width_in, RANK, bias=False)
        self.up = nn.Linear(RANK, width_out, bias=False)
        nn.init.normal_(self.down.weight, std=1 / RANK)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.up(self.down(x.to(self.down.weight.dtype))).to(x.dtype)


class LoRAAttnProcessor(nn.Module):
    """Attention whose four projections have a low-rank addition of ``scale`` times its value.

    Args:
        hidden_size: width of the layer.
        cross_attention_dim: width of the tokens that are attended to; None is self-attention.
    """

    def __init__(self, hidden_size: int, cross_attention_dim: int | None = None) -> None:
        super().__init__()
        self.scale = 1.0
        self.to_q_lora = _LowRank(hidden_size, hidden_size)
        self.to_k_lora = _LowRank(cross_attention_dim or hidden_size, hidden_size)
        self.to_v_lora = _LowRank(cross_attention_dim or hidden_size, hidden_size)
        self.to_out_lora = _LowRank(hidden_size, hidden_size)

    def forward(
        self,
        attn: Any,
        hidden_states: Tensor,  # [B, L, D]
        encoder_hidden_states: Tensor | None = None,  # [B, M, E]
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        """As diffusers' ``AttnProcessor2_0`` in a UNet of Stable Diffusion: no mask, no norms."""
        tokens = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query = attn.to_q(hidden_states) + self.scale * self.to_q_lora(hidden_states)
        key = attn.to_k(tokens) + self.scale * self.to_k_lora(tokens)
        value = attn.to_v(tokens) + self.scale * self.to_v_lora(tokens)
        query, key, value = (
            x.unflatten(-1, (attn.heads, -1)).transpose(1, 2) for x in (query, key, value)
        )
        mixed = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(-2)
        return attn.to_out[1](attn.to_out[0](mixed) + self.scale * self.to_out_lora(mixed))


_WITH_LORA = {"stable-diffusion-vsd-guidance", "stable-diffusion-unified-guidance"}


def make_guidance(name: str, cfg: Any) -> Any:
    """threestudio's guidance of that name; with working LoRA layers, if it is one that has them."""
    if name not in _WITH_LORA:
        return threestudio.find(name)(cfg)
    kind = threestudio.find(name)
    module = importlib.import_module(kind.__module__)
    theirs = getattr(module, "LoRAAttnProcessor", None)
    if theirs is not None and "hidden_size" not in inspect.signature(theirs).parameters:
        module.LoRAAttnProcessor = LoRAAttnProcessor  # type: ignore[attr-defined]
    guidance = kind(cfg)
    for unet in _unets(guidance):
        unet.register_forward_pre_hook(_hand_on_the_scale, with_kwargs=True)
    return guidance


def _unets(guidance: Any) -> list[nn.Module]:
    """The networks of a guidance that have LoRA layers of ours."""
    layers = getattr(guidance, "lora_layers", None)
    if layers is None or not any(isinstance(m, LoRAAttnProcessor) for m in layers.modules()):
        return []
    pipe = guidance.pipe_lora if hasattr(guidance, "pipe_lora") else guidance.pipe_phi
    return [pipe.unet]


@torch.compiler.disable
def _hand_on_the_scale(unet: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
    """Tell the layers the strength that this call asks for, which diffusers drops."""
    scale = (kwargs.get("cross_attention_kwargs") or {}).get("scale", 1.0)
    for module in unet.modules():
        if isinstance(module, LoRAAttnProcessor):
            module.scale = scale
