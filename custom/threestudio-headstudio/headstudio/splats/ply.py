"""Binary PLY files of scalar properties, read without trusting them.

plyfile writes them. It does not read them here, because it believes the header: it sets memory
aside for as many rows as a text file claims to have, and follows list properties. What we read
has neither, so that its exact size is known before anything is taken from it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from plyfile import PlyData, PlyElement

from headstudio.errors import HeadStudioError
from headstudio.paths import atomic_write

_MAX_HEADER = 2**20
_END = b"end_header\n"
_COUNT = re.compile(r"\d{1,18}", re.ASCII)
_TYPES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1",
    "short": "<i2", "int16": "<i2", "ushort": "<u2", "uint16": "<u2",
    "int": "<i4", "int32": "<i4", "uint": "<u4", "uint32": "<u4",
    "float": "<f4", "float32": "<f4", "double": "<f8", "float64": "<f8",
}  # fmt: skip


@dataclass
class _Element:
    name: str
    count: int
    properties: list[tuple[str, str]] = field(default_factory=list)

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(self.properties)


def write_ply(path: str | Path, elements: dict[str, np.ndarray], comments: list[str]) -> None:
    """Write structured arrays as the elements of a binary little-endian PLY file.

    Args:
        path: replaced only when everything is written.
        elements: name to structured array ``[n]`` of scalar fields, in order.
        comments: ASCII lines for the header.
    """
    described = [PlyElement.describe(array, name) for name, array in elements.items()]
    with atomic_write(path) as temporary:
        PlyData(described, text=False, byte_order="<", comments=comments).write(str(temporary))


def read_ply(path: str | Path) -> tuple[dict[str, np.ndarray], list[str]]:
    """Read a binary little-endian PLY file of scalar properties.

    Returns:
        Structured array of each element by name, and the comments.

    Raises:
        HeadStudioError: if there is no such file, it is not such a PLY file, or it is shorter or
            longer than its header says.
    """
    path = Path(path)
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise HeadStudioError(f"{path} is not a file; expected an avatar (.ply).")
    try:
        with path.open("rb") as file:
            head = file.read(_MAX_HEADER)
            end = head.find(_END)
            if not head.startswith(b"ply\n") or end < 0:
                raise HeadStudioError(f"{path} is not a PLY file, or its header is damaged.")
            elements, comments = _parse_header(path, head[:end])
            start = end + len(_END)
            expected = start + sum(e.count * e.dtype.itemsize for e in elements)
            size = path.stat().st_size
            if size != expected:
                raise HeadStudioError(
                    f"{path} is damaged: it has {size} bytes, and {expected} by its header. "
                    "Copy or export it again."
                )
            file.seek(start)
            data = {e.name: np.fromfile(file, e.dtype, e.count) for e in elements}
    except OSError as error:
        raise HeadStudioError(f"cannot read {path}: {error.strerror}.") from error
    return data, comments


def _parse_header(path: Path, header: bytes) -> tuple[list[_Element], list[str]]:
    try:
        lines = header.decode("ascii").splitlines()
    except UnicodeDecodeError as error:
        raise HeadStudioError(f"the header of {path} is damaged: it is not ASCII.") from error
    elements: list[_Element] = []
    comments: list[str] = []
    if "format binary_little_endian 1.0" not in lines:
        raise HeadStudioError(f"{path} is not in the format binary_little_endian 1.0.")
    for line in lines[1:]:
        keyword, _, rest = line.partition(" ")
        words = rest.split()
        if keyword == "comment":
            comments.append(rest)
        elif keyword == "element" and len(words) == 2 and _COUNT.fullmatch(words[1]):
            elements.append(_Element(words[0], int(words[1])))
        elif keyword == "property" and len(words) == 2 and words[0] in _TYPES and elements:
            elements[-1].properties.append((words[1], _TYPES[words[0]]))
        elif keyword not in ("format", "obj_info"):
            raise HeadStudioError(
                f"the header of {path} has a line that is not understood: {line[:80]!r}."
            )
    for element in elements:
        names = [name for name, _ in element.properties]
        if not names or len(set(names)) < len(names):
            raise HeadStudioError(
                f"the header of {path} is damaged: element {element.name} has no properties, or "
                "two of one name."
            )
    if len({element.name for element in elements}) < len(elements):
        raise HeadStudioError(f"the header of {path} is damaged: it repeats an element.")
    return elements, comments
