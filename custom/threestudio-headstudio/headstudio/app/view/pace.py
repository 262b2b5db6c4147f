"""Not faster than the pages can show it."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait

import viser

PATIENCE_SECONDS = 1.0
"""How long a page is waited for; one that is slower, or asleep, does not stop the others."""
_MAX_PAGES = 32
_KEY = "pace"


class Pace:
    """Whether the open pages have drawn what they were sent.

    A page that draws slower than poses are sent would fall behind further and further, and spend
    its time on taking in what it never shows. viser has no answer to an update, but it has one to
    a question about the browser's storage, and a page handles its messages in order, frame by
    frame: once it has answered, it has drawn what came before.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(_MAX_PAGES, thread_name_prefix="headstudio-pace")
        self._answers: dict[int, Future[str | None]] = {}

    def wait(self) -> None:
        """Until every page has drawn what it was sent, or `PATIENCE_SECONDS` have passed."""
        wait(self._answers.values(), timeout=PATIENCE_SECONDS)

    def sent(self, clients: Iterable[viser.ClientHandle]) -> None:
        """Something was sent to these pages."""
        still = {key: answer for key, answer in self._answers.items() if not answer.done()}
        for client in clients:
            # Of a page that has not answered yet, nothing more is asked.
            if client.client_id not in still:
                still[client.client_id] = self._pool.submit(
                    client.local_storage.get_item, _KEY, timeout=30 * PATIENCE_SECONDS
                )
        self._answers = still

    def close(self) -> None:
        """Stop waiting; answers that are still to come are dropped."""
        self._pool.shutdown(wait=False, cancel_futures=True)
