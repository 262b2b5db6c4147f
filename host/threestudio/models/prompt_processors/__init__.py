"""From words to embeddings."""

from threestudio.models.prompt_processors import base, stable_diffusion_prompt_processor

__all__ = ["base", "stable_diffusion_prompt_processor"]
