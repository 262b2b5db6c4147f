"""Everything that is wrong with an experiment's settings, before anything is loaded.

Keys that do not exist (with the nearest that does), values of the wrong type or out of their range,
classes that are not registered, values that are still ``???``, references that lead nowhere, and
choices that do not go together. What the settings of a class are follows from its ``Config``
dataclass: its annotations, the ranges of `headstudio.settings`, and its ``conflicts``.
"""

import dataclasses
import inspect
import math
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import InterpolationToMissingValueError, OmegaConfBaseException

import threestudio
from headstudio.nearest import nearest
from headstudio.plugin._config_rules import (
    CHOSEN_BY_LAUNCHER,
    SECTION_RANGES,
    TOP_RANGES,
    lightning_keys,
    rules,
)
from headstudio.settings import Valid, declared, shown, violations
from threestudio.utils.config import ExperimentConfig

PARTS = (
    *("geometry", "material", "background", "renderer"),
    *("guidance", "prompt_processor", "exporter"),
)
# Nothing where the prompt should be is no matter of types.
LEFT_TO_RULES = ("system.prompt_processor.prompt",)
_MAX_DEPTH = 32


@dataclass(frozen=True)
class Problem:
    """What is wrong with one setting."""

    path: str
    """With dots, such as ``system.geometry.n_splats``."""
    text: str

    def __str__(self) -> str:
        return f"{self.path} {self.text}"


class _Unusable:
    """Stands for a value that cannot be had: it is reported, and nothing more is said of it."""


UNUSABLE = _Unusable()


def check_experiment(cfg: DictConfig) -> list[Problem]:
    """All that is wrong with an experiment.

    Args:
        cfg: the merged settings, references not yet filled in.

    Returns:
        Problems in the order of the settings, each path once.
    """
    problems: list[Problem] = []
    values = _resolved(cfg, "", problems, 0)
    checker = _Checker(values, problems)
    checker.experiment()
    seen: set[str] = set()
    unique = []
    for problem in problems:
        if problem.path not in seen:
            seen.add(problem.path)
            unique.append(problem)
    return unique


def _resolved(node: Any, path: str, problems: list[Problem], depth: int) -> Any:
    """Python's own containers, references filled in; what cannot be, and NaN, is reported."""
    if isinstance(node, DictConfig):
        keys: Any = node.keys()
    elif isinstance(node, ListConfig):
        keys = range(len(node))
    else:
        return node
    result: dict[Any, Any] = {}
    for key in keys:
        where = f"{path}.{key}" if path else str(key)
        if isinstance(node, ListConfig):
            where = f"{path}[{key}]"
        value: Any = UNUSABLE
        try:
            if OmegaConf.is_missing(node, key):
                problems.append(Problem(where, f"has no default: give it as {where}=..."))
            elif depth >= _MAX_DEPTH:
                problems.append(Problem(where, "is nested too deeply"))
            else:
                value = _resolved(node[key], where, problems, depth + 1)
                if isinstance(value, float) and math.isnan(value):
                    problems.append(Problem(where, "is nan; expected a number that is finite"))
                    value = UNUSABLE
        except InterpolationToMissingValueError:
            value = UNUSABLE  # what it refers to is reported where it stands
        except (OmegaConfBaseException, RecursionError) as error:
            reason = (str(error).splitlines() or ["it refers to itself"])[0]
            problems.append(Problem(where, f"cannot be resolved: {reason}"))
        result[key] = value
    return result if isinstance(node, DictConfig) else list(result.values())


def _of_kind(path: str, names: list[str]) -> list[str]:
    """Those of the registered names that end as the part's do; geometries end as nothing else."""
    kinds = {f"system.{part}": part.replace("_", "-") for part in PARTS if part != "geometry"}
    kinds |= {"data": "datamodule", "system": "system"}
    if path in kinds:
        return [name for name in names if name.endswith(kinds[path])]
    return [name for name in names if not name.endswith(tuple(kinds.values()))]


class _Checker:
    """Walks the sections of one experiment and collects problems."""

    def __init__(self, values: dict[str, Any], problems: list[Problem]) -> None:
        self.values, self.problems = values, problems
        self.classes: dict[str, type] = {}

    def add(self, path: str, text: str) -> None:
        self.problems.append(Problem(path, text))

    def experiment(self) -> None:
        self.section("", ExperimentConfig, self.values, TOP_RANGES)
        self.part("data", self.values.get("data_type"), self.values.get("data"))
        system = self.values.get("system")
        self.part("system", self.values.get("system_type"), system)
        if isinstance(system, Mapping):
            for part in PARTS:
                if f"{part}_type" in system:
                    self.part(f"system.{part}", system[f"{part}_type"], system.get(part))
        self.lightning()
        self.problems += [Problem(path, text) for path, text in rules(self.values, self.classes)]

    def part(self, path: str, name: Any, values: Any) -> None:
        """A registered class and its settings."""
        if name in ("", None) and path != "data" and path != "system":
            return
        if isinstance(name, _Unusable):
            return
        try:
            cls = threestudio.find(str(name or ""))
        except (KeyError, ValueError):
            known = sorted(threestudio.__modules__)
            near = nearest(str(name), _of_kind(path, known)) or "."
            what = f"is {shown(name)}, which is not registered" if name else "does not say a class"
            self.add(
                f"{path}_type",
                f"{what}{near} Registered are: {', '.join(known)}. threestudio's own are there in "
                "a checkout of it (docs/threestudio.md)",
            )
            return
        self.classes[path] = cls
        config = config_class(cls)
        if config is None or isinstance(values, _Unusable):
            return
        if values is not None and not isinstance(values, Mapping):
            self.add(path, f"is {shown(values)}; expected settings by name")
            return
        self.section(path, config, values or {}, SECTION_RANGES.get(str(name), {}))

    def section(
        self, path: str, config: Any, values: Mapping[str, Any], more: Mapping[str, Valid]
    ) -> None:
        """The settings of one dataclass."""
        fields = {f.name: f for f in dataclasses.fields(config) if f.init}
        sound: dict[str, Any] = {}
        for key, value in values.items():
            where = f"{path}.{key}" if path else str(key)
            if key not in fields:
                near = nearest(str(key), fields)
                known = "" if near else f". There are {', '.join(sorted(fields))}"
                self.add(where, f"does not exist{near}{known}")
            elif where in LEFT_TO_RULES and value is None:
                continue
            elif not isinstance(value, _Unusable):
                text, value = _as_typed(config, key, value)
                if text:
                    self.add(where, text)
                else:
                    sound[key] = value
        for key, valid in {**declared(config), **more}.items():
            if valid.of is not None and key in sound:
                self.nested(f"{path}.{key}", valid.of, sound[key])
        ranged = {key: value for key, value in sound.items() if not _holes(value)}
        for name, declaration in fields.items():
            if name not in values and declaration.default_factory is not dataclasses.MISSING:
                ranged[name] = declaration.default_factory()
            elif name not in values and declaration.default is not dataclasses.MISSING:
                ranged[name] = declaration.default
        for key, text in violations(config, ranged):
            self.add(f"{path}.{key}" if path else key, text)
        for key, valid in more.items():
            out = valid.problem(ranged[key]) if key in ranged else None
            if out:
                self.add(f"{path}.{key}" if path else key, out)

    def nested(self, path: str, config: Any, value: Any) -> None:
        """Settings inside of a setting, or a list of such."""
        if isinstance(value, list):
            for index, item in enumerate(value):
                self.nested(f"{path}[{index}]", config, item)
        elif isinstance(value, Mapping):
            self.section(path, config, value, {})
        elif value is not None:
            self.add(path, f"is {shown(value)}; expected settings by name")

    def lightning(self) -> None:
        """Keys and ranges of ``trainer`` and ``checkpoint``."""
        for section, known in lightning_keys().items():
            values = self.values.get(section)
            if not isinstance(values, Mapping):
                continue
            for key, value in values.items():
                where = f"{section}.{key}"
                if key in CHOSEN_BY_LAUNCHER[section]:
                    self.add(where, "is chosen by the launcher (see --gpu): remove it")
                elif key not in known:
                    self.add(where, f"does not exist{nearest(str(key), known)}")
                elif where in SECTION_RANGES["lightning"] and not _holes(value):
                    text = SECTION_RANGES["lightning"][where].problem(value)
                    if text:
                        self.add(where, text)


def config_class(cls: Any) -> Any:
    """The dataclass that a registered class takes its settings as; None if it has none."""
    config = getattr(cls, "Config", None)
    if config is None:
        hints = [inspect.get_annotations(base) for base in inspect.getmro(cls)]
        config = next((h["cfg"] for h in hints if "cfg" in h), None)
    return config if dataclasses.is_dataclass(config) else None


def _holes(value: Any) -> bool:
    """Whether something in a value was reported already."""
    if isinstance(value, _Unusable):
        return True
    if isinstance(value, (Mapping, list)):
        return any(
            _holes(item) for item in (value.values() if isinstance(value, Mapping) else value)
        )
    return False


_SHOWN_TYPES = {
    int: "a whole number", float: "a number", str: "text", bool: "true or false",
    dict: "settings by name", list: "a list",
}  # fmt: skip


def _as_typed(config: Any, key: str, value: Any) -> tuple[str | None, Any]:
    """A value as OmegaConf makes it for a field when the class is made, or why it will not."""
    if _holes(value):
        return None, value
    field = next(f for f in dataclasses.fields(config) if f.name == key)
    alone: Any = dataclasses.make_dataclass("Alone", [(key, field.type, _default(field))])
    try:
        made: Any = OmegaConf.to_container(OmegaConf.structured(alone(**{key: value})))
    except OmegaConfBaseException:
        return f"is {shown(value)}; expected {_expected(field.type)}", value
    if isinstance(value, bool) and _plain_type(field.type) in (int, float):
        return f"is {shown(value)}; expected {_expected(field.type)}", value
    length = _tuple_length(field.type)
    if length is not None and isinstance(value, list) and len(value) != length:
        return f"is {shown(value)}; expected {length} numbers", value
    return None, made[key]


def _default(field: Any) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return dataclasses.field(default_factory=field.default_factory)
    return dataclasses.field(
        default=None if field.default is dataclasses.MISSING else field.default
    )


def _plain_type(annotation: Any) -> Any:
    """``int`` of ``int | None``."""
    options = [a for a in typing.get_args(annotation) if a is not type(None)]
    is_union = len(typing.get_args(annotation)) > len(options)
    return options[0] if is_union and len(options) == 1 else annotation


def _tuple_length(annotation: Any) -> int | None:
    inner = _plain_type(annotation)
    args = typing.get_args(inner)
    return len(args) if typing.get_origin(inner) is tuple and ... not in args else None


def _expected(annotation: Any) -> str:
    inner = _plain_type(annotation)
    optional = ", or null" if inner is not annotation else ""
    length = _tuple_length(annotation)
    if length is not None:
        return f"a list of {length} numbers{optional}"
    origin = typing.get_origin(inner) or inner
    args = typing.get_args(inner)
    if origin is list and args:
        return f"a list, each {_SHOWN_TYPES.get(args[0], 'settings by name')}{optional}"
    if origin is dict and len(args) == 2 and args[1] in _SHOWN_TYPES:
        return f"settings by name, each {_SHOWN_TYPES[args[1]]}{optional}"
    return _SHOWN_TYPES.get(origin, str(inner)) + optional


def as_texts(cfg: DictConfig) -> Iterator[str]:
    """The lines of a report, for the embedded host's launcher."""
    yield from (str(problem) for problem in check_experiment(cfg))


__all__ = ["Problem", "as_texts", "check_experiment", "config_class"]
