"""The benchmark's prompts, each with the character it describes: ``configs/benchmark/*.yaml``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from headstudio.characters import ATTRIBUTES, Character
from headstudio.characters.people import SHAPE_DIMS, SHAPE_LIMIT, SHAPE_STD
from headstudio.errors import HeadStudioError
from headstudio.evaluation.regions import check_named
from headstudio.nearest import did_you_mean

#: Characters that are sampled for training have seeds below this; those held out, from it on.
FIRST_HELD_OUT_SEED = 2**31
KINDS = ("human", "fantasy", "archetype", "covered", "mouthless")
_KEYS = {"id", "kind", "prompt", "named", "character"}
_MAX_BYTES = 1 << 20
_MAX_DEPTH = 64
# What the YAML library raises besides its own error; UnicodeDecodeError is a ValueError.
_DAMAGE = (RecursionError, AssertionError, ValueError, TypeError, AttributeError, LookupError)


@dataclass(frozen=True)
class Prompt:
    """A sentence, the colours it names by region, and who it is about."""

    id: str
    kind: str
    prompt: str
    named: dict[str, str]
    character: Character

    def record(self) -> dict[str, Any]:
        """What a result was measured for, as JSON holds it."""
        own = {key: getattr(self.character, key) for key in (*ATTRIBUTES, "seed")}
        return {"prompt": self.prompt, "named": self.named, "character": own}


def held_out_shape(seed: int) -> tuple[float, ...]:
    """The identity of a held-out character, spread as those of the training's are."""
    rng = np.random.default_rng((seed, 20))
    drawn = np.clip(rng.normal(0.0, SHAPE_STD, SHAPE_DIMS), -SHAPE_LIMIT, SHAPE_LIMIT)
    return tuple(round(float(value), 4) for value in drawn)


class _Loader(yaml.SafeLoader):
    """YAML without aliases, by which a short file says something enormous, and without deep
    brackets, which the scanner takes time for that is quadratic in their depth."""

    def fetch_flow_collection_start(self, token: Any) -> None:
        if self.flow_level >= _MAX_DEPTH:
            raise yaml.YAMLError(f"brackets are more than {_MAX_DEPTH} deep")
        super().fetch_flow_collection_start(token)

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            raise yaml.YAMLError(f"aliases are not read; here is *{event.anchor}")
        node: yaml.Node | None = super().compose_node(parent, index)
        return node


def _read(path: Path) -> Any:
    """What a YAML file holds."""
    try:
        if path.exists() and not path.is_file():
            raise HeadStudioError(f"{path} cannot be read: it is not a file.")
        if path.stat().st_size > _MAX_BYTES:
            raise HeadStudioError(f"{path} cannot be read: it is larger than 1 MiB.")
        return yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except OSError as error:
        raise HeadStudioError(f"{path} cannot be read: {error.strerror}.") from error
    except HeadStudioError:
        raise
    except (yaml.YAMLError, *_DAMAGE) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise HeadStudioError(f"{path} is not YAML: {reason}") from error


def load_suite(path: str | Path) -> list[Prompt]:
    """Read a file of prompts.

    Raises:
        HeadStudioError: not plain YAML of at most 1 MiB, a key that is missing or unknown, an id
            that is used twice, a character that does not exist or was not held out, a colour it
            does not have.
    """
    content = _read(Path(path))
    rows = content.get("prompts") if isinstance(content, dict) else None
    if not isinstance(rows, list) or not rows:
        raise HeadStudioError(f"{path} has no list of prompts; expected `prompts:` with entries.")
    prompts = [_prompt(row, f"{path}, prompt {i + 1}") for i, row in enumerate(rows)]
    ids = [prompt.id for prompt in prompts]
    twice = sorted({name for name in ids if ids.count(name) > 1})
    if twice:
        raise HeadStudioError(f"{path} has several prompts of the id {', '.join(twice)}.")
    return prompts


def _prompt(row: Any, where: str) -> Prompt:
    if not isinstance(row, dict) or set(row) != _KEYS:
        found = ", ".join(map(str, row)) if isinstance(row, dict) else repr(row)
        raise HeadStudioError(
            f"{where}: expected the keys {', '.join(sorted(_KEYS))}; got {found}."
        )
    for key in ("id", "kind", "prompt"):
        if not isinstance(row[key], str) or not row[key].strip():
            raise HeadStudioError(f"{where}: {key} is {row[key]!r}; expected words.")
    if row["kind"] not in KINDS:
        raise HeadStudioError(
            f"{where}: kind is {row['kind']!r}; expected one of {', '.join(KINDS)}."
        )
    attributes, named = row["character"], row["named"] or {}
    if not isinstance(attributes, dict) or not isinstance(named, dict):
        raise HeadStudioError(f"{where}: character and named have to be mappings.")
    unknown = sorted(str(key) for key in set(attributes) - {*ATTRIBUTES, "seed"})
    if unknown:
        hint = did_you_mean(unknown[0], ATTRIBUTES)
        raise HeadStudioError(f"{where}: a character has no {unknown[0]!r}{hint}")
    seed = attributes.get("seed")
    if not isinstance(seed, int) or seed < FIRST_HELD_OUT_SEED:
        raise HeadStudioError(
            f"{where}: the character's seed is {seed!r}; held-out characters have seeds from "
            f"{FIRST_HELD_OUT_SEED} on, which no character of the training has."
        )
    try:
        character = Character(**{**attributes, "shape": held_out_shape(seed)})
        check_named(named, character)
    except HeadStudioError as error:
        raise HeadStudioError(f"{where}: {error}") from error
    return Prompt(row["id"], row["kind"], row["prompt"], dict(named), character)


def choose(prompts: Sequence[Prompt], wanted: Sequence[str]) -> list[Prompt]:
    """The prompts asked for: a number of them (spread over the file), or ids; none is all.

    Raises:
        HeadStudioError: an id that does not exist, or a number that is not 1 or more.
    """
    if not wanted:
        return list(prompts)
    if len(wanted) == 1 and wanted[0].removeprefix("-").isdecimal():
        count = int(wanted[0])
        if count < 1:
            raise HeadStudioError(f"--prompts {count}: expected 1 or more, or ids.")
        at = np.linspace(0, len(prompts), min(count, len(prompts)), endpoint=False)
        return [prompts[int(i)] for i in at]
    by_id = {prompt.id: prompt for prompt in prompts}
    for name in wanted:
        if name not in by_id:
            raise HeadStudioError(f"there is no prompt {name!r}{did_you_mean(name, by_id)}")
    return [by_id[name] for name in dict.fromkeys(wanted)]
