"""Document the named expressions: the table of docs/animate.md, and a sheet of pictures.

python -m tools.expression_sheet            # writes docs/animate.md's table and the pictures
python -m tools.expression_sheet --avatar avatar.ply --out sheet.png   # of another avatar
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch
from PIL import Image

from headstudio.app.player import Player
from headstudio.app.sample import write_sample
from headstudio.flame import FlameParams, HeadModel
from headstudio.motion import EXPRESSIONS, expression_pose
from headstudio.motion.expression_table import Expression
from headstudio.paths import REPOSITORY, atomic_write, find_asset
from headstudio.render import Cameras
from headstudio.render.pictures import label_strip, over, tile, to_bytes

DOCUMENT = REPOSITORY / "docs" / "animate.md"
SHEET = REPOSITORY / "docs" / "images" / "expressions.png"
BEGIN, END = "<!-- expressions: begin -->", "<!-- expressions: end -->"
SEED, ATTRIBUTES = 12, {"archetype": "person", "glasses": "none", "lips": "red", "eyes": "blue"}
CELL, COLUMNS = 144, 9


def table() -> str:
    """The expressions as a table in Markdown."""
    rows = ["| group | name | also | what moves, at full intensity |", "|---|---|---|---|"]
    for expression in EXPRESSIONS.values():
        others = ", ".join(expression.aliases)
        rows.append(
            f"| {expression.group} | `{expression.name}` | {others} | {_moves(expression)} |"
        )
    return "\n".join(rows)


def _moves(expression: Expression) -> str:
    """``mouthSmile* 0.65, head 5° down``; * stands for Left and Right alike."""
    parts = []
    actions = dict(expression.actions)
    for name, value in expression.actions.items():
        other = name.replace("Left", "Right")
        if name.endswith("Left") and actions.get(other) == value:
            parts.append(f"{name.removesuffix('Left')}* {value:g}")
            del actions[name], actions[other]
        elif name in actions:
            parts.append(f"{name} {value:g}")
    sides = (
        ("down", "up"),
        ("left", "right"),
        ("onto the right shoulder", "onto the left shoulder"),
    )
    for degrees, (positive, negative) in zip(expression.turn, sides, strict=True):
        if degrees:
            parts.append(f"head {abs(degrees):g}° {positive if degrees > 0 else negative}")
    if expression.gesture is not None:
        gesture = expression.gesture
        across = ("down and back", "left and right", "from side to side")[gesture.axis]
        parts.append(f"head {gesture.degrees:g}° {across}, {gesture.hertz:g} times a second")
    return ", ".join(parts) or "nothing"


def written(text: str) -> str:
    """A document with the table put between its marks."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


def draw(avatar: Path, out: Path) -> None:
    """Every expression on one avatar."""
    player = Player.open(avatar)
    poses = FlameParams.cat([expression_pose(name, player.head) for name in EXPRESSIONS])
    cameras = Cameras.orbit(0.0, 5.0, 2.1, 40.0, 2 * CELL, 2 * CELL)
    cells = []
    for n, name in enumerate(EXPRESSIONS):
        picture = player.render(poses[n], cameras, background=torch.ones(3)).rgb[0]
        picture = torch.nn.functional.avg_pool2d(picture.movedim(-1, 1), 2).movedim(1, -1)[0]
        cells.append(over(picture, label_strip(name, CELL, CELL)))
    sheet = Image.fromarray(to_bytes(tile(cells, COLUMNS, (1.0, 1.0, 1.0))))
    # A palette is a third of the size, and enough for a page.
    with atomic_write(out) as temporary:
        sheet.quantize(256, kmeans=4).save(temporary, format="PNG", optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--avatar", type=Path, help="(a sample avatar)")
    parser.add_argument(
        "--out", type=Path, default=SHEET, help=f"({SHEET.relative_to(REPOSITORY)})"
    )
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        avatar = args.avatar
        if avatar is None:
            avatar = Path(folder) / "avatar.ply"
            head = HeadModel.load(find_asset("flame/open_head.npz"))
            write_sample(avatar, head, SEED, ATTRIBUTES)
        draw(avatar, args.out)
    with atomic_write(DOCUMENT) as temporary:
        temporary.write_text(written(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
