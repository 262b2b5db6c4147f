"""Characters as splats, many at once.

Everything that depends on the head alone is prepared once per head by :class:`CharacterStudio`:
where splats lie, what they could be (hair of every style, beards, glasses) and where which colour
may go. A character then is a choice among these and a mixture of colours; both are done for a whole
batch of characters by tensor operations on the studio's device.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from headstudio.characters import accessories, details, hair
from headstudio.characters.anatomy import Anatomy
from headstudio.characters.attributes import (
    ACCESSORIES,
    BEARDS,
    GLASSES,
    HAIR_STYLES,
    PAINTS,
    Character,
    has_brows,
    option_index,
)
from headstudio.characters.cloud import Cloud
from headstudio.characters.colors import paint_surface, part_color
from headstudio.characters.hair_styles import STYLES
from headstudio.characters.paint import build_paint
from headstudio.characters.people import facial_traits
from headstudio.characters.surface import Surface, build_surface
from headstudio.errors import HeadStudioError
from headstudio.flame import FlameParams, HeadModel
from headstudio.splats import (
    Splats,
    TriangleFrames,
    quaternion_conjugate,
    quaternion_product,
    rgb_to_sh,
    triangle_frames,
)

DEFAULT_SPLATS, LEAST_SPLATS = 24000, 4000
HAIR_VARIANTS = 2
# Splats of the parts whose size does not depend on n_splats: as many as the largest of each needs.
_FIXED = {"brows": 300, "lashes": 36, "glasses": 370, "accessory": 630}
_SHARES = {"surface": 0.575, "hair": 0.365}  # of the others; the rest is for beards
_NEIGHBOURS = 6  # vertices whose displacement an attached splat follows when the identity changes


@dataclass
class SplatBatch:
    """P characters of N splats each, triangle-local as :class:`headstudio.splats.Splats`."""

    means: Tensor  # [P, N, 3]
    quats: Tensor  # [P, N, 4] wxyz
    scales: Tensor  # [P, N, 3] log
    opacities: Tensor  # [P, N] 0..1, exactly 0 for splats that a character does not use
    rgb: Tensor  # [P, N, 3] 0..1
    face: Tensor  # [P, N] int64
    shape: Tensor  # [P, n_shape] the characters' identities

    def __len__(self) -> int:
        return self.means.shape[0]

    def __getitem__(self, index: Tensor | slice) -> SplatBatch:
        return SplatBatch(**{name: value[index] for name, value in vars(self).items()})

    def to(self, device: torch.device | str) -> SplatBatch:
        """The same on another device."""
        return SplatBatch(**{name: value.to(device) for name, value in vars(self).items()})

    def splats(self, index: int) -> Splats:
        """One character, without the splats it does not use."""
        used = self.opacities[index] > 0
        return Splats(
            means=self.means[index][used],
            quats=self.quats[index][used],
            scales=self.scales[index][used],
            opacities=self.opacities[index][used].clamp(1e-4, 0.9999).logit(),
            colors=rgb_to_sh(self.rgb[index][used]),
            face=self.face[index][used],
        )

    def pose(self, frames: TriangleFrames) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """What :func:`headstudio.render.render` takes, for one pose per character.

        Args:
            frames: of P poses, in world space.

        Returns:
            means [P, N, 3], quats [P, N, 4], scales [P, N, 3] (linear), opacities [P, N],
            rgb [P, N, 3].
        """
        origin, rotation, quat, scale = _gather(frames, self.face)
        means = origin + scale * torch.einsum("pnij,pnj->pni", rotation, self.means)
        quats = quaternion_product(quat, self.quats)
        return means, quats, scale * self.scales.exp(), self.opacities, self.rgb


def _gather(frames: TriangleFrames, face: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Origin [P, N, 3], rotation [P, N, 3, 3], quat [P, N, 4], scale [P, N, 1] by triangle."""
    row = torch.arange(face.shape[0], device=face.device)[:, None]
    if frames.origin.shape[0] != face.shape[0]:
        raise HeadStudioError(
            f"{face.shape[0]} characters need as many poses, got {frames.origin.shape[0]}"
        )
    return (
        frames.origin[row, face],
        frames.rotation[row, face],
        frames.quat[row, face],
        frames.scale[row, face][..., None],
    )


class _Pool:
    """Alternative clouds of the same size stacked to tensors: K alternatives of M splats."""

    def __init__(self, clouds: list[Cloud], anatomy: Anatomy, device: torch.device) -> None:
        def stack(rows: list[np.ndarray]) -> Tensor:
            return torch.tensor(np.stack(rows), dtype=torch.float32, device=device)

        self.points = stack([c.points for c in clouds])  # [K, M, 3]
        self.quats = stack([c.quaternions() for c in clouds])
        self.log_sizes = stack([np.log(c.sizes) for c in clouds])
        self.opacity = stack([c.opacity for c in clouds])
        self.shade = stack([c.shade for c in clouds])
        self.tint = stack([c.tint for c in clouds])
        self.tint_amount = stack([c.tint_amount for c in clouds])
        self.face = torch.tensor(np.stack([c.face for c in clouds]), device=device)
        self.neighbours, self.weights = _neighbours(clouds, anatomy, device)

    def __len__(self) -> int:
        return self.points.shape[1]


def _neighbours(
    clouds: list[Cloud], anatomy: Anatomy, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Vertices [K, M, J] and weights [K, M, J] by which a splat follows a change of identity."""
    tree, index, weight = anatomy.vertex_tree, [], []
    for cloud in clouds:
        distance, nearest = tree.query(cloud.points, k=_NEIGHBOURS)
        w = 1.0 / (distance + 2e-3) ** 2
        index.append(anatomy.outer_vertices[nearest])
        weight.append(w / w.sum(1, keepdims=True))
    return (
        torch.tensor(np.stack(index), device=device),
        torch.tensor(np.stack(weight), dtype=torch.float32, device=device),
    )


def character_shape(character: Character, head: HeadModel) -> Tensor:
    """Identity coefficients ``[n_shape]`` on the CPU: the character's own, and what its words say
    of a face on a head whose ``shape_names`` know them (see tools/open_head/identity.py)."""
    shape = torch.zeros(head.n_shape)
    own = torch.tensor(character.shape[: head.n_shape])
    shape[: len(own)] = own
    for name, amount in facial_traits(character).items():
        if name in head.shape_names:
            shape[head.shape_names.index(name)] += amount
    return shape


class CharacterStudio:
    """Makes characters on one head, on the head's device.

    Args:
        head: the open head, or another with labelled regions and landmarks.
        n_splats: splats per character, at least :data:`LEAST_SPLATS`.
        seed: of the sample points and of the hair.

    Raises:
        HeadStudioError: a head without regions or landmarks; too few splats.
    """

    def __init__(self, head: HeadModel, n_splats: int = DEFAULT_SPLATS, seed: int = 0) -> None:
        if n_splats < LEAST_SPLATS:
            raise HeadStudioError(
                f"a character needs at least {LEAST_SPLATS} splats, got {n_splats}"
            )
        self.head, self.n_splats = head, n_splats
        self.device = head.v_template.device
        self.anatomy = anatomy = Anatomy(head)
        free = n_splats - sum(_FIXED.values())
        counts = {part: int(share * free) for part, share in _SHARES.items()} | _FIXED
        counts["beard"] = n_splats - sum(counts.values())
        surface = build_surface(anatomy, counts["surface"], seed)
        self.surface = surface
        scalp = hair.Scalp(anatomy, surface)
        rng = np.random.default_rng(seed)
        clouds = {
            "hair": [
                hair.build_hair(style.name, scalp, counts["hair"], seed + 1 + variant)
                for style in HAIR_STYLES
                for variant in range(HAIR_VARIANTS)
            ],
            "beard": [
                details.build_beard(anatomy, surface, o.name, counts["beard"], seed) for o in BEARDS
            ],
            "brows": [details.build_brows(anatomy, surface, w, seed) for w in (0.75, 1.15)],
            "lashes": [details.build_lashes(anatomy, surface, w) for w in (0.25, 1.0)],
            "glasses": [accessories.build_glasses(anatomy, surface, o.name) for o in GLASSES],
            "accessory": [
                accessories.build_accessory(anatomy, surface, name)
                for name in (*(o.name for o in ACCESSORIES), "red nose")
            ],
        }
        self.pools = {
            part: _Pool([c.resized(counts[part], rng) for c in options], anatomy, self.device)
            for part, options in clouds.items()
        }
        self._set_surface(surface, scalp)

    def _set_surface(self, surface: Surface, scalp: hair.Scalp) -> None:
        def tensor(array: np.ndarray) -> Tensor:
            return torch.tensor(array, dtype=torch.float32, device=self.device)

        cloud = surface.cloud
        self.masks = {name: tensor(mask) for name, mask in surface.masks.items()}
        self.masks["skin"] = tensor(surface.skin)
        self.light, self.noise = tensor(surface.shade), tensor(surface.noise.T)
        self.paints = tensor(np.stack([build_paint(o.name, self.anatomy, surface) for o in PAINTS]))
        coverage = [np.zeros(len(cloud))]
        for style in HAIR_STYLES[1:]:
            part = scalp.coverage(cloud.points, STYLES[style.name].covers)
            coverage.append(surface.masks["scalp"] * part)
        self.hair_coverage = tensor(np.stack(coverage))  # [styles, n]
        rest = triangle_frames(self.head.v_template[None], self.head.faces)
        face = torch.tensor(cloud.face, device=self.device)
        quats, points = tensor(cloud.quaternions()), tensor(cloud.points)
        origin, rotation, quat, scale = _gather(rest, face[None])
        self._surface_face = face
        self._surface_means = torch.einsum("nji,nj->ni", rotation[0], points - origin[0]) / scale[0]
        self._surface_quats = quaternion_product(quaternion_conjugate(quat[0]), quats)
        self._surface_scales = tensor(np.log(cloud.sizes)) - scale[0].log()
        self._surface_opacity = tensor(cloud.opacity)

    @torch.no_grad()
    def build(self, characters: list[Character]) -> SplatBatch:
        """Splats of P characters, ``n_splats`` each, on the studio's device."""
        shape = self._shapes(characters)
        neutral = FlameParams.zeros(
            1, n_shape=shape.shape[1], n_expression=self.head.n_expression, device=self.device
        )
        vertices = self.head(neutral.replace(shape=shape))
        frames = triangle_frames(vertices, self.head.faces)
        displacement = vertices - self.head.v_template

        count = len(characters)
        surface_rgb = paint_surface(self, characters)
        parts: list[tuple[Tensor, ...]] = [
            (
                self._surface_means.expand(count, -1, -1),
                self._surface_quats.expand(count, -1, -1),
                self._surface_scales.expand(count, -1, -1),
                self._surface_opacity.expand(count, -1),
                surface_rgb,
                self._surface_face.expand(count, -1),
            )
        ]
        for name, choice in self._choices(characters).items():
            parts.append(self._attached(name, choice, characters, displacement, frames))
        means, quats, scales, opacities, rgb, face = (
            torch.cat(column, dim=1) for column in zip(*parts, strict=True)
        )
        return SplatBatch(means, quats, scales, opacities, rgb, face, shape)

    def _shapes(self, characters: list[Character]) -> Tensor:
        return torch.stack([character_shape(c, self.head) for c in characters]).to(self.device)

    def _choices(self, characters: list[Character]) -> dict[str, Tensor]:
        """Which alternative of every pool each character takes: [P] each."""
        rows: dict[str, list[int]] = {name: [] for name in self.pools}
        for c in characters:
            style = option_index("hair_style", c.hair_style)
            rows["hair"].append(style * HAIR_VARIANTS + c.seed % HAIR_VARIANTS)
            rows["beard"].append(option_index("beard", c.beard))
            rows["brows"].append(0 if c.gender == "woman" else 1)
            rows["lashes"].append(1 if c.gender == "woman" else 0)
            rows["glasses"].append(option_index("glasses", c.glasses))
            thing = option_index("accessory", c.accessory)
            if c.archetype == "clown" and c.accessory == "none":
                thing = len(ACCESSORIES)
            rows["accessory"].append(thing)
        return {name: torch.tensor(row, device=self.device) for name, row in rows.items()}

    def _attached(
        self,
        name: str,
        choice: Tensor,
        characters: list[Character],
        displacement: Tensor,
        frames: TriangleFrames,
    ) -> tuple[Tensor, ...]:
        """Local parameters of one pool's splats on the characters' own heads."""
        pool = self.pools[name]
        index, weights = pool.neighbours[choice], pool.weights[choice]  # [P, M, J]
        row = torch.arange(len(choice), device=self.device)[:, None]
        shift = torch.zeros_like(pool.points[choice])
        for j in range(index.shape[2]):  # one neighbour at a time: a sixth of the memory
            shift += weights[..., j, None] * displacement[row, index[..., j]]
        points, face = pool.points[choice] + shift, pool.face[choice]
        origin, rotation, quat, scale = _gather(frames, face)
        means = torch.einsum("pnji,pnj->pni", rotation, points - origin) / scale
        quats = quaternion_product(quaternion_conjugate(quat), pool.quats[choice])
        rgb = part_color(name, characters, self.device)[:, None] * pool.shade[choice][..., None]
        amount = pool.tint_amount[choice][..., None]
        rgb = rgb * (1 - amount) + pool.tint[choice] * amount
        return (
            means,
            F.normalize(quats, dim=-1),
            pool.log_sizes[choice] - scale.log(),
            pool.opacity[choice] * self._visibility(name, characters),
            rgb.clamp(0, 1),
            face,
        )

    def _visibility(self, name: str, characters: list[Character]) -> Tensor:
        """[P, 1]: whether a part is there at all."""
        hidden = {
            "brows": lambda c: not has_brows(c),
            "lashes": lambda c: c.paint == "skull",
        }.get(name, lambda c: False)
        return torch.tensor([[0.0 if hidden(c) else 1.0] for c in characters], device=self.device)


@lru_cache(maxsize=2)
def _cached_studio(content_hash: str, n: int, seed: int, holder: _Held) -> CharacterStudio:
    return CharacterStudio(holder.head, n, seed)


class _Held:
    """Carries a head through the cache, whose key is the head's content."""

    def __init__(self, head: HeadModel) -> None:
        self.head = head

    def __hash__(self) -> int:
        return hash(str(self.head.v_template.device))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Held) and hash(self) == hash(other)


def studio_for(head: HeadModel, n: int = DEFAULT_SPLATS, seed: int = 0) -> CharacterStudio:
    """The studio of a head; made once for the same head, device, number and seed."""
    return _cached_studio(head.content_hash, n, seed, _Held(head))


def build_splats(
    character: Character, head: HeadModel, n: int = DEFAULT_SPLATS, seed: int = 0
) -> Splats:
    """One character as splats on ``head``.

    Args:
        character: who.
        head: the open head.
        n: the most splats it may have (unused ones, such as a bald head's hair, are left out).
        seed: of the sample points.

    Returns:
        Splats that ride on the head's triangles; pose them with the character's own ``shape``.
    """
    return studio_for(head, n, seed).build([character]).splats(0)
