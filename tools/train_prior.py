"""Train the bundled diffusion prior (``load/prior/``) from scratch on procedural characters.

On a GPU, in one go or in several calls that each go on where the last one stopped::

    python -m tools.train_prior --state /tmp/prior --out load/prior --logs outputs/prior
    python -m tools.train_prior --state /tmp/prior --out load/prior --stop-after-minutes 9
    python -m tools.train_prior --preset smoke          # how fast each phase is, one minute
    python -m tools.train_prior --preset tiny           # every line, in seconds, on a CPU
    python -m tools.train_prior --start-from load/prior --seed 1 --state /tmp/more --out load/prior
    python -m tools.train_prior --unpack packed/prior_*.tar --out load/prior
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

_START = time.monotonic()
_ROOT = Path(__file__).resolve().parents[1]
for _place in (_ROOT, _ROOT / "custom" / "threestudio-headstudio"):
    if str(_place) not in sys.path:  # so that it runs from a checkout, as a file or a module
        sys.path.insert(0, str(_place))

import diffusers  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402

from headstudio.errors import HeadStudioError  # noqa: E402
from tools.prior import smoke  # noqa: E402
from tools.prior.data import PictureSource  # noqa: E402
from tools.prior.logs import say  # noqa: E402
from tools.prior.running import Run  # noqa: E402
from tools.prior.saving import pack, unpack  # noqa: E402
from tools.prior.settings import Phase, Settings, preset  # noqa: E402
from tools.prior.training import train, unfinished  # noqa: E402


def parser() -> argparse.ArgumentParser:
    """The command line. Options left out keep the preset's value."""
    p = argparse.ArgumentParser(
        prog="train_prior", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    p.add_argument("--preset", choices=("full", "smoke", "tiny"), default="full")
    p.add_argument("--out", type=Path, metavar="PRIOR",
                   help="the finished folder (default load/prior; what a preset other than full "
                   "makes is no prior to work with, and goes to outputs/prior/PRESET)")  # fmt: skip
    p.add_argument("--state", type=Path, default=Path("outputs/prior/state"),
                   help="what a stopped run goes on from")  # fmt: skip
    p.add_argument("--logs", type=Path, default=Path("outputs/prior/logs"))
    p.add_argument("--pack", type=Path, help="also write the result and the logs here, as archives")
    p.add_argument("--unpack", type=Path, nargs="+", metavar="TAR",
                   help="only put packed archives back into --out")  # fmt: skip
    p.add_argument("--head", type=Path, help="head model; default load/flame/open_head.npz")
    p.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    p.add_argument("--stop-after-minutes", type=float, metavar="M",
                   help="end this call by then, saving what the next goes on from")  # fmt: skip
    p.add_argument("--last-call", action="store_true",
                   help="plan the training to end in this call rather than to stop")  # fmt: skip
    p.add_argument("--state-only", action="store_true",
                   help="if that is too early, save only what another goes on from")  # fmt: skip
    p.add_argument("--finish-minutes", type=float, default=0.8, metavar="M",
                   help="part of these kept for sample grids and saving")  # fmt: skip
    p.add_argument("--start-from", metavar="PRIOR",
                   help="train a finished prior on, its autoencoder as it is")  # fmt: skip
    p.add_argument("--seed", type=int)
    p.add_argument("--characters", type=int)
    p.add_argument("--compile", choices=("none", "diffusion", "all"))
    p.add_argument("--no-compile", dest="compile", action="store_const", const="none")
    p.add_argument("--no-channels-last", dest="channels_last", action="store_const", const=False)
    p.add_argument("--refresh-every", type=int, metavar="STEPS")
    for phase in ("autoencoder", "diffusion"):
        p.add_argument(f"--minutes-{phase}", type=float, metavar="M")
        p.add_argument(f"--steps-{phase}", type=int, metavar="N")
        p.add_argument(f"--batch-{phase}", type=int, metavar="N")
        p.add_argument(f"--lr-{phase}", type=float, metavar="LR")
        p.add_argument(f"--pictures-{phase}", type=int, metavar="N")
    p.add_argument("--grid-minutes", type=float, help="also draw sample grids this often")
    return p


def settings_from(options: argparse.Namespace) -> Settings:
    """The preset with what the command line changes."""
    settings = preset(options.preset)
    given: dict[str, object] = {}
    for name in ("seed", "start_from", "characters", "compile", "channels_last", "refresh_every"):
        if getattr(options, name) is not None:
            given[name] = getattr(options, name)
    for name in ("autoencoder", "diffusion"):
        pictures = getattr(options, f"pictures_{name}")
        if pictures is not None:
            given[f"{name}_pictures"] = pictures
        given[name] = _phase(getattr(settings, name), options, name)
    settings = replace(settings, **given)  # type: ignore[arg-type]
    settings.validate()
    return settings


def _phase(phase: Phase, options: argparse.Namespace, name: str) -> Phase:
    keys = {"minutes": "minutes", "steps": "steps", "batch": "batch", "lr": "learning_rate"}
    given = {field: getattr(options, f"{option}_{name}") for option, field in keys.items()}
    if name == "diffusion":
        given["grid_minutes"] = options.grid_minutes
    return replace(phase, **{k: v for k, v in given.items() if v is not None})


def open_datasets(
    options: argparse.Namespace, settings: Settings
) -> tuple[PictureSource, PictureSource]:
    """Characters to train on, and others that the figures are taken on."""
    from headstudio.characters import CharacterDataset
    from headstudio.flame import HeadModel
    from headstudio.motion import load_motion
    from headstudio.paths import find_asset

    head = HeadModel.load(options.head or find_asset("flame/open_head.npz"))
    common = {
        "image_size": settings.sizes.image,
        "device": options.device,
        "motions": [load_motion(path) for path in sorted(find_asset("motion").glob("*.npz"))],
    }
    training = CharacterDataset(
        head, settings.characters, seed=settings.seed, wordings=settings.wordings, **common
    )
    held_out = CharacterDataset(
        head, settings.held_out_characters, seed=settings.seed + 1_000_003, **common
    )
    say(f"characters: {settings.characters} to train on, {settings.held_out_characters} held out")
    return training, held_out


def pack_everything(options: argparse.Namespace, complete: bool) -> None:
    """The prior in archives and the logs in one: few files, each of a size that travels.

    ``complete`` says which prior: the finished one, or what a stopped run left of one, if anything.
    """
    prior = options.out if complete else unfinished(options.state)
    archives = pack(prior, options.pack) if prior.exists() else []
    archives += pack(options.logs, options.pack, "logs")
    say(f"packed into {len(archives)} archives in {options.pack}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; 0 if it did what was asked, 1 with a message if it could not."""
    options = parser().parse_args(arguments)
    if options.out is None:
        full = options.preset == "full"
        options.out = Path("load/prior") if full else Path("outputs/prior") / options.preset
    try:
        if options.unpack:
            count = unpack(options.unpack, options.out)
            say(f"{count} files in {options.out}")
            return 0
        settings = settings_from(options)
        for library in (diffusers, transformers):
            library.utils.logging.set_verbosity_error()
            library.utils.logging.disable_progress_bar()
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.benchmark = True
        datasets = open_datasets(options, settings)
        run = Run(settings, torch.device(options.device), options.state, options.logs)
        if options.stop_after_minutes is not None:
            budget = options.stop_after_minutes - options.finish_minutes
            run.deadline = _START + 60 * max(budget, 0.0)
            run.last_call = options.last_call
        run.state_only = options.state_only
        if options.preset == "smoke":
            smoke.measure(run, *datasets)
            return 0
        complete = train(run, *datasets, options.out)
        if options.pack:
            pack_everything(options, complete)
        say("complete" if complete else "stopped; run the same command again to go on")
    except HeadStudioError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
