"""What only the embedded host promises of its parts."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from threestudio.data.uncond import (
    RandomCameraDataModuleConfig,
    RandomCameraDataset,
    RandomCameraIterableDataset,
)
from threestudio.models.prompt_processors.cache import EmbeddingCache, hash_folders
from threestudio.models.prompt_processors.stable_diffusion_prompt_processor import (
    StableDiffusionPromptProcessor,
)
from threestudio.utils.config import folder_name, parse_override, parse_structured
from threestudio.utils.errors import UserError
from threestudio.utils.files import atomic_write, why_not_writable
from threestudio.utils.ops import get_cam_info_gaussian, get_mvp_matrix, get_projection_matrix

SENTENCES = [
    "a man: old",
    "fan #1",
    "#1 fan",
    "a woman, with 'blue' skin",
    "it's me",
    "a [b",
    "- dash",
    "100% wool",
    "a=b",
    "@home",
]


@pytest.mark.parametrize("sentence", SENTENCES)
def test_a_sentence_on_the_command_line_stays_a_sentence(sentence: str) -> None:
    assert parse_override(f"a.prompt={sentence}") == ("a.prompt", sentence)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("1e-3", 1e-3),
        ("true", True),
        ("null", None),
        ("", None),
        ("[1, 2]", [1, 2]),
        ("{a: 1}", {"a": 1}),
        ("'quoted'", "quoted"),
        ("plain words", "plain words"),
    ],
)
def test_a_value_on_the_command_line_is_yaml(text: str, value: object) -> None:
    assert parse_override(f"key={text}") == ("key", value)


def test_any_text_makes_a_folder(tmp_path: Path) -> None:
    texts = ["a/b", "..", "c\nd", "x" * 500, "x" * 499 + "y", "é" * 300, "a red hat"]
    names = [folder_name(text) for text in texts]
    assert len(set(names)) == len(texts)
    assert names[-1] == "a red hat"
    for name in names:
        (tmp_path / f"{name}@20240101-000000").mkdir()
    assert len(list(tmp_path.iterdir())) == len(texts)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def write() -> None:
        with atomic_write(path) as temporary:
            Path(temporary).write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write()
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]
    with pytest.raises(UserError, match="cannot write"), atomic_write(path / "b.txt"):
        pass
    assert why_not_writable(path / "b") is not None
    assert why_not_writable(tmp_path / "new" / "folder") is None


def test_rays_are_given_when_asked_for() -> None:
    settings = {
        "batch_size": 2,
        "height": 6,
        "width": 8,
        "eval_height": 6,
        "eval_width": 8,
        "rays": True,
    }
    cfg = parse_structured(RandomCameraDataModuleConfig, settings)
    for batch in (RandomCameraIterableDataset(cfg).collate(None), look(cfg)):
        assert batch["rays_o"].shape == batch["rays_d"].shape == (2, 6, 8, 3)
        # Points along a pixel's ray are projected onto that pixel.
        points = batch["rays_o"] + 1.7 * batch["rays_d"]
        clip = torch.cat([points, torch.ones_like(points[..., :1])], -1).reshape(2, -1, 4)
        clip = clip @ batch["mvp_mtx"].transpose(1, 2)
        ndc = (clip[..., :2] / clip[..., 3:]).reshape(2, 6, 8, 2)
        x = (torch.arange(8) + 0.5) / 4 - 1
        y = (torch.arange(6) + 0.5) / 3 - 1
        torch.testing.assert_close(ndc[..., 0], x.expand(2, 6, 8), atol=1e-4, rtol=0)
        torch.testing.assert_close(ndc[..., 1], y[:, None].expand(2, 6, 8), atol=1e-4, rtol=0)
    plain = parse_structured(RandomCameraDataModuleConfig, {**settings, "rays": False})
    assert "rays_o" not in RandomCameraIterableDataset(plain).collate(None)
    assert "rays_o" not in look(plain)


def look(cfg: object) -> dict:
    views = RandomCameraDataset(cfg, "test")
    return views.collate([views[0], views[1]])


def test_three_cameras_look_at_the_middle_too() -> None:
    settings = {"batch_size": 3, "center_perturb": 0.0}
    cfg = parse_structured(RandomCameraDataModuleConfig, settings)
    c2w = RandomCameraIterableDataset(cfg).collate(None)["c2w"]
    back = torch.nn.functional.normalize(c2w[:, :3, 3], dim=-1)
    torch.testing.assert_close(c2w[:, :3, 2], back, atol=1e-5, rtol=0)
    assert (torch.linalg.det(c2w[:, :3, :3]) > 0.99).all()


def test_the_camera_of_gaussian_rasterisers_is_the_same_camera() -> None:
    cfg = parse_structured(RandomCameraDataModuleConfig, {"batch_size": 1})
    c2w = RandomCameraIterableDataset(cfg).collate(None)["c2w"]
    fovy = torch.tensor([0.8])
    view, full, centre = get_cam_info_gaussian(c2w[0], 0.8, 0.8, 0.01, 100.0)
    torch.testing.assert_close(centre, c2w[0, :3, 3])
    point = torch.tensor([0.2, -0.1, 0.3, 1.0])
    gaussian = point @ full
    opengl = get_mvp_matrix(c2w, get_projection_matrix(fovy, 1.0, 0.01, 100.0))[0] @ point
    torch.testing.assert_close(
        gaussian[:2] / gaussian[3], opengl[:2] / opengl[3], atol=1e-5, rtol=1e-4
    )
    assert float((point @ view)[2]) == pytest.approx(float(gaussian[3]))


class Counting:
    """An encoder that counts how often it is asked, and for what."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def __call__(self, prompts: list[str]) -> torch.Tensor:
        self.asked.append(prompts)
        return torch.stack([torch.full((2, 3), float(len(prompt))) for prompt in prompts])


def test_the_cache_asks_once_for_what_it_lacks(tmp_path: Path) -> None:
    encode = Counting()
    cache = EmbeddingCache(tmp_path, "one")
    assert cache.get(["a", "bb", "a"], encode)["bb"].mean() == 2
    cache.get(["bb", "ccc"], encode)
    assert encode.asked == [["a", "bb"], ["ccc"]]
    EmbeddingCache(tmp_path, "two").get(["a"], encode)
    cache.get(["a"], encode, read=False)
    assert encode.asked[2:] == [["a"], ["a"]]


@pytest.mark.parametrize("damage", [b"", b"garbage", None])
def test_a_damaged_entry_is_made_again(tmp_path: Path, damage: bytes | None) -> None:
    encode = Counting()
    cache = EmbeddingCache(tmp_path, "one")
    cache.get(["a"], encode)
    if damage is None:
        save_file({"something": torch.ones(1)}, cache.path("a"))
    else:
        cache.path("a").write_bytes(damage)
    assert cache.get(["a"], encode)["a"].mean() == 1
    assert len(encode.asked) == 2
    assert len(list(tmp_path.iterdir())) == 1


def test_an_encoder_is_known_by_its_contents(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "text_encoder"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"1")
    first = hash_folders([folder])
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    assert hash_folders([tmp_path / "b" / "text_encoder"]) == first
    (folder / "model.safetensors").write_bytes(b"2")
    assert hash_folders([folder]) != first
    (folder / "model.safetensors").rename(folder / "other.safetensors")
    assert hash_folders([folder]) not in (first, hash_folders([tmp_path / "b" / "text_encoder"]))


def processor(folder: object) -> StableDiffusionPromptProcessor:
    return StableDiffusionPromptProcessor(
        {"pretrained_model_name_or_path": str(folder), "prompt": "a"}
    )


def test_a_model_that_is_not_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model = tmp_path / "model"
    (model / "tokenizer").mkdir(parents=True)
    with pytest.raises(UserError, match="'text_encoder'"):
        processor(model)
    (model / "text_encoder").mkdir()
    (model / "text_encoder" / "pytorch_model.bin").write_bytes(b"weights")
    with pytest.raises(UserError, match=r"no model\.safetensors"):
        processor(model)
    (model / "text_encoder" / "config.json").write_text("{}")
    (model / "text_encoder" / "model.safetensors").write_bytes(b"garbage")
    with pytest.raises(UserError, match="cannot be loaded"):
        processor(model)
    assert not list(tmp_path.glob(".threestudio_cache/**/*.safetensors"))


def test_a_model_that_is_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for name in ("./load/nothing", "nobody/nothing-at-all"):
        with pytest.raises(UserError, match="neither a folder here nor"):
            processor(name)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_launcher_uses_the_gpu(
    launch: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert launch("--config", "toy.yaml", "--train", "use_timestamp=false", "tag=gpu") == 0
    checkpoint = torch.load("outputs/toy/gpu/ckpts/last.ckpt", weights_only=True)
    assert checkpoint["state_dict"]["geometry.colour"].device.type == "cuda"
