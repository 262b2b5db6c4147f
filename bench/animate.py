"""Pictures a second of an avatar that moves, from FLAME parameters to pixels; JSON lines.

    OMP_WAIT_POLICY=passive python bench/animate.py                     # 2 CPU cores, 256 px
    python bench/animate.py --device cuda                               # 1024 px, 100 000 splats

Everything is included: parameters start on the CPU, and a picture is counted when it is there, in
the memory of the device. "single" waits for every picture before it gives out the next parameters,
as a viewer does; "batched" gives out many at once. The fast path is compared with the usual one in
the same run, and on a GPU with itself without CUDA graphs. The stages are timed alone, one after
the other; on a GPU as graphs, without the time it takes to launch them, but for one that no graph
can hold ("eager"). Each line is printed when it is measured; what is being done goes to stderr.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "custom/threestudio-headstudio"))

from headstudio.animation import FastPlayer
from headstudio.animation.captured import CapturedPlayer
from headstudio.animation.skinning import triangle_maps, world_vertices
from headstudio.app.arguments import at_least
from headstudio.app.player import DEFAULT_HEAD, Player
from headstudio.characters import build_splats, character_shape, sample_character
from headstudio.characters.build import LEAST_SPLATS
from headstudio.flame import FlameParams, HeadModel
from headstudio.motion import for_head, load_motion
from headstudio.paths import find_asset
from headstudio.render import Cameras, _cpu, _gsplat_stages
from headstudio.render.grouped import place
from headstudio.splats import (
    Avatar,
    Splats,
    load_avatar,
    quaternion_conjugate,
    quaternion_product,
)

DEFAULTS = {"cpu": (256, 20_000, 4), "cuda": (1024, 100_000, 16)}
TARGETS = {"cpu": (">= 10", None), "cuda": (">= 900", ">= 2000")}
LARGEST_BUILT = 24_000
"""Splats that are asked for: a character of twice as many takes half a minute to build, with all
the hair styles it does not wear, and one of several times as many takes minutes."""
Stage = Callable[[], object]
_START = time.perf_counter()


def say(doing: str) -> None:
    """What is done now, and since when, to stderr."""
    print(f"{time.perf_counter() - _START:6.1f} s  {doing}", file=sys.stderr, flush=True)


def refined(splats: Splats, n: int) -> Splats:
    """N splats that look about the same: each is cut into equally many smaller ones.

    The small ones share the volume; their centres are random, with what variance is left. Which n
    of them are kept is random too.
    """
    generator = torch.Generator().manual_seed(0)
    times = -(-n // splats.n)
    many = splats[torch.arange(splats.n).repeat_interleave(times)]
    if times > 1:
        share = times ** (-1 / 3)
        offsets = many.scales.exp() * torch.randn(many.n, 3, generator=generator)
        turn = F.normalize(many.quats, dim=-1)
        turned = quaternion_product(turn, F.pad(offsets, (1, 0)))
        offsets = quaternion_product(turned, quaternion_conjugate(turn))[:, 1:]
        many = replace(
            many,
            means=many.means + math.sqrt(1 - share**2) * offsets,
            scales=many.scales + math.log(share),
        )
    return many[torch.randperm(many.n, generator=generator)[:n]]


def make_player(options: argparse.Namespace) -> Player:
    """The avatar given, or a procedural character of exactly so many splats."""
    head = HeadModel.load(options.head or find_asset(DEFAULT_HEAD))
    if options.avatar:
        return Player.of(load_avatar(options.avatar, head.to(options.device)), head)
    character = sample_character(np.random.default_rng(3))
    wanted = options.splats
    # Of a character's splats, those of parts that it does not have are left out.
    built = max(2 * wanted, LEAST_SPLATS) if wanted <= LARGEST_BUILT else LARGEST_BUILT
    say(f"building a character of {built} splats")
    splats = refined(build_splats(character, head, built), wanted).to(options.device)
    shape = character_shape(character, head).to(options.device)
    return Player.of(Avatar(splats, shape, "", 1.5), head.to(options.device))


def wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def rate(draw: Callable[[FlameParams], object], poses: list[FlameParams], device: str) -> float:
    """Poses a second, the best of three runs through all, after one that warms up."""
    best = math.inf
    for _ in range(4):
        wait(device)
        start = time.perf_counter()
        for params in poses:
            draw(params)
            wait(device)
        best = min(best, time.perf_counter() - start)
    return sum(len(params) for params in poses) / best


def cpu_time(stage: Stage, repeat: int) -> float:
    """Median milliseconds."""
    stage()
    taken = []
    for _ in range(repeat):
        start = time.perf_counter()
        stage()
        taken.append(time.perf_counter() - start)
    return 1e3 * statistics.median(taken)


def cuda_time(stage: Stage, repeat: int, eager: bool) -> float:
    """Mean milliseconds on the GPU, as a graph of its own unless ``eager``."""
    stage()
    torch.cuda.synchronize()
    replay = stage
    if not eager:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            stage()
        replay = graph.replay
    start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    replay()
    start.record()
    for _ in range(repeat):
        replay()
    stop.record()
    torch.cuda.synchronize()
    return start.elapsed_time(stop) / repeat


def stage_times(
    fast: FastPlayer, params: FlameParams, cameras: Cameras, repeat: int
) -> Iterator[tuple[str, float]]:
    """Each stage and its milliseconds, as they are measured."""
    if fast.device.type == "cpu":
        for name, stage in cpu_stages(fast, params, cameras).items():
            yield name, cpu_time(stage, repeat)
    else:
        for name, stage in cuda_stages(fast, params, cameras).items():
            yield name, cuda_time(stage, repeat, name.endswith("(eager)"))


def common_stages(fast: FastPlayer, packed: torch.Tensor) -> dict[str, Stage]:
    vertices = world_vertices(fast.head, packed)
    return {
        "skinning": lambda: world_vertices(fast.head, packed),
        "rig": lambda: triangle_maps(vertices, fast.head.corners),
    }


def cpu_stages(fast: FastPlayer, params: FlameParams, cameras: Cameras) -> dict[str, Stage]:
    packed = fast.head.pack(params)
    maps, cameras = fast.maps(packed), cameras.expand(len(packed))
    return {
        "pack": lambda: fast.head.pack(params),
        **common_stages(fast, packed),
        "projection, sort and rasterise": lambda: _cpu.rasterize_grouped(
            fast.splats, maps, cameras
        ),
    }


def cuda_stages(fast: FastPlayer, params: FlameParams, cameras: Cameras) -> dict[str, Stage]:
    graph = CapturedPlayer(fast, cameras.expand(len(params)))
    graph.render(fast.head.pack(params), cameras.expand(len(params)), None)
    splats, cameras = fast.splats, graph.cameras
    maps = fast.maps(graph.packed)
    means, covariances = place(splats, maps)
    ellipses = _gsplat_stages.project(means, covariances, splats.opacities, cameras)
    tiles = _gsplat_stages.intersect(ellipses, cameras)
    return {
        **common_stages(fast, graph.packed),
        "place splats": lambda: place(splats, maps),
        "projection": lambda: _gsplat_stages.project(means, covariances, splats.opacities, cameras),
        "the graph: all of these": graph.frame,
        "list tiles (eager)": lambda: _gsplat_stages.intersect(ellipses, cameras),
        "rasterise": lambda: _gsplat_stages.rasterize(ellipses, tiles, splats, cameras),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    count = at_least(1, int)
    parser.add_argument("--size", type=count, help="pixels; 256 on a CPU, 1024 on a GPU")
    parser.add_argument("--splats", type=count, help="20 000 on a CPU, 100 000 on a GPU")
    parser.add_argument("--batch", type=count, nargs="+", help="poses at once; 4 or 16")
    parser.add_argument("--frames", type=count, default=96)
    parser.add_argument("--threads", type=count, default=2)
    parser.add_argument("--avatar", help="an avatar.ply in place of a procedural character")
    parser.add_argument("--head", help="the head model of --avatar, if not the open head")
    options = parser.parse_args()
    size, n, batch = DEFAULTS[options.device]
    options.size, options.splats = options.size or size, options.splats or n
    batches = options.batch or [batch]
    if max(batches) > options.frames:
        parser.error(
            f"--batch {max(batches)}: there are {options.frames} poses; give fewer at once, or "
            "more --frames"
        )
    torch.set_num_threads(options.threads)
    player = make_player(options)
    say(f"{player.avatar.splats.n} splats are ready")
    measure(player, options, batches)


@torch.no_grad()
def measure(player: Player, options: argparse.Namespace, batches: list[int]) -> None:
    device, size = options.device, options.size
    fast = FastPlayer(player.avatar, player.head)
    name = torch.cuda.get_device_name() if device == "cuda" else f"{options.threads} CPU threads"
    common = {"device": name, "splats": player.avatar.splats.n, "px": size}

    def report(figure: str, value: float, unit: str, **more: object) -> None:
        line = {"figure": figure, "value": float(f"{value:.4g}"), "unit": unit, **common, **more}
        print(json.dumps(line), flush=True)

    motion = for_head(load_motion(find_asset("motion/talk.npz")), player.head)
    params = motion.params.to("cpu")[torch.arange(options.frames) % len(motion)]
    frames = [params[i] for i in range(options.frames)]
    cameras = Cameras.orbit(15.0, 5.0, 2.5, 40.0, size, size)

    say("drawing the first pictures: kernels are compiled or loaded, graphs are captured")
    worst = math.inf
    for pose in (frames[0], frames[len(frames) // 3], frames[-1]):
        error = fast.render(pose, cameras).rgb - player.render(pose, cameras).rgb
        worst = min(worst, -10 * math.log10(max(float((error**2).mean()), 1e-20)))
    report("animate_psnr_to_usual_path", worst, "dB", target="> 50")

    single, batched = TARGETS[device]
    on_device = cameras.to(device)
    value = rate(lambda pose: player.render(pose, on_device), frames, device)
    report("animate_usual_path", value, "fps", batch=1)
    value = rate(lambda pose: fast.render(pose, cameras), frames, device)
    report("animate_single", value, "fps", batch=1, **({"target": single} if single else {}))
    if device == "cuda":
        eager = FastPlayer(player.avatar, player.head, capture=False)
        value = rate(lambda pose: eager.render(pose, on_device), frames, device)
        report("animate_single_without_graph", value, "fps", batch=1)
    for b in batches:
        parts = [params[i : i + b] for i in range(0, options.frames // b * b, b)]
        value = rate(lambda pose: fast.render(pose, cameras), parts, device)
        target = {"target": batched} if batched else {}
        report("animate_batched", value, "fps", batch=b, **target)
        if device == "cuda":
            value = rate(lambda pose: eager.render(pose, on_device), parts, device)
            report("animate_batched_without_graph", value, "fps", batch=b)
    for b in (1, *batches):
        say(f"timing the stages of {b} poses at once")
        for stage, milliseconds in stage_times(fast, params[:b], cameras, 20):
            report("animate_stage", milliseconds, "ms", batch=b, stage=stage)
    say("done")


if __name__ == "__main__":
    main()
