"""Devices, schedules, checkpoints and other small things."""

from __future__ import annotations

import gc
import math
import os
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from packaging import version

from threestudio.utils.config import config_to_primitive
from threestudio.utils.errors import UserError

T = TypeVar("T")

UNREADABLE = (
    *(OSError, RuntimeError, EOFError, ValueError, LookupError, TypeError, AttributeError),
    *(AssertionError, OverflowError, MemoryError, struct.error, zlib.error),
    *(pickle.UnpicklingError, zipfile.BadZipFile),
)
"""What torch raises for damaged checkpoints."""

# SLURM sets SLURM_PROCID even where it does not start the processes, hence the order.
RANK_VARIABLES = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")


def parse_version(ver: str) -> version.Version:
    """A version that compares as versions do."""
    return version.parse(ver)


def get_rank() -> int:
    """The index of this process among those of the run; 0 for a single one."""
    for variable in RANK_VARIABLES:
        if variable in os.environ:
            return int(os.environ[variable])
    return 0


def get_device() -> torch.device:
    """The GPU of this process, or the CPU where there is none."""
    if torch.cuda.is_available():
        return torch.device(f"cuda:{get_rank()}")
    return torch.device("cpu")


def load_checkpoint(path: str | Path, map_location: Any = None) -> dict[str, Any]:
    """Read a checkpoint; only tensors and plain values, so that no file can execute anything.

    Raises:
        UserError: if it does not exist, is damaged, is not a checkpoint or holds other objects.
    """
    path = Path(path)
    if not path.is_file():
        beside = sorted(other.name for other in path.parent.glob("*.ckpt"))
        hint = f"; {path.parent} has {', '.join(beside)}" if beside else ""
        raise UserError(f"the checkpoint {path} does not exist{hint}")
    try:
        _check_promises(path)
        checkpoint = torch.load(path, map_location=map_location, weights_only=True)
    except UNREADABLE as error:
        reason = (str(error).splitlines() or [""])[0] or type(error).__name__
        raise UserError(f"{path} cannot be read as a checkpoint: {reason}") from error
    missing = {"state_dict", "epoch", "global_step"} - set(
        checkpoint if isinstance(checkpoint, dict) else ()
    )
    if missing:
        raise UserError(f"{path} is not a checkpoint: it lacks {', '.join(sorted(missing))}")
    return checkpoint


def _check_promises(path: Path) -> None:
    """Whether a checkpoint holds what it says it does, before memory is taken for it.

    Raises:
        ValueError: if it is no zip file of torch's, which are not compressed, or has tensors that
            are larger than the file.
    """
    size = path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        infos = archive.infolist()
    if any(info.compress_type != zipfile.ZIP_STORED for info in infos):
        raise ValueError("it is compressed, as no checkpoint is")
    if sum(info.file_size for info in infos) > size:
        raise ValueError("its parts are larger than itself")
    # Without data: shapes alone. A tensor may look at numbers that its storage has not, and torch
    # would make room for them.
    skeleton = torch.load(path, map_location="meta", weights_only=True)
    storages: dict[int, int] = {}
    for tensor in _tensors(skeleton):
        storage = tensor.untyped_storage()
        storages[storage._cdata] = storage.nbytes()
    if sum(storages.values()) > size:
        raise ValueError("its tensors are larger than the file")


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    """All tensors in nested dictionaries, lists and tuples."""
    seen: set[int] = set()
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, torch.Tensor):
            yield item
        elif isinstance(item, (Mapping, list, tuple, set)) and id(item) not in seen:
            seen.add(id(item))
            waiting.extend(item.values() if isinstance(item, Mapping) else item)


def load_module_weights(
    path: str | Path,
    module_name: str | None = None,
    ignore_modules: Sequence[str] | None = None,
    map_location: Any = None,
) -> tuple[dict[str, Any], int, int]:
    """Read the weights of one module, or of all but some, from a checkpoint.

    Args:
        module_name: keep this module's weights only, its prefix removed.
        ignore_modules: leave these modules' weights out.
        map_location: where tensors go; the run's device if not given.

    Returns:
        The weights, and the epoch and the global step at which they were saved.
    """
    if module_name is not None and ignore_modules is not None:
        raise ValueError("give module_name or ignore_modules, not both")
    checkpoint = load_checkpoint(path, get_device() if map_location is None else map_location)
    weights = checkpoint["state_dict"]
    if module_name is not None:
        prefix = module_name + "."
        weights = {k[len(prefix) :]: v for k, v in weights.items() if k.startswith(prefix)}
        if not weights:
            raise UserError(f"{path} has no weights of {module_name!r}")
    if ignore_modules is not None:
        prefixes = tuple(name + "." for name in ignore_modules)
        weights = {k: v for k, v in weights.items() if not k.startswith(prefixes)}
    return weights, checkpoint["epoch"], checkpoint["global_step"]


def C(value: Any, epoch: int, global_step: int, interpolation: str = "linear") -> float:
    """The value of a schedule at a step.

    Args:
        value: a number; or ``[start_step, start, end, end_step]``; or ``[start, end, end_step]``,
            from step 0; or more corners, ``[step0, v0, v1, step1, v2, step2, ...]``. Before the
            first step the value is the first, after the last the last. If the step that ends
            the current piece is written as a float, epochs are counted instead of steps.
        interpolation: ``"linear"`` or ``"exp"`` (linear in the logarithm).
    """
    if isinstance(value, (int, float)):
        return value
    value = config_to_primitive(value)
    if not isinstance(value, (list, tuple)):
        raise TypeError(f"a schedule is a number or a list, not {type(value).__name__}")
    points = [0, *value] if len(value) == 3 else list(value)
    if len(points) < 4 or len(points) % 2:
        raise UserError(f"a schedule is [start_step, start, end, end_step], not {value}")
    # Corners as (step, value): the first is written step first, all others value first.
    later = zip(points[3::2], points[2::2], strict=True)
    corners = [(points[0], points[1]), *later]
    piece = 0
    while piece < len(corners) - 2 and global_step >= corners[piece + 1][0]:
        piece += 1
    (start_step, start), (end_step, end) = corners[piece], corners[piece + 1]
    now = epoch if isinstance(end_step, float) else global_step
    t = min(max((now - start_step) / (end_step - start_step), 0.0), 1.0)
    if interpolation == "linear":
        return start + (end - start) * t
    if interpolation == "exp":
        return math.exp((1 - t) * math.log(start) + t * math.log(end))
    raise ValueError(f"interpolation is 'linear' or 'exp', not {interpolation!r}")


def cleanup() -> None:
    """Give memory that is no longer used back, on the GPU too."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def finish_with_cleanup(func: Callable[..., T]) -> Callable[..., T]:
    """Wrap a function to ``cleanup`` after it."""

    def wrapper(*args: Any, **kwargs: Any) -> T:
        result = func(*args, **kwargs)
        cleanup()
        return result

    return wrapper


def _distributed() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def barrier() -> None:
    """Wait for the run's other processes, if there are any."""
    if _distributed():
        torch.distributed.barrier()


def broadcast(tensor: torch.Tensor, src: int = 0) -> torch.Tensor:
    """Overwrite a tensor by that of process ``src``."""
    if _distributed():
        torch.distributed.broadcast(tensor, src=src)
    return tensor


def enable_gradient(model: torch.nn.Module, enabled: bool = True) -> None:
    """Let all parameters of a module learn, or none."""
    for parameter in model.parameters():
        parameter.requires_grad_(enabled)


class LastNotFound(UserError, FileNotFoundError):
    """No run, or no file in it, where ``LAST`` names one; threestudio's is a FileNotFoundError."""


def find_last_path(path: str | None) -> str | None:
    """Fill in ``LAST``: ``runs/name@LAST/ckpts/last.ckpt`` is the newest such run's.

    Newest is what sorts last, as folders with a timestamp do. A path without ``LAST`` is
    returned as it is.

    Raises:
        LastNotFound: if there is none.
    """
    if path is None or "LAST" not in path:
        return path
    start, _, rest = path.replace(" ", "_").partition("LAST")
    folder, prefix = os.path.split(start)
    matches = sorted(p for p in Path(folder or ".").glob("*") if p.name.startswith(prefix))
    if not matches or not os.path.exists(found := f"{matches[-1]}{rest}"):
        raise LastNotFound(
            f"nothing is found for {path}: LAST is the end of the newest folder's name, of those "
            f"that begin with {start}, and in it there has to be {rest.lstrip('/')}"
        )
    return found
