"""The six classes this extension registers with threestudio, or with the embedded host.

The only room that imports ``threestudio``, and of that only names that both hosts have. Every class
reads its configuration and calls the library; what it computes is in the other rooms.

==============================  ===============================================================
``flame-gaussians``             geometry: splats that ride on a FLAME head, its learned shape
``gsplat-renderer``             posed splats and cameras -> pictures
``flame-controlnet-guidance``   pictures and a control image -> a gradient
``headstudio-system``           the training loop, validation, test video, export
``head-camera-datamodule``      random cameras and motion frames
``avatar-exporter``             ``avatar.ply``
==============================  ===============================================================
"""

import threestudio.utils.config as _host
from headstudio.plugin.config_check import as_texts
from headstudio.plugin.data import HeadCameraDataModule
from headstudio.plugin.exporter import AvatarExporter
from headstudio.plugin.geometry import FlameGaussians, PosedHead
from headstudio.plugin.guidance import FlameControlNetGuidance
from headstudio.plugin.renderer import GsplatRenderer
from headstudio.plugin.system import HeadStudioSystem

# The embedded host asks before it loads anything; threestudio itself does not, and there the
# classes say what is wrong with their own settings.
if hasattr(_host, "CHECKS") and as_texts not in _host.CHECKS:
    _host.CHECKS.append(as_texts)

__all__ = [
    "AvatarExporter",
    "FlameControlNetGuidance",
    "FlameGaussians",
    "GsplatRenderer",
    "HeadCameraDataModule",
    "HeadStudioSystem",
    "PosedHead",
]
