"""``avatar-exporter``: the avatar as a file of ours, and in other programs' formats."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import threestudio
from headstudio.errors import HeadStudioError
from headstudio.export import SUFFIXES, UPS
from headstudio.motion import read_motion
from headstudio.motion.root import place_root
from headstudio.nearest import did_you_mean
from headstudio.plugin._common import resolve_asset
from headstudio.plugin.geometry import FlameGaussians
from headstudio.settings import check_all, setting
from threestudio.models.exporters.base import Exporter, ExporterOutput

AVATAR = "avatar"


@threestudio.register("avatar-exporter")
class AvatarExporter(Exporter):
    """Hands the avatar to the system's ``save_avatar`` and ``save_avatar_as``.

    By default ``save/it<N>-export/avatar.ply`` is all that is written. The others stand beside it:
    ``avatar.3dgs.ply``, ``avatar.compressed.ply``, ``avatar.splat`` and ``avatar.glb``.
    """

    @dataclass
    class Config(Exporter.Config):
        save_name: str = "avatar.ply"
        # avatar: our own file. ply, compressed-ply, splat, glb: see docs/exports.md.
        formats: list[str] = field(default_factory=lambda: [AVATAR])
        # Which axis of ply, compressed-ply and splat points up: z, y or y-down.
        up: str = setting("z", one_of=tuple(UPS))
        # A motion file that becomes the animation of the glb; none if empty.
        motion: str = ""
        # How often the glb's triangles are cut in four, for colours of finer detail: 0, 1 or 2.
        subdivide: int = setting(1, at_least=0, at_most=2)

        def __post_init__(self) -> None:
            check_all(self, "system.exporter")

        @staticmethod
        def conflicts(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
            """See :func:`headstudio.settings.violations`."""
            known = (AVATAR, *SUFFIXES)
            formats = values.get("formats", [])
            if "formats" in values and not formats:
                yield "formats", f"is empty; name what to write, of {', '.join(known)}"
            for name in formats:
                if name not in known:
                    near = did_you_mean(str(name), known)
                    yield "formats", f"names {name!r}{near} There are {', '.join(known)}"
            if "formats" in values and values.get("motion") and "glb" not in formats:
                yield "motion", "is the animation of the glb, which formats does not name"

    cfg: Config

    def configure(self, *args: Any, **kwargs: Any) -> None:
        super().configure(*args, **kwargs)

    def __call__(self, *args: Any, **kwargs: Any) -> list[ExporterOutput]:
        if not isinstance(self.geometry, FlameGaussians):
            raise HeadStudioError(
                "avatar-exporter writes the geometry flame-gaussians, not "
                f"{type(self.geometry).__name__}."
            )
        avatar = self.geometry.export()
        return [self._output(name, avatar) for name in dict.fromkeys(self.cfg.formats)]

    def _output(self, name: str, avatar: dict[str, Any]) -> ExporterOutput:
        if name == AVATAR:
            return ExporterOutput(self.cfg.save_name, "avatar", avatar)
        params = {key: avatar[key] for key in ("splats", "head", "shape")}
        params.update(file_format=name, extent=self.geometry.cfg.extent)
        if name == "glb":
            params["subdivisions"] = self.cfg.subdivide
            if self.cfg.motion:
                params["motion"] = place_root(read_motion(resolve_asset(self.cfg.motion)))
        else:
            params["up"] = self.cfg.up
        # avatar.ply is the avatar itself.
        suffix = ".3dgs.ply" if name == "ply" else SUFFIXES[name]
        return ExporterOutput(Path(self.cfg.save_name).stem + suffix, "avatar_as", params)
