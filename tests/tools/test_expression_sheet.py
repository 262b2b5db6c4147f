"""docs/animate.md says what is so."""

from __future__ import annotations

import argparse
import importlib
import re
import shlex

import pytest
from PIL import Image

from headstudio.app.animate.inputs import sample_motions
from headstudio.app.main import COMMANDS
from headstudio.motion import EXPRESSIONS, parse_script
from headstudio.render.camera_path import View, load_camera_path
from tools.expression_sheet import CELL, COLUMNS, DOCUMENT, SHEET, table, written

TEXT = DOCUMENT.read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", TEXT, flags=re.DOTALL)


def test_the_table_is_that_of_the_library():
    assert written(TEXT) == TEXT, "run python -m tools.expression_sheet"
    rows = table().splitlines()[2:]
    assert [row.split("`")[1] for row in rows] == list(EXPRESSIONS)
    assert "mouthSmile* 0.65" in rows[1]
    assert any("head 25° left" in row for row in rows)


def test_the_sheet_has_a_cell_for_every_expression():
    rows = -(-len(EXPRESSIONS) // COLUMNS)
    with Image.open(SHEET) as image:
        assert image.size == (CELL * COLUMNS, CELL * rows), "run python -m tools.expression_sheet"


def commands() -> list[str]:
    lines = [line for kind, text in BLOCKS if kind == "sh" for line in text.splitlines()]
    return [line for line in lines if line.startswith("headstudio ")]


@pytest.mark.parametrize("line", commands())
def test_every_command_can_be_typed(line):
    _, name, *words = shlex.split(line, comments=True)
    if "--list" in words:
        return
    parser = argparse.ArgumentParser()
    importlib.import_module(COMMANDS[name].module).add_arguments(parser)
    args = parser.parse_args(words)
    assert str(args.out)


def test_every_script_and_camera_in_it_is_understood(tmp_path):
    scripts = next(text for kind, text in BLOCKS if kind == "" and "smile" in text)
    steps = [parse_script(re.split(r"\s{3,}", line)[0]) for line in scripts.splitlines()]
    assert [len(step) for step in steps] == [1, 3, 3]
    camera = next(text for kind, text in BLOCKS if kind == "json")
    (tmp_path / "camera.json").write_text(camera)
    assert load_camera_path(tmp_path / "camera.json", View()).seconds == (0, 2, 4)


def test_the_sample_motions_are_named():
    for name in sample_motions():
        assert f"`{name}`" in TEXT
