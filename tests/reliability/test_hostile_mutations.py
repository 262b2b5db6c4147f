"""The fuzzers' seeds and regressions, and a moment of random changes of them, per reader.

The long runs are ``python fuzz/run_all.py``; this needs no atheris.
"""

from __future__ import annotations

import gc
import logging
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
FUZZ = REPOSITORY / "fuzz"
sys.path.insert(0, str(FUZZ))

import harness  # noqa: E402
from targets import TARGETS, Target  # noqa: E402

SECONDS = 0.3


@pytest.fixture(autouse=True)
def loud_again() -> Iterator[None]:
    """The harness silences the readers for good; other tests listen to them."""
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("name", TARGETS)
def test_random_changes(name: str, tmp_path: Path) -> None:
    statistics, traces = harness.replay(TARGETS[name], SECONDS, seed=7, folder=tmp_path)
    assert not statistics.findings, "\n".join(traces)
    assert statistics.executions > len(TARGETS[name].files())


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_are_good_files(name: str, tmp_path: Path) -> None:
    """Otherwise the fuzzer never gets past the first check."""
    target = TARGETS[name]
    harness.warm_up(target, tmp_path)
    seeds = sorted((FUZZ / "corpus" / name).iterdir())
    outcomes = [harness.attempt(target, seed.read_bytes(), tmp_path) for seed in seeds]
    if name == "prior_index":
        return  # whose weights are not there
    assert any(not outcome.refused and not outcome.finding for outcome in outcomes)


@pytest.mark.parametrize("name", sorted(set(TARGETS) - {"prior_index"}))
def test_enough_changes_get_past_the_container(name: str, tmp_path: Path) -> None:
    """A fuzzer whose every input breaks the archive, or the pickle, tries nothing behind it."""
    from random import Random

    harness.quiet()
    target, rng = TARGETS[name], Random(5)
    harness.warm_up(target, tmp_path)
    seeds = [seed.read_bytes() for seed in sorted((FUZZ / "corpus" / name).iterdir())]
    good = [seed for seed in seeds if not harness.attempt(target, seed, tmp_path).refused]
    count = 30 if name == "config_yaml" else 200
    changed = [target.mutate(rng.choice(good), rng) for _ in range(count)]
    read = sum(not harness.attempt(target, data, tmp_path).refused for data in changed)
    assert read > 0.1 * count


def test_sound_changes_leave_the_container_whole() -> None:
    import io
    import pickle
    from random import Random

    import mutations
    import numpy as np

    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    stream = io.BytesIO()
    np.save(stream, values)
    dumped = pickle.dumps({"pose": [1, 2.5, "text", b"bytes of it"]}, protocol=4)
    arrays, dictionaries = [], []
    for seed in range(50):
        changed = mutations.array(stream.getvalue(), Random(seed))
        arrays.append(np.load(io.BytesIO(changed), allow_pickle=False))
        other = mutations.overwritten(b"x" * 40, Random(seed))
        assert len(other) == 40
        try:
            dictionaries.append(pickle.loads(mutations.sound_pickle(dumped, Random(seed))))
        except (UnicodeDecodeError, TypeError):  # a text that is none; a key that cannot be one
            continue
    assert len({(a.shape, str(a.dtype)) for a in arrays}) > 6
    # A type that numpy does not know, as a change before this one may have left it.
    unknown = stream.getvalue().replace(b"<f4", b"<f1")
    assert all(isinstance(mutations.array(unknown, Random(seed)), bytes) for seed in range(50))
    assert len({repr(d) for d in dictionaries}) > 20


def test_every_reader_has_its_fuzzer() -> None:
    scripts = {path.stem.removeprefix("fuzz_") for path in FUZZ.glob("fuzz_*.py")}
    assert scripts == set(TARGETS)
    assert {path.name for path in (FUZZ / "corpus").iterdir()} == set(TARGETS)


def _broken_reader() -> Target:
    class Broken(type(TARGETS["camera_path"])):  # type: ignore[misc]
        def read(self, path: Path) -> object:
            content = path.read_bytes()
            if content == b"memory":
                list(map(list, [[]] * 10_000))  # enough containers to begin a collection
                return b"x" * (200 << 20)
            if content == b"slow":
                end = time.process_time() + 1.1
                while time.process_time() < end:
                    pass
                return None
            raise KeyError(content)

    plain = TARGETS["camera_path"]
    return Broken(**{name: getattr(plain, name) for name in plain.__dataclass_fields__})


def test_a_broken_reader_is_found(tmp_path: Path) -> None:
    """What the harness is there for: other errors, time and memory."""
    broken = _broken_reader()
    found = [harness.attempt(broken, data, tmp_path).finding for data in (b"memory", b"slow", b"x")]
    assert found[:2] == ["too much memory", "too slow"]
    assert found[2].startswith("KeyError")


def test_garbage_of_others_does_not_hide_what_a_file_takes(tmp_path: Path) -> None:
    import numpy as np

    class Node:
        """Points to itself, so that only a collection frees it."""

    node: Any = Node()
    node.itself, node.array = node, np.ones(400 << 17)
    del node
    outcome = harness.attempt(_broken_reader(), b"memory", tmp_path)
    assert gc.isenabled()
    assert outcome.finding == "too much memory"


def test_memory_that_others_freed_does_not_hide_what_a_file_takes(tmp_path: Path) -> None:
    import numpy as np

    # From here on the allocator takes up to 32 MiB from its heap, and keeps there what lies below
    # something that is in use.
    larger = np.ones(31 << 17)
    del larger
    below = [np.ones(30 << 17) for _ in range(12)]
    above = np.ones(30 << 17)
    del below
    assert harness.attempt(_broken_reader(), b"memory", tmp_path).finding == "too much memory"
    assert above.all()


def test_changes_follow_from_the_seed() -> None:
    from random import Random

    for target in TARGETS.values():
        data = target.files()[0].read_bytes()
        first, second = (
            [target.mutate(data, rng) for _ in range(20)] for rng in (Random(3), Random(3))
        )
        assert first == second
        assert len(set(first)) > 5
