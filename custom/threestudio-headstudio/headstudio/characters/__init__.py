"""Procedural characters with captions: what the bundled prior learns from.

rng = np.random.default_rng(0)
character = sample_character(rng)
print(caption(character, rng, "front"))
splats = build_splats(character, head)
"""

from __future__ import annotations

from headstudio.characters.attributes import (
    ATTRIBUTES,
    IGNORED_CLASS,
    Character,
    Option,
    attribute_classes,
    attribute_names,
    has_mouth,
    option,
)
from headstudio.characters.build import (
    CharacterStudio,
    SplatBatch,
    build_splats,
    character_shape,
    studio_for,
)
from headstudio.characters.captions import VIEWS, caption, caption_and_content
from headstudio.characters.dataset import BACKGROUND, CameraRange, CharacterDataset, view_word
from headstudio.characters.people import sample_character
from headstudio.characters.poses import random_poses

__all__ = [
    "ATTRIBUTES",
    "BACKGROUND",
    "IGNORED_CLASS",
    "VIEWS",
    "CameraRange",
    "Character",
    "CharacterDataset",
    "CharacterStudio",
    "Option",
    "SplatBatch",
    "attribute_classes",
    "attribute_names",
    "build_splats",
    "caption",
    "caption_and_content",
    "character_shape",
    "has_mouth",
    "option",
    "random_poses",
    "sample_character",
    "studio_for",
    "view_word",
]
