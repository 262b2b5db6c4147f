"""The fuzzers' seeds and regressions, and a moment of random changes of them, per reader.

The long runs are ``python fuzz/run_all.py``; this needs no atheris.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
FUZZ = REPOSITORY / "fuzz"
sys.path.insert(0, str(FUZZ))

import harness  # noqa: E402
from targets import TARGETS  # noqa: E402

SECONDS = 0.3


@pytest.mark.parametrize("name", TARGETS)
def test_random_changes(name: str, tmp_path: Path) -> None:
    statistics, traces = harness.replay(TARGETS[name], SECONDS, seed=7, folder=tmp_path)
    assert not statistics.findings, "\n".join(traces)
    assert statistics.executions > len(TARGETS[name].files())


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_are_good_files(name: str, tmp_path: Path) -> None:
    """Otherwise the fuzzer never gets past the first check."""
    target = TARGETS[name]
    seeds = sorted((FUZZ / "corpus" / name).iterdir())
    outcomes = [harness.attempt(target, seed.read_bytes(), tmp_path) for seed in seeds]
    if name == "prior_index":
        return  # whose weights are not there
    assert any(not outcome.refused and not outcome.finding for outcome in outcomes)


def test_every_reader_has_its_fuzzer() -> None:
    scripts = {path.stem.removeprefix("fuzz_") for path in FUZZ.glob("fuzz_*.py")}
    assert scripts == set(TARGETS)
    assert {path.name for path in (FUZZ / "corpus").iterdir()} == set(TARGETS)


def test_a_broken_reader_is_found(tmp_path: Path) -> None:
    """What the harness is there for: other errors, time and memory."""
    from dataclasses import replace

    class Broken(type(TARGETS["camera_path"])):  # type: ignore[misc]
        def read(self, path: Path) -> object:
            content = path.read_bytes()
            if content == b"memory":
                return bytearray(b"x" * (200 << 20))
            if content == b"slow":
                end = time.process_time() + 1.1
                while time.process_time() < end:
                    pass
                return None
            raise KeyError(content)

    plain = TARGETS["camera_path"]
    broken = Broken(**{f: getattr(replace(plain), f) for f in plain.__dataclass_fields__})
    found = [harness.attempt(broken, data, tmp_path).finding for data in (b"memory", b"slow", b"x")]
    assert found[:2] == ["too much memory", "too slow"]
    assert found[2].startswith("KeyError")


def test_changes_follow_from_the_seed() -> None:
    from random import Random

    for target in TARGETS.values():
        data = target.files()[0].read_bytes()
        first, second = (
            [target.mutate(data, rng) for _ in range(20)] for rng in (Random(3), Random(3))
        )
        assert first == second
        assert len(set(first)) > 5
