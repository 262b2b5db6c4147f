"""The whole run: tokenizer, autoencoder, denoiser, pictures, folder."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from transformers import CLIPTokenizer

from headstudio.errors import HeadStudioError
from headstudio.paths import atomic_write
from tools.prior.autoencoder import reconstruction_figures, train_autoencoder
from tools.prior.data import (
    HELD_OUT,
    SHOWN,
    FirstPictures,
    LatentPool,
    PictureSource,
    attribute_classes,
    render_pictures,
)
from tools.prior.diffusion import TextCheck, train_diffusion
from tools.prior.judge import judge_samples, table, train_judge
from tools.prior.logs import say, write_curves
from tools.prior.running import PhaseLoop, Run
from tools.prior.sampling import Sampler, prompt_grids, truth_grid
from tools.prior.saving import save_prior
from tools.prior.start import start_autoencoder, start_record, start_tokenizer
from tools.prior.tokenizer import load_tokenizer, train_tokenizer

# What may differ between a stopped run and the one that takes it up.
_FREE = (
    "autoencoder", "diffusion", "compile", "channels_last", "checkpoint_minutes",
    "sampling_steps", "sample_prompts", "judge_steps",
)  # fmt: skip


def train(run: Run, source: PictureSource, held_out: PictureSource, out: Path) -> bool:
    """Do as much of the training as the run's time allows, and save what there is.

    Args:
        run: settings, device, folders and deadline.
        source: pictures to learn from.
        held_out: pictures of other characters, for the figures.
        out: folder of the finished prior; written once training is complete. Until then the prior
            as it is goes to ``unfinished(run.state)``, since ``out`` may hold a finished one that
            is not to be lost, such as the one that training started from.

    Returns:
        Whether training is complete. If not, calling again with the same state goes on.

    Raises:
        HeadStudioError: the state is of other settings, or the prior to start from cannot be read.
    """
    settings = run.settings
    settings.validate()
    classes = attribute_classes(source, settings.seed)
    _check_state(run, classes)
    first = FirstPictures(source, settings)
    tokenizer = _tokenizer(run, first)
    started: dict[str, Any] = {}
    if settings.start_from is None:
        autoencoder, complete = train_autoencoder(run, first, held_out)
    else:
        start = Path(settings.start_from)
        autoencoder, complete = start_autoencoder(start, run.device), True
        started = {"started_from": start_record(start, run.state)}
    first.free()
    shown = render_pictures(held_out, settings, SHOWN, min(64, settings.held_out_pictures))
    if not complete or run.out_of_time():
        write_curves(run.logs / "curves.png", run.tables)
        return False

    def show(sampler: Sampler, name: str) -> None:
        prompt_grids(run.logs, name, sampler, shown)

    denoiser, loop, pool = train_diffusion(
        run, source, held_out, tokenizer, autoencoder, classes, show
    )
    # Where rendering the pool took until the deadline nothing was learned, and nothing is saved.
    if not loop.done and (run.state_only or loop.progress.step == 0):
        write_curves(run.logs / "curves.png", run.tables)
        return False
    # What follows runs each shape a few times only: searching for its fastest kernel costs more.
    torch.backends.cudnn.benchmark = False
    sampler = Sampler(denoiser, autoencoder, tokenizer, settings)
    show(sampler, "samples")
    truth_grid(run.logs, "samples", sampler, shown)
    figures = _figures(run, held_out, classes, pool, sampler)
    write_curves(run.logs / "curves.png", run.tables)
    about = _about(run, loop, started, figures)
    _save(run, out if loop.done else unfinished(run.state), sampler, about)
    if loop.done:
        shutil.rmtree(unfinished(run.state), ignore_errors=True)
    return loop.done


def _figures(
    run: Run,
    held_out: PictureSource,
    classes: dict[str, list[str]],
    pool: LatentPool,
    sampler: Sampler,
) -> dict[str, float]:
    """How well pictures are rebuilt and attributes recognised, on pictures not trained on."""
    settings, names = run.settings, list(classes)
    judge = train_judge(pool, [len(v) for v in classes.values()], sampler)
    pictures = render_pictures(held_out, settings, HELD_OUT, settings.held_out_pictures)
    rebuilt = reconstruction_figures(sampler.autoencoder, pictures)
    text = TextCheck(run, held_out, sampler.tokenizer, names).check(sampler.denoiser)
    judged = judge_samples(judge, sampler, pictures, names)
    say("share of held-out attributes recognised\n" + table(judged, text, names))
    return {**rebuilt, **judged, **text}


def _save(run: Run, folder: Path, sampler: Sampler, about: dict[str, Any]) -> None:
    size = save_prior(folder, sampler.denoiser, sampler.autoencoder, run.state / "tokenizer", about)
    say(f"saved {folder}, {size / 2**20:.1f} MiB")


def unfinished(state: Path) -> Path:
    """Folder of the prior that a stopped run left, in its state folder."""
    return state / "unfinished"


def _check_state(run: Run, classes: dict[str, list[str]]) -> None:
    """Note the settings in the state folder, or refuse to go on with others than were noted."""
    path = run.state / "settings.json"
    now = {**asdict(run.settings), "attributes": classes}
    for name in _FREE:
        now.pop(name)
    now = json.loads(json.dumps(now))  # tuples become the lists that reading gives
    if not path.exists():
        with atomic_write(path) as temporary:
            temporary.write_text(json.dumps(now, indent=2) + "\n")
        return
    before = json.loads(path.read_text())
    different = sorted(k for k in {*now, *before} if now.get(k) != before.get(k))
    if different:
        changes = "; ".join(f"{k} was {before.get(k)}, now {now.get(k)}" for k in different)
        raise HeadStudioError(
            f"{run.state} holds a run with other settings ({changes[:600]}). "
            "Give the same ones to go on with it, or another --state folder to start anew."
        )


def _tokenizer(run: Run, first: FirstPictures) -> CLIPTokenizer:
    """The tokenizer of the state folder, learned from training captions on the first call."""
    folder = run.state / "tokenizer"
    missing = not (folder / "special_tokens_map.json").exists()  # the file that is written last
    if missing and run.settings.start_from is not None:
        start_tokenizer(Path(run.settings.start_from), folder)
    elif missing:
        captions = first.get().captions
        train_tokenizer(captions, folder, run.settings.sizes.vocabulary)
        say(f"tokenizer: learned from {len(captions)} captions such as {captions[0]!r}")
    tokenizer = load_tokenizer(folder)
    say(f"tokenizer: {len(tokenizer)} tokens")
    return tokenizer


def _about(
    run: Run, loop: PhaseLoop, started: dict[str, Any], figures: dict[str, float]
) -> dict[str, Any]:
    """What training.json says: how to make this prior again, and how good it is."""
    return {
        "made_by": "tools/train_prior.py",
        **started,
        "settings": asdict(run.settings),
        "complete": loop.done,
        "diffusion_steps": loop.progress.step,
        "diffusion_minutes": round(loop.progress.seconds / 60, 2),
        "device": torch.cuda.get_device_name() if run.device.type == "cuda" else "cpu",
        "torch": torch.__version__,
        "figures": {k: round(v, 4) for k, v in figures.items()},
    }
