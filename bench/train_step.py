"""How long a training step takes, each of its parts, and the floor under them; a JSON line each.

    python -m tools.make_random_sd --out /tmp/random-sd
    python bench/train_step.py --sd /tmp/random-sd     # 8 views of 1024 px, 100 000 splats, SD 1.5
    python bench/train_step.py --mini                  # headstudio-mini.yaml as it is
    python bench/train_step.py --sd /tmp/random-sd --profile /tmp/profile.txt

The step is the real one: the system under lightning's trainer, with the configuration's optimisers,
losses and logging. Density control is off, so that the number of splats stays. The floor is what
nobody can leave out, called bare: the ControlNet and the UNet on as many samples as the steps'
predictions were (rounded up), the autoencoder's encoder forward and backward, the rasteriser
forward and backward; all compiled if the run is. Times are medians over ``--steps`` steps after
``--warm-up``; on CUDA they are the device's. ``step`` is from the start of one to that of the next;
``step_mean``, on the wall, has the steps in it that meet a number of predictions for the first
time, for which cuDNN then makes its plans.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
for place in (REPOSITORY / "custom/threestudio-headstudio", REPOSITORY / "host"):
    sys.path.insert(0, str(place))

import pytorch_lightning as pl  # noqa: E402
import torch  # noqa: E402
from step_profile import EXTRA_STEPS, StepProfile  # noqa: E402

import threestudio  # noqa: E402
from headstudio.guidance._networks import Shown  # noqa: E402
from headstudio.render import render_splats  # noqa: E402
from headstudio.splats import PosedSplats  # noqa: E402
from threestudio.utils.config import config_to_primitive, load_config  # noqa: E402
from threestudio.utils.extensions import load_extensions  # noqa: E402

CONFIGS = REPOSITORY / "custom/threestudio-headstudio/configs"
QUIET = [
    "system.geometry.density_control=false",
    "system.preview_interval=0",
    "trainer.enable_progress_bar=false",
]


class Stopwatch:
    """Durations by name in ms: of the device's work on CUDA, of the wall on a CPU."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._marks: dict[str, list[tuple[Any, Any]]] = {}
        self._open: dict[str, Any] = {}

    def now(self) -> Any:
        """A moment; on CUDA an event in the stream, which nobody waits for."""
        if self.device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def start(self, name: str) -> None:
        self._open[name] = self.now()

    def stop(self, name: str) -> None:
        if name in self._open:
            self._marks.setdefault(name, []).append((self._open.pop(name), self.now()))

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        self.start(name)
        yield
        self.stop(name)

    def forget(self, name: str | None = None) -> None:
        """Leave out what was measured so far, of one name or of all."""
        for known in list(self._marks) if name is None else [name]:
            self._marks.pop(known, None)

    def medians(self) -> dict[str, float]:
        """By name, ms."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return {
            name: statistics.median(self._between(a, b) for a, b in pairs)
            for name, pairs in self._marks.items()
        }

    def _between(self, start: Any, end: Any) -> float:
        return start.elapsed_time(end) if self.device.type == "cuda" else 1e3 * (end - start)


class Parts(pl.Callback):
    """Times the steps of a training run and what happens in them."""

    def __init__(self, watch: Stopwatch, warm_up: int, steps: int) -> None:
        self.watch, self.warm_up, self.steps = watch, warm_up, steps
        self.begin = self.warming_up = 0.0
        self.figures: dict[str, float] = {}
        self.out: dict[str, Any] = {}
        self.predictions: list[int] = []

    def on_train_start(self, trainer: pl.Trainer, system: Any) -> None:
        self.begin = time.perf_counter()
        self._time(system, "place", "geometry")
        self._time(system, "forward", "rendering", keep=True)
        self._time(system, "control", "control_image")
        self._time(system.guidance.prior, "encode", "encoder_forward")
        self._time(system.guidance.prior, "predict_noise", "unet_and_controlnet", rows=True)

    def _time(
        self, owner: Any, method: str, name: str, keep: bool = False, rows: bool = False
    ) -> None:
        inner = getattr(owner, method)

        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.watch(name):
                result = inner(*args, **kwargs)
            if keep:
                self.out = result
            if rows:
                self.predictions.append(len(result))
            return result

        setattr(owner, method, timed)

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        self.watch.stop("step")
        if trainer.global_step == self.warm_up:
            self._wait()
            self.warming_up = 1e3 * (time.perf_counter() - self.begin)
            self.watch.forget()
            self.predictions.clear()
            self.begin = time.perf_counter()
        elif trainer.global_step == self.warm_up + self.steps:
            self._finish()
        self.watch.start("step")

    def on_before_backward(self, *_: Any) -> None:
        self.watch.start("backward")

    def on_after_backward(self, *_: Any) -> None:
        self.watch.stop("backward")

    def on_before_optimizer_step(self, *_: Any) -> None:
        self.watch.start("optimiser")

    def on_train_batch_end(self, *_: Any) -> None:
        self.watch.stop("optimiser")

    def on_train_end(self, *_: Any) -> None:
        self._finish()

    def _finish(self) -> None:
        """Take down what the measured steps took; what follows them does not count."""
        if not self.figures:
            self._wait()
            wall = 1e3 * (time.perf_counter() - self.begin) / self.steps
            self.watch.stop("step")
            self.figures = self.watch.medians() | {"warm_up": self.warming_up, "step_mean": wall}

    def _wait(self) -> None:
        if self.watch.device.type == "cuda":
            torch.cuda.synchronize()


def floor(system: Any, out: dict[str, Any], n: int, repeat: int) -> dict[str, float]:
    """The bare networks (n predictions) and the bare rasteriser on the step's own shapes, ms."""
    prior = system.guidance.prior
    views, device = len(out["comp_rgb"]), prior.device
    watch = Stopwatch(device)
    dtype = prior.dtype
    latents = torch.randn(n, prior.latent_channels, *[prior.latent_size] * 2, device=device)
    latents, t = latents.to(dtype), torch.full((n,), 500, device=device)
    text = prior.null_embedding.to(dtype).repeat(n, 1, 1)
    control = torch.rand(views, 3, prior.control_size, prior.control_size, device=device)
    shown = Shown(
        control.to(dtype),
        torch.ones(n, device=device),
        torch.arange(n) % views,
        torch.ones(n, dtype=torch.bool),
    )
    pictures = torch.rand(views, 3, prior.image_size, prior.image_size, device=device)
    posed = out["posed"].splats
    leaves = {
        name: value.detach().clone().requires_grad_(value.requires_grad)
        for name, value in vars(posed).items()
    }

    @torch.no_grad()
    def networks() -> None:
        prior.networks.predict(latents, t, text, shown)

    def encoder() -> None:
        seen = pictures.to(dtype).requires_grad_()
        mean, _ = prior.networks.encode(seen)
        torch.autograd.grad(mean.square().sum(), seen)

    def rasteriser() -> None:
        image = render_splats(PosedSplats(**leaves), out["cameras"])
        wanted = [value for value in leaves.values() if value.requires_grad]
        torch.autograd.grad(image.rgb.square().mean(), wanted)

    parts: dict[str, Callable[[], None]] = {
        "floor_unet_and_controlnet": networks,
        "floor_encoder": encoder,
        "floor_rasteriser": rasteriser,
    }
    for name, call in parts.items():
        for i in range(repeat + 3):
            if i == 3:
                watch.forget(name)
            with watch(name):
                call()
    return watch.medians()


def configuration(args: argparse.Namespace, folder: str) -> Any:
    """The run's configuration, with the options of the command line."""
    steps = args.warm_up + args.steps + (EXTRA_STEPS if args.profile else 0)
    settings = [*QUIET, f"exp_root_dir={folder}", f"trainer.max_steps={steps}"]
    settings.append('system.prompt_processor.prompt="an old man with a white beard"')
    name = "headstudio-mini.yaml" if args.mini else "headstudio.yaml"
    if not args.mini:
        settings.append("system.geometry.head_model=load/flame/open_head.npz")
    if args.sd:
        sd = Path(args.sd)
        settings += [
            f"system.prompt_processor.pretrained_model_name_or_path={sd / 'stable-diffusion-v1-5'}",
            f"system.guidance.controlnet_model_name_or_path={sd / 'ControlNetMediaPipeFace'}",
        ]
    return load_config(str(CONFIGS / name), cli_args=[*settings, *args.settings], n_gpus=1)


def measure(args: argparse.Namespace, folder: str) -> list[dict[str, Any]]:
    """Train for a while; the figures."""
    cfg = configuration(args, folder)
    pl.seed_everything(cfg.seed, workers=True)
    load_extensions()
    on_gpu = torch.cuda.is_available()
    device = torch.device("cuda" if on_gpu else "cpu")
    datamodule = threestudio.find(cfg.data_type)(cfg.data)
    system = threestudio.find(cfg.system_type)(cfg.system, resumed=False)
    system.set_save_dir(os.path.join(folder, "save"))
    parts = Parts(Stopwatch(device), args.warm_up, args.steps)
    profile = StepProfile(args.warm_up + args.steps)
    trainer = pl.Trainer(
        accelerator="gpu" if on_gpu else "cpu", devices=1, logger=False,
        enable_checkpointing=False, enable_model_summary=False, 
        callbacks=[parts, *[profile] * bool(args.profile)],
        inference_mode=False, limit_val_batches=0, **config_to_primitive(cfg.trainer),
    )  # fmt: skip
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    trainer.fit(system, datamodule=datamodule)
    if args.profile:
        profile.write(args.profile)
    peak = torch.cuda.max_memory_allocated() / 2**30 if on_gpu else None
    system.to(device)
    predictions = math.ceil(statistics.mean(parts.predictions))
    bare = floor(system, parts.out, predictions, args.repeat)
    bare["floor"] = sum(bare.values())
    shape = list(parts.out["comp_rgb"].shape)
    about = {"views": shape[0], "px": shape[1], "splats": system.geometry.splats.n}
    about["device"] = torch.cuda.get_device_name() if on_gpu else "cpu"
    about["predictions"] = predictions
    about["dtype"] = str(system.guidance.prior.dtype).removeprefix("torch.")
    lines = [
        {"figure": name, "ms": round(value, 3), **about}
        for name, value in (parts.figures | bare).items()
    ]
    lines.append(
        {"figure": "step_over_floor", "ratio": round(parts.figures["step"] / bare["floor"], 3)}
    )
    if peak is not None:
        lines.append({"figure": "peak_memory", "GiB": round(peak, 2)})
    return lines


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mini", action="store_true", help="headstudio-mini.yaml, not the paper's")
    parser.add_argument("--sd", help="folder written by tools/make_random_sd.py")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--warm-up", type=int, default=5)
    parser.add_argument("--repeat", type=int, default=10, help="of the floor's parts")
    parser.add_argument(
        "--profile", metavar="FILE", help="what some more steps spend their time on"
    )
    parser.add_argument("settings", nargs="*", help="key=value, as for launch.py")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        lines = measure(args, folder)
    for line in lines:
        print(json.dumps(line), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
