"""Saving pictures, videos and data into a run's ``save`` folder.

Every file is written under another name and renamed when it is whole.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import imageio.v2 as imageio
import numpy as np
import torch

from threestudio.utils import pictures
from threestudio.utils.errors import UserError
from threestudio.utils.files import atomic_write, write_text


class SaverMixin:
    """``save_…`` methods; each takes a name inside the save folder and returns the path.

    Where a ``name`` is given, pictures and videos are also sent to Weights & Biases, if the
    configuration turned it on.
    """

    _save_dir: str | None = None
    _wandb_logger: Any = None

    DEFAULT_RGB_KWARGS = pictures.RGB_DEFAULTS
    DEFAULT_UV_KWARGS = pictures.UV_DEFAULTS
    DEFAULT_GRAYSCALE_KWARGS = pictures.GRAYSCALE_DEFAULTS
    DEFAULT_GRID_KWARGS = pictures.GRID_DEFAULTS

    def set_save_dir(self, save_dir: str) -> None:
        self._save_dir = save_dir

    def get_save_dir(self) -> str:
        if self._save_dir is None:
            raise ValueError("no folder to save to is set; call set_save_dir first")
        return self._save_dir

    def get_save_path(self, filename: str) -> str:
        """The path of a file in the save folder; the folders on the way are made."""
        path = os.path.join(self.get_save_dir(), filename)
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot write {path}: {error.strerror}") from error
        return path

    def create_loggers(self, cfg_loggers: Any) -> None:
        """Make the loggers that ``system.loggers`` turns on: ``wandb: {enable, project, name}``."""
        wandb = (cfg_loggers or {}).get("wandb")
        if not wandb:
            return
        if not isinstance(wandb, Mapping):
            raise UserError(
                f"system.loggers.wandb is {wandb!r}; expected settings by name, as {{enable: true}}"
            )
        if not wandb.get("enable"):
            return
        try:
            from pytorch_lightning.loggers import WandbLogger

            self._wandb_logger = WandbLogger(project=wandb.get("project"), name=wandb.get("name"))
        except ModuleNotFoundError as error:
            raise UserError(
                "system.loggers.wandb.enable needs Weights & Biases: pip install wandb"
            ) from error

    def get_loggers(self) -> list[Any]:
        return [self._wandb_logger] if self._wandb_logger else []

    def convert_data(self, data: Any) -> Any:
        """Tensors to arrays, inside lists and dicts too."""
        if data is None or isinstance(data, np.ndarray):
            return data
        if isinstance(data, torch.Tensor):
            return data.detach().cpu().numpy()
        if isinstance(data, (list, tuple)):
            return [self.convert_data(value) for value in data]
        if isinstance(data, dict):
            return {key: self.convert_data(value) for key, value in data.items()}
        raise TypeError(f"tensors, arrays, lists and dicts can be saved, not {type(data)}")

    def _write_picture(
        self, filename: str, rgb: np.ndarray, name: str | None = None, step: int | None = None
    ) -> str:
        path = self.get_save_path(filename)
        pictures.write(path, rgb)
        if name and self._wandb_logger:
            self._wandb_logger.log_image(name, [path], step=step)
        return path

    def save_rgb_image(
        self,
        filename: str,
        img: Any,
        data_format: str = "HWC",
        data_range: tuple[float, float] = (0, 1),
        name: str | None = None,
        step: int | None = None,
    ) -> str:
        """Save [H, W, C] (or ``data_format="CHW"``); every three channels make one picture."""
        return self._write_picture(
            filename, pictures.rgb(self.convert_data(img), data_format, data_range), name, step
        )

    def save_grayscale_image(
        self,
        filename: str,
        img: Any,
        data_range: tuple[float, float] | None = None,
        cmap: str | None = "jet",
        name: str | None = None,
        step: int | None = None,
    ) -> str:
        """Save [H, W] in a colour map: None (grey), jet, magma or spectral.

        Without ``data_range`` the smallest value is one end of the map and the largest the other.
        """
        return self._write_picture(
            filename, pictures.grayscale(self.convert_data(img), data_range, cmap), name, step
        )

    def save_uv_image(
        self,
        filename: str,
        img: Any,
        data_format: str = "HWC",
        data_range: tuple[float, float] = (0, 1),
        cmap: str = "checkerboard",
    ) -> str:
        """Save texture coordinates [H, W, 2], as a checkerboard or as colours."""
        picture = pictures.uv(self.convert_data(img), data_format, data_range, cmap)
        return self._write_picture(filename, picture)

    def save_image_grid(
        self,
        filename: str,
        imgs: Sequence[Any],
        align: Any = "max",
        name: str | None = None,
        step: int | None = None,
        texts: Sequence[Any] | None = None,
    ) -> str:
        """Save pictures side by side.

        Args:
            imgs: dicts ``{"type": "rgb" | "grayscale" | "uv", "img", "kwargs"}``, where kwargs
                are those of the ``save_<type>_image``; or a list of such lists, one for each row.
            align: what each picture is resized to: ``"max"`` or ``"min"`` of the row, a size, or
                (height, width).
            texts: written on the picture, one below the other.
        """
        picture = pictures.grid(imgs, align, self.convert_data)
        if texts is not None:
            picture = pictures.write_texts(picture, [str(text) for text in texts])
        return self._write_picture(filename, picture, name, step)

    def save_image(self, filename: str, img: Any) -> str:
        """Save integers as they are: uint8 or uint16, [H, W], [H, W, 3] or [H, W, 4]."""
        img = self.convert_data(img)
        if img.dtype not in (np.uint8, np.uint16):
            raise TypeError(f"save_image takes uint8 or uint16, not {img.dtype}")
        return self._write_picture(filename, img)

    def save_data(self, filename: str, data: Any) -> str:
        """Save an array as ``.npy``, or a dict of arrays as ``.npz``."""
        data = self.convert_data(data)
        suffix = ".npz" if isinstance(data, dict) else ".npy"
        path = self.get_save_path(filename if filename.endswith(suffix) else filename + suffix)
        with atomic_write(path) as temporary, open(temporary, "wb") as file:
            if isinstance(data, dict):
                np.savez(file, **data)
            else:
                np.save(file, np.asarray(data), allow_pickle=False)
        return path

    def save_state_dict(self, filename: str, data: Any) -> str:
        """Save with ``torch.save``."""
        path = self.get_save_path(filename)
        with atomic_write(path) as temporary:
            torch.save(data, temporary)
        return path

    def save_json(self, filename: str, payload: Any) -> str:
        path = self.get_save_path(filename)
        write_text(path, json.dumps(payload))
        return path

    def save_file(self, filename: str, src_path: str) -> str:
        """Copy a file."""
        path = self.get_save_path(filename)
        with atomic_write(path) as temporary:
            shutil.copyfile(src_path, temporary)
        return path

    def save_img_sequence(
        self,
        filename: str,
        img_dir: str,
        matcher: str,
        save_format: str = "mp4",
        fps: int = 30,
        name: str | None = None,
        step: int | None = None,
    ) -> str:
        r"""Make a video of the pictures in a folder.

        Args:
            filename: of the video; its suffix is added where it lacks.
            img_dir: a folder inside the save folder.
            matcher: a regular expression for the pictures' names; its first group is the number
                they are ordered by, such as ``(\d+)\.png``.
            save_format: ``"mp4"`` or ``"gif"``.

        Raises:
            ValueError: if no picture matches.
        """
        if save_format not in ("mp4", "gif"):
            raise ValueError(f"videos are saved as mp4 or gif, not {save_format!r}")
        if not filename.endswith(save_format):
            filename += f".{save_format}"
        folder = Path(self.get_save_dir()) / img_dir
        found = [(re.search(matcher, path.name), path) for path in folder.glob("*")]
        numbered = sorted((int(match.group(1)), path) for match, path in found if match)
        if not numbered:
            raise ValueError(f"no picture in {folder} matches {matcher!r}")
        path = self.get_save_path(filename)
        with atomic_write(path) as temporary:
            write_video(temporary, (pictures.read(p) for _, p in numbered), save_format, fps)
        if name and self._wandb_logger:
            self._wandb_logger.log_video(name, [path], step=step, format=[save_format])
        return path

    def save_mesh(
        self, filename: str, v_pos: Any, t_pos_idx: Any, v_tex: Any = None, t_tex_idx: Any = None
    ) -> str:
        """Save vertices [V, 3] and triangles [F, 3], in the format of the suffix."""
        import trimesh

        mesh = trimesh.Trimesh(
            vertices=self.convert_data(v_pos), faces=self.convert_data(t_pos_idx), process=False
        )
        path = self.get_save_path(filename)
        with atomic_write(path) as temporary:
            mesh.export(temporary)
        return path


def write_video(path: str, frames: Iterable[np.ndarray], save_format: str, fps: float) -> None:
    """Write frames, uint8 [H, W, 3]; those of an mp4 are made even-sized, as H.264 demands."""
    if save_format == "gif":
        imageio.mimsave(path, list(frames), format="GIF", duration=1000 / fps, loop=0)
        return
    out: Any = imageio.get_writer(path, format="FFMPEG", fps=fps, quality=8, macro_block_size=1)
    with out:
        for frame in frames:
            bottom, right = frame.shape[0] % 2, frame.shape[1] % 2
            out.append_data(cv2.copyMakeBorder(frame, 0, bottom, 0, right, cv2.BORDER_REPLICATE))
