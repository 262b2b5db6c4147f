"""Pictures of characters, rendered once and kept on the device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from transformers import CLIPTokenizer

from tools.prior.logs import say
from tools.prior.settings import Settings
from tools.prior.tokenizer import STRAY_PHRASES, encode

TRAINING, HELD_OUT, SHOWN = range(3)  # independent streams of random numbers


class PictureSource(Protocol):
    """What is asked of :class:`headstudio.characters.CharacterDataset`."""

    def render(self, n_pictures: int, generator: torch.Generator) -> dict[str, Any]:
        """Pictures, control images, captions and attributes of random characters."""


def seed_of(*key: int) -> int:
    """A seed for one purpose, independent of those for other keys."""
    return int(np.random.SeedSequence(key).generate_state(1, np.uint32)[0])


@dataclass
class Pictures:
    """Rendered pictures with what is known about them.

    Attributes:
        image: ``[n, H, W, 3]`` uint8.
        control: ``[n, H, W, 3]`` uint8.
        control_weight: ``[n]`` float32, 0 where no landmark is visible.
        labels: ``[n, A]`` int64, the class of each attribute, or -100 where it has none.
        captions: n sentences.
        wordings: for each picture as many sentences, the first of which is its caption.
    """

    image: Tensor
    control: Tensor
    control_weight: Tensor
    labels: Tensor
    wordings: list[list[str]]

    @property
    def captions(self) -> list[str]:
        """One sentence for each picture."""
        return [texts[0] for texts in self.wordings]

    def __len__(self) -> int:
        return len(self.wordings)


def _bytes(picture: Tensor) -> Tensor:
    return (picture.clamp(0, 1) * 255).round().to(torch.uint8)


def as_input(pictures: Tensor, dtype: torch.dtype) -> Tensor:
    """uint8 ``[n, H, W, 3]`` to ``[n, 3, H, W]`` in 0..1."""
    return pictures.permute(0, 3, 1, 2).to(dtype) / 255


def attribute_classes(source: PictureSource, seed: int) -> dict[str, list[str]]:
    """The attributes of a source's pictures and the names of their classes."""
    generator = torch.Generator().manual_seed(seed_of(seed, SHOWN))
    return {k: list(v) for k, v in source.render(1, generator)["attribute_names"].items()}


def render_chunk(source: PictureSource, settings: Settings, stream: int, index: int) -> Pictures:
    """Chunk ``index`` of a stream: always the same pictures for the same seed."""
    seed = seed_of(settings.seed, stream, index)
    batch = source.render(settings.chunk, torch.Generator().manual_seed(seed))
    wordings = [list(t) for t in batch.get("wordings", [[c] for c in batch["captions"]])]
    if stream == TRAINING:
        rng = np.random.default_rng(seed)
        wordings = [add_stray_words(texts, settings.stray_words, rng) for texts in wordings]
    return Pictures(
        _bytes(batch["image"]),
        _bytes(batch["control"]),
        batch["control_weight"].float(),
        torch.stack([batch["attributes"][k].long() for k in batch["attribute_names"]], 1),
        wordings,
    )


def render_pictures(source: PictureSource, settings: Settings, stream: int, count: int) -> Pictures:
    """The first ``count`` pictures of a stream, whole chunks rounded up, then cut."""
    chunks = [render_chunk(source, settings, stream, i) for i in range(-(-count // settings.chunk))]
    return Pictures(
        *(
            torch.cat([getattr(c, name) for c in chunks])[:count]
            for name in ("image", "control", "control_weight", "labels")
        ),
        wordings=[texts for c in chunks for texts in c.wordings][:count],
    )


class FirstPictures:
    """The first pictures of the training stream, rendered when first asked for."""

    def __init__(self, source: PictureSource, settings: Settings) -> None:
        self.source, self.settings = source, settings
        self._pictures: Pictures | None = None

    def get(self) -> Pictures:
        """``settings.autoencoder_pictures`` of them."""
        if self._pictures is None:
            count = self.settings.autoencoder_pictures
            self._pictures = render_pictures(self.source, self.settings, TRAINING, count)
            say(f"{count} pictures rendered")
        return self._pictures

    def free(self) -> None:
        """Give their memory back."""
        self._pictures = None


def add_stray_words(captions: list[str], share: float, rng: np.random.Generator) -> list[str]:
    """Append a phrase of no consequence to some captions, before or after the last comma."""
    out = []
    for caption in captions:
        if rng.random() < share:
            phrase = STRAY_PHRASES[int(rng.integers(len(STRAY_PHRASES)))]
            head, comma, tail = caption.rpartition(", ")
            if comma and rng.random() < 0.5:
                caption = f"{head}, {phrase}, {tail}"
            else:
                caption = f"{caption}, {phrase}"
        out.append(caption)
    return out


@dataclass
class LatentBatch:
    """A batch for the denoiser, as stored; see :class:`LatentPool` for the shapes."""

    latents: Tensor
    control: Tensor
    control_weight: Tensor
    tokens: Tensor
    labels: Tensor


class LatentPool:
    """A ring of encoded chunks on the device that training draws from.

    Chunk i lies in slot i modulo the number of slots, so a run that is taken up again knows from
    the number of chunks made so far which ones to render anew.

    Attributes of the whole pool of N pictures: latents ``[N, 4, h, w]`` float16, already scaled to
    unit variance; control ``[N, H, W, 3]`` uint8; control_weight ``[N]``; tokens ``[N, W, 77]``
    int32 of W wordings; labels ``[N, A]`` int64.
    """

    def __init__(
        self,
        source: PictureSource,
        settings: Settings,
        tokenizer: CLIPTokenizer,
        encode_pictures: Callable[[Tensor], Tensor],
        chunks_made: int = 0,
    ) -> None:
        """Fill the ring with the chunks it held when ``chunks_made`` of them had been made."""
        self.source, self.settings, self.tokenizer = source, settings, tokenizer
        self.encode_pictures = encode_pictures
        self.slots = settings.diffusion_pictures // settings.chunk
        self.chunks_made = max(chunks_made, self.slots)
        self.tensors: dict[str, Tensor] = {}
        for index in range(self.chunks_made - self.slots, self.chunks_made):
            self._make(index)

    def __len__(self) -> int:
        return self.slots * self.settings.chunk

    def _make(self, index: int) -> None:
        pictures = render_chunk(self.source, self.settings, TRAINING, index)
        device = pictures.image.device
        made = {
            "latents": self.encode_pictures(pictures.image).to(torch.float16),
            "control": pictures.control,
            "control_weight": pictures.control_weight,
            "tokens": torch.stack(
                [encode(self.tokenizer, texts) for texts in zip(*pictures.wordings, strict=True)], 1
            ).to(device, torch.int32),
            "labels": pictures.labels.to(device),
        }
        if not self.tensors:
            self.tensors = {
                k: torch.empty(len(self), *v.shape[1:], dtype=v.dtype, device=device)
                for k, v in made.items()
            }
        start = index % self.slots * self.settings.chunk
        for name, value in made.items():
            self.tensors[name][start : start + self.settings.chunk] = value

    def refresh(self) -> None:
        """Replace the oldest chunk by a new one."""
        self._make(self.chunks_made)
        self.chunks_made += 1

    def draw(self, n: int, generator: torch.Generator) -> LatentBatch:
        """n random pictures, with repetition, each with one of its wordings."""
        device = generator.device
        pick = torch.randint(len(self), (n,), generator=generator, device=device)
        drawn = {name: value[pick] for name, value in self.tensors.items()}
        tokens = drawn["tokens"]
        wording = torch.randint(tokens.shape[1], (n,), generator=generator, device=device)
        drawn["tokens"] = tokens[torch.arange(n, device=device), wording]
        return LatentBatch(**drawn)
