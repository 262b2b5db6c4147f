"""How often a second the viewer moves an avatar; one JSON line per figure.

    python bench/view.py [--splats 50000] [--seconds 8] [--threads 2] [--size 800x600] [--no-page]

- view_pose: the time from sliders to the buffer that is sent, without sending.
- view_server: whole updates a second, at full speed, as they arrive at another process on this
  machine: sliders, head, triangles, covariances, buffer, message, socket.
- view_page_*: updates a second that a page in Chromium put on its screen while the sample motion
  "talk" plays (at most 30 are sent). Chromium has no window; its 3D is drawn by
  - swiftshader: Chromium's own software renderer, on the same cores;
  - mesa: Mesa's llvmpipe, on the same cores (Debian: libegl-mesa0, libgl1-mesa-dri);
  - nobody: the page does everything but draw the splats, as if that took a GPU no time;
  - viewer: the viewer, on the same cores, which the page (swiftshader) is sent pictures by.

Every figure says how busy the machine was before it (load, of the last minute).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "custom/threestudio-headstudio"))

from headstudio.app.view.page import BY_VIEWER

FLAGS = (
    *("--no-sandbox", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--ignore-gpu-blocklist"),
)
RENDERERS = {
    "swiftshader": ("--use-angle=swiftshader", "--enable-unsafe-swiftshader"),
    "mesa": ("--use-gl=angle", "--use-angle=gl-egl"),
    "nobody": ("--use-angle=swiftshader", "--enable-unsafe-swiftshader"),
    "viewer": ("--use-angle=swiftshader", "--enable-unsafe-swiftshader"),
}
# An upload of the splats' texture (RGBA32UI, read as RGBA_INTEGER), or of a picture, is an update
# on the screen.
COUNT = """
window.uploads = 0;
window.pictures = 0;
for (const name of ['texImage2D', 'texSubImage2D']) {
  const original = WebGL2RenderingContext.prototype[name];
  WebGL2RenderingContext.prototype[name] = function (...given) {
    if (given.includes(WebGL2RenderingContext.RGBA_INTEGER)) window.uploads += 1;
    const last = given[given.length - 1];
    if (last instanceof ImageBitmap || last instanceof HTMLImageElement) window.pictures += 1;
    return original.apply(this, given);
  };
}
"""
NO_DRAWING = "WebGL2RenderingContext.prototype.drawElementsInstanced = function () {};"


def make_avatar(path: Path, n: int) -> None:
    """An avatar with exactly ``n`` splats, spread over the open head."""
    import torch

    from headstudio.app.player import DEFAULT_HEAD
    from headstudio.flame import HeadModel
    from headstudio.paths import find_asset
    from headstudio.splats import initialise_uniform, save_avatar

    head = HeadModel.load(find_asset(DEFAULT_HEAD))
    frame = head.world_frame(1.5)
    g = torch.Generator().manual_seed(0)
    splats = initialise_uniform(frame.to_world(head.neutral()), head.faces, n, g, opacity=0.9)
    splats.colors = torch.randn(n, 3, generator=g)
    save_avatar(path, splats, head, torch.zeros(1), frame, "a benchmark")


async def receive(url: str, seconds: float, least: int) -> tuple[int, float]:
    """Connect as a page does, and count messages of at least so many bytes."""
    import viser
    import websockets

    protocol = websockets.Subprotocol(f"viser-v{viser.__version__}")
    count, first, last = 0, 0.0, 0.0
    async with websockets.connect(url, subprotocols=[protocol], max_size=None) as socket:
        print("connected", flush=True)
        end = time.monotonic() + seconds + 2
        while time.monotonic() < end:
            try:
                message = await asyncio.wait_for(socket.recv(), 1.0)
            except TimeoutError:
                continue
            if len(message) >= least:
                last = time.monotonic()
                first = first or last
                count += 1
    return count - 1, last - first


def measure_server(viewer: Any, url: str, options: argparse.Namespace) -> float:
    """Updates a second that another process receives, while they are made at full speed."""
    from headstudio.app.view.page import put

    command = [sys.executable, __file__, "--receive", url.replace("http", "ws")]
    command += ["--seconds", str(options.seconds), "--splats", str(options.splats)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as receiver:
        assert receiver.stdout is not None
        assert receiver.stdout.readline() == "connected\n"
        end = time.monotonic() + options.seconds
        step = 0
        while time.monotonic() < end:
            step += 1
            put(viewer.page.jaw[0], 15.0 + 14.0 * (step % 2))
            viewer.update()
        count, elapsed = json.loads(receiver.stdout.read())
    return float(count / elapsed)


@contextmanager
def browser_page(renderer: str, size: tuple[int, int]) -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=shutil.which("chromium"),
            headless=True,
            args=[*FLAGS, *RENDERERS[renderer]],
        )
        page = browser.new_page(viewport={"width": size[0], "height": size[1]})
        page.add_init_script(COUNT + (NO_DRAWING if renderer == "nobody" else ""))
        try:
            yield page
        finally:
            browser.close()


def choose(page: Any, tab: str, label: str, option: str) -> None:
    """Choose from a list of the panel."""
    page.get_by_role("tab", name=tab).click()
    name = page.locator(f"label:text-is('{label}')").get_attribute("for")
    page.locator(f"[id='{name}']").click()
    page.get_by_role("option", name=option, exact=True).click()


def measure_page(url: str, renderer: str, options: argparse.Namespace) -> tuple[float, str]:
    """Updates a second on the screen while a motion plays, and what drew them."""
    with browser_page(renderer, options.size) as page:
        page.goto(url)
        page.wait_for_function("window.uploads > 0", timeout=60_000)
        drawn_by = page.evaluate(
            "(() => { const gl = document.createElement('canvas').getContext('webgl2');"
            " const info = gl.getExtension('WEBGL_debug_renderer_info');"
            " return gl.getParameter(info.UNMASKED_RENDERER_WEBGL); })()"
        )
        counted = "uploads"
        if renderer == "viewer":
            counted = "pictures"
            choose(page, "Avatar", "drawn by", BY_VIEWER)
        choose(page, "Motion", "motion", "talk")
        page.wait_for_timeout(3000)
        before = page.evaluate(f"[window.{counted}, performance.now()]")
        page.wait_for_timeout(1000 * options.seconds)
        after = page.evaluate(f"[window.{counted}, performance.now()]")
        page.get_by_role("button", name="Reset").click()
        page.wait_for_timeout(1000)
    return (after[0] - before[0]) / (after[1] - before[1]) * 1000, str(drawn_by)


def main() -> None:
    options = parse()
    if options.receive:
        least = 32 * options.splats
        print(json.dumps(asyncio.run(receive(options.receive, options.seconds, least))))
        return
    import torch

    from headstudio.app.view import open_viewer

    torch.set_num_threads(options.threads)
    common = {"splats": options.splats, "threads": options.threads, "cores": os.cpu_count()}

    def report(figure: str, value: float, unit: str, **more: object) -> None:
        line = {"figure": figure, "value": round(value, 3), "unit": unit, **common, **more}
        print(json.dumps(line), flush=True)

    with tempfile.TemporaryDirectory() as folder:
        avatar = Path(folder) / "avatar.ply"
        make_avatar(avatar, options.splats)
        viewer, url = open_viewer([avatar], port=0)
        try:
            load = round(os.getloadavg()[0], 1)
            report("view_pose", measure_pose(viewer, options) * 1000, "ms", load=load)
            load = round(os.getloadavg()[0], 1)
            rate = measure_server(viewer, url, options)
            report("view_server", rate, "updates/s", target=">= 10", load=load)
            size = "x".join(map(str, options.size))
            for renderer in RENDERERS if options.page else ():
                load = round(os.getloadavg()[0], 1)
                rate, drawn_by = measure_page(url, renderer, options)
                more = {"window": size, "load": load, "drawn_by": drawn_by}
                if renderer in ("nobody", "viewer"):
                    more["drawn_by"] = renderer
                report(f"view_page_{renderer}", rate, "updates/s", target=">= 10", **more)
        finally:
            viewer.close()


def measure_pose(viewer: Any, options: argparse.Namespace) -> float:
    """Median seconds from sliders to buffer."""
    import torch

    from headstudio.app.view.splat_buffer import SplatBuffer
    from headstudio.splats import triangle_frames

    player = viewer.figures["first"].player
    buffer = SplatBuffer(player.avatar.splats, player.avatar.extent)
    times = []
    with torch.inference_mode():
        for _ in range(60):
            start = time.perf_counter()
            vertices = player.vertices(viewer.params())
            buffer.pose(triangle_frames(vertices, player.head.faces))
            times.append(time.perf_counter() - start)
    return statistics.median(times[10:])


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--splats", type=int, default=50_000)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--size", type=lambda text: tuple(map(int, text.split("x"))), default=(800, 600)
    )
    parser.add_argument("--no-page", dest="page", action="store_false", help="without a browser")
    parser.add_argument("--receive", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
