"""Configurations: YAML with references, overrides on the command line, checked dataclasses."""

import dataclasses
import hashlib
import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from yaml import YAMLError

from threestudio.utils.errors import UserError, nearest
from threestudio.utils.files import atomic_write
from threestudio.utils.yaml_files import check_growth, load_yaml


def C_max(value: Any) -> float:
    """The largest value that a schedule for ``C`` takes (see ``threestudio.utils.misc.C``)."""
    if isinstance(value, (int, float)):
        return value
    points = list(value)
    if len(points) == 3:
        points = [0, *points]
    if len(points) < 4 or len(points) % 2:
        raise UserError(f"a schedule is [start_step, start, end, end_step], not {points}")
    return max([points[1], *points[2::2]])


def _number(value: Any) -> Any:
    """For the resolvers that calculate: a text times ten billion is no setting."""
    if isinstance(value, (int, float)) and abs(value) < 1e18:
        return value
    raise UserError(f"{str(value)[:40]!r} is no number to calculate with")


def _replaced(text: Any, replacement: Any) -> str:
    if len(str(text)) * max(1, len(str(replacement))) > 1 << 20:
        raise UserError("a text becomes too long when its spaces are replaced")
    return str(text).replace(" ", str(replacement))


RESOLVERS: dict[str, Callable[..., Any]] = {
    "calc_exp_lr_decay_rate": lambda factor, n: factor ** (1.0 / n),
    "add": lambda a, b: _number(a) + _number(b),
    "sub": lambda a, b: _number(a) - _number(b),
    "mul": lambda a, b: _number(a) * _number(b),
    "div": lambda a, b: _number(a) / _number(b),
    "idiv": lambda a, b: _number(a) // _number(b),
    "basename": os.path.basename,
    "rmspace": _replaced,
    "tuple2": lambda value: [float(value), float(value)],
    "gt0": lambda value: value > 0,
    "not": lambda value: not value,
    "cmaxgt0": lambda value: C_max(value) > 0,
    "cmaxgt0orcmaxgt0": lambda a, b: C_max(a) > 0 or C_max(b) > 0,
}
# OmegaConf 2.4 renamed the function.
_register = getattr(OmegaConf, "register_resolver", OmegaConf.register_new_resolver)
for _name, _function in RESOLVERS.items():
    _register(_name, _function, replace=True)


@dataclass
class ExperimentConfig:
    """What one run is: where it writes, what it trains on, what is trained, for how long.

    ``exp_dir``, ``trial_name`` and ``trial_dir`` are worked out from the others and cannot be
    set. A configuration that was saved by a run carries its timestamp, so that a command that
    starts from it writes into that run's own folder. No folder is made here.
    """

    name: str = "default"
    description: str = ""
    tag: str = ""
    seed: int = 0
    use_timestamp: bool = True
    timestamp: str | None = None
    exp_root_dir: str = "outputs"

    exp_dir: str = "outputs/default"
    trial_name: str = "exp"
    trial_dir: str = "outputs/default/exp"
    n_gpus: int = 1

    resume: str | None = None

    data_type: str = ""
    data: dict = field(default_factory=dict)
    system_type: str = ""
    system: dict = field(default_factory=dict)
    trainer: dict = field(default_factory=dict)
    checkpoint: dict = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.tag and not self.use_timestamp:
            raise UserError("use_timestamp=false needs a tag: the two name the run's folder")
        made_here = self.timestamp is None
        if self.timestamp is None:
            # Processes of one run start at different moments and would not agree on the time.
            single = self.use_timestamp and self.n_gpus == 1
            self.timestamp = datetime.now().strftime("@%Y%m%d-%H%M%S") if single else ""
        self.exp_dir = os.path.join(self.exp_root_dir, self.name)
        self._name_trial()
        attempt = 2
        while made_here and self.timestamp and os.path.exists(self.trial_dir):
            # Another run of the same second.
            self.timestamp = f"{self.timestamp.partition('_')[0]}_{attempt}"
            self._name_trial()
            attempt += 1

    def _name_trial(self) -> None:
        self.trial_name = folder_name(str(self.tag)) + str(self.timestamp)
        self.trial_dir = os.path.join(self.exp_dir, self.trial_name)


def folder_name(text: str, longest: int = 120) -> str:
    """Turn any text, such as a prompt, into one folder's name.

    Characters that separate folders or cannot be shown become underscores. What is longer than
    ``longest`` is cut and told apart by a hash of the whole.
    """
    name = re.sub(r"[/\\\x00-\x1f\x7f]", "_", text)
    name = re.sub(r"^\.+", "_", name)
    if len(name.encode()) > longest:
        digest = hashlib.sha256(text.encode()).hexdigest()[:8]
        name = name.encode()[:longest].decode(errors="ignore") + "_" + digest
    return name


def parse_override(argument: str) -> tuple[str, Any]:
    """Split a ``key=value`` of the command line, its value read as YAML.

    A sentence that happens to hold YAML's signs (``a man: old``, ``fan #1``) stays a sentence.
    """
    key, equals, text = argument.partition("=")
    if not equals or not key or key.startswith("-"):
        raise UserError(f"unexpected argument {argument!r}: settings are given as key=value")
    text = text.strip()
    try:
        # As the value of a key, so that another colon is an error and not a mapping.
        parsed: Any = OmegaConf.to_container(OmegaConf.create(f"value: {text}"), resolve=False)
        value = parsed["value"]
    except (YAMLError, KeyError, TypeError):
        return key, text
    cut_by_a_comment = isinstance(value, str) and value != text and text[0] not in "\"'"
    emptied_by_a_comment = value is None and text.startswith("#")
    return key, text if cut_by_a_comment or emptied_by_a_comment else value


def load_config(
    *yamls: str, cli_args: Sequence[str] = (), from_string: bool = False, **kwargs: Any
) -> Any:
    """Read an experiment: YAML files, overridden by each other, ``cli_args`` and ``kwargs``.

    Args:
        yamls: paths, or the YAML itself with ``from_string``.
        cli_args: ``key=value``, keys with dots.

    Returns:
        An ``ExperimentConfig``, as OmegaConf's structured config, with every reference resolved.

    Raises:
        UserError: for a file that cannot be read, an unknown key or a value that is still ``???``.
    """
    try:
        cfg = merge_config(*yamls, cli_args=cli_args, from_string=from_string, **kwargs)
        check_keys(ExperimentConfig, cfg)
        for missing in sorted(OmegaConf.missing_keys(cfg)):
            raise UserError(f"{missing} has no default: give it as {missing}=...")
        OmegaConf.resolve(cfg)
    except (OmegaConfBaseException, RecursionError) as error:
        reason = (str(error).splitlines() or ["it refers to itself"])[0]
        raise UserError(f"the configuration cannot be resolved: {reason}") from error
    return parse_structured(ExperimentConfig, cfg)


def merge_config(
    *yamls: str, cli_args: Sequence[str] = (), from_string: bool = False, **kwargs: Any
) -> DictConfig:
    """What ``load_config`` reads, merged; neither checked nor with its references filled in.

    Raises:
        UserError: for a file that cannot be read, or that holds no settings by name.
    """
    read = OmegaConf.create if from_string else load_yaml
    try:
        overrides = OmegaConf.create({})
        for argument in cli_args:
            OmegaConf.update(overrides, *parse_override(argument), force_add=True)
        cfg = OmegaConf.merge(*(read(source) for source in yamls), overrides, kwargs)
        if not isinstance(cfg, DictConfig):
            raise UserError(f"{', '.join(yamls)} holds a list, not the keys of an experiment")
        check_growth(OmegaConf.to_container(cfg, resolve=False))
    except OmegaConfBaseException as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"the configuration cannot be resolved: {reason}") from error
    except (YAMLError, AttributeError) as error:
        raise UserError(f"the configuration is not YAML: {error}") from error
    except TypeError:
        raise UserError(f"{', '.join(yamls)} holds a list, not the keys of an experiment") from None
    return cfg


CHECKS: list[Callable[[DictConfig], Iterable[str]]] = []
"""What extensions say about an experiment that is not loaded yet: a text for each mistake."""


def check_experiment(cfg: DictConfig) -> None:
    """Raise a ``UserError`` that lists every mistake that one of `CHECKS` finds."""
    mistakes = [text for check in CHECKS for text in check(cfg)]
    if len(mistakes) == 1:
        raise UserError(mistakes[0] if mistakes[0].endswith("?") else f"{mistakes[0]}.")
    if mistakes:
        lines = "".join(f"\n  {text}" for text in mistakes)
        raise UserError(f"the configuration has {len(mistakes)} mistakes:{lines}")


def config_to_primitive(config: Any, resolve: bool = True) -> Any:
    """Plain dicts, lists and numbers from OmegaConf's; anything else as it is."""
    if OmegaConf.is_config(config):
        return OmegaConf.to_container(config, resolve=resolve)
    return config


def dump_config(path: str, config: Any) -> None:
    """Write a configuration as YAML that ``load_config`` reads back."""
    with atomic_write(path) as temporary:
        OmegaConf.save(config=OmegaConf.create(config_to_primitive(config)), f=temporary)


def check_keys(fields: type, cfg: dict[str, Any] | DictConfig) -> None:
    """Raise a ``UserError`` for a key that the dataclass has not, naming the nearest it has."""
    known = [f.name for f in dataclasses.fields(fields) if f.init]
    for key in cfg:
        if key not in known:
            hint = nearest(str(key), known) or f"; it has {', '.join(sorted(known))}"
            raise UserError(f"{_label(fields)} has no setting {key!r}{hint}")


def _label(fields: type) -> str:
    """What a configuration's dataclass is called in messages."""
    if fields is ExperimentConfig:
        return "the configuration"
    return fields.__qualname__.removesuffix(".Config")


def parse_structured(fields: Any, cfg: dict | DictConfig | None = None) -> Any:
    """Check a mapping against a dataclass and return it as OmegaConf's structured config.

    Args:
        fields: the dataclass; what it does not name is an error, what ``cfg`` leaves out is its
            default.

    Raises:
        UserError: for an unknown key, a value of the wrong type, or one that is still ``???``.
    """
    cfg = {} if cfg is None else cfg
    check_keys(fields, cfg)
    where = _label(fields)
    try:
        return OmegaConf.structured(fields(**{str(key): cfg[key] for key in cfg}))
    except MissingMandatoryValue as error:
        raise UserError(f"{where} needs a value: {error}") from error
    except OmegaConfBaseException as error:
        inside = fields is not ExperimentConfig
        key = f"{where}.{error.full_key}" if inside and error.full_key else error.full_key or where
        raise UserError(f"{key}: {error.msg or error}".splitlines()[0]) from error
