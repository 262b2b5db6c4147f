"""``headstudio bench prior``."""

from __future__ import annotations

import argparse

from headstudio.app import bench


def run_prior(args: argparse.Namespace) -> int:
    """Draw samples, measure them, print the table."""
    from headstudio.app.animate.inputs import choose_device
    from headstudio.app.player import DEFAULT_HEAD
    from headstudio.characters import studio_for
    from headstudio.evaluation.closed_world import fingerprint
    from headstudio.evaluation.sample_summary import table
    from headstudio.evaluation.samples import PriorBench
    from headstudio.flame import HeadModel
    from headstudio.guidance.prior import DiffusionPrior
    from headstudio.motion import load_motion
    from headstudio.paths import find_asset

    device = str(choose_device(args.device))
    folder = find_asset("prior") if args.prior is None else args.prior
    # Before anything is hashed: what is missing in a folder is said here.
    prior = DiffusionPrior.from_pretrained(folder, device=device)
    head = HeadModel.load(find_asset(DEFAULT_HEAD)).to(device)
    motions = sorted(find_asset("motion").glob("*.npz"))
    settings = {
        "head": head.content_hash,
        "prior": fingerprint(folder),
        "motions": [path.name for path in motions],
        "device": "cpu" if device == "cpu" else "cuda",
    }
    made = PriorBench(
        folder=args.out,
        prior=prior,
        studio=studio_for(head),
        motions=[load_motion(path) for path in motions],
        seed=args.seed,
        steps=args.steps,
        settings=settings,
    )
    guidances = list(dict.fromkeys(args.guidance))
    report = made.run(args.captions, guidances, force=args.force, say=bench._say)
    print(table(report["summary"]))
    print(f"{args.out}/results.json, table.md, sheet.png")
    return 0
