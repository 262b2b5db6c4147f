"""A head, its characters and a stage, small enough for tests."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from headstudio.characters import Character, CharacterStudio, studio_for
from headstudio.evaluation.likeness import PerceptualDistance
from headstudio.evaluation.stage import Stage
from headstudio.evaluation.suite import FIRST_HELD_OUT_SEED, held_out_shape
from headstudio.evaluation.truth import Truth, show_truth
from headstudio.flame import HeadModel
from headstudio.motion import Motion, load_motion
from headstudio.paths import find_asset
from tests.fixtures.tiny_prior import make_tiny_prior

NAMED = {"skin": "tan", "hair": "red", "lips": "blue", "brows": "red", "beard": "white"}


@pytest.fixture(scope="session")
def studio() -> CharacterStudio:
    return studio_for(HeadModel.load(find_asset("flame/open_head.npz")), 6000)


@pytest.fixture(scope="session")
def stage() -> Stage:
    # Two of the eight azimuths, where everything that is measured can be seen.
    return Stage(size=128, azimuths_deg=(0.0, 60.0))


@pytest.fixture(scope="session")
def character() -> Character:
    return Character(
        gender="man",
        skin="tan",
        hair_style="short",
        hair_color="red",
        brow_color="red",
        beard="goatee",
        beard_color="white",
        lips="blue",
        shape=held_out_shape(FIRST_HELD_OUT_SEED),
        seed=FIRST_HELD_OUT_SEED,
    )


@pytest.fixture(scope="session")
def truth(character: Character, studio: CharacterStudio, stage: Stage) -> Truth:
    return show_truth(character, NAMED, studio, stage)


@pytest.fixture(scope="session")
def talk() -> Motion:
    motion = load_motion(find_asset("motion/talk.npz"))
    return replace(motion, params=motion.params[::8])


@pytest.fixture(scope="session")
def tiny_prior(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_prior(tmp_path_factory.mktemp("prior"))


@pytest.fixture(scope="session")
def perceptual(tiny_prior: Path) -> PerceptualDistance:
    return PerceptualDistance.from_pretrained(tiny_prior)
