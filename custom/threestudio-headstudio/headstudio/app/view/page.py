"""The panel beside the picture: every slider, button and list, and what they say."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import viser

from headstudio.app.view.controls import Controls, Rig
from headstudio.app.view.figure import Layers
from headstudio.motion import EXPRESSIONS

NOTHING = "none"
"""What a list shows when nothing is chosen."""
BACKGROUND = (236, 236, 238)
BY_PAGE, BY_VIEWER = "the browser", "the viewer"
"""Who draws the splats."""
_STEP_DEG = 0.5

T = TypeVar("T")


class Page:
    """The panel of one server, shared by everybody who has the page open.

    Args:
        gui: where the panel is built.
        rig: the head whose expressions and identities there are to be sliders for.
        avatars: names that can be chosen; the first is.
        motions: names that can be chosen.
    """

    def __init__(
        self,
        gui: viser.GuiApi,
        rig: Rig,
        avatars: Sequence[str],
        motions: Sequence[str],
    ) -> None:
        self._gui = gui
        self._sliders: list[viser.GuiInputHandle[Any]] = []
        self.screenshot = gui.add_button("Screenshot", icon=viser.Icon.CAMERA)
        self.reset = gui.add_button("Reset", icon=viser.Icon.RESTORE, color="gray")
        self._tabs = gui.add_tab_group()
        with self._tab("Face", viser.Icon.MOOD_SMILE):
            self._build_face(rig)
        with self._tab("Motion", viser.Icon.PLAYER_PLAY):
            self._build_motion(motions)
        with self._tab("Avatar", viser.Icon.USER):
            self._build_avatar(avatars)

    @contextmanager
    def _tab(self, label: str, icon: viser.IconName) -> Iterator[None]:
        with self._tabs.add_tab(label, icon):
            yield

    def _build_face(self, rig: Rig) -> None:
        gui, folders = self._gui, rig.folders()
        self.preset = gui.add_dropdown(
            "expression",
            [NOTHING, *EXPRESSIONS],
            hint="Sets the sliders below to an expression.",
            visible=bool(folders),
        )
        with gui.add_folder("joints"):
            self._build_joints()
        self._actions = {}
        self._coefficients = []
        for folder, names in folders.items():
            with gui.add_folder(folder, expand_by_default=folder == "mouth"):
                for name in names:
                    label = _plain(name, folder)
                    self._actions[name] = self._slider(label, 0.0, 1.0, 0.01, f"ARKit: {name}")
        if rig.n_coefficients:
            with gui.add_folder("expression coefficients", expand_by_default=not folders):
                for i in range(rig.n_coefficients):
                    slider = self._slider(f"expression {i + 1}", -3.0, 3.0, 0.05)
                    self._coefficients.append(slider)
        with gui.add_folder("identity", expand_by_default=False):
            self._identity = [self._slider(name, -3.0, 3.0, 0.05) for name in rig.identity_names]

    def _build_joints(self) -> None:
        self.jaw = [
            self._degrees("jaw open", 0, 30),
            self._degrees("jaw left", -10, 10, "The subject's left; negative: right."),
        ]
        self._neck = [
            self._degrees("neck down", -40, 40, "Negative: up."),
            self._degrees("neck left", -60, 60, "The subject's left; negative: right."),
            self._degrees("neck tilt", -30, 30, "Onto the subject's right shoulder."),
        ]
        self._eyes = [
            self._degrees("eyes down", -25, 25, "Negative: up."),
            self._degrees("eyes left", -35, 35, "The subject's left; negative: right."),
        ]

    def _build_motion(self, motions: Sequence[str]) -> None:
        gui = self._gui
        self.motion = gui.add_dropdown("motion", [NOTHING, *motions])
        self.play = gui.add_button("Play", icon=viser.Icon.PLAYER_PLAY)
        self.time = gui.add_slider("time (s)", 0.0, 1.0, 0.01, 0.0)
        self.speed = gui.add_slider("speed", 0.1, 3.0, 0.1, 1.0)
        self.loop = gui.add_checkbox("loop", True)
        with gui.add_folder("turntable"):
            self.turntable = gui.add_checkbox("turn", False)
            self.turn_speed = gui.add_slider("degrees/s", -180.0, 180.0, 5.0, 40.0)

    def _build_avatar(self, avatars: Sequence[str]) -> None:
        gui = self._gui
        self.avatar = gui.add_dropdown("avatar", avatars)
        self.compare = gui.add_dropdown(
            "compare with", [NOTHING, *avatars], hint="A second avatar, beside the first."
        )
        self.upload = gui.add_upload_button("Open a file…", icon=viser.Icon.UPLOAD)
        self.refresh = gui.add_button("Look for new files", icon=viser.Icon.REFRESH)
        # Text fields, not markdown: a prompt comes from a file, and markdown can fetch pictures.
        self.prompt = gui.add_text("prompt", "", multiline=True, disabled=True)
        self.count = gui.add_text("size", "", disabled=True)
        with gui.add_folder("layers"):
            self._layers = {
                name: gui.add_checkbox(name, name == "splats")
                for name in ("splats", "mesh", "landmarks")
            }
            self.background = gui.add_rgb("background", BACKGROUND)
            self.drawn_by = gui.add_dropdown(
                "drawn by",
                [BY_PAGE, BY_VIEWER],
                hint="The viewer draws smaller pictures, on this computer's processor: for "
                "browsers that draw slowly, because they have no GPU.",
            )

    def _slider(
        self, label: str, low: float, high: float, step: float, hint: str | None = None
    ) -> viser.GuiSliderHandle[float]:
        slider = self._gui.add_slider(label, low, high, step, 0.0, hint=hint)
        self._sliders.append(slider)
        return slider

    def _degrees(
        self, label: str, low: float, high: float, hint: str | None = None
    ) -> viser.GuiSliderHandle[float]:
        return self._slider(f"{label} (°)", float(low), float(high), _STEP_DEG, hint)

    def controls(self) -> Controls:
        """What the sliders say now."""
        return Controls(
            actions={name: slider.value for name, slider in self._actions.items()},
            coefficients=[slider.value for slider in self._coefficients],
            identity=[slider.value for slider in self._identity],
            jaw_deg=(self.jaw[0].value, self.jaw[1].value),
            neck_deg=(self._neck[0].value, self._neck[1].value, self._neck[2].value),
            eyes_deg=(self._eyes[0].value, self._eyes[1].value),
        )

    def layers(self) -> Layers:
        """Which layers are ticked."""
        ticked = {name: box.value for name, box in self._layers.items()}
        return Layers(**ticked, drawn_here=self.drawn_by.value == BY_VIEWER)

    def show_preset(self, name: str) -> None:
        """Put the sliders where a named expression has them; `NOTHING` puts them at rest."""
        expression = EXPRESSIONS.get(name)
        actions = {} if expression is None else expression.actions
        turn = (0.0, 0.0, 0.0) if expression is None else expression.turn
        for action, slider in self._actions.items():
            put(slider, float(actions.get(action, 0.0)))
        for slider in (*self.jaw, *self._eyes):
            put(slider, 0.0)
        for slider, degrees in zip(self._neck, turn, strict=True):
            put(slider, float(degrees))

    def rest(self) -> None:
        """Put every slider of the face, the joints and the identity at zero, and stop moving."""
        for slider in self._sliders:
            put(slider, 0.0)
        put(self.preset, NOTHING)
        put(self.motion, NOTHING)
        put(self.turntable, False)
        put(self.speed, 1.0)

    def offer(self, avatars: Sequence[str]) -> None:
        """Other names of avatars.

        What is chosen stays chosen, and on the list even if it is not among them: the page would
        show another name in its place, which nobody chose; and viser refuses an empty list.
        """
        chosen = (self.avatar.value, self.compare.value)
        self.avatar.options = tuple(dict.fromkeys([*avatars, chosen[0]]))
        self.compare.options = tuple(dict.fromkeys([NOTHING, *avatars, chosen[1]]))

    def show_playing(self, playing: bool) -> None:
        """What the button does next."""
        self.play.label = "Pause" if playing else "Play"
        self.play.icon = viser.Icon.PLAYER_PAUSE if playing else viser.Icon.PLAYER_PLAY

    def on_change(self, callback: Callable[[], None]) -> None:
        """Have ``callback`` called whenever the picture is to look different."""
        inputs = [*self._sliders, *self._layers.values(), self.turntable, self.turn_speed]
        for handle in inputs:
            handle.on_update(lambda _: callback())


def _plain(action: str, folder: str) -> str:
    """``"mouthSmileLeft"`` as ``"smile left"`` in the folder ``"mouth"``."""
    words = re.findall(r"[A-Z]?[a-z]+", action)
    if folder.startswith(words[0]):
        words = words[1:]
    return " ".join(words).lower()


def put(handle: viser.GuiInputHandle[T], value: T) -> None:
    """Set an input, here and on the page."""
    handle.value = value  # type: ignore[misc]  # mypy does not see viser's setter
