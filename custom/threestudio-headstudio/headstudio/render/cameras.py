"""Pinhole cameras, batched over poses and views."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from headstudio.errors import HeadStudioError


@dataclass
class Cameras:
    """``P`` poses seen by ``C`` cameras each. The world is z up, the face looks along +x.

    Attributes:
        c2w: camera to world ``[P, C, 4, 4]``, rigid, in OpenGL's convention (the camera looks
            along its own −z, +y is up in the picture), as threestudio hands it out.
        fovy: vertical field of view ``[P, C]``, radians. Pixels are square and the principal
            point is the middle of the picture.
        height, width: size of the picture in pixels.
        near, far: what is nearer or farther along the viewing axis is not drawn (world units).
    """

    c2w: Tensor
    fovy: Tensor
    height: int
    width: int
    near: float = 0.01
    far: float = 100.0

    def __post_init__(self) -> None:
        if self.c2w.ndim != 4 or self.c2w.shape[-2:] != (4, 4):
            raise HeadStudioError(
                f"c2w has shape {list(self.c2w.shape)}, expected [P, C, 4, 4] (poses, cameras). "
                "For one camera per pose give c2w[:, None], for one pose give c2w[None]."
            )
        if self.fovy.shape != self.c2w.shape[:2]:
            raise HeadStudioError(
                f"fovy has shape {list(self.fovy.shape)}, expected {list(self.c2w.shape[:2])}: "
                "one angle in radians per camera."
            )
        if self.height < 1 or self.width < 1:
            raise HeadStudioError(
                f"a picture of {self.width} x {self.height} px cannot be drawn; "
                "height and width must be at least 1."
            )
        if not 0 < self.near < self.far:
            raise HeadStudioError(f"expected 0 < near < far, got near={self.near}, far={self.far}.")

    @classmethod
    def orbit(
        cls,
        azimuth_deg: float | Tensor,
        elevation_deg: float | Tensor,
        distance: float | Tensor,
        fovy_deg: float | Tensor,
        height: int,
        width: int,
        device: torch.device | str | None = None,
    ) -> Cameras:
        """Cameras around the origin, looking at it, with the world's z up.

        Args:
            azimuth_deg: 0 is in front of the face (+x), 90 is the subject's left (+y).
            elevation_deg: angle above the horizon; ±90 is allowed.
            distance: to the origin, world units.
            fovy_deg: vertical field of view.
            height, width: size of the picture.
            device: where the tensors are made.

        The four quantities are numbers or ``[C]`` tensors, broadcast against each other.

        Returns:
            ``P = 1`` and ``C`` cameras.
        """
        azimuth, elevation, radius, fovy = torch.broadcast_tensors(
            *(
                torch.as_tensor(value, dtype=torch.float32, device=device).reshape(-1)
                for value in (azimuth_deg, elevation_deg, distance, fovy_deg)
            )
        )
        azimuth, elevation = torch.deg2rad(azimuth), torch.deg2rad(elevation)
        sin_a, cos_a = azimuth.sin(), azimuth.cos()
        sin_e, cos_e = elevation.sin(), elevation.cos()
        backward = torch.stack([cos_e * cos_a, cos_e * sin_a, sin_e], dim=-1)
        # From the azimuth alone, so that looking straight down is no special case.
        right = torch.stack([-sin_a, cos_a, torch.zeros_like(sin_a)], dim=-1)
        up = torch.linalg.cross(backward, right)
        c2w = torch.eye(4, device=azimuth.device).repeat(azimuth.numel(), 1, 1)
        c2w[:, :3, :] = torch.stack([right, up, backward, radius[:, None] * backward], dim=-1)
        return cls(c2w[None], torch.deg2rad(fovy)[None].clone(), height, width)

    @property
    def poses(self) -> int:
        """P."""
        return self.c2w.shape[0]

    @property
    def views(self) -> int:
        """C, the cameras per pose."""
        return self.c2w.shape[1]

    @property
    def positions(self) -> Tensor:
        """Camera centres in the world ``[P, C, 3]``."""
        return self.c2w[..., :3, 3]

    def to(self, device: torch.device | str) -> Cameras:
        """The same cameras on another device."""
        return replace(self, c2w=self.c2w.to(device), fovy=self.fovy.to(device))

    def resized(self, height: int, width: int) -> Cameras:
        """The same views with another number of pixels."""
        return replace(self, height=height, width=width)

    def expand(self, poses: int) -> Cameras:
        """Repeat the cameras of a single pose for ``poses`` poses (no copy)."""
        if self.poses == poses:
            return self
        if self.poses != 1:
            raise HeadStudioError(
                f"cameras are for {self.poses} poses and cannot be used for {poses}; "
                "give one set of cameras per pose, or a single set for all."
            )
        return replace(
            self, c2w=self.c2w.expand(poses, -1, -1, -1), fovy=self.fovy.expand(poses, -1)
        )

    def viewmats(self) -> Tensor:
        """World to camera ``[P, C, 4, 4]`` in OpenCV's convention (x right, y down, z forward)."""
        # Rigid, so the inverse's rotation is the transpose. Made without constants from the host,
        # which would make a GPU wait.
        right, up, backward = self.c2w[..., :3, :3].unbind(-1)
        rotation = torch.stack([right, -up, -backward], dim=-2)
        translation = -(rotation * self.positions[..., None, :]).sum(-1, keepdim=True)
        top = torch.cat([rotation, translation], dim=-1)
        zero = torch.zeros_like(right)
        bottom = torch.cat([zero, torch.ones_like(zero[..., :1])], dim=-1)[..., None, :]
        return torch.cat([top, bottom], dim=-2)

    def focal(self) -> Tensor:
        """Focal length in pixels ``[P, C]``, the same for x and y."""
        return 0.5 * self.height / torch.tan(0.5 * self.fovy)

    def intrinsics(self) -> Tensor:
        """Camera to pixel matrices ``[P, C, 3, 3]``; pixel (0, 0) covers [0, 1) x [0, 1)."""
        focal = self.focal()
        zero, one = torch.zeros_like(focal), torch.ones_like(focal)
        rows = [focal, zero, one * (0.5 * self.width)]
        rows += [zero, focal, one * (0.5 * self.height), zero, zero, one]
        return torch.stack(rows, dim=-1).unflatten(-1, (3, 3))

    def project(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Where points of the world fall in the pictures; differentiable.

        Args:
            points: ``[P, L, 3]``, or ``[1, L, 3]`` for all poses.

        Returns:
            pixel coordinates ``[P, C, L, 2]`` (x to the right, y down) and the distance along
            the viewing axis ``[P, C, L]``; a point with a distance below ``near`` is behind the
            camera and its pixel means nothing.
        """
        viewmats = self.viewmats()
        # Written out: a matrix product may run in TF32, which is pixels off at 1024 px.
        seen = (viewmats[:, :, None, :3, :3] * points[:, None, :, None, :]).sum(-1)
        x, y, depth = (seen + viewmats[:, :, None, :3, 3]).unbind(-1)
        scale = self.focal()[..., None] / depth.clamp(min=1e-6)
        pixels = torch.stack([x * scale + 0.5 * self.width, y * scale + 0.5 * self.height], dim=-1)
        return pixels, depth
