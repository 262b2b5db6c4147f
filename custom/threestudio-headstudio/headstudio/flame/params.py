"""A batch of FLAME parameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from headstudio.errors import HeadStudioError

POSE_NAMES = ("global_orient", "neck_pose", "jaw_pose", "leye_pose", "reye_pose")
"""The rotations, in FLAME's joint order."""


@dataclass
class FlameParams:
    """FLAME parameters of P heads; any field may have 1 row instead, shared by all.

    Units: coefficients in standard deviations, rotations as axis-angle in radians, metres.

    Raises:
        HeadStudioError: a field that is not 2-D, a rotation or translation that is not 3 wide, or
            row counts that neither agree nor are 1.
    """

    shape: Tensor  # [P, n_shape]
    expression: Tensor  # [P, n_expression]
    global_orient: Tensor  # [P, 3] rotates the whole head about the root joint
    neck_pose: Tensor  # [P, 3]
    jaw_pose: Tensor  # [P, 3] positive x opens the mouth
    leye_pose: Tensor  # [P, 3]
    reye_pose: Tensor  # [P, 3]
    translation: Tensor  # [P, 3]

    def __post_init__(self) -> None:
        rows = set()
        for name, value in self.items():
            wide = value.ndim == 2 and (name in ("shape", "expression") or value.shape[1] == 3)
            if not wide:
                width = "n" if name in ("shape", "expression") else "3"
                raise HeadStudioError(
                    f"FLAME parameter {name} has shape {tuple(value.shape)}; expected [P, {width}]."
                )
            rows.add(value.shape[0])
        if len(rows - {1}) > 1:
            given = {name: value.shape[0] for name, value in self.items()}
            raise HeadStudioError(f"FLAME parameters disagree about the batch size: {given}.")

    @classmethod
    def zeros(
        cls,
        batch: int = 1,
        n_shape: int = 300,
        n_expression: int = 100,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> FlameParams:
        """The neutral head, ``batch`` times."""
        width = {"shape": n_shape, "expression": n_expression}
        return cls(
            **{
                field.name: torch.zeros(batch, width.get(field.name, 3), device=device, dtype=dtype)
                for field in fields(cls)
            }
        )

    @staticmethod
    def cat(parts: Sequence[FlameParams]) -> FlameParams:
        """All rows of ``parts``, one after another; shared fields are expanded where they must."""
        if not parts:
            raise HeadStudioError("cannot concatenate an empty list of FLAME parameters.")
        expanded = [part.expand() for part in parts]
        return FlameParams(
            **{
                name: torch.cat([getattr(part, name) for part in expanded])
                for name, _ in parts[0].items()
            }
        )

    def items(self) -> list[tuple[str, Tensor]]:
        """Names and tensors, in the order of the fields."""
        return [(field.name, getattr(self, field.name)) for field in fields(self)]

    @property
    def batch_size(self) -> int:
        """P."""
        rows = {value.shape[0] for _, value in self.items()}
        return next(iter(rows - {1}), 1)

    @property
    def device(self) -> torch.device:
        """The device of the expression, which all fields are expected to share."""
        return self.expression.device

    def expand(self) -> FlameParams:
        """The same parameters with shared fields repeated (as views) to P rows."""
        size = self.batch_size
        return FlameParams(**{name: value.expand(size, -1) for name, value in self.items()})

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> FlameParams:
        """The same on another device or in another precision."""
        return FlameParams(
            **{name: value.to(device=device, dtype=dtype) for name, value in self.items()}
        )

    def replace(self, **changes: Tensor) -> FlameParams:
        """A copy with some fields exchanged."""
        return replace(self, **changes)

    def __len__(self) -> int:
        return self.batch_size

    def __getitem__(self, index: int | slice | Tensor) -> FlameParams:
        """The chosen rows; an integer keeps the batch dimension, shared fields stay shared."""
        size = self.batch_size
        if isinstance(index, int):
            if not -size <= index < size:
                raise IndexError(f"row {index} of {size}")
            index = slice(index % size, index % size + 1)
        if size == 1:
            # Everything is "shared" then; indexing has to act all the same.
            return FlameParams(**{name: value[index] for name, value in self.items()})
        return FlameParams(
            **{name: value if value.shape[0] == 1 else value[index] for name, value in self.items()}
        )
