"""``headstudio-system``: what happens in a training step, and what is shown of it."""

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

import threestudio
from headstudio import ranks
from headstudio.errors import HeadStudioError
from headstudio.export import export_avatar
from headstudio.guidance.control_image import control_image
from headstudio.plugin._attention_lora import make_guidance
from headstudio.plugin._common import resolve_asset
from headstudio.plugin._config_rules import LOSSES
from headstudio.plugin._guard import FiniteGuard, refuse_broken
from headstudio.plugin._pictures import preview_grid, view_rows
from headstudio.plugin._prompts import with_fitting_prompts
from headstudio.plugin._randomness import STEP, run_seed, seed_everything
from headstudio.plugin._regularisers import regularisers
from headstudio.plugin.data import PosedCameraDataset
from headstudio.plugin.geometry import OBSERVED, FlameGaussians
from headstudio.plugin.guidance import call_guidance
from headstudio.render.mesh import shade_mesh
from headstudio.render.pictures import with_corner
from headstudio.settings import check_all, setting
from headstudio.splats import Avatar, save_avatar
from threestudio.systems.base import BaseLift3DSystem
from threestudio.utils.misc import C, barrier

OWN_GUIDANCE = "flame-controlnet-guidance"
# A frame of the test by its number; the host looks for it anywhere in a file's name.
FRAME = r"^(\d+)\.png$"


@threestudio.register("headstudio-system")
class HeadStudioSystem(BaseLift3DSystem):
    """HeadStudio (arXiv 2402.06149) as a threestudio system.

    Losses, each weighted by ``loss.lambda_<name>`` (a number or a schedule for threestudio's ``C``)
    and not computed while its weight is 0: ``sds`` and the regularisers of
    :mod:`headstudio.plugin._regularisers`.
    """

    @dataclass
    class Config(BaseLift3DSystem.Config):
        exporter_type: str = "avatar-exporter"
        # Show the guidance where the face is, by a picture of its landmarks. False is the ablation.
        use_control: bool = True
        # Where a splat may sit on its triangle, and how large it may be, in units of the triangle's
        # radius; both regularisers divided by the triangle's area, or not.
        regulariser_threshold: float = setting(0.5, at_least=0)
        regulariser_adaptive: bool = True
        # Schedules of learning rates for C, interpolated exponentially, by the names of
        # optimizer.params.
        learning_rates: dict[str, Any] = field(default_factory=dict)
        # A step with a value that is not finite is skipped; so many in a row end the run, 0 never.
        max_skipped_steps: int = setting(20, at_least=0)
        # A picture of what the guidance sees every so many steps; 0 is never.
        preview_interval: int = setting(0, at_least=0)
        # Height of the driving mesh in the corner of the test video, as a part of the whole; 0 is
        # none.
        corner: float = setting(0.25, at_least=0, at_most=1)
        video_fps: int = setting(30, at_least=1, at_most=240)

        def __post_init__(self) -> None:
            check_all(self, "system")

    cfg: Config
    geometry: FlameGaussians

    def configure(self) -> None:
        prompt = str(self.cfg.prompt_processor.get("prompt", "")).strip()
        if self.cfg.prompt_processor_type and not prompt:
            raise HeadStudioError(
                "the prompt is empty; say what to make, for instance "
                'system.prompt_processor.prompt="a woman with long red hair".'
            )
        self._check_names()
        super().configure()
        if not isinstance(self.geometry, FlameGaussians):
            raise HeadStudioError(
                f"headstudio-system trains the geometry flame-gaussians, not "
                f"{self.cfg.geometry_type}."
            )
        # What density control decides by, of each batch of the step whose gradients are gathered.
        self._observations: list[dict[str, Any]] = []
        self._guard = FiniteGuard(self.cfg.max_skipped_steps)
        # What every random number of the run follows from; see headstudio.plugin._randomness.
        self._seed = run_seed()
        self._batches = 0
        self._rows: dict[int, list[dict[str, Any]]] = {}
        self.guidance: Any = None
        if not self.resumed and self.cfg.weights is None and not _started_together():
            # A new avatar is to be trained. If the prior cannot be loaded that is said now, before
            # the run begins to write.
            self._make_guidance()

    def _check_names(self) -> None:
        """Refuse weights and schedules of what does not exist: they would silently do nothing."""
        learned = list(self.cfg.optimizer.get("params", None) or {})
        for name in self.cfg.learning_rates:
            if name not in learned:
                raise HeadStudioError(
                    f"system.learning_rates has {name}, which is not in system.optimizer.params: "
                    f"{', '.join(learned)}."
                )
        if self.cfg.guidance_type != OWN_GUIDANCE:
            return  # another guidance may return losses of any name
        unknown = [name for name in self.cfg.loss if name not in LOSSES]
        if unknown:
            raise HeadStudioError(
                f"system.loss has no {', '.join(unknown)}; it has {', '.join(LOSSES)}."
            )

    def setup(self, stage: str) -> None:
        super().setup(stage)
        # Before a checkpoint is read: a guidance that learns, as VSD's does, has a part in it.
        if stage == "fit" and self.guidance is None:
            self._make_guidance()

    def on_fit_start(self) -> None:
        super().on_fit_start()
        self._leave_ddp()
        self._observations = []
        refuse_broken(self._learned())
        dataset = getattr(getattr(self.trainer, "datamodule", None), "train_dataset", None)
        if isinstance(dataset, PosedCameraDataset):
            dataset.begin(self._seed, self._batches, self.trainer.accumulate_grad_batches)

    def _leave_ddp(self) -> None:
        """Several GPUs: have lightning call this module itself, not DDP's wrapper around it.

        DDP hooks into the parameters it is given when training starts. Density control puts others
        in their place, and the shape stops learning: DDP would wait for gradients of parameters
        that are gone, and know nothing of the new ones. Its first deed, giving all processes the
        parameters of the first, is done by now; gradients are averaged here, before each update.
        """
        strategy = self.trainer.strategy
        if isinstance(strategy.model, DistributedDataParallel):
            strategy.model = self
        elif ranks.several():
            raise HeadStudioError(
                f"trainer.strategy is {type(strategy).__name__}; headstudio-system trains on "
                "several GPUs with lightning's ddp, which is the default there."
            )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        self._read_guard()  # before the optimiser's state is written
        checkpoint["headstudio"] = {
            "seed": self._seed,
            "batches": self._batches,
            "skipped": self._guard.skipped,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        if self.guidance is None:  # to look at an avatar, what a guidance learned is not needed
            for name in [n for n in checkpoint["state_dict"] if n.startswith("guidance.")]:
                del checkpoint["state_dict"][name]
        # Older checkpoints have none of this; their runs go on, with other random numbers.
        kept = checkpoint.get("headstudio", {})
        self._seed = kept.get("seed", self._seed)
        self._batches = kept.get("batches", checkpoint["global_step"])
        self._guard.skipped = kept.get("skipped", 0)

    def _make_guidance(self) -> None:
        """Only for training: testing and exporting an avatar works without the diffusion prior."""
        prompt_processor = threestudio.find(self.cfg.prompt_processor_type)
        self.guidance = make_guidance(self.cfg.guidance_type, _with_assets(self.cfg.guidance))
        prompts = _with_assets(self.cfg.prompt_processor)
        if self.cfg.prompt_processor_type == "stable-diffusion-prompt-processor":
            prompts = with_fitting_prompts(prompts)
        self.prompt_processor = prompt_processor(prompts)
        self.prompt_utils = self.prompt_processor()

    def forward(self, batch: dict[str, Any]) -> dict[str, Any]:
        # Half of a metre in float16 is good to 0.2 mm, a tenth of a splat. Whatever the trainer's
        # precision, geometry and pictures are made in float32.
        with torch.autocast(self.device.type, enabled=False):
            return self.renderer(**batch)

    def place(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The posed head and the cameras of a batch, ``posed`` and ``cameras`` of :meth:`forward`,
        before anything is rendered."""
        with torch.autocast(self.device.type, enabled=False):
            return self.renderer.place(**batch)

    def control(self, out: dict[str, Any], size: int | None = None) -> tuple[Tensor, Tensor]:
        """The control image of a rendered batch, ``[B, H, W, 3]``, and its weight, ``[B]``.

        Args:
            out: what :meth:`forward` or :meth:`place` returned.
            size: height in pixels; None is that of the render. The width keeps the proportions.
        """
        cameras = out["cameras"]
        if size is not None:
            width = max(1, round(size * cameras.width / cameras.height))
            cameras = cameras.resized(size, width)
        vertices = out["posed"].vertices.detach()
        image, weight = control_image(self.geometry.head, vertices, cameras)
        return image.flatten(0, 1), weight.flatten()

    # ------------------------------------------------------------------ training

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Tensor]:
        # In rendering gsplat waits for the GPU. What is many small launches comes before, while the
        # GPU is at the last step; what comes after gives it much to do at once.
        placed = self.place(batch)
        control = self._guiding_control(placed)
        out = self({**batch, "posed": placed["posed"]})
        preview = self._preview_is_due()
        guided = call_guidance(
            self.guidance,
            out["comp_rgb"],
            self.prompt_utils,
            batch,
            control=control,
            guidance_eval=preview,
            draw_pose=lambda: self._driving_mesh(out),
        )
        loss = torch.zeros((), device=self.device)
        weights = {name: self._weight(name) for name in self.cfg.loss}
        terms = {name: value for name, value in guided.items() if name.startswith("loss_")}
        with torch.autocast(self.device.type, enabled=False):
            terms |= regularisers(
                out,
                self.geometry,
                active={name for name, weight in weights.items() if weight != 0},
                threshold=self.cfg.regulariser_threshold,
                adaptive=self.cfg.regulariser_adaptive,
            )
            self._guard.watch("the rendered pictures", out["comp_rgb"])
            if "n_nonfinite" in guided:
                self._guard.watch_count("the guidance's gradient", guided["n_nonfinite"])
            for name, value in terms.items():
                self._guard.watch(name, value)
                key = name.replace("loss_", "lambda_")
                loss = loss + value * (weights[key] if key in weights else self._weight(key))
        if self._log_is_due():
            self._log(loss, terms, guided, weights, len(out["comp_rgb"]))
        if preview and guided.get("eval") and ranks.is_first():
            self._save_preview(out, guided["eval"])
        self._observations.append({name: out[name] for name in OBSERVED})
        return {"loss": loss}

    def _weight(self, name: str) -> float:
        if name not in self.cfg.loss:
            raise HeadStudioError(f"system.loss.{name} is missing; set it to 0 to leave it out.")
        return self.C(self.cfg.loss[name])

    def _guiding_control(self, out: dict[str, Any]) -> tuple[Tensor, Tensor] | None:
        if not self.cfg.use_control:
            return None
        return self.control(out, getattr(self.guidance, "image_size", None))

    def _log_is_due(self) -> bool:
        """Whether lightning will look at what this step logs; taking it down costs milliseconds."""
        done = self.true_global_step + 1
        every = getattr(self.trainer, "log_every_n_steps", 1)
        return (every > 0 and done % every == 0) or done == self.trainer.max_steps

    def _log(
        self,
        loss: Tensor,
        terms: dict[str, Tensor],
        guided: dict[str, Any],
        weights: dict[str, float],
        batch_size: int,
    ) -> None:
        values: dict[str, Any] = {"loss": loss, **terms, "n_splats": self.geometry.splats.n}
        values["n_skipped"] = self._guard.skipped
        for name, value in guided.items():
            if isinstance(value, int | float) or (isinstance(value, Tensor) and value.ndim == 0):
                values[name] = value
        log = {f"train/{name}": torch.as_tensor(value).float() for name, value in values.items()}
        for name, weight in weights.items():
            log[f"train_params/{name}"] = torch.tensor(float(weight))
        self.log_dict(log, batch_size=batch_size)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Gathers the image-plane gradients that density control decides by."""
        super().on_before_optimizer_step(optimizer)
        self._read_guard()
        ranks.average_gradients(p for group in optimizer.param_groups for p in group["params"])
        self._guard.before_update(optimizer, self._learned())
        if self._observations:
            # A step that is to be skipped has seen nothing.
            broken = self._guard.broken
            seen = [
                out | {"radii": out["radii"].masked_fill(broken, 0)} for out in self._observations
            ]
            self.geometry.observe(*seen, loss_scale=self._loss_scale())
            self._observations = []

    def optimizer_step(
        self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None
    ) -> None:
        """An update that would leave anything not finite is undone, and counted."""
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        self._guard.after_update(optimizer)
        if self.device.type == "cpu":
            self._read_guard()  # nothing to wait for

    def _learned(self) -> dict[str, torch.nn.Parameter]:
        return {name: p for name, p in self.named_parameters() if p.requires_grad}

    def _read_guard(self) -> None:
        """Say what was wrong with the last step, if anything was."""
        said = self._guard.report()
        if said is not None:
            threestudio.warn(f"step {self.true_global_step}: {said}")

    def _loss_scale(self) -> float:
        """What a mixed-precision trainer multiplied the gradients of non-parameters by."""
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        return 1.0 if scaler is None else float(scaler.get_scale())

    @property
    def _begins_a_step(self) -> bool:
        """Whether this batch is the first, or the only one, of those whose gradients are gathered
        for a step (``trainer.accumulate_grad_batches``)."""
        return not self._observations

    def on_train_batch_start(self, batch: Any, batch_idx: int, unused: int = 0) -> None:
        """Random numbers of the batch's own; before the first of a step, what the step needs."""
        super().on_train_batch_start(batch, batch_idx)
        seed_everything(self._seed, STEP, self._batches)
        self._batches += 1
        if self._begins_a_step:
            self._begin_step()

    def _begin_step(self) -> None:
        """Density control and learning rates for the step to come.

        Before the step and not after the last: checkpoints are written between the two, and a run
        that is resumed from one must not miss the density control that was due. And not within a
        step: gradients that were gathered are of the splats that were there.
        """
        optimizer = self.optimizers(use_pl_optimizer=False)
        assert isinstance(optimizer, torch.optim.Optimizer)  # parse_optimizer makes a single one
        if self.geometry.density_is_due(self.true_global_step):
            # It waits for the device as well, and what it moves into other parameters has to be
            # what a skipped step leaves.
            self._read_guard()
        report = self.geometry.control_density(self.true_global_step, optimizer)
        if report is not None:
            threestudio.info(f"step {self.true_global_step}: {report}")
        for group in optimizer.param_groups:
            schedule = self.cfg.learning_rates.get(str(group.get("name")))
            if schedule is not None:
                epoch, step = self.true_current_epoch, self.true_global_step
                group["lr"] = C(schedule, epoch, step, interpolation="exp")

    def _preview_is_due(self) -> bool:
        interval = self.cfg.preview_interval
        due = interval > 0 and self.true_global_step % interval == 0
        return due and self._begins_a_step

    def _save_preview(self, out: dict[str, Any], seen: dict[str, Any]) -> None:
        self.save_image_grid(
            f"it{self.true_global_step}-train.png",
            preview_grid(out["comp_rgb"].detach(), seen),
            name="train_step",
            step=self.true_global_step,
        )

    # -------------------------------------------------- validation, test, export

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Render | control image | driving mesh, a row for each view."""
        out = self(batch)
        control = self.control(out)[0]
        self._rows |= view_rows(batch["index"], out["comp_rgb"], control, self._driving_mesh(out))

    def on_validation_epoch_end(self) -> None:
        rows: dict[int, list[dict[str, Any]]] = {}
        for of_one_process in ranks.gathered(self._rows):
            rows |= of_one_process
        if rows and ranks.is_first():
            self.save_image_grid(
                f"it{self.true_global_step}-val.png",
                [rows[index] for index in sorted(rows)],
                name="validation_step",
                step=self.true_global_step,
            )
        self._rows = {}

    def on_test_start(self) -> None:
        super().on_test_start()
        self._remove_frames()

    def on_predict_start(self) -> None:
        super().on_predict_start()
        if self.exporter.cfg.save_video:  # the host then makes the test's
            self._remove_frames()

    @property
    def _frames(self) -> str:
        """Folder of the test's frames inside the save folder, and the name of their video."""
        return f"it{self.true_global_step}-test"

    def _remove_frames(self) -> None:
        """Remove what an earlier test of this step left: the video is made of all that is there."""
        if ranks.is_first():
            for path in Path(self.get_save_dir(), self._frames).glob("*.png"):
                if re.fullmatch(FRAME, path.name):
                    path.unlink()
        barrier()  # frames that other processes begin to write are not of an earlier test

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        out = self(batch)
        frames = out["comp_rgb"]
        if self.cfg.corner > 0:
            frames = with_corner(frames, self._driving_mesh(out, self.cfg.corner))
        for index, frame in zip(batch["index"].tolist(), frames, strict=True):
            self.save_rgb_image(f"{self._frames}/{index}.png", frame)

    def on_test_epoch_end(self) -> None:
        barrier()  # frames that other processes still write belong to the video
        if not ranks.is_first():
            return
        self.save_img_sequence(
            self._frames,
            self._frames,
            FRAME,
            save_format="mp4",
            fps=self.cfg.video_fps,
            name="test",
            step=self.true_global_step,
        )

    def _driving_mesh(self, out: dict[str, Any], part: float = 1.0) -> Tensor:
        """Shaded pictures of the posed mesh, ``[B, h, w, 3]``, at a part of the render's size."""
        cameras = out["cameras"]
        height, width = (max(1, round(n * part)) for n in (cameras.height, cameras.width))
        mesh = shade_mesh(
            out["posed"].vertices.detach(), self.geometry.head.faces, cameras.resized(height, width)
        )
        return mesh.flatten(0, 1)

    def save_avatar(self, filename: str, **avatar: Any) -> str:
        """What ``avatar-exporter`` has written: ``avatar.ply`` under the save folder."""
        path = self.get_save_path(filename)
        save_avatar(path, prompt=self._prompt, **avatar)
        return path

    def save_avatar_as(self, filename: str, file_format: str, **avatar: Any) -> str:
        """The same in another program's format; see :func:`headstudio.export.export_avatar`."""
        path = self.get_save_path(filename)
        parts = {name: avatar.pop(name) for name in ("splats", "shape", "extent")}
        export_avatar(path, file_format, Avatar(**parts, prompt=self._prompt), **avatar)
        return path

    @property
    def _prompt(self) -> str:
        return str(self.cfg.prompt_processor.get("prompt", ""))


def _started_together() -> bool:
    """Whether something else than lightning, torchrun or SLURM say, starts all processes at once.

    Lightning starts the others when the first has been made, and has left the prompt's embeddings
    for them. Processes that start together have to wait for each other, which they can do no sooner
    than when training is set up.
    """
    return "RANK" in os.environ or "SLURM_PROCID" in os.environ


def _with_assets(cfg: Any) -> dict[str, Any]:
    """A part's configuration in which models of ours are found from other folders too."""
    return {
        key: resolve_asset(value)
        if str(key).startswith("pretrained_model_name_or_path") and isinstance(value, str)
        else value
        for key, value in dict(cfg).items()
    }
