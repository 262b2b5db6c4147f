"""Draw procedural characters from several sides and in several faces, to look at them.

    python -m tools.character_sheet --seed 0 --n 12 --out /tmp/characters.png
    python -m tools.character_sheet --every hair_style
    python -m tools.character_sheet --n 100 --single --across 10 --size 120

Columns: front, three quarters, side, back, and the front again with the mouth open, smiling with
the eyes shut, and surprised. The captions are printed, one line per row.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "custom" / "threestudio-headstudio"))

from headstudio.characters import (  # noqa: E402
    ATTRIBUTES,
    BACKGROUND,
    Character,
    caption,
    sample_character,
    studio_for,
)
from headstudio.errors import HeadStudioError  # noqa: E402
from headstudio.flame import FlameParams, HeadModel  # noqa: E402
from headstudio.paths import atomic_write, find_asset  # noqa: E402
from headstudio.render import Cameras, render  # noqa: E402
from headstudio.splats import triangle_frames  # noqa: E402

AZIMUTHS = (0.0, 40.0, 90.0, 180.0)
PORTRAIT_AZIMUTHS = (0.0, 30.0, -20.0, 15.0, -40.0)
FACES: tuple[tuple[float, dict[str, float]], ...] = (  # jaw angle, actions
    (0.28, {}),
    (0.0, {"mouthSmileLeft": 0.8, "mouthSmileRight": 0.8, "eyeBlinkLeft": 1, "eyeBlinkRight": 1}),
    (
        0.12,
        {
            "browInnerUp": 1,
            "browOuterUpLeft": 1,
            "browOuterUpRight": 1,
            "eyeWideLeft": 1,
            "eyeWideRight": 1,
            "mouthFunnel": 0.5,
        },
    ),
)


def chosen(seed: int, count: int, every: str | None) -> list[Character]:
    """Random characters; or one for every value of an attribute, otherwise plain."""
    rng = np.random.default_rng(seed)
    if every is None:
        return [sample_character(rng) for _ in range(count)]
    if every not in ATTRIBUTES:
        raise HeadStudioError(f"unknown attribute {every!r}; there are {', '.join(ATTRIBUTES)}")
    genders = {"beard": "man", "beard_color": "man"}
    plain = Character(gender=genders.get(every, "woman"), hair_style="short")
    if every == "beard_color":
        plain = replace(plain, beard="full")
    return [
        replace(plain, shape=sample_character(rng).shape, seed=i, **{every: option.name})
        for i, option in enumerate(ATTRIBUTES[every])
    ]


def pictures(
    head: HeadModel, characters: list[Character], size: int, n_splats: int
) -> Iterator[Tensor]:
    """For each character its row of pictures [size, columns * size, 3], 0..1."""
    studio, frame = studio_for(head, n_splats), head.world_frame()
    turn = Cameras.orbit(torch.tensor(AZIMUTHS), 5.0, 2.4, 45.0, size, size)
    front = Cameras.orbit(0.0, 0.0, 1.6, 42.0, size, size)
    front.c2w[..., 2, 3] += 0.02
    background = torch.tensor(BACKGROUND)
    for character in characters:
        batch = studio.build([character])
        rest = FlameParams.zeros(1, head.n_shape, head.n_expression).replace(shape=batch.shape)
        columns = []
        for cameras, (jaw, actions) in ((turn, (0.0, {})), *((front, face) for face in FACES)):
            expression = torch.zeros(1, head.n_expression)
            for name, value in actions.items():
                expression[0, head.expression_names.index(name)] = value
            pose = rest.replace(expression=expression, jaw_pose=torch.tensor([[jaw, 0.0, 0.0]]))
            vertices = frame.to_world(head(pose))
            posed = batch.pose(triangle_frames(vertices, head.faces))
            columns += list(render(*posed, cameras, background=background).rgb[0])
        yield torch.cat(columns, dim=1)


def portraits(
    head: HeadModel, characters: list[Character], size: int, n_splats: int
) -> Iterator[Tensor]:
    """One picture [size, size, 3] of each character, from the front to three quarters in turn."""
    studio, frame = studio_for(head, n_splats), head.world_frame()
    for i, character in enumerate(characters):
        batch = studio.build([character])
        rest = FlameParams.zeros(1, head.n_shape, head.n_expression).replace(shape=batch.shape)
        posed = batch.pose(triangle_frames(frame.to_world(head(rest)), head.faces))
        camera = Cameras.orbit(
            PORTRAIT_AZIMUTHS[i % len(PORTRAIT_AZIMUTHS)], 4.0, 2.1, 43.0, size, size
        )
        camera.c2w[..., 2, 3] += 0.06
        yield render(*posed, camera, background=torch.tensor(BACKGROUND)).rgb[0, 0]


def main(argv: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--n", type=int, default=12, help="number of characters")
    parser.add_argument("--every", help="show all values of one attribute instead")
    parser.add_argument("--single", action="store_true", help="one picture of each")
    parser.add_argument("--size", type=int, default=160, help="pixels per picture")
    parser.add_argument("--across", type=int, default=1, help="characters side by side")
    parser.add_argument("--splats", type=int, default=24000)
    parser.add_argument("--head", type=Path, help="default: load/flame/open_head.npz")
    parser.add_argument("--out", type=Path, default=Path("characters.png"))
    arguments = parser.parse_args(argv)
    try:
        head = HeadModel.load(arguments.head or find_asset("flame/open_head.npz"))
        characters = chosen(arguments.seed, arguments.n, arguments.every)
        with torch.no_grad():
            draw = portraits if arguments.single else pictures
            rows = list(draw(head, characters, arguments.size, arguments.splats))
    except HeadStudioError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    rng = np.random.default_rng(arguments.seed)
    for character in characters:
        print(caption(character, rng))
    rows += [torch.ones_like(rows[0])] * (-len(rows) % arguments.across)
    lines = [
        torch.cat(rows[i : i + arguments.across], 1) for i in range(0, len(rows), arguments.across)
    ]
    sheet = (torch.cat(lines).clamp(0, 1) * 255).round().byte().numpy()
    with atomic_write(arguments.out) as path:
        cv2.imwrite(str(path), sheet[..., ::-1])
    print(arguments.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
