"""The closed-world benchmark: train, compare, write down; goes on where it was stopped.

A folder of results holds

    settings.json            what all results have in common; others are not mixed in
    runs/<id>-s<seed>/       the training's own folder and log
    avatars/<id>-s<seed>.ply the avatar; one that is there is compared, not trained again
    avatars/<id>-s<seed>.json   what it was trained for, if it was trained here
    results/<id>-s<seed>.json, .png   figures and pictures of one avatar
    results.json  table.md  sheet.png   everything so far
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from headstudio.characters import CharacterStudio
from headstudio.evaluation.folders import claim, read_json, write_json
from headstudio.evaluation.likeness import PerceptualDistance
from headstudio.evaluation.score import score
from headstudio.evaluation.stage import Figure, Stage
from headstudio.evaluation.suite import Prompt
from headstudio.evaluation.summary import benchmark_table, contact_row, summarise
from headstudio.evaluation.training import Trainer
from headstudio.evaluation.truth import Truth, show_truth
from headstudio.motion import Motion
from headstudio.paths import atomic_write
from headstudio.render.pictures import save_png
from headstudio.splats import load_avatar

FORMAT = 1  # of the results; raised when a figure's definition changes
Say = Callable[[str], None]


@dataclass
class Job:
    """One avatar of the benchmark."""

    prompt: Prompt
    seed: int

    @property
    def key(self) -> str:
        """Names its files."""
        return f"{self.prompt.id}-s{self.seed}"


@dataclass
class Bench:
    """What all avatars of a benchmark are made and compared with."""

    folder: Path
    trainer: Trainer
    studio: CharacterStudio
    stage: Stage
    talk: Motion
    perceptual: PerceptualDistance
    settings: dict[str, Any]

    def run(self, jobs: Sequence[Job], force: bool = False, say: Say = print) -> dict[str, Any]:
        """Make and compare what is not there yet; returns the report, as in ``results.json``.

        Args:
            jobs: the avatars, in the order of the report.
            force: make all anew.
            say: takes a line for each step.

        Raises:
            HeadStudioError: the folder holds results of other settings; a training failed. What
                was finished before stays.
        """
        self._claim(force)
        for job in jobs:
            self._drop_stale(job)
        todo = [job for job in jobs if not self._finished(job)]
        if len(todo) < len(jobs):
            say(f"{len(jobs) - len(todo)} of {len(jobs)} avatars are finished already")
        truths: dict[str, Truth] = {}
        with self._trained(todo, say) as trained:
            for job in trained:
                if job.prompt.id not in truths:
                    # One at a time: the pictures of all would fill the memory.
                    truths = {job.prompt.id: self._truth(job.prompt)}
                self._compare(job, truths[job.prompt.id])
                self._report(jobs)
                say(self._line(job))
        return self._report(jobs)

    # --- files --------------------------------------------------------------------------------

    def _avatar(self, job: Job) -> Path:
        return self.folder / "avatars" / f"{job.key}.ply"

    def _record(self, job: Job) -> Path:
        return self._avatar(job).with_suffix(".json")

    def _result(self, job: Job) -> Path:
        return self.folder / "results" / f"{job.key}.json"

    def _sheet(self, job: Job) -> Path:
        return self.folder / "results" / f"{job.key}.png"

    def _claim(self, force: bool) -> None:
        """Check that what the folder holds was made with these settings."""
        settings = {"format": FORMAT, **self.settings, "stage": asdict(self.stage)}
        claim(self.folder, settings, ("avatars", "results"), force, scratch=("runs",))

    def _drop_stale(self, job: Job) -> None:
        """Remove what was made for another sentence or character of the same name.

        An avatar that somebody put there has no record: until it has figures, it is compared with
        whoever is asked for.
        """
        files = [self._avatar(job), self._record(job), self._result(job)]
        made_for = [read_json(file).get("asked") for file in files[1:] if file.exists()]
        if any(asked != job.prompt.record() for asked in made_for):
            for file in files:
                file.unlink(missing_ok=True)

    def _finished(self, job: Job) -> bool:
        return self._result(job).exists() and self._sheet(job).exists()

    # --- work ---------------------------------------------------------------------------------

    @contextmanager
    def _trained(self, jobs: Sequence[Job], say: Say) -> Iterator[Iterator[Job]]:
        """The jobs as their avatars become ready; ends the trainings if the block fails."""
        there = [job for job in jobs if self._avatar(job).exists()]

        def train(job: Job) -> None:
            say(f"{job.key}: training, {job.prompt.prompt!r}")
            run = self.folder / "runs" / job.key
            self.trainer.train(job.prompt.prompt, job.seed, run, self._avatar(job))
            write_json(self._record(job), {"asked": job.prompt.record()})

        executor = ThreadPoolExecutor(max_workers=self.trainer.jobs)
        futures = {executor.submit(train, job): job for job in jobs if job not in there}

        def in_order() -> Iterator[Job]:
            yield from there
            for future in as_completed(futures):
                future.result()
                yield futures[future]

        try:
            yield in_order()
        except BaseException:
            self.trainer.stop()
            raise
        finally:
            executor.shutdown(wait=True, cancel_futures=True)

    def _truth(self, prompt: Prompt) -> Truth:
        return show_truth(prompt.character, prompt.named, self.studio, self.stage)

    def _compare(self, job: Job, truth: Truth) -> None:
        head = self.studio.head
        figure = Figure.of_avatar(load_avatar(self._avatar(job), head), head)
        scored = score(figure, truth, job.prompt.named, self.stage, self.talk, self.perceptual)
        row = contact_row(job.prompt.prompt, scored.rgb, truth.rgb)
        save_png(self._sheet(job), row)
        write_json(
            self._result(job),
            {
                "id": job.prompt.id,
                "kind": job.prompt.kind,
                "seed": job.seed,
                "asked": job.prompt.record(),
                "splats": figure.splats.n,
                "figures": scored.figures,
            },
        )

    def _report(self, jobs: Sequence[Job]) -> dict[str, Any]:
        """Write what is finished of the jobs as one JSON, one table and one sheet."""
        finished = [job for job in jobs if self._finished(job)]
        results = [read_json(self._result(job)) for job in finished]
        report = {
            "settings": read_json(self.folder / "settings.json"),
            "finished": len(finished),
            "of": len(jobs),
            "summary": summarise(results),
            "results": results,
        }
        write_json(self.folder / "results.json", report)
        if finished:
            with atomic_write(self.folder / "table.md") as temporary:
                temporary.write_text(benchmark_table(results) + "\n", encoding="utf-8")
            rows = [np.asarray(Image.open(self._sheet(job)).convert("RGB")) for job in finished]
            save_png(self.folder / "sheet.png", np.concatenate(rows))
        return report

    def _line(self, job: Job) -> str:
        figures = read_json(self._result(job))["figures"]
        read = [one for one in figures["colours"].values() if one is not None]
        right, talk = sum(one["right"] for one in read), figures["talk"]["ours"]
        return f"{job.key}: {right} of {len(read)} colours right, PSNR {figures['psnr']:.1f} dB" + (
            "" if talk is None else f", talk {talk:.2f}"
        )


def fingerprint(path: Path) -> str:
    """SHA-256 of a file, or of all files of a folder by name and content, but for pages of text:
    what is written about a prior changes no result."""
    digest = hashlib.sha256()
    inside = (p for p in path.rglob("*") if p.is_file() and p.suffix != ".md")
    files = [path] if path.is_file() else sorted(inside)
    for file in files:
        digest.update(str(file.relative_to(path)).encode())
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()
