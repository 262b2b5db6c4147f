"""A skinned, morphing mesh as a binary glTF 2.0 file, written with pygltflib.

What is here is the file format and nothing of heads. glTF deforms a vertex as FLAME does: first
the morph targets are added, then the joints carry it along (glTF 2.0, sec. 3.7.2.2 and 3.7.3).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pygltflib as gl

from headstudio.paths import atomic_write

Array = np.ndarray


@dataclass
class Joint:
    """A joint of a skeleton, at rest without a rotation."""

    name: str
    parent: int  # index of an earlier joint, -1 for the root
    position: Array  # [3] at rest, in the mesh's frame
    rotation: Array = field(default_factory=lambda: np.array([0.0, 0.0, 0.0, 1.0]))  # xyzw, now
    offset: Array = field(default_factory=lambda: np.zeros(3))  # moved by this, now


@dataclass
class SkinnedMesh:
    """V vertices, F triangles, K morph targets, at rest; metres, y up, the front along +z."""

    name: str
    positions: Array  # [V, 3]
    normals: Array  # [V, 3] unit
    colors: Array  # [V, 3] linear RGB, 0..1
    faces: Array  # [F, 3]
    target_names: list[str]  # K
    targets: Array  # [K, V, 3] displacements for weight 1
    weights: Array  # [K], now
    joints: list[Joint]
    skin: Array  # [V, joints], rows sum to 1
    extras: dict[str, Any] = field(default_factory=dict)


@dataclass
class Track:
    """An animation of T moments; what does not move is left out."""

    name: str
    seconds: Array  # [T], increasing
    weights: Array | None = None  # [T, K]
    rotations: dict[int, Array] = field(default_factory=dict)  # joint to [T, 4], xyzw
    offsets: dict[int, Array] = field(default_factory=dict)  # joint to [T, 3]


def write_glb(path: str | Path, mesh: SkinnedMesh, track: Track | None = None) -> None:
    """Write a ``.glb``, at once or not at all."""
    writer = _Writer()
    writer.add(mesh)
    if track is not None:
        writer.animate(mesh, track)
    writer.gltf.set_binary_blob(bytes(writer.blob))
    writer.gltf.buffers = [gl.Buffer(byteLength=len(writer.blob))]
    with atomic_write(path) as temporary:
        writer.gltf.save_binary(str(temporary))


_COMPONENTS = {
    np.dtype(np.float32): gl.FLOAT,
    np.dtype(np.uint8): gl.UNSIGNED_BYTE,
    np.dtype(np.uint16): gl.UNSIGNED_SHORT,
    np.dtype(np.uint32): gl.UNSIGNED_INT,
}
_TYPES = {(): gl.SCALAR, (3,): gl.VEC3, (4,): gl.VEC4, (4, 4): gl.MAT4}
_MESH_NODE = 0


class _Writer:
    def __init__(self) -> None:
        self.blob = bytearray()
        self.gltf = gl.GLTF2(
            asset=gl.Asset(version="2.0", generator="threestudio-headstudio"),
            scene=0,
            extensionsUsed=["KHR_materials_unlit"],
        )

    def accessor(self, array: Array, target: int | None = None, bounds: bool = False) -> int:
        """Append an array ``[n, ...]`` to the buffer; returns the index of its accessor."""
        array = np.ascontiguousarray(array)
        self.blob.extend(b"\0" * (-len(self.blob) % 4))
        view = gl.BufferView(
            buffer=0, byteOffset=len(self.blob), byteLength=array.nbytes, target=target
        )
        self.blob.extend(array.tobytes())
        self.gltf.bufferViews.append(view)
        accessor = gl.Accessor(
            bufferView=len(self.gltf.bufferViews) - 1,
            componentType=_COMPONENTS[array.dtype],
            count=len(array),
            type=_TYPES[array.shape[1:]],
        )
        if bounds:
            accessor.min = np.atleast_1d(array.min(0)).tolist()
            accessor.max = np.atleast_1d(array.max(0)).tolist()
        self.gltf.accessors.append(accessor)
        return len(self.gltf.accessors) - 1

    def vertex(self, array: Array, bounds: bool = False, dtype: Any = np.float32) -> int:
        return self.accessor(array.astype(dtype), gl.ARRAY_BUFFER, bounds)

    def add(self, mesh: SkinnedMesh) -> None:
        """The mesh, its material, its skeleton and the scene that holds them."""
        influence, weight = _strongest(mesh.skin)
        # 65535 itself would restart the primitive.
        index_type = np.uint16 if len(mesh.positions) < 65535 else np.uint32
        primitive = gl.Primitive(
            attributes=gl.Attributes(
                POSITION=self.vertex(mesh.positions, bounds=True),
                NORMAL=self.vertex(mesh.normals),
                COLOR_0=self.vertex(mesh.colors),
                JOINTS_0=self.vertex(influence, dtype=np.uint8),
                WEIGHTS_0=self.vertex(weight),
            ),
            indices=self.accessor(mesh.faces.astype(index_type).ravel(), gl.ELEMENT_ARRAY_BUFFER),
            material=0,
            targets=[gl.Attributes(POSITION=self.vertex(x, bounds=True)) for x in mesh.targets],
        )
        self.gltf.materials = [_material()]
        self.gltf.meshes = [
            gl.Mesh(
                name=mesh.name,
                primitives=[primitive],
                weights=mesh.weights.astype(float).tolist(),
                extras={"targetNames": mesh.target_names},
            )
        ]
        first = _MESH_NODE + 1
        self.gltf.nodes = [gl.Node(name=mesh.name, mesh=0, skin=0), *self._joint_nodes(mesh, first)]
        roots = [first + i for i, joint in enumerate(mesh.joints) if joint.parent < 0]
        self.gltf.scenes = [gl.Scene(name=mesh.name, nodes=[_MESH_NODE, *roots])]
        self.gltf.skins = [
            gl.Skin(
                name=mesh.name,
                joints=[first + i for i in range(len(mesh.joints))],
                inverseBindMatrices=self.accessor(_inverse_bind(mesh.joints)),
            )
        ]
        self.gltf.asset.extras = mesh.extras

    @staticmethod
    def _joint_nodes(mesh: SkinnedMesh, first: int) -> list[gl.Node]:
        children: list[list[int]] = [[] for _ in mesh.joints]
        for i, joint in enumerate(mesh.joints):
            if joint.parent >= 0:
                children[joint.parent].append(first + i)
        return [
            gl.Node(
                name=joint.name,
                translation=(_local(mesh.joints, i) + joint.offset).tolist(),
                rotation=joint.rotation.tolist(),
                children=children[i],
            )
            for i, joint in enumerate(mesh.joints)
        ]

    def animate(self, mesh: SkinnedMesh, track: Track) -> None:
        """Add the one animation."""
        first = _MESH_NODE + 1
        times = self.accessor(track.seconds.astype(np.float32), bounds=True)
        animation = gl.Animation(name=track.name)

        def channel(node: int, path: str, values: Array) -> None:
            output = self.accessor(values.astype(np.float32))
            animation.samplers.append(gl.AnimationSampler(input=times, output=output))
            sampler = len(animation.samplers) - 1
            target = gl.AnimationChannelTarget(node=node, path=path)
            animation.channels.append(gl.AnimationChannel(sampler=sampler, target=target))

        if track.weights is not None:
            channel(_MESH_NODE, "weights", track.weights.ravel())
        for joint, quaternions in track.rotations.items():
            channel(first + joint, "rotation", _continuous(quaternions))
        for joint, offsets in track.offsets.items():
            channel(first + joint, "translation", _local(mesh.joints, joint) + offsets)
        self.gltf.animations = [animation] if animation.channels else []


def _material() -> gl.Material:
    """The colours as they are; where that extension is unknown, matt and lit from both sides."""
    return gl.Material(
        name="splats",
        doubleSided=True,
        pbrMetallicRoughness=gl.PbrMetallicRoughness(metallicFactor=0.0, roughnessFactor=1.0),
        extensions={"KHR_materials_unlit": {}},
    )


def _local(joints: list[Joint], index: int) -> Array:
    """A joint's place at rest, from its parent."""
    joint = joints[index]
    origin = joints[joint.parent].position if joint.parent >= 0 else np.zeros(3)
    return joint.position - origin


def _inverse_bind(joints: list[Joint]) -> Array:
    matrices = np.tile(np.eye(4, dtype=np.float32), (len(joints), 1, 1))
    matrices[:, :3, 3] = [-joint.position for joint in joints]
    return np.ascontiguousarray(matrices.transpose(0, 2, 1))  # by columns


def _strongest(skin: Array) -> tuple[Array, Array]:
    """The four joints that pull each vertex most, ``[V, 4]``, and their weights, summing to 1."""
    padded = np.pad(skin.astype(np.float64), ((0, 0), (0, max(0, 4 - skin.shape[1]))))
    joints = np.argsort(-padded, axis=1, kind="stable")[:, :4]
    weights = np.take_along_axis(padded, joints, axis=1).clip(min=0)
    weights = (weights / weights.sum(1, keepdims=True)).astype(np.float32)
    joints[weights == 0] = 0  # as the specification wants unused joints
    return joints, weights


def _continuous(quaternions: Array) -> Array:
    """The same rotations with signs such that neighbours in time are near each other."""
    turned = np.sign((quaternions[1:] * quaternions[:-1]).sum(1))
    signs = np.cumprod(np.concatenate([[1.0], np.where(turned == 0, 1.0, turned)]))
    return quaternions * signs[:, None]


def quaternions_xyzw(axis_angle: Array) -> Array:
    """Rotation vectors ``[..., 3]``, radians, as glTF's unit quaternions ``[..., 4]``."""
    angle = np.linalg.norm(axis_angle, axis=-1, keepdims=True)
    half = 0.5 * np.sinc(angle / (2 * math.pi))  # sin(angle / 2) / angle, 1/2 at zero
    return np.concatenate([axis_angle * half, np.cos(angle / 2)], axis=-1)
