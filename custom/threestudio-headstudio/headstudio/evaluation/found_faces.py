"""Whether a face detector finds the faces of a benchmark's avatars: ``headstudio bench faces``.

It looks at a folder of results afterwards, since the detector lives in an environment of its own.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from headstudio.characters import option
from headstudio.errors import HeadStudioError
from headstudio.evaluation.faces import look
from headstudio.evaluation.folders import read_json, write_json
from headstudio.evaluation.stage import Figure
from headstudio.evaluation.wild import EXPRESSIONS, Views, fronts
from headstudio.flame import HeadModel
from headstudio.splats import load_avatar

FACES = "faces.json"
Say = Callable[[str], None]


def find_faces(
    folder: Path,
    head: HeadModel,
    detector: Callable[[Tensor], list[Tensor | None]],
    views: Views,
    say: Say = print,
) -> dict[str, Any]:
    """Ask a detector of every compared avatar of a folder, and write ``faces.json`` into it.

    Args:
        folder: of ``headstudio bench closed-world``.
        head: that its avatars ride on.
        detector: a :class:`headstudio.evaluation.faces.FaceDetector`.
        views: how the avatars are looked at; see :func:`headstudio.evaluation.wild.fronts`.
        say: takes a line for each avatar.

    Returns:
        The report: ``size``, ``summary`` by group (each kind of prompt, ``human-coloured``,
        ``all``), and ``avatars``, each with ``rate`` and ``error`` as
        :func:`headstudio.evaluation.faces.compare` gives them, and of each expression.

    Raises:
        HeadStudioError: no results, or results whose avatar is gone.
    """
    avatars = []
    for path, result in compared(folder):
        figure = Figure.of_avatar(load_avatar(path, head), head)
        found = look(fronts(figure, views, EXPRESSIONS), detector)
        about = {"id": result["id"], "seed": result["seed"], "kind": result["kind"]}
        about["human_coloured"] = is_human_coloured(result["asked"]["character"])
        avatars.append({**about, **found})
        say(f"{path.stem}: a face in {found['rate']:.0%} of {found['pictures']} pictures")
    report = {"size": views.size, "summary": summary(avatars), "avatars": avatars}
    write_json(folder / FACES, report)
    return report


def compared(folder: Path) -> list[tuple[Path, dict[str, Any]]]:
    """Avatar file and result of each avatar of a folder that was compared, by name."""
    results = sorted((folder / "results").glob("*.json"))
    if not results:
        raise HeadStudioError(
            f"{folder} has no results of an avatar (results/*.json); give a folder of "
            "`headstudio bench closed-world`."
        )
    found = []
    for path in results:
        avatar = folder / "avatars" / f"{path.stem}.ply"
        if not avatar.is_file():
            raise HeadStudioError(
                f"{avatar} is gone; remove {path.name} and let `headstudio bench closed-world` "
                "make both anew."
            )
        found.append((avatar, read_json(path)))
    return found


def is_human_coloured(character: Mapping[str, Any]) -> bool:
    """Whether a result's character has skin as ordinary people have it, not painted over, and
    eyes and a mouth that can be seen."""
    return (
        option("skin", character["skin"]).natural > 0
        and character["paint"] == "none"
        and character["glasses"] != "sunglasses"
        and character["lips"] != "none"
    )


def summary(avatars: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """By group: how many ``avatars`` and ``pictures``, the ``rate`` of pictures with a face, the
    same of the ``neutral`` ones, and the mean ``error`` (None if no face was found)."""
    kinds = dict.fromkeys(one["kind"] for one in avatars)
    groups = {kind: [one for one in avatars if one["kind"] == kind] for kind in kinds}
    groups["human-coloured"] = [one for one in avatars if one["human_coloured"]]
    groups["all"] = list(avatars)
    return {name: _means(group) for name, group in groups.items() if group}


def _means(group: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    errors = [one["error"] for one in group if one["error"] is not None]
    pictures = sum(one["pictures"] for one in group)
    return {
        "avatars": len(group),
        "pictures": pictures,
        "rate": sum(one["rate"] * one["pictures"] for one in group) / pictures,
        "neutral": statistics.fmean(one["expressions"]["neutral"]["rate"] for one in group),
        "error": statistics.fmean(errors) if errors else None,
    }


def faces_table(groups: Mapping[str, Mapping[str, Any]]) -> str:
    """:func:`summary` in Markdown."""
    lines = [
        "| avatars | | pictures | face found | at rest | landmark error |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, one in groups.items():
        error = "–" if one["error"] is None else f"{one['error']:.1%}"
        lines.append(
            f"| {name} | {one['avatars']} | {one['pictures']} | {one['rate']:.0%} "
            f"| {one['neutral']:.0%} | {error} |"
        )
    return "\n".join(lines)
