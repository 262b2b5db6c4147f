from __future__ import annotations

import builtins
import io
import os
import pickle
import struct
import sys
import tracemalloc
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from scipy import sparse

from headstudio.errors import HeadStudioError
from headstudio.flame import HeadModel
from headstudio.flame.files import REQUIRED
from headstudio.flame.pickles import read_flame_pickle


@pytest.fixture
def chumpy() -> Iterator[types.SimpleNamespace]:
    """Classes with chumpy's names and pickled state, there only while a test writes its file."""

    class Ch:
        def __init__(self, **state: Any) -> None:
            self.__dict__.update(state, _dirty_vars={"x"}, _itr=None, _depends_on_deps={})

    class Select(Ch):
        pass

    modules = {"chumpy": types.ModuleType("chumpy")}
    for cls, module in ((Ch, "chumpy.ch"), (Select, "chumpy.reordering")):
        cls.__module__, cls.__qualname__ = module, cls.__name__
        modules[module] = types.ModuleType(module)
        setattr(modules[module], cls.__name__, cls)
    sys.modules.update(modules)
    yield types.SimpleNamespace(Ch=Ch, Select=Select)
    for module in modules:
        del sys.modules[module]


class Python2Pickler(pickle._Pickler):  # type: ignore[name-defined]
    """Writes byte strings as Python 2 did: as the str of its day."""

    dispatch: ClassVar[dict[type, Any]] = dict(pickle._Pickler.dispatch)  # type: ignore[attr-defined]

    def save_bytes(self, data: bytes) -> None:
        if self.proto == 0:
            self.write(b"S" + repr(data)[1:].encode() + b"\n")
        else:
            self.write(pickle.BINSTRING + struct.pack("<i", len(data)) + data)
        self.memoize(data)

    dispatch[bytes] = save_bytes


def python2_pickle(value: Any, protocol: int = 2) -> bytes:
    """A pickle with the strings and module names of Python 2 and its numpy and scipy."""
    stream = io.BytesIO()
    Python2Pickler(stream, protocol=protocol, fix_imports=True).dump(value)
    content = stream.getvalue()
    for new, old in ((b"numpy._core.", b"numpy.core."), (b"scipy.sparse._cs", b"scipy.sparse.cs")):
        content = content.replace(new, old)
    return content


def flame_dict(entries: dict[str, np.ndarray], chumpy: types.SimpleNamespace) -> dict[str, Any]:
    """The dictionary as published: float64, chumpy expressions, a sparse regressor."""
    flame: dict[str, Any] = {key: entries[key] for key in REQUIRED}
    flame["shapedirs"] = chumpy.Ch(x=np.asfortranarray(entries["shapedirs"]))
    flame["J_regressor"] = sparse.csc_matrix(entries["J_regressor"])
    flame["bs_style"], flame["bs_type"] = "lbs", "lrotmin"
    flat = np.concatenate([np.zeros(4), entries["posedirs"].ravel()])
    flame["posedirs"] = chumpy.Select(
        a=chumpy.Ch(x=flat),
        idxs=np.arange(4, flat.size),
        preferred_shape=entries["posedirs"].shape,
    )
    return flame


@pytest.fixture
def flame_pickle(head_entries, chumpy: types.SimpleNamespace) -> bytes:
    return python2_pickle(flame_dict(head_entries(), chumpy))


def test_python2_pickle_gives_the_same_head(
    flame_pickle: bytes, head: HeadModel, tmp_path: Path
) -> None:
    assert b"copy_reg" not in flame_pickle  # protocol 2 builds instances by instruction
    assert b"numpy.core.multiarray" in flame_pickle
    assert b"scipy.sparse.csc\n" in flame_pickle
    path = tmp_path / "generic_model.pkl"
    path.write_bytes(flame_pickle)
    loaded = HeadModel.load(path)
    assert loaded.content_hash == head.content_hash
    assert loaded.name == "generic_model"
    assert loaded.region_names == []


@pytest.mark.parametrize("protocol", [0, 1])
def test_python2s_older_protocols(
    protocol: int, head_entries, chumpy, head: HeadModel, tmp_path: Path
) -> None:
    content = python2_pickle(flame_dict(head_entries(), chumpy), protocol)
    assert b"copy_reg\n_reconstructor" in content
    path = tmp_path / "generic_model.pkl"
    path.write_bytes(content)
    assert HeadModel.load(path).content_hash == head.content_hash


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("fmt", ["csc", "csr", "coo"])
def test_every_protocol_and_sparse_format(
    protocol: int, fmt: str, head_entries, chumpy, head: HeadModel, tmp_path: Path
) -> None:
    flame = flame_dict(head_entries(), chumpy)
    flame["J_regressor"] = flame["J_regressor"].asformat(fmt)
    path = tmp_path / "flame2023.pkl"
    path.write_bytes(pickle.dumps(flame, protocol))
    assert HeadModel.load(path).content_hash == head.content_hash


def test_big_endian_and_scalars(tmp_path: Path) -> None:
    path = tmp_path / "a.pkl"
    values = {"big": np.arange(4, dtype=">i4"), "one": np.float64(2.5), "list": [[1, 2], [3, 4]]}
    path.write_bytes(pickle.dumps(values, 2))
    back = read_flame_pickle(path, values)
    assert back["big"].tolist() == [0, 1, 2, 3]
    assert back["big"].dtype == np.dtype("<i4")
    assert float(back["one"]) == 2.5
    assert back["list"].tolist() == [[1, 2], [3, 4]]


class Call:
    """Pickles as a call."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.call = function, args

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.call


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    ("function", "name"),
    [(os.system, "system"), (builtins.eval, "eval"), (builtins.getattr, "getattr")],
)
def test_a_pickle_that_would_run_something_is_refused(
    protocol: int, function: Any, name: str, flame_pickle: bytes, tmp_path: Path
) -> None:
    marker = tmp_path / "executed"
    argument = f"touch {marker}" if name == "system" else f"open({str(marker)!r}, 'w')"
    path = tmp_path / "evil.pkl"
    path.write_bytes(pickle.dumps({"v_template": Call(function, argument)}, protocol))
    with pytest.raises(HeadStudioError, match=rf"asks for \w+\.{name}\b.*Nothing was run"):
        HeadModel.load(path)
    assert not marker.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"cchumpy.ch\nos.system\n(S'true'\ntR.",  # dotted name through an allowed module
        b"\x80\x04\x8c\x05numpy\x8c\x0dndarray.dumps\x93.",
        b"cnumpy\nload\n.",
        b"(ios\nsystem\n.",  # INST
        b"cnumpy.core.multiarray\nfromfile\n.",
    ],
)
def test_near_misses_of_the_allow_list_are_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "evil.pkl"
    path.write_bytes(content)
    with pytest.raises(HeadStudioError, match="asks for"):
        HeadModel.load(path)


def test_state_cannot_be_pushed_onto_a_class(tmp_path: Path) -> None:
    """BUILD with a class as its target must not change the class for the next file."""
    path = tmp_path / "evil.pkl"
    path.write_bytes(b"cnumpy\ndtype\n}S'kind'\nS'ch'\nsb.")
    with pytest.raises(HeadStudioError, match="cannot be read as a pickle"):
        HeadModel.load(path)
    path.write_bytes(pickle.dumps({"a": np.arange(3)}, 2))
    assert read_flame_pickle(path, ["a"])["a"].tolist() == [0, 1, 2]


def test_a_memo_bomb_takes_no_memory(tmp_path: Path) -> None:
    """A slot number is four bytes; a memo as long as the slot says would be 16 GiB and more."""
    path = tmp_path / "bomb.pkl"
    path.write_bytes(b"\x80\x02}r\xff\xff\xff\x7f.")
    tracemalloc.start()
    try:
        with pytest.raises(HeadStudioError, match="lacks v_template"):
            HeadModel.load(path)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def array_record(shape: tuple[int, ...], data: bytes, code: str = "f8") -> bytes:
    """A pickle of ``{"v_template": array}`` whose state says what it likes."""
    text = (
        "(dS'v_template'\ncnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR"
        f"(I1\n({''.join(f'I{n}' + chr(10) for n in shape)}t"
        f"cnumpy\ndtype\n(S'{code}'\nI0\nI1\ntR(I3\nS'<'\nNNNI-1\nI-1\nI0\ntb"
        f"I00\nS{data!r}\ntbs."
    )
    return text.replace("Sb'", "S'").encode("latin1")


def test_array_sizes_must_match_their_data(tmp_path: Path) -> None:
    path = tmp_path / "a.pkl"
    path.write_bytes(array_record((2,), struct.pack("<2d", 1.5, -2.0)))
    assert read_flame_pickle(path, ["v_template"])["v_template"].tolist() == [1.5, -2.0]
    for shape, code in (
        ((1 << 40,), "f8"),
        ((-2,), "f8"),
        ((3,), "f8"),
        ((2,), "O8"),
        ((2,), "V8"),
    ):
        path.write_bytes(array_record(shape, bytes(16), code))
        with pytest.raises(HeadStudioError, match="entry 'v_template' is not an array"):
            read_flame_pickle(path, ["v_template"])


def test_a_sparse_matrix_cannot_claim_a_huge_shape(tmp_path: Path) -> None:
    matrix = sparse.csc_matrix(np.eye(3))
    matrix._shape = (3, 1 << 40)
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps({"J_regressor": matrix}))
    with pytest.raises(HeadStudioError, match="entry 'J_regressor' is not an array"):
        read_flame_pickle(path, ["J_regressor"])


def test_unknown_expressions_are_refused(chumpy: types.SimpleNamespace, tmp_path: Path) -> None:
    deep = np.zeros(3)
    for _ in range(6):
        deep = chumpy.Ch(x=deep)
    path = tmp_path / "a.pkl"
    for value in (deep, "text", None, {"x": 1}, ["a"], chumpy.Ch(y=1)):
        path.write_bytes(pickle.dumps({"a": value}))
        with pytest.raises(HeadStudioError, match="entry 'a' is not an array"):
            read_flame_pickle(path, ["a"])


def test_something_else_than_a_dictionary(tmp_path: Path) -> None:
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps([1, 2]))
    with pytest.raises(HeadStudioError, match="holds a list; a FLAME model is a dictionary"):
        HeadModel.load(path)


def test_a_truncated_or_corrupted_pickle_never_raises_anything_else(
    flame_pickle: bytes, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    path = tmp_path / "damaged.pkl"
    for length in rng.integers(0, len(flame_pickle) - 1, 20):
        path.write_bytes(flame_pickle[:length])
        with pytest.raises(HeadStudioError):
            HeadModel.load(path)
    # Flips in the structure (not in the bulk of numbers, where they may go unnoticed).
    for place in rng.choice(2000, 150, replace=False):
        flipped = bytearray(flame_pickle)
        flipped[place] ^= int(rng.integers(1, 256))
        path.write_bytes(bytes(flipped))
        try:
            HeadModel.load(path)
        except HeadStudioError:
            continue
