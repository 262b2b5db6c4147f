"""Folders of results: nothing in them is of other settings than the rest."""

from __future__ import annotations

from pathlib import Path

import pytest

from headstudio.errors import HeadStudioError
from headstudio.evaluation.folders import claim, read_json

PARTS, SCRATCH = ("avatars", "results"), ("runs",)


def put(folder: Path, part: str) -> Path:
    """A file in one of the folder's folders."""
    file = folder / part / "one"
    file.parent.mkdir(exist_ok=True)
    file.write_text("x")
    return file


@pytest.mark.parametrize("part", PARTS)
def test_whatever_part_still_holds_a_result_is_not_mixed_with_others(
    part: str, tmp_path: Path
) -> None:
    """Such as figures whose avatars were removed to save space."""
    claim(tmp_path, {"steps": 1}, PARTS, force=False, scratch=SCRATCH)
    file = put(tmp_path, part)
    with pytest.raises(HeadStudioError, match=r"other settings \(steps\)"):
        claim(tmp_path, {"steps": 2}, PARTS, force=False, scratch=SCRATCH)
    assert read_json(tmp_path / "settings.json") == {"steps": 1}
    claim(tmp_path, {"steps": 1}, PARTS, force=False, scratch=SCRATCH)
    assert file.exists()


def test_what_a_failed_attempt_leaves_is_no_result(tmp_path: Path) -> None:
    claim(tmp_path, {"steps": 1}, PARTS, force=False, scratch=SCRATCH)
    put(tmp_path, "runs")
    claim(tmp_path, {"steps": 2}, PARTS, force=False, scratch=SCRATCH)
    assert read_json(tmp_path / "settings.json") == {"steps": 2}


def test_force_removes_results_and_work_under_way(tmp_path: Path) -> None:
    claim(tmp_path, {"steps": 1}, PARTS, force=False, scratch=SCRATCH)
    files = [put(tmp_path, part) for part in (*PARTS, *SCRATCH)]
    claim(tmp_path, {"steps": 2}, PARTS, force=True, scratch=SCRATCH)
    assert not any(file.exists() for file in files)
    assert read_json(tmp_path / "settings.json") == {"steps": 2}
