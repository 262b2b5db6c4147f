"""``headstudio bench ablations``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from headstudio.app import bench
from headstudio.paths import atomic_write

_DOCS_CELL = 96  # pixels of each view in the page's picture


def run_ablations(args: argparse.Namespace) -> int:
    """Run the benchmark for the configuration as it is, then with each change."""
    from headstudio.evaluation.ablations import (
        WHOLE,
        check_page,
        check_settings,
        load_ablations,
        picture,
        write_between,
    )
    from headstudio.evaluation.summary import table
    from headstudio.evaluation.training import read_settings
    from headstudio.render.pictures import save_png

    if args.docs is not None:
        check_page(args.docs)  # now, not after hours
    ablations = load_ablations(bench.ABLATIONS, args.only)
    check_settings(ablations, args.set)
    prompts = bench.chosen_prompts(args)
    jobs = bench.make_jobs(prompts, [args.seed])
    config = read_settings(args.config)

    reports: dict[str, dict[str, Any]] = {}
    pictures: dict[str, list[Path]] = {}
    variants: list[tuple[str, str, list[str]]] = [("whole", WHOLE, [])]
    # What changes nothing is not trained a second time.
    same = [one for one in ablations if not one.changes_anything(config)]
    for one in same:
        variants[0] = ("whole", f"{variants[0][1]} ({one.description})", [])
    variants += [
        (one.name, one.description, one.overrides()) for one in ablations if one not in same
    ]
    for name, description, overrides in variants:
        print(f"== {description}", flush=True)
        folder = args.out / name
        made = bench.make_bench(args, folder, overrides)
        reports[description] = made.run(jobs, force=args.force, say=bench._say)
        pictures[description] = [folder / "results" / f"{job.key}.png" for job in jobs]

        text = table({d: report["summary"] for d, report in reports.items()}, "variant")
        with atomic_write(args.out / "table.md") as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")
        with atomic_write(args.out / "ablations.json") as temporary:
            temporary.write_text(json.dumps(reports, indent=1, ensure_ascii=False) + "\n")
        save_png(args.out / "ablations.png", picture(pictures))
    print(text)
    if args.docs is not None:
        image = args.docs.parent / "images" / "ablations.png"
        save_png(image, picture(pictures, _DOCS_CELL))
        write_between(args.docs, _page(args, [prompt.id for prompt in prompts], text))
        print(f"{args.docs} and {image} are written")
    print(f"{args.out}/table.md, ablations.json, ablations.png")
    return 0


def _page(args: argparse.Namespace, prompts: list[str], text: str) -> str:
    """What stands between the markers: the command, the table, the picture."""
    words = [*args.prompts, *(["--set", *args.set] if args.set else [])]
    only = ["--only", *args.only] if args.only else []
    command = " ".join(["headstudio bench ablations", "--prompts", *words, *only])
    return "\n".join(
        [
            f"`{command} --seed {args.seed}`",
            f"with `{args.config.name}`; means over the prompts {', '.join(prompts)}.",
            "",
            text,
            "",
            "![Front and open jaw of every variant, a row each](images/ablations.png)",
        ]
    )
