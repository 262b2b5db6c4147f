"""From a prompt to the embeddings of it and of its views."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import threestudio
from threestudio.models.prompt_processors.cache import EmbeddingCache, hash_prompt
from threestudio.models.prompt_processors.output import (
    DirectionConfig,
    PromptProcessorOutput,
    shift_azimuth_deg,
)
from threestudio.utils.base import BaseObject
from threestudio.utils.errors import UserError
from threestudio.utils.misc import barrier, cleanup, get_rank

__all__ = [
    "DirectionConfig",
    "PromptProcessor",
    "PromptProcessorOutput",
    "hash_prompt",
    "shift_azimuth_deg",
]

CACHE_FOLDER = ".threestudio_cache/text_embeddings"


class PromptProcessor(BaseObject):
    """Embeds the prompt, the negative prompt and both for every view; calling it returns them.

    Subclasses give ``fingerprint``, which tells their text encoder from others, and
    ``encode_prompts``. The latter is called at most once, with all that the cache lacks, and
    frees what it loads.
    """

    @dataclass
    class Config(BaseObject.Config):
        prompt: str = "a hamburger"

        # What a view says instead of the prompt with the view's name.
        prompt_front: str | None = None
        prompt_side: str | None = None
        prompt_back: str | None = None
        prompt_overhead: str | None = None

        negative_prompt: str = ""
        pretrained_model_name_or_path: str = "runwayml/stable-diffusion-v1-5"
        overhead_threshold: float = 60.0
        front_threshold: float = 45.0
        back_threshold: float = 45.0
        view_dependent_prompt_front: bool = False
        use_cache: bool = True
        # Whether to embed in another process. It is accepted, and does not change anything here:
        # the text encoder is freed when it is done.
        spawn: bool = True

        use_perp_neg: bool = False
        # Each curve is (a, b, c) of a exp(-b r) + c.
        perp_neg_f_sb: tuple[float, float, float] = (1, 0.5, -0.606)
        perp_neg_f_fsb: tuple[float, float, float] = (1, 0.5, +0.967)
        perp_neg_f_fs: tuple[float, float, float] = (4, 0.5, -2.426)
        perp_neg_f_sf: tuple[float, float, float] = (4, 0.5, -2.426)

        def __post_init__(self) -> None:
            if self.prompt is None or not str(self.prompt).strip():
                raise UserError(
                    "the prompt is empty: say what to make, with "
                    "system.prompt_processor.prompt='a man with red hair'"
                )

    cfg: Config

    def fingerprint(self) -> str:
        """What the embeddings depend on besides the prompt."""
        return self.cfg.pretrained_model_name_or_path

    def encode_prompts(self, prompts: list[str]) -> Tensor:
        """n prompts -> [n, N, F]."""
        raise TypeError(f"{type(self).__name__} has no text encoder")

    def configure(self) -> None:
        cfg: Any = self.cfg
        self.prompt = cfg.prompt.strip()
        self.negative_prompt = cfg.negative_prompt or ""
        self.directions = self.make_directions()
        self.direction2idx = {d.name: i for i, d in enumerate(self.directions)}
        self.prompts_vd = [
            cfg.get(f"prompt_{d.name}") or d.prompt(self.prompt) for d in self.directions
        ]
        self.negative_prompts_vd = [
            d.negative_prompt(self.negative_prompt) for d in self.directions
        ]
        named = zip(self.directions, self.prompts_vd, strict=True)
        views = "; ".join(f"{direction.name}: {prompt}" for direction, prompt in named)
        threestudio.info(f"Prompts: {views}. Negative: {self.negative_prompt or '(empty)'}")
        self.prepare_text_embeddings()

    def make_directions(self) -> list[DirectionConfig]:
        """The views, in the order that decides when several see the same camera."""
        cfg = self.cfg

        def view(name: str, words: str, condition: Callable[..., Tensor]) -> DirectionConfig:
            if cfg.view_dependent_prompt_front:
                return DirectionConfig(name, lambda s: f"{words} view of {s}", str, condition)
            return DirectionConfig(name, lambda s: f"{s}, {name} view", str, condition)

        def off_front(azimuth: Tensor) -> Tensor:
            return shift_azimuth_deg(azimuth).abs()

        return [
            view("side", "side", lambda ele, azi, dis: torch.ones_like(ele, dtype=torch.bool)),
            view("front", "front", lambda ele, azi, dis: off_front(azi) < cfg.front_threshold),
            view(
                "back", "backside", lambda ele, azi, dis: off_front(azi) > 180 - cfg.back_threshold
            ),
            view("overhead", "overhead", lambda ele, azi, dis: ele > cfg.overhead_threshold),
        ]

    def prepare_text_embeddings(self) -> None:
        """Embed everything, through the cache; the first process does it for all."""
        prompts = [self.prompt, self.negative_prompt, *self.prompts_vd, *self.negative_prompts_vd]
        cache = EmbeddingCache(CACHE_FOLDER, self.fingerprint())
        if get_rank() != 0:
            barrier()
        first = get_rank() == 0
        found = cache.get(prompts, self.encode_prompts, read=self.cfg.use_cache or not first)
        if first:
            barrier()
        cleanup()

        def embeddings(of: list[str]) -> Tensor:
            return torch.stack([found[prompt] for prompt in of]).to(self.device)

        self.text_embeddings = embeddings([self.prompt])
        self.uncond_text_embeddings = embeddings([self.negative_prompt])
        self.text_embeddings_vd = embeddings(self.prompts_vd)
        self.uncond_text_embeddings_vd = embeddings(self.negative_prompts_vd)

    def __call__(self) -> PromptProcessorOutput:
        return PromptProcessorOutput(
            text_embeddings=self.text_embeddings,
            uncond_text_embeddings=self.uncond_text_embeddings,
            text_embeddings_vd=self.text_embeddings_vd,
            uncond_text_embeddings_vd=self.uncond_text_embeddings_vd,
            prompt=self.prompt,
            prompts_vd=self.prompts_vd,
            directions=self.directions,
            direction2idx=self.direction2idx,
            use_perp_neg=self.cfg.use_perp_neg,
            perp_neg_f_sb=self.cfg.perp_neg_f_sb,
            perp_neg_f_fsb=self.cfg.perp_neg_f_fsb,
            perp_neg_f_fs=self.cfg.perp_neg_f_fs,
            perp_neg_f_sf=self.cfg.perp_neg_f_sf,
        )
