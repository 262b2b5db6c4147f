"""Features that are colours already."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

import threestudio
from threestudio.models.materials.base import BaseMaterial
from threestudio.models.networks import get_mlp
from threestudio.utils.ops import get_activation


@threestudio.register("no-material")
class NoMaterial(BaseMaterial):
    """An activation of the features, after a network if the configuration describes one."""

    @dataclass
    class Config(BaseMaterial.Config):
        n_output_dims: int = 3
        color_activation: str = "sigmoid"
        input_feature_dims: int | None = None
        mlp_network_config: dict | None = None
        requires_normal: bool = False

    cfg: Config

    def configure(self) -> None:
        cfg: Any = self.cfg
        self.requires_normal = cfg.requires_normal
        self.use_network = cfg.input_feature_dims is not None and cfg.mlp_network_config is not None
        if self.use_network:
            self.network = get_mlp(
                cfg.input_feature_dims, cfg.n_output_dims, cfg.mlp_network_config
            )

    def forward(self, features: Tensor, **kwargs: Any) -> Tensor:
        """[..., n_features] -> [..., n_output_dims]."""
        if self.use_network:
            features = self.network(features)
        elif features.shape[-1] != self.cfg.n_output_dims:
            raise ValueError(
                f"no-material expects {self.cfg.n_output_dims} features, not {features.shape[-1]}"
            )
        return get_activation(self.cfg.color_activation)(features)

    def export(self, features: Tensor, **kwargs: Any) -> dict[str, Any]:
        """``albedo``: the first three channels, in [0, 1]."""
        return {"albedo": self(features, **kwargs).clamp(0, 1)[..., :3]}
