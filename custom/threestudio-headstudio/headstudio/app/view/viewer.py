"""The viewer: a page, the avatars on it, and the thread that moves them."""

from __future__ import annotations

import io
import math
import queue
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import imageio.v3 as iio
import numpy as np
import torch
import viser
from torch import Tensor

from headstudio.app.view.controls import Rig
from headstudio.app.view.drawing import TALLEST, Body, Draft, camera_of, draw
from headstudio.app.view.figure import Figure, Place
from headstudio.app.view.library import Library
from headstudio.app.view.pace import Pace
from headstudio.app.view.page import NOTHING, Page, put
from headstudio.app.view.playback import Playback
from headstudio.app.view.server import Server
from headstudio.errors import HeadStudioError
from headstudio.flame import FlameParams
from headstudio.motion import Motion

MAX_RATE = 30.0
"""Poses a second, at most."""
_TIME_RATE = 5.0
"""How often a second the time slider follows a motion."""
_FOV_DEG = 35.0
_SPACING = 0.4
"""From the centre to each of two avatars, in extents of the head."""
_DISTANCE = {1: 2.2, 2: 2.8}
"""Of the camera, in extents, for one avatar and two."""
_SCREENSHOT_SECONDS = 60.0
_SETTLE_SECONDS = 0.3
"""Of rest, after which pictures that were drawn here are drawn well."""
_JPEG_QUALITY = 90

Task = Callable[[], None]


class Viewer:
    """Everything that happens on the page.

    All changes to the scene are made by one thread: callbacks of the page only say that something
    changed, or leave a task. Slider events that come faster than poses are made are so merged.

    Args:
        server: whose page this is.
        library: the avatars that can be chosen.
        motions: by the names the page is to show, on the library's head.
        first: name of the avatar that is shown first.
        second: name of one to compare it with.

    Raises:
        HeadStudioError: if an avatar cannot be loaded.
    """

    def __init__(
        self,
        server: Server,
        library: Library,
        motions: Mapping[str, Motion],
        first: str,
        second: str | None = None,
    ) -> None:
        self._server = server
        self._library = library
        self._motions = motions
        self.figures: dict[str, Figure] = {}  # by role, "first" and "second"
        self._playback = Playback()
        self._pace = Pace()
        self._turn_deg = 0.0
        self._bodies: list[Body] = []  # that the pages were sent pictures of; none if they draw
        self._draft = Draft()
        self._coarse = False  # whether these pictures are worth larger ones once nothing moves
        self._tasks: queue.Queue[tuple[Task, viser.ClientHandle | None]] = queue.Queue()
        self._wake = threading.Event()
        self._closed = threading.Event()
        self._rig = Rig(library.head)
        self.page = Page(server.gui, self._rig, library.names, list(motions))
        self._show("first", first)
        if second is not None:
            self._show("second", second)
        put(self.page.avatar, first)
        put(self.page.compare, second or NOTHING)
        self._show_background()
        self._place_camera()
        self._connect()
        self._say_what_is_left_out(None)
        self._thread = threading.Thread(target=self._run, name="headstudio-view", daemon=True)
        self._thread.start()

    # ------------------------------------------------------------------- what the page asks for

    def _connect(self) -> None:
        page = self.page
        page.on_change(self._wake.set)
        page.screenshot.on_click(lambda event: self._guard(event, lambda: self._take(event.client)))
        page.reset.on_click(lambda event: self._do(event, self._reset))
        page.play.on_click(lambda event: self._do(event, self._toggle))
        self._on_choice(page.preset, lambda: page.show_preset(page.preset.value))
        self._on_choice(page.motion, self._choose_motion)
        self._on_choice(page.time, lambda: self._seek(page.time.value))
        self._on_choice(page.avatar, lambda: self._show("first", page.avatar.value))
        self._on_choice(page.compare, self._compare)
        self._on_choice(page.background, self._show_background)
        page.drawn_by.on_update(lambda _: self._wake.set())
        page.refresh.on_click(lambda event: self._do(event, partial(self._refresh, event.client)))
        page.upload.on_upload(lambda event: self._do(event, self._receive))
        self._server.on_client_connect(self._welcome)

    def _welcome(self, client: viser.ClientHandle) -> None:
        def moved(_: viser.CameraHandle) -> None:
            if self._bodies:
                self._wake.set()

        client.camera.on_update(moved)
        self._wake.set()

    def _on_choice(self, handle: viser.GuiInputHandle[Any], task: Task) -> None:
        def changed(event: viser.GuiEvent[Any]) -> None:
            if event.client_id is not None:  # by a person, not by us
                self._do(event, task)

        handle.on_update(changed)

    def _do(self, event: viser.GuiEvent[Any], task: Task) -> None:
        """Leave a task for the thread that owns the scene."""
        self._tasks.put((task, event.client))
        self._wake.set()

    def _guard(self, event: viser.GuiEvent[Any], task: Task) -> None:
        _reporting(task, event.client)

    def _choose_motion(self) -> None:
        name = self.page.motion.value
        self._playback.load(self._motions.get(name))
        self.page.time.max = max(round(self._playback.duration, 2), 0.01)
        if name != NOTHING:
            self._playback.play()
        self._follow()

    def _toggle(self) -> None:
        if self._playback.playing:
            self._playback.playing = False
        else:
            self._playback.play()
        self._follow()

    def _seek(self, seconds: float) -> None:
        self._playback.seek(seconds)
        self.page.show_playing(False)

    def _follow(self) -> None:
        """Show on the page where the motion is."""
        self.page.show_playing(self._playback.playing)
        put(self.page.time, round(self._playback.seconds, 2))

    def _show(self, role: str, name: str) -> None:
        """Put an avatar in a role, ``"first"`` or ``"second"``, in place of who had it."""
        player = self._library.open(name)  # before anything is taken away
        if role in self.figures:
            self.figures.pop(role).remove()
        self.figures[role] = Figure(self._server.scene, f"/{role}", player)
        self._describe()

    def _describe(self) -> None:
        avatars = [figure.player.avatar for _, figure in sorted(self.figures.items())]
        put(self.page.prompt, "  |  ".join(avatar.prompt for avatar in avatars))
        put(self.page.count, " + ".join(f"{avatar.splats.n:,}" for avatar in avatars))

    def _compare(self) -> None:
        name = self.page.compare.value
        if name != NOTHING:
            self._show("second", name)
        elif "second" in self.figures:
            self.figures.pop("second").remove()
            self._describe()
        self._place_camera()

    def _refresh(self, client: viser.ClientHandle | None) -> None:
        names = self._library.refresh()
        self.page.offer(names)
        self._say_what_is_left_out(client)
        if not names:
            raise HeadStudioError(
                f"there is no avatar in {self._library.folder} any more; what is shown stays until "
                "you choose another. Put files there and look again, or open a file."
            )

    def _say_what_is_left_out(self, client: viser.ClientHandle | None) -> None:
        for text in self._library.left_out:
            _notify(client, "Not all files are listed", text)

    def _receive(self) -> None:
        sent = self.page.upload.value
        name = self._library.add_upload(sent.name, sent.content)
        self.page.offer(self._library.names)
        self._show("first", name)
        put(self.page.avatar, name)

    def _reset(self) -> None:
        self.page.rest()
        self._choose_motion()
        self._turn_deg = 0.0
        self._place_camera()

    def _show_background(self) -> None:
        color = np.array(self.page.background.value, np.uint8)
        for scene in (self._server.scene, *(c.scene for c in self._server.get_clients().values())):
            scene.set_background_image(np.tile(color, (2, 2, 1)), format="png")

    def _place_camera(self) -> None:
        """In front of the faces, for who is here and who comes."""
        extent = max(figure.player.avatar.extent for figure in self.figures.values())
        position = (_DISTANCE[len(self.figures)] * extent, 0.0, 0.0)
        start = self._server.initial_camera
        start.position, start.look_at, start.up = position, (0.0, 0.0, 0.0), (0.0, 0.0, 1.0)
        start.fov = math.radians(_FOV_DEG)
        for client in self._server.get_clients().values():
            with client.atomic():
                client.camera.up_direction = (0.0, 0.0, 1.0)
                client.camera.position = position
                client.camera.look_at = (0.0, 0.0, 0.0)
                client.camera.fov = math.radians(_FOV_DEG)

    def _take(self, client: viser.ClientHandle | None) -> None:
        """Send the picture that a page shows to that page, as a file."""
        if client is None:
            return
        if self._bodies:
            picture = draw(self._bodies, camera_of(client.camera, tallest=None), self._ground())
        else:
            # Splats are drawn with the proportions of the window, whatever size is asked for.
            picture = client.get_render(
                client.camera.image_height,
                client.camera.image_width,
                transport_format="png",
                timeout=_SCREENSHOT_SECONDS,
            )
        file = io.BytesIO()
        iio.imwrite(file, picture[..., :3], extension=".png")
        client.send_file_download("avatar.png", file.getvalue(), save_immediately=True)

    def _ground(self) -> Tensor:
        """The background's colour, ``[3]`` in 0..1."""
        return torch.tensor(self.page.background.value, dtype=torch.float32) / 255

    # ------------------------------------------------------------------------------ the thread

    def _run(self) -> None:
        last = time.monotonic()
        shown = 0.0
        while not self._closed.is_set():
            moving = self._playback.playing or self.page.turntable.value
            rest = _SETTLE_SECONDS if self._coarse else None
            self._wake.wait(0.0 if moving and self._watched() else 0.5 if moving else rest)
            settled = not moving and not self._wake.is_set()
            self._wake.clear()
            while not self._tasks.empty():
                _reporting(*self._tasks.get())
            now = time.monotonic()
            # What begins to move after a rest begins now: the rest is not part of it.
            _reporting(partial(self._advance, now - last if moving else 0.0), None)
            last = now
            if self._playback.playing and now - shown > 1 / _TIME_RATE:
                shown = now
                _reporting(self._follow, None)
            if self._watched():
                _reporting(partial(self.update, settled), None)
                if self._bodies and not settled:
                    self._draft.took(time.monotonic() - now)
            # Events that come while this waits are one update afterwards.
            self._closed.wait(max(0.0, 1 / MAX_RATE - (time.monotonic() - now)))

    def _watched(self) -> bool:
        return bool(self._server.get_clients())

    def _advance(self, elapsed: float) -> None:
        playback = self._playback
        playback.speed, playback.loop = self.page.speed.value, self.page.loop.value
        was_playing = playback.playing
        playback.advance(elapsed)
        if was_playing and not playback.playing:
            self._follow()
        if self.page.turntable.value:
            self._turn_deg = (self._turn_deg + elapsed * self.page.turn_speed.value) % 360

    def params(self) -> FlameParams:
        """The pose that the sliders and the motion make now."""
        still = self._rig.params(self.page.controls())
        moving = self._playback.params()
        return still if moving is None else self._rig.on_top(moving, still)

    def update(self, settled: bool = False) -> None:
        """Show the state of the sliders and the motion, at once.

        Args:
            settled: whether nothing has moved for a while, so that a picture may take its time.
        """
        params = self.params()
        layers = self.page.layers()
        poses = {role: figure.pose(params, layers) for role, figure in self.figures.items()}
        places = {role: self._place_of(role) for role in self.figures}
        bodies = []
        if layers.splats and layers.drawn_here:
            bodies = [f.body(poses[role], places[role]) for role, f in self.figures.items()]
        height = TALLEST if settled else self._draft.height
        self._coarse = bool(bodies) and height < TALLEST
        pictures = self._draw(bodies, height) if bodies else {}
        self._pace.wait()
        # Nothing is sent while this lasts: all of a pose arrives at once, and nothing is computed.
        with self._server.atomic():
            for role, figure in self.figures.items():
                figure.place(places[role])
                figure.show(poses[role])
        if self._bodies and not bodies:
            self._show_background()  # in place of the last picture
        self._bodies = bodies
        for client, picture in pictures.items():
            client.scene.set_background_image(picture, format="jpeg", jpeg_quality=_JPEG_QUALITY)
        self._server.flush()
        self._pace.sent(self._server.get_clients().values())

    def _place_of(self, role: str) -> Place:
        """Alone in the middle, or beside each other and both looking at the camera."""
        beside = {"first": -_SPACING, "second": _SPACING}[role] * (len(self.figures) - 1)
        inwards = math.degrees(math.atan2(-beside, _DISTANCE[len(self.figures)]))
        extent = self.figures[role].player.avatar.extent
        return Place(beside * extent, inwards + self._turn_deg)

    def _draw(self, bodies: list[Body], height: int) -> dict[viser.ClientHandle, np.ndarray]:
        """The splats as every page's camera sees them."""
        ground, clients = self._ground(), self._server.get_clients().values()
        return {
            client: draw(bodies, camera_of(client.camera, height), ground) for client in clients
        }

    def close(self) -> None:
        """Stop moving, stop listening, remove what was sent."""
        self._closed.set()
        self._wake.set()
        self._thread.join(timeout=10)
        self._pace.close()
        self._server.close()
        self._library.close()


def _reporting(task: Task, client: viser.ClientHandle | None) -> None:
    """Run a task; what goes wrong is shown on the page that asked for it, and nothing ends."""
    try:
        task()
    except HeadStudioError as error:
        _notify(client, "That did not work", str(error))
    except Exception as error:  # of any kind: the scene's only thread would end with it
        traceback.print_exc()
        _notify(client, "That did not work", f"{type(error).__name__}: {error}")


def _notify(client: viser.ClientHandle | None, title: str, text: str) -> None:
    if client is None:
        print(f"{title}: {text}", flush=True)
    else:
        client.add_notification(title, text, color="red", auto_close_seconds=12.0)
