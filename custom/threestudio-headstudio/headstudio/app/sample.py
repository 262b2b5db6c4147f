"""``headstudio sample``: avatar files of procedural characters, to try things with in seconds.

The characters are those the bundled prior learned from; nothing is trained here.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstudio.app.arguments import at_least, refuse_existing
from headstudio.errors import HeadStudioError
from headstudio.nearest import did_you_mean

if TYPE_CHECKING:
    from headstudio.characters import Character
    from headstudio.flame import HeadModel

EXTENT = 1.5
"""Longest extent of the head in world units, as `headstudio.yaml` trains it."""
_MAX_SPLATS = 500_000
"""Of one avatar. A million takes 4 GB and more than nine minutes."""
_KIND = ("archetype", "gender", "age")
_DRAWS = 4000
"""Characters that are drawn until one is of the kind asked for: one in about 200 is a king."""
_VIEWS_DEG = (0.0, 45.0, 90.0)
_CELL = 320


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seed", type=int, default=0, help="which character (default 0)")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE.ply", help="the avatar file to write"
    )
    parser.add_argument(
        "--count",
        type=at_least(1, int),
        default=1,
        metavar="N",
        help="so many, of the seeds SEED, SEED + 1 …; FILE becomes FILE-SEED.ply",
    )
    parser.add_argument(
        "--splats",
        type=int,
        metavar="N",
        help=f"the most splats an avatar has, 4000 to {_MAX_SPLATS} (default 24000)",
    )
    parser.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="ATTRIBUTE=VALUE",
        help='choose what the character looks like: --set skin=blue "hair_style=long wavy"; '
        "attributes and values are listed by --list",
    )
    parser.add_argument(
        "--picture", type=Path, metavar="FILE.png", help="also draw them, from three sides"
    )
    parser.add_argument("--force", action="store_true", help="write over existing files")
    parser.add_argument(
        "--list", action=_ListAttributes, nargs=0, help="list attributes and values, and stop"
    )


class _ListAttributes(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from headstudio.characters import attribute_names

        for attribute, values in attribute_names().items():
            print(f"{attribute}: {', '.join(values)}")
        parser.exit()


def run(args: argparse.Namespace) -> int:
    from headstudio.app.player import DEFAULT_HEAD
    from headstudio.flame import HeadModel
    from headstudio.paths import find_asset

    seeds = list(range(args.seed, args.seed + args.count))
    if args.seed < 0:
        raise HeadStudioError(f"--seed is {args.seed}; expected 0 or more.")
    if args.splats is not None and args.splats > _MAX_SPLATS:
        raise HeadStudioError(f"--splats is {args.splats}; expected at most {_MAX_SPLATS}.")
    if args.out.suffix.lower() != ".ply":
        raise HeadStudioError(f"--out is {args.out}; an avatar file ends in .ply.")
    if args.picture is not None and args.picture.suffix.lower() != ".png":
        raise HeadStudioError(f"--picture is {args.picture}; expected a file that ends in .png.")
    files = [args.out]
    if args.count > 1:
        files = [args.out.with_name(f"{args.out.stem}-{seed}{args.out.suffix}") for seed in seeds]
    refuse_existing([*files, *([args.picture] if args.picture else [])], args.force)
    wanted = parse_attributes(args.set)

    head = HeadModel.load(find_asset(DEFAULT_HEAD))
    for seed, file in zip(seeds, files, strict=True):
        prompt, n = write_sample(file, head, seed, wanted, args.splats)
        print(f"{file}: seed {seed}, {n} splats, {prompt!r}", flush=True)
    if args.picture:
        _draw(args.picture, files)
        print(f"{args.picture}: what they look like")
    return 0


def parse_attributes(assignments: Sequence[str]) -> dict[str, str]:
    """``["skin=blue", "hair_style=long_wavy"]`` as the fields of a `Character`.

    Raises:
        HeadStudioError: for what is no assignment, or an attribute or value that does not exist;
            the message names the nearest.
    """
    from headstudio.characters import attribute_names

    tables = attribute_names()
    chosen: dict[str, str] = {}
    for assignment in assignments:
        attribute, equals, value = assignment.partition("=")
        if not equals:
            raise HeadStudioError(
                f"--set {assignment!r}: expected ATTRIBUTE=VALUE, such as skin=blue."
            )
        attribute = _plain(attribute).replace(" ", "_")
        if attribute not in tables:
            raise HeadStudioError(
                f"--set: a character has no {attribute!r}{did_you_mean(attribute, tables)} There "
                f"are {', '.join(tables)}."
            )
        value = _plain(value)
        if value not in tables[attribute]:
            raise HeadStudioError(
                f"--set: {attribute} cannot be {value!r}{did_you_mean(value, tables[attribute])} "
                f"There are {', '.join(tables[attribute])}."
            )
        chosen[attribute] = value
    return chosen


def _plain(text: str) -> str:
    return " ".join(text.lower().replace("_", " ").replace("-", " ").split())


def draw_character(seed: int, wanted: dict[str, str]) -> tuple[Character, str]:
    """The character of a seed, with the attributes asked for, and a sentence about it.

    Characters are drawn until one is of the archetype, gender and age that are asked for, so that a
    witch looks like one; the other attributes are exchanged. Brows and beard keep the colour of the
    hair if they had it.
    """
    import dataclasses

    import numpy as np

    from headstudio.characters import caption, sample_character

    rng = np.random.default_rng(seed)
    kind = {key: wanted[key] for key in _KIND if key in wanted}
    character, fits = sample_character(rng), -1
    drawn = character
    for _ in range(_DRAWS):
        agree = sum(getattr(drawn, key) == value for key, value in kind.items())
        if agree > fits:
            character, fits = drawn, agree
        if fits == len(kind):
            break
        drawn = sample_character(rng)
    changes: dict[str, Any] = dict(wanted)
    for key in ("brow_color", "beard_color"):
        follows = getattr(character, key) == character.hair_color
        if "hair_color" in wanted and follows:
            changes.setdefault(key, wanted["hair_color"])
    character = dataclasses.replace(character, **changes)
    return character, caption(character, rng)


def write_sample(
    path: Path, head: HeadModel, seed: int, wanted: dict[str, str], splats: int | None = None
) -> tuple[str, int]:
    """Write one avatar file; returns its prompt and its number of splats."""
    from headstudio.characters import build_splats, character_shape
    from headstudio.splats import save_avatar

    character, prompt = draw_character(seed, wanted)
    options = {} if splats is None else {"n": splats}
    avatar = build_splats(character, head, **options)
    shape = character_shape(character, head)
    save_avatar(path, avatar, head, shape, head.world_frame(EXTENT), prompt)
    return prompt, avatar.n


def _draw(picture: Path, files: Sequence[Path]) -> None:
    """All avatars, each from three sides with its prompt below."""
    import torch

    from headstudio.app.player import Player
    from headstudio.flame import FlameParams
    from headstudio.render import Cameras
    from headstudio.render.pictures import grid_columns, label_strip, over, save_png, tile

    cameras = Cameras.orbit(torch.tensor(_VIEWS_DEG), 5.0, 2.3, 45.0, _CELL, _CELL)
    cells = []
    for file in files:
        player = Player.open(file)
        rest = FlameParams.zeros(1, player.head.n_shape, player.head.n_expression)
        views = player.render(rest, cameras, background=torch.ones(3)).rgb[0]
        strip = tile(list(views), len(views), (1.0, 1.0, 1.0))
        cells.append(over(strip, label_strip(player.avatar.prompt, *strip.shape[:2])))
    columns = min(
        grid_columns(len(cells), len(_VIEWS_DEG) * _CELL, _CELL), math.ceil(math.sqrt(len(cells)))
    )
    save_png(picture, tile(cells, columns, (1.0, 1.0, 1.0)))
