"""What goes beyond single settings: ranges of keys that are not ours, and choices that exclude
each other."""

import inspect
import os
from collections.abc import Iterator, Mapping
from typing import Any, Literal, get_args, get_origin

from headstudio.nearest import nearest
from headstudio.plugin._regularisers import REGULARISERS
from headstudio.settings import Valid, shown

CHANNELS = 3
LOSSES = tuple(f"lambda_{name}" for name in ("sds", *REGULARISERS))
CHOSEN_BY_LAUNCHER = {
    "trainer": {"callbacks", "logger", "accelerator", "devices", "inference_mode"},
    "checkpoint": {"dirpath"},
}
# Settings of the launcher's own beside those of lightning's ModelCheckpoint.
_LAUNCHER_KEYS = {"checkpoint": ("every_n_minutes",)}

TOP_RANGES = {"seed": Valid(at_least=0, at_most=2**32 - 1), "n_gpus": Valid(at_least=1)}
SECTION_RANGES: dict[str, dict[str, Valid]] = {
    "lightning": {
        "trainer.max_steps": Valid(at_least=-1),
        "trainer.max_epochs": Valid(at_least=-1),
        "trainer.log_every_n_steps": Valid(at_least=1),
        "trainer.val_check_interval": Valid(above=0),
        "trainer.check_val_every_n_epoch": Valid(at_least=1),
        "trainer.num_sanity_val_steps": Valid(at_least=-1),
        "trainer.gradient_clip_val": Valid(at_least=0),
        "trainer.accumulate_grad_batches": Valid(at_least=1),
        "checkpoint.every_n_train_steps": Valid(at_least=0),
        "checkpoint.every_n_minutes": Valid(at_least=0),
        "checkpoint.save_top_k": Valid(at_least=-1),
    },
    "stable-diffusion-prompt-processor": {
        "front_threshold": Valid(at_least=0, at_most=180),
        "back_threshold": Valid(at_least=0, at_most=180),
        "overhead_threshold": Valid(at_least=0, at_most=90),
    },
    "solid-color-background": {
        "color": Valid(each=True, at_least=0, at_most=1),
        "n_output_dims": Valid(at_least=1),
        "random_aug_prob": Valid(at_least=0, at_most=1),
    },
}


def lightning_keys() -> dict[str, list[str]]:
    """The keys that ``trainer`` and ``checkpoint`` may have."""
    import pytorch_lightning as pl
    from pytorch_lightning.callbacks import ModelCheckpoint

    owners: tuple[tuple[str, Any], ...] = (("trainer", pl.Trainer), ("checkpoint", ModelCheckpoint))
    return {
        section: [*[*inspect.signature(owner.__init__).parameters][1:],
                  *_LAUNCHER_KEYS.get(section, ())]
        for section, owner in owners
    }  # fmt: skip


def rules(values: Mapping[str, Any], classes: Mapping[str, type]) -> Iterator[tuple[str, str]]:
    """Path and problem of each choice that does not go together with another.

    Args:
        values: the whole experiment; anything may be missing or of the wrong type.
        classes: the registered classes found, by ``data``, ``system``, ``system.geometry`` …
    """
    if not values.get("tag") and values.get("use_timestamp") is False:
        yield "use_timestamp", "is false and tag is empty: the two name the run's folder"
    yield from _precision(values)
    if getattr(classes.get("system"), "__name__", "") != "HeadStudioSystem":
        return
    system = _section(values, "system")
    yield from _classes_that_fit(values, classes)
    yield from _prompt(system)
    yield from _losses(system)
    yield from _optimizer(system)
    yield from _background(system)
    yield from _settings_by_name("system.loggers", _section(system, "loggers"), "{enable: true}")
    yield from _perp_neg(system)
    yield from _control(system)
    yield from _one_head(values, system)
    yield from _stages(values)
    yield from _steps(values, system)


def _section(values: Mapping[str, Any], *keys: str) -> Mapping[str, Any]:
    for key in keys:
        found = values.get(key)
        values = found if isinstance(found, Mapping) else {}
    return values


def _classes_that_fit(
    values: Mapping[str, Any], classes: Mapping[str, type]
) -> Iterator[tuple[str, str]]:
    for path, wanted, registered in (
        ("data", "HeadCameraDataModule", "head-camera-datamodule"),
        ("system.geometry", "FlameGaussians", "flame-gaussians"),
        ("system.renderer", "GsplatRenderer", "gsplat-renderer"),
    ):
        found = classes.get(path)
        if found is not None and wanted not in [cls.__name__ for cls in found.__mro__]:
            yield f"{path}_type", f"is not one headstudio-system works with; take {registered}"
        elif path == "system.renderer" and found is None and "system.geometry" in classes:
            system = _section(values, "system")
            if not system.get("renderer_type"):
                yield "system.renderer_type", "is missing; take gsplat-renderer"
    system = _section(values, "system")
    for part, example in (("geometry", "flame-gaussians"), ("material", "no-material"),
                          ("background", "solid-color-background")):  # fmt: skip
        if not system.get(f"{part}_type"):
            yield f"system.{part}_type", f"is missing; take {example}"


def _prompt(system: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    prompt = _section(system, "prompt_processor").get("prompt", "")
    if system.get("prompt_processor_type") and (prompt is None or not str(prompt).strip()):
        yield (
            "system.prompt_processor.prompt",
            "says nothing: the prompt is empty; say what to make, for instance "
            'system.prompt_processor.prompt="a woman with long red hair"',
        )


def _losses(system: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    loss, schedule = _section(system, "loss"), Valid(schedule=True, at_least=0)
    own = system.get("guidance_type") == "flame-controlnet-guidance"
    for name, weight in loss.items():
        text = schedule.problem(weight) if isinstance(weight, (int, float, list, str)) else None
        if own and name not in LOSSES:
            near = nearest(str(name), LOSSES)
            yield f"system.loss.{name}", f"does not exist{near}. It has {', '.join(LOSSES)}"
        elif text:
            yield f"system.loss.{name}", text
    if own and system.get("guidance_type") and "lambda_sds" not in loss:
        yield "system.loss.lambda_sds", "is missing; set it to 0 to leave it out"


def _optimizer(system: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    optimizer = _section(system, "optimizer")
    params = _section(optimizer, "params")
    yield from _settings_by_name("system.optimizer.params", params, "{lr: 0.01}")
    for name, args in params.items():
        rate = args.get("lr") if isinstance(args, Mapping) else None
        text = Valid(at_least=0).problem(rate)
        if text:
            yield f"system.optimizer.params.{name}.lr", text
    for name, rate in _section(system, "learning_rates").items():
        if name not in params:
            yield (
                f"system.learning_rates.{name}",
                f"is not in system.optimizer.params: {', '.join(params) or 'nothing'}",
            )
            continue
        text = Valid(schedule=True, above=0).problem(rate)
        if text:
            yield f"system.learning_rates.{name}", text
    if optimizer and isinstance(optimizer.get("name", ""), str):
        yield from _optimizer_name(optimizer.get("name", ""))


def _settings_by_name(
    path: str, parts: Mapping[str, Any], example: str
) -> Iterator[tuple[str, str]]:
    """Each part that has a value instead of settings; null and false leave it out."""
    for name, given in parts.items():
        if isinstance(given, (int, float, str, list)) and given is not False:
            yield f"{path}.{name}", f"is {shown(given)}; expected settings by name, as {example}"


def _background(system: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Of one colour: as many numbers as the pictures that it is behind have channels."""
    if system.get("background_type") != "solid-color-background":
        return
    background = _section(system, "background")
    channels, color = background.get("n_output_dims", CHANNELS), background.get("color")
    if isinstance(channels, int) and channels != CHANNELS:
        yield (
            "system.background.n_output_dims",
            f"is {channels}; the pictures have {CHANNELS} channels: leave it out",
        )
    if isinstance(color, (int, float, str)) or (isinstance(color, list) and len(color) != CHANNELS):
        yield (
            "system.background.color",
            f"is {shown(color)}; expected {CHANNELS} numbers [red, green, blue], each from 0 to 1",
        )


def _precision(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    import pytorch_lightning as pl

    given = _section(values, "trainer").get("precision")
    known = _literals(inspect.signature(pl.Trainer.__init__).parameters["precision"].annotation)
    if known and isinstance(given, (int, float, str, list)) and given not in known:
        names = list(dict.fromkeys(map(str, known)))
        near = nearest(str(given), names)
        yield "trainer.precision", f"is {shown(given)}; choose one of {', '.join(names)}{near}"


def _literals(annotation: Any) -> list[Any]:
    """All values of the ``Literal`` types in an annotation."""
    inner = get_args(annotation)
    if get_origin(annotation) is Literal:
        return list(inner)
    return [value for part in inner for value in _literals(part)]


def _optimizer_name(name: str) -> Iterator[tuple[str, str]]:
    import torch

    known = [other for other in dir(torch.optim) if other[:1].isupper() and other != "Optimizer"]
    if name not in known:
        near = nearest(name, known)
        yield "system.optimizer.name", f"is {name!r}, which torch.optim does not have{near}"


def _perp_neg(system: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    own = system.get("guidance_type") == "flame-controlnet-guidance"
    if own and _section(system, "prompt_processor").get("use_perp_neg") is True:
        yield "system.prompt_processor.use_perp_neg", "is true; this guidance does not do Perp-Neg"


def _control(system: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    guidance = _section(system, "guidance")
    loaded = guidance.get("use_controlnet", True)
    if loaded is False and guidance.get("controlnet_model_name_or_path"):
        yield (
            "system.guidance.use_controlnet",
            "is false, and controlnet_model_name_or_path names one: leave one of the two out",
        )
    if guidance.get("controlnet_subfolder") and loaded is False:
        yield "system.guidance.controlnet_subfolder", "is given, and use_controlnet is false"


def _one_head(values: Mapping[str, Any], system: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    data, geometry = _section(values, "data"), _section(system, "geometry")
    one, other = data.get("head_model"), geometry.get("head_model")
    if not (isinstance(one, str) and isinstance(other, str)):
        return
    if os.path.realpath(one) != os.path.realpath(other):
        yield (
            "data.head_model",
            f"is {one!r} and system.geometry.head_model is {other!r}; the motions are for the head "
            "that is trained: leave it as ${system.geometry.head_model}",
        )


def _stages(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    data = _section(values, "data")
    milestones = data.get("resolution_milestones", [])
    if not isinstance(milestones, list):
        return
    for key in ("height", "width", "batch_size"):
        value = data.get(key)
        stages = len(value) if isinstance(value, list) else 1
        if value is not None and stages != len(milestones) + 1:
            yield (
                f"data.{key}",
                f"has {stages} stages, and resolution_milestones makes {len(milestones) + 1}: give "
                "one entry for each stage",
            )
    numbers = [m for m in milestones if isinstance(m, int)]
    if numbers != sorted(set(numbers)):
        yield "data.resolution_milestones", f"is {milestones}; the steps have to grow"


def _steps(values: Mapping[str, Any], system: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    steps = _section(values, "trainer").get("max_steps")
    every = _section(values, "checkpoint").get("every_n_train_steps")
    if isinstance(steps, int) and isinstance(every, int) and 0 < steps < every:
        yield (
            "checkpoint.every_n_train_steps",
            f"is {every}, and trainer.max_steps is {steps}: there would be no checkpoint at all",
        )
    close_ups = _section(values, "data").get("close_ups")
    for number, close_up in enumerate(close_ups if isinstance(close_ups, list) else []):
        begins = _begins(close_up)
        if isinstance(steps, int) and isinstance(begins, int) and 0 < steps <= begins:
            yield (
                f"data.close_ups[{number}].start_step",
                f"is {begins}, and trainer.max_steps is {steps}: these cameras would never come",
            )


def _begins(close_up: Any) -> Any:
    # Not above: the classes are registered while these rules are imported.
    from headstudio.plugin.data import CloseUpConfig

    own = close_up if isinstance(close_up, Mapping) else {}
    return own.get("start_step", CloseUpConfig.start_step)
