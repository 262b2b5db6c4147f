"""``headstudio bench faces``."""

from __future__ import annotations

import argparse

from headstudio.app import bench


def run_faces(args: argparse.Namespace) -> int:
    """Ask the face detector of every avatar in a folder of the closed-world benchmark."""
    from headstudio.app.animate.inputs import choose_device
    from headstudio.app.player import DEFAULT_HEAD
    from headstudio.evaluation.faces import FaceDetector
    from headstudio.evaluation.found_faces import FACES, compared, faces_table, find_faces
    from headstudio.evaluation.wild import Views
    from headstudio.flame import HeadModel
    from headstudio.paths import find_asset

    compared(args.folder)  # before anything is loaded
    head = HeadModel.load(find_asset(DEFAULT_HEAD)).to(choose_device(args.device))
    with FaceDetector() as detector:
        report = find_faces(args.folder, head, detector, Views(size=args.size), bench._say)
    print(faces_table(report["summary"]))
    print(args.folder / FACES)
    return 0
