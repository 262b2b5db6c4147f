"""A viser server that stays where it is put."""

from __future__ import annotations

import contextlib
import errno
import io
import socket

import viser

from headstudio.errors import HeadStudioError


class Server(viser.ViserServer):
    """Listens at one address, prints nothing, and never leaves the machine.

    Args:
        host: the address to listen at.
        port: the port; 0 is any that is free.
        label: the page's title.

    Raises:
        HeadStudioError: if one cannot listen there.
    """

    def __init__(self, host: str, port: int, label: str) -> None:
        _check_address(host, port)
        with contextlib.redirect_stdout(io.StringIO()):
            super().__init__(host=host, port=port, label=label, verbose=False)
        if port not in (0, self.get_port()):  # taken between the check and now
            self.close()
            raise HeadStudioError(_taken(host, port))
        self.gui.configure_theme(show_logo=False, show_share_button=False, control_width="large")
        self.gui.main_panel.dock_right()

    @property
    def url(self) -> str:
        """Where the page is."""
        host = self.get_host()
        shown = {"0.0.0.0": "localhost", "::": "localhost"}.get(host, host)
        return f"http://{f'[{shown}]' if ':' in shown else shown}:{self.get_port()}"

    def request_share_url(self, verbose: bool = True) -> str | None:
        """Refused: viser's tunnel would show the page to everybody on the internet.

        Whoever has the page open can ask for it, with or without the button.
        """
        return None

    def close(self) -> None:
        """Stop listening; returns when nothing runs any more."""
        with contextlib.redirect_stdout(io.StringIO()):
            self.stop()


def _check_address(host: str, port: int) -> None:
    """viser itself goes on to the next port when one is taken, and waits for ever when the address
    is not this machine's."""
    try:
        (family, kind, protocol, _, address), *_ = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen()
    except socket.gaierror as error:
        raise HeadStudioError(
            f"--host {host} is no address; expected 127.0.0.1 (only this machine), 0.0.0.0 (every "
            "network it is in) or one of its own addresses."
        ) from error
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise HeadStudioError(_taken(host, port)) from error
        raise HeadStudioError(
            f"cannot listen at {host}, port {port}: {error.strerror}. Try another --host or --port."
        ) from error


def _taken(host: str, port: int) -> str:
    return (
        f"port {port} at {host} is taken, perhaps by another viewer; choose another, such as "
        f"--port {port + 1}, or --port 0 for any that is free."
    )
