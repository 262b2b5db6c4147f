"""``headstudio evaluate RUN``: CLIP score and a real face detector's opinion of an avatar."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstudio.app.arguments import at_least, refuse_existing
from headstudio.errors import HeadStudioError
from headstudio.paths import atomic_write

if TYPE_CHECKING:
    from torch import Tensor

    from headstudio.evaluation.clip import ClipScorer
    from headstudio.evaluation.wild import Fronts

#: What most papers on text-to-3D report.
CLIP = "openai/clip-vit-large-patch14"
_SHEET_VIEWS = 6


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "run", type=Path, metavar="RUN", help="a run's folder (outputs/…), or an avatar.ply"
    )
    parser.add_argument("--prompt", help="what it should be (default: what it was made from)")
    parser.add_argument(
        "--clip", default=CLIP, metavar="NAME",
        help=f"a CLIP: hub name or folder; none leaves the score out (default {CLIP})",
    )  # fmt: skip
    parser.add_argument(
        "--detect", choices=("auto", "always", "never"), default="auto",
        help="the face detector; auto: if it is installed (default)",
    )  # fmt: skip
    parser.add_argument(
        "--views", type=at_least(1, int), default=120, metavar="N",
        help="views around the avatar at rest (default 120)",
    )  # fmt: skip
    parser.add_argument(
        "--size",
        type=at_least(64, int),
        default=512,
        metavar="PX",
        help="of pictures (default 512)",
    )
    parser.add_argument(
        "--expressions", nargs="+", metavar="TEXT",
        help='seen from the front (default neutral jawOpen smile "eyeBlinkLeft + eyeBlinkRight")',
    )  # fmt: skip
    parser.add_argument("--background", default="white", metavar="COLOUR", help="(default white)")
    parser.add_argument("--head", type=Path, help="the head model it rides on (default: open head)")
    parser.add_argument("--device", default="auto", help="cpu, cuda or cuda:N (default: a GPU's)")
    parser.add_argument(
        "--out", type=Path, metavar="FOLDER", help="(default: evaluation/ beside the avatar)"
    )
    parser.add_argument("--force", action="store_true", help="write over existing results")


def run(args: argparse.Namespace) -> int:
    from headstudio.app.animate.inputs import choose_device
    from headstudio.evaluation import wild
    from headstudio.evaluation.faces import INSTALL, FaceDetector, is_available, look
    from headstudio.render.pictures import parse_color, save_png

    device = str(choose_device(args.device))
    detect = args.detect == "always" or (args.detect == "auto" and is_available())
    if args.detect == "always" and not is_available():
        raise HeadStudioError(f"--detect always needs mediapipe: {INSTALL}.")
    avatar = find_avatar(args.run, device)
    out = args.out or avatar.parent / "evaluation"
    report_file, sheet_file = out / "evaluation.json", out / "evaluation.png"
    refuse_existing([report_file, sheet_file], args.force)
    figure, prompt = _open(avatar, args.head, device)
    prompt = args.prompt or prompt
    scorer = None
    if args.clip != "none":
        scorer = _scorer(args.clip, device, prompt)

    views = wild.Views(args.views, args.size, background=parse_color(args.background))
    around = wild.turntable(figure, views, _progress(args.views))
    fronts = wild.fronts(figure, views, args.expressions or wild.EXPRESSIONS)
    report: dict[str, Any] = {
        "avatar": str(avatar),
        "prompt": prompt,
        "splats": figure.splats.n,
        "views": args.views,
        "size": args.size,
        "clip": None,
        "faces": None,
    }
    if scorer is not None:
        report["clip"] = {
            "model": args.clip,
            "turntable": scorer(around, prompt),
            "expressions": {name: scorer(one.pictures, prompt) for name, one in fronts.items()},
        }
    if detect:
        with FaceDetector() as detector:
            report["faces"] = look(fronts, detector)
    save_png(sheet_file, sheet(prompt, around, fronts))
    with atomic_write(report_file) as temporary:
        temporary.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", "utf-8")
    for line in lines(report):
        print(line)
    if not detect and args.detect == "auto":
        print(f"no face detector: {INSTALL}")
    print(f"{report_file}, {sheet_file.name}")
    return 0


def _scorer(clip: str, device: str, prompt: str) -> ClipScorer:
    """The CLIP that compares pictures with a prompt, once it is clear that there is one."""
    from headstudio.evaluation.clip import ClipScorer

    advice = "--clip none leaves the score out."
    if not prompt.strip():
        raise HeadStudioError(
            f"the prompt is {prompt!r}, and a CLIP score compares pictures with words; say with "
            f"--prompt what the avatar should be. {advice}"
        )
    try:
        return ClipScorer(clip, device)
    except HeadStudioError as error:
        raise HeadStudioError(f"{error}\n{advice}") from error


def find_avatar(path: Path, device: str) -> Path:
    """The avatar of a run: its newest export, which is made if there is none.

    Raises:
        HeadStudioError: neither an avatar nor a finished run.
    """
    from headstudio.evaluation.training import Trainer, exported_avatar

    if path.is_file():
        return path
    if not path.is_dir():
        raise HeadStudioError(f"{path} does not exist; give a run's folder or an avatar.ply.")
    try:
        return exported_avatar(path)
    except HeadStudioError:
        checkpoint = path / "ckpts" / "last.ckpt"
        if not checkpoint.is_file():
            raise HeadStudioError(
                f"{path} is no finished run: it has neither save/it<N>-export/avatar.ply nor "
                "ckpts/last.ckpt."
            ) from None
    print(f"exporting {checkpoint}", flush=True)
    trainer = Trainer(path / "configs" / "parsed.yaml", device)
    return trainer.export(path, path / "export.log")


def _open(avatar: Path, head: Path | None, device: str) -> tuple[Any, str]:
    from headstudio.app.player import Player
    from headstudio.evaluation.stage import Figure

    player = Player.open(avatar, head, device)
    return Figure.of_avatar(player.avatar, player.head), player.avatar.prompt


def _progress(total: int) -> Any:
    def show(done: int) -> None:
        if sys.stderr.isatty():
            end = "\n" if done == total else ""
            print(f"\r{done} of {total} views", end=end, file=sys.stderr, flush=True)

    return show


def sheet(prompt: str, around: Tensor, fronts: dict[str, Fronts]) -> Tensor:
    """Some of the views around, and each expression from the front."""
    from headstudio.render.pictures import label_strip, over, tile

    size = around.shape[1]
    some = [around[i * len(around) // _SHEET_VIEWS] for i in range(_SHEET_VIEWS)]
    some[0] = over(some[0], label_strip(prompt, size, size))
    faces = [over(one.pictures[2], label_strip(name, size, size)) for name, one in fronts.items()]
    return tile([*some, *faces], _SHEET_VIEWS, (1.0, 1.0, 1.0))


def lines(report: dict[str, Any]) -> list[str]:
    """The figures in words."""
    said = []
    clip, faces = report["clip"], report["faces"]
    if clip is not None:
        said.append(
            f"CLIP score {clip['turntable']:.2f} over {report['views']} views ({clip['model']})"
        )
        said += [f"  {name}: {value:.2f}" for name, value in clip["expressions"].items()]
    if faces is not None:
        for name, one in {"front renders": faces, **faces["expressions"]}.items():
            error = "–" if one["error"] is None else f"{one['error']:.1%}"
            said.append(
                f"{name}: a face is found in {one['rate']:.0%} of {one['pictures']}, landmarks "
                f"{error} of the eyes' distance away"
            )
    return said
