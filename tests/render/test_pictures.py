"""Pictures put together for the eye."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from headstudio.errors import HeadStudioError
from headstudio.render.pictures import (
    grid_columns,
    label_strip,
    over,
    parse_color,
    save_png,
    tile,
    to_bytes,
    with_corner,
)


def test_colours_by_name_and_number():
    assert parse_color("white") == (1, 1, 1)
    assert parse_color(" #FF0000 ") == (1, 0, 0)
    assert parse_color("#0f0") == (0, 1, 0)
    assert parse_color("rgb(0, 51, 255)") == (0, 0.2, 1)
    with pytest.raises(HeadStudioError, match="did you mean 'skyblue'"):
        parse_color("skyblu")
    with pytest.raises(HeadStudioError, match="not a colour"):
        parse_color("#12")
    for wrong in (
        "rgb(300, 0, 0)",
        "rgb(200%, 0%, 0%)",
        "hsl(0, 100%, 200%)",
        "hsv(0, 100%, 300%)",
    ):
        with pytest.raises(HeadStudioError, match=r"its red, .* expected 0 to 255"):
            parse_color(wrong)


def test_a_grid_is_filled_row_by_row():
    cells = [torch.full((2, 3, 4, 3), float(n)) for n in range(5)]
    grid = tile(cells, 2, (9.0, 9.0, 9.0))
    assert grid.shape == (2, 9, 8, 3)
    for n in range(6):
        row, column = divmod(n, 2)
        part = grid[:, 3 * row : 3 * row + 3, 4 * column : 4 * column + 4]
        assert torch.all(part == (n if n < 5 else 9))


@pytest.mark.parametrize(
    ("count", "width", "height", "columns"),
    [
        (1, 10, 10, 1),
        (2, 10, 10, 2),
        (4, 10, 10, 2),
        (6, 10, 10, 3),
        (2, 30, 10, 1),
        (3, 30, 10, 1),
    ],
)
def test_a_grid_is_about_as_wide_as_a_screen(count, width, height, columns):
    assert grid_columns(count, width, height) == columns


def test_a_corner_is_the_lower_right():
    pictures = torch.zeros(1, 4, 6, 3)
    seen = with_corner(pictures, torch.ones(1, 2, 3, 3))
    assert float(pictures.sum()) == 0
    assert torch.all(seen[:, 2:, 3:] == 1)
    assert float(seen.sum()) == 2 * 3 * 3


def test_words_stay_inside_and_at_the_bottom():
    for text in ("x", "a man with a beard " * 20, "one" * 100, ""):
        strip = label_strip(text, 100, 140)
        assert strip.shape == (100, 140, 4)
        assert float(strip[:60].abs().sum()) == 0
    # There is room at both sides of a short word.
    white = label_strip("word", 100, 200)[..., 0] > 0.9
    columns = white.any(0).nonzero()
    assert 60 < int(columns.min()) < int(columns.max()) < 140


def test_one_picture_over_another():
    overlay = torch.tensor([1.0, 0.0, 0.0, 0.25]).expand(2, 2, 4)
    below = torch.tensor([0.0, 1.0, 0.0]).expand(3, 2, 2, 3)
    mixed = torch.tensor([0.25, 0.75, 0.0])
    assert torch.allclose(over(below, overlay), mixed.expand(3, 2, 2, 3))
    opaque = torch.tensor([0.0, 1.0, 0.0, 1.0]).expand(3, 2, 2, 4)
    expected = torch.tensor([0.25, 0.75, 0.0, 1.0])
    assert torch.allclose(over(opaque, overlay), expected.expand(3, 2, 2, 4))
    nothing = torch.zeros(1, 2, 2, 4)
    assert torch.allclose(over(nothing, overlay), overlay[None])


@pytest.mark.parametrize("channels", [3, 4])
def test_a_png_is_read_back_as_it_was(tmp_path, channels):
    picture = torch.rand(5, 7, channels, generator=torch.Generator().manual_seed(0))
    save_png(tmp_path / "a.png", picture)
    with Image.open(tmp_path / "a.png") as image:
        assert image.mode == ("RGB" if channels == 3 else "RGBA")
        assert image.size == (7, 5)
        assert image.tobytes() == to_bytes(picture).tobytes()
