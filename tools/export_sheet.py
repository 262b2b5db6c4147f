"""Draw what ``headstudio export`` writes as a .glb beside the splats it was made from.

    python -m tools.export_sheet a.ply b.ply --out docs/images/export_glb.png

For each avatar two rows: the splats; and the mesh as the file holds it, drawn with its vertex
colours. From the front, the side and behind, then with morph targets of a smile and of an open jaw.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import pygltflib
import torch
from torch import Tensor

from headstudio.app.player import Player
from headstudio.export import export_avatar
from headstudio.flame import FlameParams
from headstudio.render import Cameras
from headstudio.render.mesh import rasterize_mesh
from headstudio.render.pictures import label_strip, over, save_png, tile

VIEWS_DEG = (0.0, 60.0, 180.0)
ACTIONS: tuple[dict[str, float], ...] = (
    {name + side: 0.9 for name in ("mouthSmile", "cheekSquint") for side in ("Left", "Right")},
    {"jawOpen": 0.6, "eyeBlinkLeft": 1.0},
)
SIZE, FINER = 200, 3


class Mesh:
    """The one mesh of a file, with its colours as they are displayed."""

    def __init__(self, path: Path) -> None:
        self.gltf = pygltflib.GLTF2().load(str(path))
        self.names = self.gltf.meshes[0].extras["targetNames"]
        self.primitive = self.gltf.meshes[0].primitives[0]
        light = self._array(self.primitive.attributes.COLOR_0, np.float32, 3)
        self.colors = torch.where(
            light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055
        )
        count = self.gltf.accessors[self.primitive.indices].componentType
        index_type = np.uint16 if count == pygltflib.UNSIGNED_SHORT else np.uint32
        self.faces = self._array(self.primitive.indices, index_type, 3).long()

    def _array(self, index: int, dtype: type, columns: int) -> Tensor:
        view = self.gltf.bufferViews[self.gltf.accessors[index].bufferView]
        data = self.gltf.binary_blob()[view.byteOffset : view.byteOffset + view.byteLength]
        return torch.from_numpy(np.frombuffer(data, dtype).astype(np.float64)).view(-1, columns)

    def vertices(self, actions: dict[str, float]) -> Tensor:
        points = self._array(self.primitive.attributes.POSITION, np.float32, 3)
        for name, weight in actions.items():
            target = self.primitive.targets[self.names.index(name)]
            points = points + weight * self._array(target["POSITION"], np.float32, 3)
        return points.float()

    def draw(self, vertices: Tensor, cameras: Cameras) -> Tensor:
        """``[C, H, W, 3]`` on white."""
        fine = cameras.resized(cameras.height * FINER, cameras.width * FINER)
        seen = rasterize_mesh(vertices[None], self.faces, fine)
        colors = seen.interpolate(self.colors.float()[None], self.faces)
        picture = torch.where((seen.face_id >= 0)[..., None], colors, 1.0)[0]
        size = (cameras.height, FINER, cameras.width, FINER)
        return picture.unflatten(2, size[2:]).unflatten(1, size[:2]).mean((2, 4))


def rows(path: Path) -> tuple[list[Tensor], list[Tensor]]:
    """Pictures of an avatar's splats, and of its mesh."""
    player = Player.open(path)
    around = Cameras.orbit(torch.tensor(VIEWS_DEG), 5.0, 2.5, 40.0, SIZE, SIZE)
    front = Cameras.orbit(0.0, 5.0, 2.5, 40.0, SIZE, SIZE)
    rest = FlameParams.zeros(1, player.head.n_shape, player.head.n_expression)
    white = torch.ones(3)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "avatar.glb"
        export_avatar(file, "glb", player.avatar, player.head)
        mesh = Mesh(file)
    splats = list(player.render(rest, around, background=white).rgb[0])
    meshes = list(mesh.draw(player.frame.to_world(mesh.vertices({})), around))
    for actions in ACTIONS:
        expression = rest.expression.clone()
        for name, weight in actions.items():
            expression[0, player.head.expression_names.index(name)] = weight
        moved = rest.replace(expression=expression)
        splats += list(player.render(moved, front, background=white).rgb[0])
        meshes += list(mesh.draw(player.frame.to_world(mesh.vertices(actions)), front))
    return splats, meshes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("avatars", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    cells = []
    for path in options.avatars:
        for words, pictures in zip(("splats", ".glb"), rows(path), strict=True):
            pictures[0] = over(pictures[0], label_strip(words, SIZE, SIZE))
            cells += pictures
    save_png(options.out, tile(cells, len(VIEWS_DEG) + len(ACTIONS), (1.0, 1.0, 1.0)))


if __name__ == "__main__":
    main()
