"""Pickles of numpy arrays and torch tensors, CUDA tensors too, without running anything.

A tensor in a plain pickle is ``torch._utils._rebuild_tensor_v2(storage, offset, size, stride, …)``
whose storage is ``torch.storage._load_from_bytes`` of what ``torch.save`` wrote for it: five
pickles one after another, then the numbers. Here the globals are inert records
(`headstudio.flame.records`), the numbers are taken from the bytes, and the device they came from
does not matter. A whole file written by ``torch.save`` is read by the same means.
"""

from __future__ import annotations

import io
import math
import pickle
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from headstudio.errors import HeadStudioError
from headstudio.flame.npz import ZIP_DAMAGE, largest
from headstudio.flame.records import (
    DAMAGE,
    MAX_LISTED,
    NUMPY_KINDS,
    Record,
    RecordUnpickler,
    checked_shape,
    rebuild_array,
    record_types,
    unwrap,
)
from headstudio.motion.files import MAX_BYTES

_TORCH_MAGIC = 0x1950A86A20F9469CFC6C
_STORAGES = {
    "Double": "<f8",
    "Float": "<f4",
    "Half": "<f2",
    "BFloat16": "bfloat16",
    "Long": "<i8",
    "Int": "<i4",
    "Short": "<i2",
    "Char": "<i1",
    "Byte": "<u1",
    "Bool": "<?",
}
_REBUILD = ("_rebuild_tensor", "_rebuild_tensor_v2")
_ALLOWED = record_types(
    {
        **NUMPY_KINDS,
        "tensor": [("torch._utils", name) for name in _REBUILD],
        "parameter": [("torch._utils", "_rebuild_parameter")],
        "frombytes": [("torch.storage", "_load_from_bytes")],
        "ordereddict": [("collections", "OrderedDict")],
        # Things that stand beside the numbers in such files; nobody asks for them here.
        "aside": [
            ("torch", "Size"),
            ("torch", "device"),
            ("pathlib", "Path"),
            ("pathlib", "PosixPath"),
            ("pathlib", "WindowsPath"),
        ],
        **{
            f"storage {dtype}": [(module, f"{name}Storage") for module in ("torch", "torch.cuda")]
            for name, dtype in _STORAGES.items()
        },
    }
)
_ADVICE = "get the motion again from whom you trust."


class _Unpickler(RecordUnpickler):
    """Records, and storages by the keys under which ``torch.save`` files them."""

    def __init__(self, stream: io.BytesIO, storages: dict[str, np.ndarray] | None = None) -> None:
        super().__init__(stream, _ALLOWED, "a motion", _ADVICE)
        self.storages = {} if storages is None else storages
        self.asked: dict[str, str] = {}

    def persistent_load(self, pid: Any) -> Record:
        """``("storage", type, key, location, number of elements[, view])`` in torch's files."""
        if not isinstance(pid, tuple) or len(pid) < 5 or pid[0] not in ("storage", b"storage"):
            raise pickle.UnpicklingError("a reference that is no tensor's storage")
        kind, key = pid[1].kind, str(pid[2])
        if not kind.startswith("storage ") or (len(pid) > 5 and pid[5] is not None):
            raise pickle.UnpicklingError("a storage of an unknown type")
        self.asked[key] = kind.removeprefix("storage ")
        return _Stored(key, self.storages)


class _Stored(Record):
    """A storage whose numbers come later in the file."""

    kind = "stored"


def read_pickle(path: Path, content: bytes | None = None) -> Any:
    """The pickle's outermost value; arrays and tensors in it are records for `array`.

    Args:
        path: a plain pickle of any protocol, or a file of ``torch.save``, old or new.
        content: the pickle, where it is not the whole file.

    Raises:
        HeadStudioError: damaged or oversized file, or a global that is not on the list.
    """
    if path.stat().st_size > MAX_BYTES:
        raise HeadStudioError(
            f"{path} has {path.stat().st_size / 2**20:.0f} MiB; motions of at most "
            f"{MAX_BYTES / 2**20:.0f} MiB are read. Cut it into pieces."
        )
    try:
        return load(path.read_bytes() if content is None else content)
    except HeadStudioError as error:
        raise HeadStudioError(f"{path}: {error}") from None
    except (*DAMAGE, *ZIP_DAMAGE) as error:
        raise HeadStudioError(
            f"{path} cannot be read as a pickle ({error}). It is damaged or cut off; get it again."
        ) from error


def load(content: bytes) -> Any:
    """As `read_pickle`, of bytes; raises what unpickling raises."""
    if content.startswith(b"PK\x03\x04"):
        return _load_zip(content)
    stream = io.BytesIO(content)
    first = _Unpickler(stream).load()
    return _load_legacy(stream) if first == _TORCH_MAGIC else first


def _load_legacy(stream: io.BytesIO) -> Any:
    """``torch.save`` without zip, behind its magic number: version, system, value, keys, data."""
    version = _Unpickler(stream).load()
    system = _Unpickler(stream).load()
    if version != 1001 or not system.get("little_endian", False):
        raise ValueError("a torch file of another version or byte order")
    value_reader = _Unpickler(stream)
    value = value_reader.load()
    for key in _Unpickler(stream).load():
        dtype = value_reader.asked[str(key)]
        (count,) = struct.unpack("<q", stream.read(8))
        size = _itemsize(dtype)
        left = len(stream.getbuffer()) - stream.tell()
        if not 0 <= count * size <= left:
            raise ValueError(f"{count} numbers are announced, {left} bytes are there")
        value_reader.storages[str(key)] = _numbers(stream.read(count * size), dtype)
    return value


def _load_zip(content: bytes) -> Any:
    """``torch.save`` as zip: ``<name>/data.pkl`` and the storages ``<name>/data/<key>``."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        total = sum(info.file_size for info in archive.infolist())
        if total > largest(len(content), MAX_BYTES):
            raise ValueError(f"{total / 2**20:.0f} MiB are announced")
        if any(info.compress_type not in (0, zipfile.ZIP_DEFLATED) for info in archive.infolist()):
            raise ValueError("a zip file that is compressed as torch's are not")
        names = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        if len(names) != 1:
            raise ValueError("a zip file without exactly one data.pkl")
        prefix = names[0].removesuffix("data.pkl")
        reader = _Unpickler(io.BytesIO(archive.read(names[0])))
        value = reader.load()
        for key, dtype in reader.asked.items():
            reader.storages[key] = _numbers(archive.read(f"{prefix}data/{key}"), dtype)
    return value


def mapping(value: Any) -> dict[Any, Any] | None:
    """The entries of a dictionary, ordered or not; None if it is none."""
    if isinstance(value, dict):
        return value
    if isinstance(value, Record) and value.kind == "ordereddict":
        try:
            pairs = value.args[0] if value.args else []
            return {**{pair[0]: pair[1] for pair in pairs}, **dict(value.items)}
        except (TypeError, LookupError):  # pairs that are none, or keys that cannot be
            return None
    return None


def sequence(value: Any) -> list[Any] | None:
    """The elements of a list, tuple or array of objects; None if it is none."""
    if isinstance(value, (list, tuple)):
        return list(value)
    if isinstance(value, Record) and value.kind == "array" and isinstance(value.state, tuple):
        data = value.state[4] if len(value.state) == 5 else None
        return list(data) if isinstance(data, list) else None
    return None


def array(value: Any) -> np.ndarray:
    """An array from a record of numpy's or torch's, a number, a list, or a list of arrays.

    Raises:
        TypeError, ValueError, LookupError, AttributeError: anything else, or contradictory sizes.
    """
    if isinstance(value, np.ndarray):
        return value
    if isinstance(value, (list, tuple)) and any(isinstance(item, Record) for item in value):
        return np.stack([array(item) for item in value])
    if not isinstance(value, Record):
        return rebuild_array(value)
    if value.kind == "parameter":
        return array(value.args[0])
    if value.kind == "tensor":
        return _tensor(value.args)
    return rebuild_array(value)


def _tensor(args: tuple[Any, ...]) -> np.ndarray:
    """A tensor's view of its storage, copied; bounds and sizes are checked first."""
    stored, offset, size, stride = args[:4]
    storage = _storage(stored)
    size, stride, offset = checked_shape(size), tuple(int(n) for n in stride), int(offset)
    # Strides of 0 let a tensor repeat a number: some do so, none a million times over.
    if math.prod(size) > max(storage.size, MAX_LISTED):
        raise ValueError(f"a tensor of shape {size}")
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if math.prod(size) == 0:
        return np.zeros(size, storage.dtype)
    if offset < 0 or min(stride, default=0) < 0 or last >= storage.size:
        raise ValueError(f"a tensor of shape {size} in a storage of {storage.size} numbers")
    steps = tuple(step * storage.itemsize for step in stride)
    return np.lib.stride_tricks.as_strided(storage[offset:], size, steps).copy()


def _storage(stored: Any) -> np.ndarray:
    """The flat numbers that a tensor looks at."""
    kind, args, _ = unwrap(stored)
    if kind == "frombytes":
        inner = args[0]
        if isinstance(inner, Record):
            kind, inner_args, _ = unwrap(inner)
            if kind != "bytes":
                raise TypeError("a storage that is not bytes")
            inner = inner_args[0]
        content = inner.encode("latin1") if isinstance(inner, str) else bytes(inner)
        stored = load(content)
        kind, args, _ = unwrap(stored)
    if kind != "stored":
        raise TypeError(f"a storage of kind {kind!r}")
    key, storages = args
    found: np.ndarray = storages[key]
    return found


def _itemsize(dtype: str) -> int:
    return 2 if dtype == "bfloat16" else np.dtype(dtype).itemsize


def _numbers(raw: bytes, dtype: str) -> np.ndarray:
    if dtype == "bfloat16":  # the upper half of a float32
        return (np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(np.float32)
    return np.frombuffer(raw, dtype)


def fields(value: Mapping[Any, Any]) -> dict[str, Any]:
    """A dictionary's entries under text keys; Python 2's byte keys are decoded.

    Keys that are neither texts nor numbers name nothing that is asked for, and are left out.
    """
    return {
        key.decode("latin1") if isinstance(key, bytes) else str(key): entry
        for key, entry in value.items()
        if isinstance(key, (str, bytes)) or (isinstance(key, int) and abs(key) < 1 << 64)
    }
