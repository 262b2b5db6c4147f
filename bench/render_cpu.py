"""How fast and how exact splat rendering on the CPU is; one JSON line per figure.

    python bench/render_cpu.py [--splats 10000] [--size 128] [--repeat 20] [--threads 2]

Times are the median over the repeats, after one run that compiles or loads the kernels.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "custom/threestudio-headstudio"))

from headstudio.render import Cameras, RenderOutput, render
from headstudio.render.mesh import point_visibility

INPUTS = ("means", "quats", "scales", "opacities", "colors")


def head_like(n: int) -> dict[str, torch.Tensor]:
    """Splats on an ellipsoid of a head's size, as dense as on an avatar."""
    g = torch.Generator().manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(1, n, 3, generator=g), dim=-1)
    spacing = math.sqrt(4.0 / n)  # square root of the surface per splat
    splats = {
        "means": directions * torch.tensor([0.55, 0.5, 0.75]),
        "quats": torch.randn(1, n, 4, generator=g),
        "scales": 0.6 * spacing * torch.exp(0.3 * torch.randn(1, n, 3, generator=g)),
        "opacities": 0.05 + 0.9 * torch.rand(n, generator=g),
        "colors": torch.rand(n, 3, generator=g),
    }
    return {name: value.requires_grad_() for name, value in splats.items()}


def step(
    splats: dict[str, torch.Tensor], cameras: Cameras, backend: str
) -> tuple[RenderOutput, dict[str, torch.Tensor]]:
    """One forward and backward pass through colour, alpha and depth."""
    output = render(**splats, cameras=cameras, backend=backend)  # type: ignore[arg-type]
    g = torch.Generator().manual_seed(1)
    parts = (output.rgb, output.alpha, output.depth)
    weights = [torch.randn(part.shape, generator=g) for part in parts]
    inputs = [*splats.values(), output.means2d]
    gradients = torch.autograd.grad(parts, inputs, weights)
    return output, dict(zip((*INPUTS, "means2d"), gradients, strict=True))


def median_time(call: Callable[[], object], repeat: int) -> float:
    times = []
    call()
    for _ in range(repeat):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--splats", type=int, default=10_000)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--repeat", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    splats = head_like(options.splats)
    common = {"splats": options.splats, "px": options.size, "threads": options.threads}

    def report(figure: str, value: float, unit: str, **more: object) -> None:
        print(json.dumps({"figure": figure, "value": value, "unit": unit, **common, **more}))

    def cameras(views: int) -> Cameras:
        azimuths = torch.arange(views) * 360.0 / views + 25.0
        return Cameras.orbit(azimuths, 10.0, 2.0, 50.0, options.size, options.size)

    one = cameras(1)
    with torch.no_grad():
        forward = median_time(lambda: render(**splats, cameras=one), options.repeat)
    report("render_cpu_forward", round(forward, 5), "s")
    both = median_time(lambda: step(splats, one, "numba"), options.repeat)
    report("render_cpu_forward_backward", round(both, 5), "s", target="< 0.2")
    four = cameras(4)
    batch = median_time(lambda: step(splats, four, "numba"), max(1, options.repeat // 4))
    report("render_cpu_forward_backward_4_views", round(batch, 5), "s")
    slow = median_time(lambda: step(splats, one, "reference"), max(1, options.repeat // 4))
    report("render_reference_forward_backward", round(slow, 5), "s")
    report("render_cpu_speed_over_reference", round(slow / both, 1), "x", target=">= 5")

    fast_output, fast = step(splats, one, "numba")
    slow_output, exact = step(splats, one, "reference")
    error = float(((fast_output.rgb - slow_output.rgb) ** 2).mean().detach())
    psnr = -10 * math.log10(max(error, 1e-20))
    report("render_cpu_psnr_to_reference", round(psnr, 1), "dB", target="> 40")
    for name in fast:
        relative = float((fast[name] - exact[name]).norm() / exact[name].norm())
        target = "< 1e-3"
        report(f"render_cpu_gradient_error_{name}", float(f"{relative:.2e}"), "1", target=target)

    import trimesh

    ball = trimesh.creation.icosphere(subdivisions=5, radius=0.6)
    vertices = torch.tensor(ball.vertices, dtype=torch.float32)[None]
    faces = torch.tensor(ball.faces, dtype=torch.int64)
    eight = cameras(8)
    seen = median_time(
        lambda: point_visibility(vertices[:, :150], vertices, faces, eight), options.repeat
    )
    report("point_visibility_150_points_8_cameras", round(seen, 5), "s", faces=len(faces))


if __name__ == "__main__":
    main()
