"""Does a prior draw the colours that a caption names, and the mouths and lids that it is shown?

Each caption is about a held-out character that can be rendered. A sample is drawn under the control
image of the character's pose; colours are read from the character's own regions as the closed-world
benchmark reads them. A folder of results holds

    settings.json                  what all results have in common; others are not mixed in
    samples/<index>-g<scale>.png   what the prior drew; what is there is not drawn again
    results/<index>.json, .png     figures and pictures of one caption
    results.json  table.md  sheet.png   everything so far
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from headstudio.characters import BACKGROUND, Character, CharacterStudio
from headstudio.characters.anatomy import LIPS_INNER, LIPS_OUTER, SIDES
from headstudio.errors import HeadStudioError
from headstudio.evaluation.captions import Described, control_of, describe
from headstudio.evaluation.closed_world import Say
from headstudio.evaluation.folders import claim, read_json, write_json
from headstudio.evaluation.openings import EYES, Interior, area, open_share, outline
from headstudio.evaluation.regions import label, label_pixels, label_splats, one_hot
from headstudio.evaluation.sample_summary import (
    AUTOENCODER,
    RENDERED,
    SHOWN,
    colours_share,
    reading,
    sheet,
    sheet_row,
    summarise,
    table,
)
from headstudio.evaluation.score import read_colours
from headstudio.evaluation.stage import Figure, Stage, bench_poses, landmark_pixels
from headstudio.evaluation.truth import MIN_PIXELS, interior_colours, palette
from headstudio.guidance.prior import DiffusionPrior
from headstudio.guidance.sampling import sample
from headstudio.motion import Motion
from headstudio.paths import atomic_write
from headstudio.render.pictures import save_png

FORMAT = 2  # of the results; raised when a figure's definition changes
AT_ONCE = 8  # captions that are sampled in one pass


@dataclass
class View:
    """A described character as it is; H by W pixels, all on the CPU."""

    described: Described
    rgb: Tensor  # [H, W, 3]
    control: Tensor  # [H, W, 3]
    control_weight: float
    labels: Tensor  # [H, W]
    palettes: dict[str, dict[str, Tensor]]  # region -> named colour -> how it would look, [3]
    lips: Tensor | None = None  # [n, 2] the outline in pixels; None where it is not judged
    lids: tuple[Tensor, ...] = ()  # [n, 2] of each eye that is judged, as it is without a blink
    driven: dict[str, float | None] = field(default_factory=lambda: {"mouth": None, "lids": None})
    interior: Interior = field(default_factory=lambda: Interior(*torch.zeros(2, 0, 3)))


def show_view(
    described: Described, control: tuple[Tensor, Tensor], studio: CharacterStudio
) -> View:
    """Take the picture of a described character and find out what it shows where.

    Args:
        described: who, from where, in which pose.
        control: its control image ``[H, W, 3]`` and the weight of that.
        studio: of the head.
    """
    character = described.character
    shown = _shown(character, described, studio)
    labels = shown.labels
    if "hair" in described.named and not described.hair_style_told:
        # Where there would be hair however it is worn, but for shaved sides.
        cropped = _shown(replace(character, hair_style="buzz cut"), described, studio)
        labels[(labels == label("hair")) & (cropped.labels != label("hair"))] = label("other")
    view = View(
        described=described,
        rgb=shown.rgb,
        control=control[0].cpu(),
        control_weight=float(control[1]),
        labels=labels[0],
        palettes={},
    )
    for region in described.named:
        mask = labels == label(region)
        if int(mask.sum()) >= MIN_PIXELS:
            view.palettes[region] = palette(
                character, region, mask, studio, shown.vertices, described.cameras, BACKGROUND
            )
    if described.view == "front" and view.control_weight > 0:
        _find_openings(view, shown)
    return view


@dataclass
class _Shown:
    """A character in a described pose, seen by the described camera."""

    figure: Figure
    vertices: Tensor  # [1, V, 3] in the world
    hot: Tensor  # [N, len(LABELS)], the labels of its splats
    rgb: Tensor  # [H, W, 3]
    labels: Tensor  # [1, H, W]


def _shown(character: Character, described: Described, studio: CharacterStudio) -> _Shown:
    figure = Figure.of_character(character, studio)
    vertices = figure.vertices(described.params)
    hot = one_hot(label_splats(studio, character))
    out = figure.render(vertices, described.cameras, BACKGROUND, features=hot)
    assert out.features is not None
    labels = label_pixels(out.features[0], out.alpha[0]).cpu()
    return _Shown(figure, vertices, hot, out.rgb[0, 0].cpu(), labels)


def _find_openings(view: View, shown: _Shown) -> None:
    """Where the view's mouth and eyes are, how far they are driven open, what shows through.

    What is not wholly in the picture is not judged.
    """
    described, figure, head = view.described, shown.figure, shown.figure.head
    size = len(view.rgb)
    params = described.params
    awake = params.replace(expression=torch.zeros_like(params.expression))
    posed = landmark_pixels(head, shown.vertices, described.cameras)
    at_rest = landmark_pixels(head, figure.vertices(awake), described.cameras)
    lips = outline(posed, LIPS_OUTER, 0)
    if _within(lips, size):
        view.lips = lips
        view.driven["mouth"] = area(outline(posed, LIPS_INNER, 0)) / max(area(lips), 1.0)
    rims = [(outline(at_rest, EYES[side], 0), outline(posed, EYES[side], 0)) for side in SIDES]
    rims = [(rest, now) for rest, now in rims if _within(rest, size)]
    view.lids = tuple(rest for rest, _ in rims)
    if rims:
        whole = sum(area(rest) for rest, _ in rims)
        view.driven["lids"] = sum(area(now) for _, now in rims) / max(whole, 1.0)
    poses = figure.vertices(bench_poses(head))
    view.interior = interior_colours(figure, poses, shown.hot, Stage(size=size))


def _within(polygon: Tensor, size: int) -> bool:
    return bool(((polygon >= 0) & (polygon <= size)).all())


def opened(picture: Tensor, view: View) -> dict[str, float | None]:
    """How far mouth and lids are open in a picture ``[H, W, 3]`` of a view's pose, 0..1; None
    where that is not judged or cannot be told."""
    mouth, lips = None, view.labels == label("lips")
    if view.lips is not None:
        mouth = open_share(picture, view.lips, view.interior.mouth, lips)
    eyes = [open_share(picture, lid, view.interior.eyes) for lid in view.lids]
    seen = [one for one in eyes if one is not None]
    return {"mouth": mouth, "lids": sum(seen) / len(seen) if seen else None}


def measure(picture: Tensor, view: View) -> dict[str, Any]:
    """The colours that are read from a picture ``[H, W, 3]``, and how far it opens."""
    colours = read_colours(picture, view.labels, view.palettes, view.described.named)
    return {"colours": colours, "opened": opened(picture, view)}


def _load_picture(path: Path) -> Tensor:
    """A PNG as ``[H, W, 3]`` in 0..1."""
    try:
        with Image.open(path) as image:
            return torch.from_numpy(np.array(image.convert("RGB"))).float() / 255
    except (OSError, ValueError) as error:
        raise HeadStudioError(f"{path} cannot be read ({error}); remove it to go on.") from error


def _line(report: dict[str, Any], guidances: Sequence[float]) -> str:
    """What is known so far."""
    shares = [
        f"{colours_share(report['summary'][f'{g:g}'])} at guidance {g:g}" for g in sorted(guidances)
    ]
    return f"{report['finished']} of {report['of']} captions: {', '.join(shares)}"


@dataclass
class PriorBench:
    """What all captions are drawn and measured with."""

    folder: Path
    prior: DiffusionPrior
    studio: CharacterStudio
    motions: Sequence[Motion]
    seed: int
    steps: int
    settings: dict[str, Any]  # what else makes results comparable

    def run(
        self, captions: int, guidances: Sequence[float], force: bool = False, say: Say = print
    ) -> dict[str, Any]:
        """Draw and measure what is not there yet; returns the report, as in ``results.json``.

        Args:
            captions: how many.
            guidances: scales of classifier-free guidance, a sample each.
            force: make all anew.
            say: takes a line for each step.

        Raises:
            HeadStudioError: the folder holds results of other settings.
        """
        self._claim(force)
        for start in range(0, captions, AT_ONCE):
            chunk = range(start, min(start + AT_ONCE, captions))
            if all(self._finished(index, guidances) for index in chunk):
                continue
            self._do(chunk, guidances)
            report = self._report(range(captions), guidances)
            say(_line(report, guidances))
        return self._report(range(captions), guidances)

    # --- files --------------------------------------------------------------------------------

    def _sample(self, index: int, guidance: float) -> Path:
        return self.folder / "samples" / f"{index:04d}-g{guidance:g}.png"

    def _result(self, index: int) -> Path:
        return self.folder / "results" / f"{index:04d}.json"

    def _claim(self, force: bool) -> None:
        """Check that what the folder holds was made with these settings."""
        settings = {"format": FORMAT, "seed": self.seed, "steps": self.steps, **self.settings}
        claim(self.folder, settings, ("samples", "results"), force)

    def _finished(self, index: int, guidances: Sequence[float]) -> bool:
        path = self._result(index)
        if not path.exists() or not path.with_suffix(".png").exists():
            return False
        return {f"{g:g}" for g in guidances} <= set(read_json(path)["figures"])

    # --- work ---------------------------------------------------------------------------------

    def _do(self, chunk: range, guidances: Sequence[float]) -> None:
        head, size = self.studio.head, self.prior.image_size
        described = [describe(i, self.seed, head, size, self.motions) for i in chunk]
        controls = [self._control(one) for one in described]
        for guidance in guidances:
            if not all(self._sample(i, guidance).exists() for i in chunk):
                self._draw(described, controls, guidance)
        for one, control in zip(described, controls, strict=True):
            if not self._finished(one.index, guidances):
                self._measure(show_view(one, control, self.studio), guidances)

    def _control(self, described: Described) -> tuple[Tensor, Tensor]:
        figure = Figure.of_character(described.character, self.studio)
        return control_of(described, figure.head, figure.vertices(described.params))

    def _draw(
        self, described: list[Described], controls: list[tuple[Tensor, Tensor]], guidance: float
    ) -> None:
        pictures = sample(
            self.prior,
            [one.caption for one in described],
            torch.stack([image for image, _ in controls]),
            control_weight=torch.stack([weight for _, weight in controls]),
            steps=self.steps,
            guidance_scale=guidance,
            seed=self.seed + described[0].index,
        )
        for one, picture in zip(described, pictures.cpu(), strict=True):
            save_png(self._sample(one.index, guidance), picture)

    def _measure(self, view: View, guidances: Sequence[float]) -> None:
        """Write the figures and the row of pictures of one caption."""
        index, described = view.described.index, view.described
        drawn = {f"{g:g}": self._sample(index, g) for g in sorted(guidances)}
        pictures = {name: _load_picture(path) for name, path in drawn.items()}
        with torch.no_grad():
            rebuilt = self.prior.decode(self.prior.encode(view.rgb[None].to(self.prior.device)))
        seen = {**pictures, AUTOENCODER: rebuilt[0].cpu(), RENDERED: view.rgb}
        figures = {name: measure(picture, view) for name, picture in seen.items()}
        words = [described.caption, *(reading(name, figures[name]) for name in pictures)]
        row = sheet_row(words, [view.control, *pictures.values(), view.rgb])
        save_png(self._result(index).with_suffix(".png"), row)
        record = {
            "index": index,
            "view": described.view,
            **described.record(),
            "control_weight": view.control_weight,
            "driven": view.driven,
            "figures": figures,
        }
        write_json(self._result(index), record)

    def _report(self, captions: Sequence[int], guidances: Sequence[float]) -> dict[str, Any]:
        """Write what is finished as one JSON, one table and one sheet."""
        finished = [index for index in captions if self._finished(index, guidances)]
        results = [read_json(self._result(index)) for index in finished]
        names = [f"{g:g}" for g in sorted(guidances)] + [AUTOENCODER, RENDERED]
        summary = {name: summarise(results, name) for name in names}
        report = {
            "settings": read_json(self.folder / "settings.json"),
            "finished": len(finished),
            "of": len(captions),
            "summary": summary,
            "results": results,
        }
        write_json(self.folder / "results.json", report)
        if finished:
            with atomic_write(self.folder / "table.md") as temporary:
                temporary.write_text(table(summary) + "\n", encoding="utf-8")
            spread = np.linspace(0, len(finished), min(SHOWN, len(finished)), endpoint=False)
            rows = [
                _load_picture(self._result(finished[int(at)]).with_suffix(".png")) for at in spread
            ]
            save_png(self.folder / "sheet.png", sheet(rows))
        return report
