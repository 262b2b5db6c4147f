"""CLIP score through torchmetrics, with any CLIP in transformers' layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics.multimodal import CLIPScore

from headstudio.errors import HeadStudioError
from headstudio.render.pictures import to_bytes


class _Embeddings(nn.Module):
    """A CLIP whose features are tensors: transformers 5 wraps them, torchmetrics 1.9 wants them
    plain."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model, self.config = model, model.config

    def get_image_features(self, pixel_values: Tensor) -> Tensor:
        return _plain(self.model.get_image_features(pixel_values=pixel_values))

    def get_text_features(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        features = self.model.get_text_features(input_ids=input_ids, attention_mask=attention_mask)
        return _plain(features)


def _plain(features: Any) -> Tensor:
    """The projected embeddings ``[B, D]`` of either form."""
    embedding = features if isinstance(features, Tensor) else features.pooler_output
    assert isinstance(embedding, Tensor)
    return embedding


class ClipScorer:
    """Mean CLIP score, max(100 cos(image, text), 0), of pictures for one sentence.

    Raises:
        HeadStudioError: if the CLIP cannot be loaded.
    """

    def __init__(self, name_or_folder: str | Path, device: torch.device | str = "cpu") -> None:
        from transformers import CLIPModel, CLIPProcessor

        name = str(name_or_folder)
        try:
            model = CLIPModel.from_pretrained(name, use_safetensors=True)
            processor = CLIPProcessor.from_pretrained(name)
        except Exception as error:  # transformers raises many kinds for absent and damaged files
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            advice = (
                "expected a folder in transformers' layout: config.json, model.safetensors, "
                "tokenizer and preprocessor_config.json"
                if Path(name).is_dir()
                else "it is no folder here; as a hub's name it needs a connection or a cached copy"
            )
            raise HeadStudioError(f"cannot load the CLIP {name}: {reason}\n{advice}.") from error
        self.device = torch.device(device)
        embeddings: Any = _Embeddings(model.eval().requires_grad_(False))
        self.metric = CLIPScore(model_name_or_path=lambda: (embeddings, processor)).to(self.device)

    @torch.no_grad()
    def __call__(self, pictures: Tensor, text: str, batch: int = 16) -> float:
        """The score of pictures ``[B, H, W, 3]`` in 0..1, averaged over them."""
        self.metric.reset()
        for part in pictures.split(batch):
            images = torch.from_numpy(to_bytes(part)).movedim(-1, 1).to(self.device)
            self.metric.update(images, [text] * len(part))
        return float(self.metric.compute())
