"""The viewer in a real browser: Chromium without a screen, drawing in software.

One page is opened, and used as somebody would use it, one test after the other.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import numpy as np
import pytest
import torch

from headstudio.app.player import DEFAULT_HEAD, Player
from headstudio.flame import FlameParams, HeadModel
from headstudio.motion import frame_of, read_motion
from headstudio.paths import find_asset
from headstudio.render import Cameras
from headstudio.splats import initialise_uniform, rgb_to_sh, save_avatar
from tests.app.conftest import REPOSITORY

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
pytestmark = [
    pytest.mark.skipif(
        CHROMIUM is None, reason="no Chromium; Debian, Ubuntu: sudo apt-get install -y chromium"
    ),
    pytest.mark.timeout(180),
]

FLAGS = [
    *("--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--disable-quic"),
    *("--no-first-run", "--disable-background-networking", "--disable-component-update"),
    *("--disable-sync", "--force-device-scale-factor=1"),
]
# viser hands three.js corners of two coordinates for what it draws splats with, of which three.js
# wants to know the size in three. Nothing depends on it.
KNOWN_ERROR = "THREE.BufferGeometry.computeBoundingSphere(): Computed radius is NaN"
SKIN, LIPS, BLUE = (0.2, 0.7, 0.3), (0.9, 0.1, 0.1), (0.1, 0.2, 0.9)
SECONDS = 60.0


@dataclass
class Visit:
    """A page that is open, and what was noticed on it."""

    page: Any
    folder: Path
    errors: list[str] = field(default_factory=list)
    strangers: list[str] = field(default_factory=list)

    def canvas(self) -> np.ndarray:
        """What the 3D view shows, ``[H, W, 3]`` in 0..1."""
        x, y, width, height = self.page.evaluate(
            "const { x, y, width, height } ="
            " document.querySelector('canvas[data-engine]').getBoundingClientRect();"
            " [x, y, width, height]"
        )
        clip = {"x": x, "y": y, "width": width, "height": height}
        return iio.imread(self.page.screenshot(clip=clip))[..., :3] / 255

    def element(self, label: str) -> Any:
        """What belongs to a label."""
        name = self.page.locator(f"label:text-is('{label}')").get_attribute("for")
        return self.page.locator(f"[id='{name}']")

    def tab(self, name: str) -> None:
        self.page.get_by_role("tab", name=name).click()

    def choose(self, label: str, option: str) -> None:
        self.element(label).click()
        self.page.get_by_role("option", name=option, exact=True).click()

    def until(self, seen: Callable[[np.ndarray], bool], what: str) -> np.ndarray:
        """Look at the canvas until it shows something."""
        end = time.monotonic() + SECONDS
        while True:
            picture = self.canvas()
            if seen(picture):
                return picture
            if time.monotonic() > end:
                file = self.folder / "canvas.png"
                iio.imwrite(file, (picture * 255).astype(np.uint8))
                pytest.fail(f"not seen within {SECONDS:g} s: {what}; what is: {file}")
            time.sleep(0.1)


@pytest.fixture(scope="module")
def avatars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A green head with red lips and, in the same folder, a blue one; an older one elsewhere."""
    folder = tmp_path_factory.mktemp("avatars")
    head = HeadModel.load(find_asset(DEFAULT_HEAD))
    frame = head.world_frame(1.5)
    g = torch.Generator().manual_seed(0)
    surface = frame.to_world(head.neutral())
    splats = initialise_uniform(surface, head.faces, 5000, g, opacity=0.95)
    lips = head.region_mask("lips")[splats.face]
    colors = torch.tensor(SKIN).expand(5000, 3).clone()
    colors[lips] = torch.tensor(LIPS)
    for name, rgb in (
        ("green.ply", colors),
        ("blue.ply", torch.tensor(BLUE).expand(5000, 3)),
        ("sent/purple.ply", torch.tensor((0.6, 0.1, 0.6)).expand(5000, 3)),
    ):
        splats.colors = rgb_to_sh(rgb)
        save_avatar(folder / name, splats, head, torch.zeros(1), frame, f"a head, {name}")
    return folder


@pytest.fixture(scope="module")
def address(avatars: Path) -> Iterator[str]:
    """The command as it is typed; it ends by Ctrl-C without a complaint."""
    command = [sys.executable, "-m", "headstudio.app.main", "view", str(avatars / "green.ply")]
    library = str(REPOSITORY / "custom" / "threestudio-headstudio")
    process = subprocess.Popen(
        [*command, "--port", "0", "--no-open"],
        env={**os.environ, "PYTHONPATH": library},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # Ctrl-C is ignored by what a shell started in the background, tests included.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        assert process.stdout is not None
        first = process.stdout.readline()
        match = re.search(r"http://127\.0\.0\.1:\d+", first)
        assert match, first + process.stdout.read()
        yield match[0]
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=60)
        assert process.returncode == 0
        assert rest == ""
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def visit(address: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Visit]:
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="no playwright; python -m pip install playwright"
    )
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, headless=True, args=FLAGS)
        page = browser.new_page(viewport={"width": 680, "height": 300})
        visit = Visit(page, tmp_path_factory.mktemp("seen"))
        page.on(
            "console",
            lambda message: message.type == "error" and visit.errors.append(message.text),
        )
        page.on("pageerror", lambda error: visit.errors.append(str(error)))
        page.on("request", lambda request: visit.strangers.append(request.url))
        # viser draws with fewer pixels where drawing is slow; here they are to be compared.
        page.goto(f"{address}/?fixedDpr=1")
        page.locator("canvas[data-engine]").wait_for(timeout=SECONDS * 1000)
        visit.until(lambda picture: near(picture, SKIN).mean() > 0.05, "green splats")
        page.locator(".mantine-Notification-closeButton").click()  # "WebGL in software"
        yield visit
        browser.close()


def near(picture: np.ndarray, color: tuple[float, float, float]) -> np.ndarray:
    """Which pixels have about a colour."""
    return np.abs(picture - np.array(color)).max(-1) < 0.12


def jaw(degrees: float) -> FlameParams:
    return FlameParams.zeros(1).replace(jaw_pose=torch.tensor([[np.radians(degrees), 0.0, 0.0]]))


def reference(avatar: Path, params: FlameParams, height: int, width: int) -> np.ndarray:
    """What our own renderer shows from where the page's camera is."""
    player = Player.open(avatar)
    camera = Cameras.orbit(0.0, 0.0, 3.3, 35.0, height, width)
    background = torch.tensor([236, 236, 238]) / 255
    return player.render(params, camera, background=background).rgb[0, 0].numpy()


def mouth_box(height: int, width: int) -> tuple[slice, slice]:
    """Where the lips are on the page at rest: rows, columns."""
    head = HeadModel.load(find_asset(DEFAULT_HEAD))
    lips = head.faces[head.region_mask("lips")].unique()
    points = head.world_frame(1.5).to_world(head.neutral())[lips]
    pixels = Cameras.orbit(0.0, 0.0, 3.3, 35.0, height, width).project(points[None])[0][0, 0]
    (left, top), (right, bottom) = pixels.amin(0).int().tolist(), pixels.amax(0).int().tolist()
    return slice(top, bottom), slice(left, right)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    difference = (a - b)[:, :-20]  # on the right lies the shadow of the panel
    return float(-10 * np.log10((difference**2).mean() + 1e-12))


def settled(visit: Visit) -> np.ndarray:
    """The canvas once it does not change any more."""
    last = [visit.canvas()]

    def still(picture: np.ndarray) -> bool:
        same = np.abs(picture - last[0]).max() < 0.01
        last[0] = picture
        return same

    time.sleep(0.5)
    return visit.until(still, "a picture that stands still")


def test_the_page_shows_what_our_renderer_shows(visit: Visit, avatars: Path) -> None:
    picture = settled(visit)
    height, width = picture.shape[:2]
    # Not identical: the page orders splats by 16 bits of depth, and cuts each off a little earlier.
    assert psnr(picture, reference(avatars / "green.ply", jaw(0), height, width)) > 38
    rows, columns = mouth_box(height, width)
    assert near(picture, LIPS)[rows, columns].mean() > 0.3
    assert near(picture, SKIN)[: rows.start, columns].mean() > 0.3


def test_the_jaws_slider_opens_the_mouth(visit: Visit, avatars: Path) -> None:
    before = settled(visit)
    height, width = before.shape[:2]
    visit.element("jaw open (°)").locator("[role=slider]").press("End")
    rows, columns = mouth_box(height, width)
    visit.until(
        lambda picture: np.abs(picture - before)[rows, columns].mean() > 0.03, "the mouth moving"
    )
    after = settled(visit)
    change = np.abs(after - before).mean(-1)
    assert change[: rows.start - (rows.stop - rows.start)].max() < 0.1  # nothing above the nose
    assert psnr(after, reference(avatars / "green.ply", jaw(30), height, width)) > 38


def test_reset_brings_it_back(visit: Visit, avatars: Path) -> None:
    visit.page.get_by_role("button", name="Reset").click()
    height, width = visit.canvas().shape[:2]
    rest = reference(avatars / "green.ply", jaw(0), height, width)
    visit.until(lambda picture: psnr(picture, rest) > 38, "the face at rest")


def test_a_motion_plays_pauses_and_is_scrubbed(visit: Visit, avatars: Path) -> None:
    before = settled(visit)
    rows, columns = mouth_box(*before.shape[:2])
    visit.tab("Motion")
    visit.choose("motion", "talk")
    visit.until(
        lambda picture: np.abs(picture - before)[rows, columns].mean() > 0.02, "a mouth that talks"
    )
    visit.page.get_by_role("button", name="Pause").click()
    settled(visit)
    visit.element("time (s)").locator("xpath=..").locator("[inputmode=decimal]").fill("1.2")
    talk = frame_of(read_motion(find_asset("motion/talk.npz")), 1.2)
    expected = reference(avatars / "green.ply", talk, *before.shape[:2])
    visit.until(lambda picture: psnr(picture, expected) > 38, "the motion at 1.2 s")
    visit.page.get_by_role("button", name="Reset").click()


def test_the_screenshot_is_what_the_page_shows(visit: Visit, tmp_path: Path) -> None:
    shown = settled(visit)
    with visit.page.expect_download(timeout=SECONDS * 1000) as download:
        visit.page.get_by_role("button", name="Screenshot").click()
    assert download.value.suggested_filename == "avatar.png"
    download.value.save_as(tmp_path / "avatar.png")
    picture = iio.imread(tmp_path / "avatar.png")
    assert picture.shape == shown.shape
    assert psnr(picture / 255, shown) > 30


def test_layers_are_shown_and_hidden(visit: Visit) -> None:
    visit.tab("Avatar")
    visit.element("splats").click()
    visit.until(lambda picture: near(picture, SKIN).mean() < 0.001, "no splats")
    visit.element("mesh").click()
    visit.until(lambda picture: (picture.std((0, 1)) > 0.05).all(), "a mesh")
    for layer in ("mesh", "splats"):
        visit.element(layer).click()
    visit.until(lambda picture: near(picture, SKIN).mean() > 0.05, "splats again")


def test_the_viewer_draws_for_a_browser_without_a_gpu(
    visit: Visit, avatars: Path, tmp_path: Path
) -> None:
    """The same pictures, from the page's camera; layers and the screenshot go with them."""
    visit.choose("drawn by", "the viewer")
    height, width = visit.canvas().shape[:2]
    rest = reference(avatars / "green.ply", jaw(0), height, width)
    visit.until(lambda picture: psnr(picture, rest) > 36, "the face, drawn by the viewer")
    visit.tab("Face")
    visit.element("jaw open (°)").locator("[role=slider]").press("End")
    expected = reference(avatars / "green.ply", jaw(30), height, width)
    shown = visit.until(lambda picture: psnr(picture, expected) > 36, "its open mouth")
    with visit.page.expect_download(timeout=SECONDS * 1000) as download:
        visit.page.get_by_role("button", name="Screenshot").click()
    download.value.save_as(tmp_path / "avatar.png")
    assert psnr(iio.imread(tmp_path / "avatar.png") / 255, expected) > 45
    assert psnr(iio.imread(tmp_path / "avatar.png") / 255, shown) > 36
    visit.page.mouse.move(width / 2, height / 2)
    visit.page.mouse.wheel(0, 400)  # away from the head
    visit.until(
        lambda picture: near(picture, SKIN).mean() < 0.7 * near(expected, SKIN).mean(),
        "a smaller head",
    )
    visit.page.get_by_role("button", name="Reset").click()
    visit.until(lambda picture: psnr(picture, rest) > 36, "the face at rest from the front")
    visit.tab("Avatar")
    visit.element("splats").click()
    visit.until(lambda picture: near(picture, SKIN).mean() < 0.001, "no splats")
    visit.element("splats").click()
    visit.until(lambda picture: psnr(picture, rest) > 36, "splats again")
    visit.choose("drawn by", "the browser")
    visit.until(lambda picture: psnr(picture, rest) > 38, "the same, drawn by the browser")


def test_two_avatars_are_compared_side_by_side(visit: Visit) -> None:
    visit.choose("compare with", "blue.ply")

    def both(picture: np.ndarray) -> bool:
        middle = picture.shape[1] // 2
        left, right = picture[:, :middle], picture[:, middle:]
        return bool(
            near(left, SKIN).mean() > 0.05
            and near(right, BLUE).mean() > 0.05
            and near(right, SKIN).mean() < 0.01
        )

    visit.until(both, "a green head beside a blue one")
    visit.choose("compare with", "none")
    visit.until(lambda picture: near(picture, BLUE).mean() < 0.001, "one head only")


def test_another_avatar_is_loaded(visit: Visit) -> None:
    visit.choose("avatar", "blue.ply")
    picture = visit.until(lambda picture: near(picture, BLUE).mean() > 0.05, "a blue head")
    assert near(picture, SKIN).mean() < 0.001
    assert visit.page.locator("textarea").first.input_value() == "a head, blue.ply"


def test_a_file_can_be_sent_and_a_wrong_one_is_complained_about(
    visit: Visit, avatars: Path, tmp_path: Path
) -> None:
    button = visit.page.get_by_role("button", name="Open a file")
    wrong = tmp_path / "wrong.ply"
    wrong.write_bytes(b"no avatar")
    for file in (wrong, avatars / "sent" / "purple.ply"):
        with visit.page.expect_file_chooser() as chooser:
            button.click()
        chooser.value.set_files(file)
        if file == wrong:
            visit.page.get_by_text("wrong.ply is not a").wait_for(timeout=SECONDS * 1000)
    visit.until(lambda picture: near(picture, (0.6, 0.1, 0.6)).mean() > 0.05, "a purple head")
    assert visit.element("avatar").input_value() == "purple.ply (sent)"


def test_nothing_went_wrong_and_nobody_else_was_asked(visit: Visit, address: str) -> None:
    assert [error for error in visit.errors if not error.startswith(KNOWN_ERROR)] == []
    schemes = (f"{address}/", "data:", "blob:")
    assert [url for url in visit.strangers if not url.startswith(schemes)] == []
