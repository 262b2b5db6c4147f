"""SIGINT and SIGTERM: finish the step, write a checkpoint, stop."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(BaseException):
    """A signal asked the run to stop.

    As with ``KeyboardInterrupt``, nothing that handles errors is to swallow it; and it is no
    ``KeyboardInterrupt``, at which lightning ends the process itself, with status 1.
    """

    def __init__(self, signum: int | None) -> None:
        # Another process of the run may have got the signal: then it is not known here.
        self.signum = signal.Signals(signal.SIGTERM if signum is None else signum)
        super().__init__(f"stopped by {self.signum.name}")

    @property
    def status(self) -> int:
        """The process's exit status, as a shell would report it."""
        return 128 + self.signum


class StopRequest:
    """What the signals' handler leaves for the training loop to find.

    Attributes:
        signum: the signal that came, if one did.
        wait_for_the_step: whether somebody asks for it soon; otherwise a signal stops at once.
    """

    def __init__(self) -> None:
        self.signum: int | None = None
        self.wait_for_the_step = False

    def listen(self) -> None:
        """Handle the signals from here on; only a process's main thread can.

        Also to be called when training begins: lightning has a handler of its own by then, which
        ends a run between two steps without a checkpoint, and with status 0.
        """
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                signal.signal(number, self.handle)

    def handle(self, signum: int, frame: FrameType | None) -> None:
        """The handler. A second signal does not wait."""
        if self.signum is not None or not self.wait_for_the_step:
            raise Interrupted(signum)
        self.signum = signum
        name = signal.Signals(signum).name
        print(
            f"\n{name}: finishing this step and writing a checkpoint; once more stops at once",
            file=sys.stderr,
            flush=True,
        )


@contextmanager
def listening() -> Iterator[StopRequest]:
    """Handle the signals inside the block."""
    request = StopRequest()
    before: dict[signal.Signals, Any] = {number: signal.getsignal(number) for number in SIGNALS}
    request.listen()
    try:
        yield request
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                signal.signal(number, handler)
