"""``flame-controlnet-guidance``: the diffusion prior's opinion of the rendered pictures."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import threestudio
from headstudio.errors import HeadStudioError
from headstudio.guidance import DiffusionPrior, DistillationConfig, ScoreDistillation
from headstudio.plugin._common import resolve_asset
from headstudio.plugin._schedules import first_step_above
from headstudio.settings import check_all, setting
from threestudio.models.prompt_processors.base import PromptProcessorOutput
from threestudio.utils.base import BaseObject
from threestudio.utils.misc import C

PREVIEWED_VIEWS = 4


@threestudio.register("flame-controlnet-guidance")
class FlameControlNetGuidance(BaseObject):
    """Score distillation under a picture of the face's landmarks, as a threestudio guidance.

    The text encoder of the prior serves for the empty prompt alone, and is freed: prompts are
    embedded by the host's prompt processor, which has to use the same prior.
    """

    @dataclass
    class Config(BaseObject.Config):
        # Names on the hub, or folders in diffusers' layout. Without a ControlNet's own name it is
        # the part `controlnet` of the former.
        pretrained_model_name_or_path: str = "load/prior"
        controlnet_model_name_or_path: str | None = None
        controlnet_subfolder: str | None = None
        vae_model_name_or_path: str | None = None
        cache_dir: str | None = None
        # False leaves the ControlNet unloaded.
        use_controlnet: bool = True
        # On CUDA; a CPU computes in float32 in any case.
        half_precision_weights: bool = True
        # How many views are encoded, and predicted for, in one pass; null is all. Fewer take less
        # memory and more time.
        views_at_once: int | None = setting(None, at_least=1)
        # Let torch.compile fuse the prior's networks: faster steps for minutes at the start.
        # It needs a GPU with Triton, or a C++ compiler on a CPU.
        compile: bool = False
        # Features lie in memory with the channels last; null is if compiled.
        channels_last: bool | None = None
        # On a GPU, launch each network as one CUDA graph: for small networks, whose kernels take
        # less time than their launches. On a CPU it changes nothing.
        cuda_graphs: bool = False
        view_dependent_prompting: bool = True
        # The fields of headstudio.guidance.DistillationConfig that keep one value ...
        method: str = setting("denoised", one_of=("denoised", "sds"))
        guidance_scale: float = setting(7.5, at_least=0)
        control_weight: float = setting(1.5, at_least=0)
        null_threshold: int = setting(200, at_least=0, at_most=1000)
        weighting: str = setting("sds", one_of=("sds", "uniform"))
        grad_clip_mode: str = setting("value", one_of=("value", "norm"))
        # ... and those that are numbers or schedules for threestudio's C.
        min_step_percent: Any = setting(0.02, schedule=True, strict=True, at_least=0, at_most=1)
        max_step_percent: Any = setting(0.98, schedule=True, strict=True, at_least=0, at_most=1)
        grad_clip: Any = setting(None, schedule=True, above=0)

        def __post_init__(self) -> None:
            check_all(self, "system.guidance")

        @staticmethod
        def conflicts(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
            """See :func:`headstudio.settings.violations`."""
            low, high = values.get("min_step_percent"), values.get("max_step_percent")
            step = first_step_above(low, high)
            if step is not None:
                when = f" at step {step}" if step else ""
                yield "min_step_percent", f"is {low}, above max_step_percent, {high}{when}"
            if values.get("cuda_graphs"):
                if values.get("compile"):
                    yield "cuda_graphs", "is another way to run what compile compiles; choose one"
                if values.get("views_at_once") is not None:
                    yield "cuda_graphs", "needs views_at_once=null: it keeps one encoding at a time"

    cfg: Config

    def configure(self) -> None:
        cfg = self.cfg
        controlnet = cfg.controlnet_model_name_or_path
        vae = cfg.vae_model_name_or_path
        self.prior = DiffusionPrior.from_pretrained(
            resolve_asset(cfg.pretrained_model_name_or_path),
            controlnet and resolve_asset(controlnet),
            cfg.controlnet_subfolder,
            vae_name_or_folder=vae and resolve_asset(vae),
            with_controlnet=cfg.use_controlnet,
            keep_text_encoder=False,
            dtype=None if cfg.half_precision_weights else torch.float32,
            device=self.device,
            **({} if cfg.cache_dir is None else {"cache_dir": cfg.cache_dir}),
        )
        self.prior.views_at_once = cfg.views_at_once
        self.prior.speed_up(
            compile=cfg.compile, channels_last=cfg.channels_last, cuda_graphs=cfg.cuda_graphs
        )
        self.distillation = ScoreDistillation(
            self.prior,
            DistillationConfig(
                method=cfg.method,
                guidance_scale=cfg.guidance_scale,
                control_weight=cfg.control_weight,
                null_threshold=cfg.null_threshold,
                weighting=cfg.weighting,
                grad_clip_mode=cfg.grad_clip_mode,
            ),
        )
        # Whether a prompt processor's negative prompt is the empty one, by the processor's output.
        self._empty_negative: tuple[Any, bool] = (None, False)
        self.update_step(0, 0)

    @property
    def image_size(self) -> int:
        """Side, in pixels, of the pictures the prior looks at; the control image's too."""
        return self.prior.image_size

    def update_step(self, epoch: int, global_step: int, on_load_weights: bool = False) -> None:
        low, high = (
            C(value, epoch, global_step)
            for value in (self.cfg.min_step_percent, self.cfg.max_step_percent)
        )
        self.distillation.set_step_range(low, high)
        if self.cfg.grad_clip is not None:
            self.distillation.config.grad_clip = C(self.cfg.grad_clip, epoch, global_step)

    def __call__(
        self,
        rgb: Tensor,
        prompt_utils: PromptProcessorOutput,
        elevation: Tensor,
        azimuth: Tensor,
        camera_distances: Tensor,
        rgb_as_latents: bool = False,
        guidance_eval: bool = False,
        control: Tensor | None = None,
        control_weight: Tensor | float = 1.0,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """threestudio's call of a guidance, with a control image.

        Args:
            rgb: ``[B, H, W, 3]``, or latents ``[B, h, w, C]`` with ``rgb_as_latents``.
            prompt_utils: what the prompt processor returned.
            elevation, azimuth, camera_distances: ``[B]``, degrees and world units.
            guidance_eval: also return ``eval``, pictures of what the guidance sees.
            control: ``[B, H', W', 3]``, or None for no ControlNet.
            control_weight: of each view's control image, ``[B]``, 0 where no landmark is visible.
            kwargs: whatever else is in the batch; ignored.

        Returns:
            ``loss_sds`` and figures to log; see :class:`headstudio.guidance.ScoreDistillation`.
        """
        text, negative = self._embeddings(prompt_utils, elevation, azimuth, camera_distances)
        if not self.cfg.use_controlnet:
            control = None
        # The latents of a 1024 px picture overflow no float16, but the loss of 8 of them does.
        with torch.autocast(self.device.type, enabled=False):
            guided: dict[str, Any] = self.distillation(
                rgb.float(),
                text,
                negative,
                control=control,
                visible=control_weight,
                rgb_as_latents=rgb_as_latents,
            )
        if guidance_eval and not rgb_as_latents:
            few = slice(PREVIEWED_VIEWS)
            weight = torch.as_tensor(control_weight, device=rgb.device).expand(len(rgb))
            guided["eval"] = self.distillation.preview(
                rgb[few].detach().float(),
                text[few],
                control=None if control is None else control[few],
                visible=weight[few],
            )
        return guided

    def _embeddings(
        self,
        prompt_utils: PromptProcessorOutput,
        elevation: Tensor,
        azimuth: Tensor,
        camera_distances: Tensor,
    ) -> tuple[Tensor, Tensor | None]:
        """Of the prompt and of the negative prompt as seen from each view, ``[B, L, D]``; None for
        a negative prompt that is empty."""
        if prompt_utils.use_perp_neg:
            raise HeadStudioError(
                "flame-controlnet-guidance does not do Perp-Neg; "
                "set system.prompt_processor.use_perp_neg=false."
            )
        both = prompt_utils.get_text_embeddings(
            elevation, azimuth, camera_distances, self.cfg.view_dependent_prompting
        )
        expected = self.prior.null_embedding.shape[1:]
        if both.shape[1:] != expected:
            raise HeadStudioError(
                f"the prompt processor embeds a prompt as {list(both.shape[1:])}, the prior "
                f"{self.cfg.pretrained_model_name_or_path} as {list(expected)}; give both the same "
                "pretrained_model_name_or_path."
            )
        text, negative = both.to(self.device).float().chunk(2)
        return text, None if self._is_empty(prompt_utils) else negative

    def _is_empty(self, prompt_utils: PromptProcessorOutput) -> bool:
        """Whether the negative prompt is the empty one from every side.

        Found out once for a run: on a GPU the host would have to wait for the answer.
        """
        if self._empty_negative[0] is not prompt_utils:
            null = self.prior.null_embedding
            same = (
                # Two text encoders, of which one may have been in half precision.
                torch.allclose(embedding.to(null), null, atol=0.02 * float(null.abs().max()))
                for embedding in (
                    prompt_utils.uncond_text_embeddings,
                    prompt_utils.uncond_text_embeddings_vd,
                )
            )
            self._empty_negative = (prompt_utils, all(same))
        return self._empty_negative[1]


def call_guidance(
    guidance: Any,
    rgb: Tensor,
    prompt_utils: Any,
    batch: dict[str, Any],
    control: tuple[Tensor, Tensor] | None,
    guidance_eval: bool,
    draw_pose: Callable[[], Tensor] | None = None,
) -> dict[str, Any]:
    """Call ours, or any of threestudio's text guidances, which know nothing of a control image.

    Args:
        rgb: ``[B, H, W, 3]``; batch: the cameras; control: the image and its weight, or None.
        draw_pose: shaded pictures ``[B, H, W, 3]`` of the posed head, for a guidance that finds
            edges or normals in pictures by itself (its argument ``cond_rgb``).

    Raises:
        HeadStudioError: if nothing was returned that could be learned from.
    """
    accepted = inspect.signature(guidance.__call__).parameters
    if "cond_rgb" in accepted and draw_pose is not None:
        drawn = draw_pose()
        guided = _view_by_view(
            guidance, rgb, prompt_utils, lambda view: {"cond_rgb": drawn[view : view + 1]}
        )
    elif "call_with_defined_noise" in accepted:  # SDI's, which inverts one picture at a time
        guided = _view_by_view(
            guidance,
            rgb,
            prompt_utils,
            lambda view: {name: batch[name][view : view + 1] for name in _VIEW},
        )
    else:
        if control is not None and "control" in accepted:
            batch = {**batch, "control": control[0], "control_weight": control[1]}
        guided = guidance(
            rgb, prompt_utils, **batch, rgb_as_latents=False, guidance_eval=guidance_eval
        )
    if not any(name.startswith("loss_") for name in guided):
        raise HeadStudioError(
            f"the guidance {type(guidance).__name__} returned no loss, but {', '.join(guided)}. "
            "stable-diffusion-controlnet-guidance returns one with system.guidance.use_sds=true."
        )
    return guided


_VIEW = ("elevation", "azimuth", "camera_distances")


def _view_by_view(
    guidance: Any, rgb: Tensor, prompt_utils: Any, of_view: Callable[[int], dict[str, Tensor]]
) -> dict[str, Tensor]:
    """Call a guidance that takes one picture at a time; the mean of what it returned."""
    views = [
        guidance(rgb=one, prompt_utils=prompt_utils, **of_view(view))
        for view, one in enumerate(rgb.split(1))
    ]
    return {
        name: torch.stack([torch.as_tensor(view[name]).float() for view in views]).mean(0)
        for name in views[0]
    }
