"""Embeddings on disk, and what tells one text encoder from another."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from threestudio.utils.files import atomic_write


def hash_prompt(model: str, prompt: str) -> str:
    """The name under which a prompt's embedding by a model is kept."""
    return hashlib.sha256(f"{model}\0{prompt}".encode()).hexdigest()


def hash_folders(folders: Sequence[Path]) -> str:
    """A hash of all files in some folders: their names and their contents."""
    total = hashlib.sha256()
    for folder in folders:
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            with open(path, "rb") as file:
                content = hashlib.sha256()
                while block := file.read(1 << 22):
                    content.update(block)
            name = path.relative_to(folder.parent).as_posix()
            total.update(f"{name}\0{content.hexdigest()}\n".encode())
    return total.hexdigest()


class EmbeddingCache:
    """A folder of embeddings, one file each. What cannot be read is made again."""

    def __init__(self, folder: str | Path, model: str) -> None:
        self.folder = Path(folder)
        self.model = model

    def path(self, prompt: str) -> Path:
        return self.folder / f"{hash_prompt(self.model, prompt)}.safetensors"

    def read(self, prompt: str) -> Tensor | None:
        """The embedding of a prompt, on the CPU, if there is one."""
        try:
            return load_file(self.path(prompt))["embedding"]
        except (OSError, SafetensorError, KeyError):
            return None

    def write(self, prompt: str, embedding: Tensor) -> None:
        with atomic_write(self.path(prompt)) as temporary:
            save_file({"embedding": embedding.detach().cpu().contiguous()}, temporary)

    def get(
        self, prompts: Sequence[str], encode: Callable[[list[str]], Tensor], read: bool = True
    ) -> dict[str, Tensor]:
        """Embeddings of all prompts; ``encode`` is asked once, for those that are missing.

        Args:
            encode: n prompts -> [n, N, F].
            read: whether to believe what is on disk.
        """
        found = {prompt: self.read(prompt) if read else None for prompt in prompts}
        missing = [prompt for prompt, embedding in found.items() if embedding is None]
        if missing:
            for prompt, embedding in zip(missing, encode(missing), strict=True):
                found[prompt] = embedding
                self.write(prompt, embedding)
        return {prompt: torch.as_tensor(embedding) for prompt, embedding in found.items()}
