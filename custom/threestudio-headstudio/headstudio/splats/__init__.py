"""What rides on a head: splats bound to its triangles."""

from headstudio.splats.avatar import FORMAT_VERSION, Avatar, load_avatar, rest_frames, save_avatar
from headstudio.splats.density import DensityControl, DensityReport
from headstudio.splats.initialise import (
    initialise_per_triangle,
    initialise_uniform,
    neighbour_distance,
    sample_surface,
)
from headstudio.splats.parameters import (
    PARAMETER_WIDTHS,
    SH_C0,
    SplatModule,
    Splats,
    rgb_to_sh,
    sh_to_rgb,
)
from headstudio.splats.quaternions import (
    matrix_to_quaternion,
    quaternion_conjugate,
    quaternion_product,
)
from headstudio.splats.regularise import position_regulariser, scale_regulariser
from headstudio.splats.rig import (
    PosedSplats,
    TriangleFrames,
    pose_splats,
    triangle_frames,
    unpose,
    unpose_geometry,
)

__all__ = [
    "FORMAT_VERSION",
    "PARAMETER_WIDTHS",
    "SH_C0",
    "Avatar",
    "DensityControl",
    "DensityReport",
    "PosedSplats",
    "SplatModule",
    "Splats",
    "TriangleFrames",
    "initialise_per_triangle",
    "initialise_uniform",
    "load_avatar",
    "matrix_to_quaternion",
    "neighbour_distance",
    "pose_splats",
    "position_regulariser",
    "quaternion_conjugate",
    "quaternion_product",
    "rest_frames",
    "rgb_to_sh",
    "sample_surface",
    "save_avatar",
    "scale_regulariser",
    "sh_to_rgb",
    "triangle_frames",
    "unpose",
    "unpose_geometry",
]
