"""``headstudio bench``: avatars and samples for sentences whose right answer is known."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstudio.app.arguments import at_least
from headstudio.errors import HeadStudioError
from headstudio.paths import REPOSITORY

if TYPE_CHECKING:
    from headstudio.evaluation.closed_world import Bench, Job
    from headstudio.evaluation.suite import Prompt

SUITE = REPOSITORY / "configs" / "benchmark" / "closed_world.yaml"
CONFIG = REPOSITORY / "custom/threestudio-headstudio/configs/headstudio-mini.yaml"
CLOSED_WORLD = "outputs/bench/closed-world"
ABLATIONS = REPOSITORY / "configs" / "ablations"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    kinds = parser.add_subparsers(dest="bench", metavar="BENCHMARK", required=True)
    closed = kinds.add_parser(
        "closed-world",
        help="avatars of held-out prompts against the characters they describe",
        description="Train avatars of held-out prompts and compare them with the characters that "
        "the prompts describe. Goes on where it was stopped. docs/benchmark.md defines the "
        "figures.",
    )
    _add_shared(closed, CLOSED_WORLD, prompts=None)
    closed.add_argument(
        "--seeds", type=at_least(0, int), nargs="+", default=[0], metavar="SEED",
        help="train each prompt with each of these (default 0)",
    )  # fmt: skip
    _add_faces(kinds)
    _add_prior(kinds)
    ablations = kinds.add_parser(
        "ablations",
        help="the same for variants of the method, side by side",
        description="Run the closed-world benchmark for the configuration as it is and with each "
        "of the changes in configs/ablations/.",
    )
    _add_shared(ablations, "outputs/bench/ablations", prompts=["4"])
    ablations.add_argument(
        "--seed", type=at_least(0, int), default=0, help="of every training (default 0)"
    )
    ablations.add_argument(
        "--only", nargs="+", metavar="NAME", help="these of the ablations, by their file's name"
    )
    ablations.add_argument(
        "--docs", type=Path, metavar="FILE.md",
        help="also put the table into this page, between its two markers, and the picture into "
        "images/ beside it",
    )  # fmt: skip


def _add_faces(kinds: Any) -> None:
    """``bench faces``; ``kinds`` are argparse's subparsers."""
    faces = kinds.add_parser(
        "faces",
        help="what a face detector finds in the avatars of the closed-world benchmark",
        description="Render every avatar of a folder of `headstudio bench closed-world` from the "
        "front with four expressions, as `headstudio evaluate` does, and ask MediaPipe whether it "
        "sees a face, and its features where they were driven to. Needs the extra [detect].",
    )
    faces.add_argument(
        "folder", type=Path, nargs="?", default=Path(CLOSED_WORLD), metavar="FOLDER",
        help=f"of results (default {CLOSED_WORLD})",
    )  # fmt: skip
    faces.add_argument(
        "--size", type=at_least(64, int), default=512, metavar="PX", help="(default 512)"
    )
    faces.add_argument("--device", default="auto", help="cpu, cuda or cuda:N (default: a GPU's)")


def _add_prior(kinds: Any) -> None:
    """``bench prior``; ``kinds`` are argparse's subparsers."""
    prior = kinds.add_parser(
        "prior",
        help="samples of the prior against the characters that their captions describe",
        description="Draw samples of the prior for captions of held-out characters and read the "
        "colours that the captions name. Goes on where it was stopped. docs/benchmark.md defines "
        "the figures.",
    )
    prior.add_argument(
        "--captions", type=at_least(1, int), default=200, metavar="N",
        help="how many (default 200)",
    )  # fmt: skip
    prior.add_argument(
        "--guidance", type=at_least(0.0), nargs="+", default=[3.0, 7.5], metavar="SCALE",
        help="of classifier-free guidance, a sample for each; 1 is none (default 3 7.5)",
    )  # fmt: skip
    prior.add_argument(
        "--steps", type=at_least(1, int), default=20, help="of the sampler (default 20)"
    )
    prior.add_argument(
        "--seed", type=at_least(0, int), default=0, help="of captions and noise (default 0)"
    )
    prior.add_argument(
        "--prior", type=Path, metavar="FOLDER", help="the prior (default load/prior)"
    )
    out = "outputs/bench/prior"
    prior.add_argument(
        "--out", type=Path, default=Path(out), metavar="FOLDER", help=f"results (default {out})"
    )
    prior.add_argument("--device", default="auto", help="cpu, cuda or cuda:N (default: a GPU's)")
    prior.add_argument("--force", action="store_true", help="do everything anew")


def _add_shared(parser: argparse.ArgumentParser, out: str, prompts: list[str] | None) -> None:
    default = "all" if prompts is None else " ".join(prompts)
    parser.add_argument(
        "--prompts", nargs="+", default=prompts or [], metavar="N or ID",
        help=f"how many of the prompts, or their ids (default {default})",
    )  # fmt: skip
    parser.add_argument(
        "--out", type=Path, default=Path(out), metavar="FOLDER", help=f"results (default {out})"
    )
    parser.add_argument("--device", default="auto", help="cpu, cuda or cuda:N (default: a GPU's)")
    parser.add_argument(
        "--jobs",
        type=at_least(1, int),
        default=1,
        metavar="N",
        help="trainings at once (default 1)",
    )
    parser.add_argument(
        "--config", type=Path, default=CONFIG, help="what is trained (default headstudio-mini.yaml)"
    )
    parser.add_argument(
        "--suite", type=Path, default=SUITE, help="the prompts (default closed_world.yaml)"
    )
    parser.add_argument(
        "--size", type=at_least(64, int), default=256, metavar="PX",
        help="height and width of the pictures that are compared (default 256)",
    )  # fmt: skip
    parser.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE",
        help="settings for every training, as launch.py takes them",
    )  # fmt: skip
    parser.add_argument("--force", action="store_true", help="do everything anew")


def run(args: argparse.Namespace) -> int:
    if args.bench == "ablations":
        from headstudio.app.bench.ablations import run_ablations

        return run_ablations(args)
    if args.bench == "prior":
        from headstudio.app.bench.prior import run_prior

        return run_prior(args)
    if args.bench == "faces":
        from headstudio.app.bench.faces import run_faces

        return run_faces(args)
    from headstudio.evaluation.summary import benchmark_table

    jobs = make_jobs(chosen_prompts(args), args.seeds)
    report = make_bench(args, args.out, []).run(jobs, force=args.force, say=_say)
    print(benchmark_table(report["results"]))
    print(f"{args.out}/results.json, table.md, sheet.png")
    return 0


def _say(line: str) -> None:
    print(line, flush=True)


def chosen_prompts(args: argparse.Namespace) -> list[Prompt]:
    """Those of the suite that were asked for."""
    from headstudio.evaluation.suite import choose, load_suite

    return choose(load_suite(args.suite), args.prompts)


def make_jobs(prompts: list[Prompt], seeds: list[int]) -> list[Job]:
    """Every prompt with every seed."""
    from headstudio.evaluation.closed_world import Job

    return [Job(prompt, seed) for prompt in prompts for seed in dict.fromkeys(seeds)]


def make_bench(args: argparse.Namespace, folder: Path, overrides: list[str]) -> Bench:
    """A benchmark on what the command line chose, with further settings for the trainings.

    Raises:
        HeadStudioError: a device that is not there, a configuration, head, motion or prior that
            cannot be read.
    """
    from headstudio.app.animate.inputs import choose_device
    from headstudio.app.player import DEFAULT_HEAD
    from headstudio.characters import studio_for
    from headstudio.evaluation.closed_world import Bench, fingerprint
    from headstudio.evaluation.likeness import PerceptualDistance
    from headstudio.evaluation.stage import Stage
    from headstudio.evaluation.training import OWN_SETTINGS, Trainer, read_settings
    from headstudio.flame import HeadModel
    from headstudio.motion import load_motion
    from headstudio.paths import find_asset

    for setting in args.set:
        key, equals, _ = setting.partition("=")
        if not equals:
            raise HeadStudioError(f"--set {setting!r}: expected KEY=VALUE.")
        if key in OWN_SETTINGS:
            raise HeadStudioError(
                f"--set {setting}: the benchmark gives every training a {key} of its own; choose "
                "prompts, seeds and folders by --prompts, --seeds (--seed) and --out."
            )
    config = read_settings(args.config)
    device = str(choose_device(args.device))
    trainer = Trainer(args.config, device, [*overrides, *args.set], args.jobs)
    head = HeadModel.load(find_asset(DEFAULT_HEAD)).to(device)
    prior = find_asset("prior")
    return Bench(
        folder=folder,
        trainer=trainer,
        studio=studio_for(head),
        stage=Stage(size=args.size),
        talk=load_motion(find_asset("motion/talk.npz")),
        perceptual=PerceptualDistance.from_pretrained(prior, device),
        settings={
            "config": config,
            "overrides": list(trainer.overrides),
            "head": head.content_hash,
            "prior": fingerprint(prior),
            "device": "cpu" if device == "cpu" else "cuda",
        },
    )
