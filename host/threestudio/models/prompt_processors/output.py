"""A prompt's embeddings, and which of them a camera asks for."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from threestudio.utils.ops import shifted_expotional_decay

SIDE, FRONT, BACK, OVERHEAD = range(4)


def shift_azimuth_deg(azimuth: Tensor) -> Tensor:
    """The same azimuth, in degrees, in [-180, 180)."""
    return (azimuth + 180) % 360 - 180


@dataclass
class DirectionConfig:
    """A view: what it makes of the prompts, and which cameras see it.

    ``condition(elevation, azimuth, camera_distances)`` takes degrees, [B] each, and returns bool
    [B]. Where several views' conditions hold, the last one counts.
    """

    name: str
    prompt: Callable[[str], str]
    negative_prompt: Callable[[str], str]
    condition: Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass
class PromptProcessorOutput:
    """Embeddings of N tokens with F features.

    ``text_embeddings`` and ``uncond_text_embeddings`` (of the negative prompt) are [1, N, F];
    ``text_embeddings_vd`` and ``uncond_text_embeddings_vd`` [4, N, F], for the views in the
    order side, front, back, overhead.
    """

    text_embeddings: Tensor
    uncond_text_embeddings: Tensor
    text_embeddings_vd: Tensor
    uncond_text_embeddings_vd: Tensor
    directions: list[DirectionConfig]
    direction2idx: dict[str, int]
    use_perp_neg: bool
    perp_neg_f_sb: tuple[float, float, float]
    perp_neg_f_fsb: tuple[float, float, float]
    perp_neg_f_fs: tuple[float, float, float]
    perp_neg_f_sf: tuple[float, float, float]
    prompt: str
    prompts_vd: list[str]

    def view_index(self, elevation: Tensor, azimuth: Tensor, camera_distances: Tensor) -> Tensor:
        """Which view each camera sees: [B], indices into ``directions``."""
        index = torch.zeros_like(elevation, dtype=torch.long)
        for direction in self.directions:
            seen = direction.condition(elevation, azimuth, camera_distances)
            index[seen] = self.direction2idx[direction.name]
        return index

    def get_text_embeddings(
        self,
        elevation: Tensor,
        azimuth: Tensor,
        camera_distances: Tensor,
        view_dependent_prompting: bool = True,
    ) -> Tensor:
        """Embeddings for B cameras: [2B, N, F], the prompt's first, then the negative one's.

        Args:
            elevation, azimuth: degrees, [B].
            camera_distances: [B].
            view_dependent_prompting: use those of each camera's view.
        """
        if view_dependent_prompting:
            index = self.view_index(elevation, azimuth, camera_distances)
            index = index.to(self.text_embeddings_vd.device)
            pair = [self.text_embeddings_vd[index], self.uncond_text_embeddings_vd[index]]
        else:
            shape = (elevation.shape[0], -1, -1)
            pair = [self.text_embeddings.expand(shape), self.uncond_text_embeddings.expand(shape)]
        return torch.cat(pair, dim=0)

    def get_text_embeddings_perp_neg(
        self,
        elevation: Tensor,
        azimuth: Tensor,
        camera_distances: Tensor,
        view_dependent_prompting: bool = True,
    ) -> tuple[Tensor, Tensor]:
        """Embeddings for Perp-Neg (arXiv 2304.04968), which pushes away from wrong views.

        Returns:
            Embeddings [4B, N, F]: B interpolated between views by azimuth, B of the negative
            prompt, and two views to avoid for each camera, camera by camera; and the weights
            of the latter, [B, 2], zero or less (save ``perp_neg_f_fsb``'s at its defaults,
            which is always less).
        """
        if not view_dependent_prompting:
            raise ValueError("Perp-Neg works with view-dependent prompts only")
        views = self.text_embeddings_vd
        index = self.view_index(elevation, azimuth, camera_distances).to(views.device)
        uncond = self.uncond_text_embeddings_vd[index]
        # How far the camera has gone around: 0 front, 1 side, 2 back; the same left and right.
        turn = (shift_azimuth_deg(azimuth).abs() / 90).to(views.device)
        to_front, to_side = (1 - turn).clamp(min=0), (2 - turn).clamp(min=0)

        ahead = (turn < 1)[:, None, None]
        overhead = (index == OVERHEAD)[:, None, None]

        def blend(a: int, b: int, share_of_a: Tensor) -> Tensor:
            share = share_of_a[:, None, None]
            return share * views[a] + (1 - share) * views[b]

        positive = torch.where(ahead, blend(FRONT, SIDE, to_front), blend(SIDE, BACK, to_side))
        positive = torch.where(overhead, views[OVERHEAD], positive)
        avoid = torch.where(
            ahead[..., None], views[[FRONT, SIDE]], views[[SIDE, FRONT]]
        )  # [B, 2, N, F]
        avoid = torch.where(overhead[..., None], uncond[:, None], avoid)

        def weigh(curve: tuple[float, float, float], r: Tensor) -> Tensor:
            return -shifted_expotional_decay(*curve, r)

        weights = torch.where(
            ahead[..., 0],
            torch.stack(
                [weigh(self.perp_neg_f_fs, to_front), weigh(self.perp_neg_f_sf, 1 - to_front)], -1
            ),
            torch.stack(
                [weigh(self.perp_neg_f_sb, to_side), weigh(self.perp_neg_f_fsb, to_side)], -1
            ),
        )
        weights = torch.where(overhead[..., 0], 0.0, weights)
        embeddings = torch.cat([positive, uncond, avoid.flatten(0, 1)], dim=0)
        return embeddings, weights.to(elevation.device)
