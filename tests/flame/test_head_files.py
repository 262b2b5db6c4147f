from __future__ import annotations

import errno
import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from headstudio.errors import HeadStudioError
from headstudio.flame import HeadModel, read_head, read_npz

Entries = dict[str, np.ndarray]


def test_what_is_in_the_file_is_in_the_head(head_file: Path, head_entries) -> None:
    entries = head_entries()
    arrays = read_head(head_file)
    np.testing.assert_allclose(arrays.shapedirs, entries["shapedirs"], atol=1e-7)
    assert arrays.shapedirs.dtype == np.float32
    assert arrays.faces.dtype == np.int64
    assert arrays.name == "random head"
    assert arrays.expression_names == ["jawOpen", "mouthClose"]
    assert arrays.region_names == ["skin", "lips", "iris"]
    assert (arrays.n_shape, arrays.shapedirs.shape[2]) == (300, 400)


def test_half_precision_files_load(head_entries, tmp_path: Path) -> None:
    entries = {
        k: a.astype(np.float16) if a.dtype == float else a for k, a in head_entries().items()
    }
    np.savez_compressed(tmp_path / "half.npz", **entries)
    head = HeadModel.load(tmp_path / "half.npz")
    assert head.shapedirs.dtype == head.v_template.dtype
    np.testing.assert_array_equal(head.shapedirs.numpy(), entries["shapedirs"].astype(np.float32))


def test_flames_own_npz_needs_nothing_of_ours(head_entries, tmp_path: Path) -> None:
    ours = ("region", "face_region", "expression", "landmark", "name")
    entries = {k: v for k, v in head_entries().items() if not k.startswith(ours)}
    np.savez(tmp_path / "flame2023.npz", extra=np.array([{}], object), **entries)
    head = HeadModel.load(tmp_path / "flame2023.npz")
    assert head.name == "flame2023"
    assert head.region_names == []
    assert head.expression_names == []
    assert (head.face_region == -1).all()


DEFECTS: list[tuple[str, Callable[[Entries], object], str]] = [
    ("key", lambda e: e.pop("J_regressor"), "lacks J_regressor"),
    ("template", lambda e: e.update(v_template=np.zeros(3)), r"v_template has shape \[3\]"),
    (
        "columns",
        lambda e: e.update(shapedirs=e["shapedirs"][..., :150]),
        r"shapedirs has shape \[60, 3, 150\]; expected \[60, 3, 400\].*trimmed",
    ),
    ("smpl", lambda e: e.update(weights=np.ones((60, 24)) / 24), "looks like a SMPL body"),
    ("posedirs", lambda e: e.update(posedirs=np.zeros((60, 3, 207))), r"expected \[60, 3, 36\]"),
    (
        "vertices",
        lambda e: e.update(posedirs=e["posedirs"][1:]),
        r"posedirs has shape \[59, 3, 36\]",
    ),
    ("quads", lambda e: e.update(f=np.zeros((9, 4), int)), r"f has shape \[9, 4\]"),
    ("index", lambda e: e.update(f=e["f"] + 1000), "names vertices 10"),
    ("nan", lambda e: e["v_template"].__setitem__((0, 0), np.nan), "v_template.*not finite"),
    ("text", lambda e: e.update(weights=np.full((60, 5), "x")), "weights holds <U1"),
    ("unnormalised", lambda e: e.update(weights=e["weights"] * 2), "must sum to 1; found 2 to 2"),
    (
        "tree",
        lambda e: e.update(kintree_table=np.array([[-1, 0, 1, 2, 3], range(5)])),
        r"parents \[-1, 0, 1, 2, 3\]; expected \[-1, 0, 1, 1, 1\]",
    ),
    ("regions", lambda e: e.update(face_region=np.full(100, 3)), "expected -1 to 2"),
    ("region count", lambda e: e.update(face_region=np.zeros(99, int)), r"integers \[100\]"),
    ("half landmarks", lambda e: e.pop("landmark_face"), "need landmark_face too"),
    ("landmark", lambda e: e["landmark_face"].__setitem__(0, 100), "triangle the head does not"),
    ("twice", lambda e: e["landmark_mediapipe_index"].fill(3), "embedded twice"),
    ("number", lambda e: e["landmark_mediapipe_index"].__setitem__(0, 478), "numbered 0 to 477"),
    ("bary", lambda e: e["landmark_barycentric"].__setitem__((0, 0), 3), "must sum to 1"),
]


@pytest.mark.parametrize(
    ("defect", "message"), [(d, m) for _, d, m in DEFECTS], ids=[name for name, _, _ in DEFECTS]
)
def test_a_defective_head_says_what_is_wrong(
    defect: Callable[[Entries], object], message: str, head_entries, tmp_path: Path
) -> None:
    entries = head_entries()
    defect(entries)
    path = tmp_path / "defective.npz"
    np.savez(path, **entries)
    with pytest.raises(HeadStudioError, match=message) as caught:
        HeadModel.load(path)
    assert str(path) in str(caught.value)


def test_missing_file_folder_and_foreign_suffix(tmp_path: Path) -> None:
    with pytest.raises(HeadStudioError, match=r"gone\.npz does not exist; expected a head model"):
        HeadModel.load(tmp_path / "gone.npz")
    with pytest.raises(HeadStudioError, match="is a folder"):
        HeadModel.load(tmp_path)
    (tmp_path / "head.obj").write_text("v 0 0 0\n")
    with pytest.raises(HeadStudioError, match=r"ends in '\.obj'"):
        HeadModel.load(tmp_path / "head.obj")


@pytest.mark.parametrize("suffix", [".npz", ".pkl"])
def test_a_file_that_may_not_be_read(
    suffix: str, head_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As whom tests run may be allowed to read everything.
    def denied(path: Path, *args: object, **kwargs: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    path = head_file.rename(head_file.with_suffix(suffix))
    monkeypatch.setattr(Path, "open", denied)
    message = rf"{path} cannot be opened \(Permission denied\); expected a head model .* may read"
    with pytest.raises(HeadStudioError, match=message):
        HeadModel.load(path)


def test_damage_anywhere_is_reported(head_file: Path, tmp_path: Path) -> None:
    content = head_file.read_bytes()
    damaged = tmp_path / "damaged.npz"
    rng = np.random.default_rng(0)
    damaged.write_bytes(b"not a zip at all")
    with pytest.raises(HeadStudioError, match="damaged"):
        HeadModel.load(damaged)
    for length in rng.integers(0, len(content) - 1, 20):
        damaged.write_bytes(content[:length])
        with pytest.raises(HeadStudioError, match="damaged"):
            HeadModel.load(damaged)
    start = content.index(b"shapedirs.npy") + 200
    for place in rng.integers(start, start + 280_000, 20):
        flipped = bytearray(content)
        flipped[place] ^= 0xFF
        damaged.write_bytes(bytes(flipped))
        with pytest.raises(HeadStudioError, match="CRC"):
            HeadModel.load(damaged)


class TestNpz:
    def test_objects_are_never_unpickled(self, tmp_path: Path) -> None:
        marker = tmp_path / "executed"

        class Bomb:
            def __reduce__(self):
                return Path.touch, (marker,)

        path = tmp_path / "bomb.npz"
        np.savez(path, v=np.array([Bomb()], dtype=object))
        marker.unlink(missing_ok=True)
        with pytest.raises(HeadStudioError, match="'v' holds Python objects"):
            read_npz(path)
        assert not marker.exists()

    def test_only_what_is_wanted_is_read(self, tmp_path: Path) -> None:
        path = tmp_path / "a.npz"
        np.savez(path, a=np.arange(3), b=np.array([None]))
        assert set(read_npz(path, wanted=["a", "c"])) == {"a"}

    def test_sizes_are_limited_before_reading(self, tmp_path: Path) -> None:
        path = tmp_path / "big.npz"
        np.savez_compressed(path, a=np.zeros(3_000_000))
        assert path.stat().st_size < 100_000
        with pytest.raises(HeadStudioError, match="claims 23 MiB of arrays; at most 1 MiB"):
            read_npz(path, max_bytes=1 << 20)

    def test_a_header_cannot_claim_more_than_its_data(self, tmp_path: Path) -> None:
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            header, {"shape": (1 << 50,), "fortran_order": False, "descr": "<f8"}
        )
        path = tmp_path / "liar.npz"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a.npy", header.getvalue() + bytes(64))
        with pytest.raises(HeadStudioError, match="are announced"):
            read_npz(path)

    def test_round_trip_of_all_layouts(self, tmp_path: Path) -> None:
        arrays = {
            "fortran": np.asfortranarray(np.arange(12.0).reshape(3, 4)),
            "text": np.array(["ä", "bc"]),
            "scalar": np.array(3),
            "empty": np.zeros((0, 3), np.float16),
        }
        np.savez(tmp_path / "a.npz", **arrays)
        back = read_npz(tmp_path / "a.npz")
        assert back.keys() == arrays.keys()
        for name, array in arrays.items():
            np.testing.assert_array_equal(back[name], array)
