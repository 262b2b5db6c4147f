"""The prompt processor, on a tiny CLIP text encoder with random weights."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

import threestudio
from threestudio.utils.misc import get_device

NAME = "stable-diffusion-prompt-processor"
N_TOKENS, N_FEATURES = 77, 16


@pytest.fixture
def clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in diffusers' layout; the words are single letters."""
    if get_device().type == "cuda" and not torch.cuda.is_available():
        pytest.skip("this host keeps embeddings on a GPU, and there is none")
    monkeypatch.chdir(tmp_path)
    source = tmp_path / "vocabulary"
    source.mkdir()
    letters = "abcdefghijklmnopqrstuvwxyz,"
    tokens = ["<|startoftext|>", "<|endoftext|>", *letters, *(c + "</w>" for c in letters)]
    (source / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    (source / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer(
        str(source / "vocab.json"), str(source / "merges.txt"), model_max_length=N_TOKENS
    )
    tokenizer.save_pretrained(tmp_path / "model" / "tokenizer")
    save_encoder(tmp_path / "model", seed=0)
    return tmp_path / "model"


def save_encoder(folder: Path, seed: int) -> CLIPTextModel:
    torch.manual_seed(seed)
    encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=64,
            hidden_size=N_FEATURES,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=N_TOKENS,
            bos_token_id=0,
            eos_token_id=1,
            pad_token_id=1,
        )
    ).eval()
    encoder.save_pretrained(folder / "text_encoder", safe_serialization=True)
    return encoder


def process(clip: Path, **settings: object):
    return threestudio.find(NAME)(
        {
            "pretrained_model_name_or_path": str(clip),
            "prompt": "a head",
            "negative_prompt": "bad",
            "spawn": False,
            **settings,
        }
    )


def embed(clip: Path, text: str) -> torch.Tensor:
    """What the encoder itself gives."""
    tokenizer = CLIPTokenizer.from_pretrained(clip / "tokenizer")
    encoder = CLIPTextModel.from_pretrained(clip / "text_encoder").eval()
    ids = tokenizer(text, padding="max_length", max_length=N_TOKENS, return_tensors="pt").input_ids
    with torch.no_grad():
        return encoder(ids)[0][0]


def views(*pairs: tuple[float, float]) -> dict[str, torch.Tensor]:
    """Cameras at (elevation, azimuth)."""
    elevation, azimuth = torch.tensor(pairs).T
    return {
        "elevation": elevation,
        "azimuth": azimuth,
        "camera_distances": torch.full_like(azimuth, 2.0),
    }


def test_embeddings_are_those_of_the_encoder(clip: Path) -> None:
    out = process(clip)()
    assert out.text_embeddings.shape == (1, N_TOKENS, N_FEATURES)
    assert out.text_embeddings_vd.shape == (4, N_TOKENS, N_FEATURES)
    torch.testing.assert_close(out.text_embeddings[0].cpu(), embed(clip, "a head"))
    torch.testing.assert_close(out.uncond_text_embeddings[0].cpu(), embed(clip, "bad"))
    assert out.prompt == "a head"
    assert not out.text_embeddings.requires_grad


def test_every_view_has_its_words(clip: Path) -> None:
    out = process(clip)()
    assert [d.name for d in out.directions] == ["side", "front", "back", "overhead"]
    assert out.direction2idx == {"side": 0, "front": 1, "back": 2, "overhead": 3}
    assert out.prompts_vd == [f"a head, {v} view" for v in ("side", "front", "back", "overhead")]
    for embedding, prompt in zip(out.text_embeddings_vd, out.prompts_vd, strict=True):
        torch.testing.assert_close(embedding.cpu(), embed(clip, prompt))
    words_first = process(clip, view_dependent_prompt_front=True)()
    assert words_first.prompts_vd == [
        f"{v} view of a head" for v in ("side", "front", "backside", "overhead")
    ]
    own_words = process(clip, prompt_back="hair", prompt_overhead="crown")()
    assert own_words.prompts_vd[2:] == ["hair", "crown"]
    assert own_words.prompts_vd[1] == "a head, front view"


def test_a_camera_gets_the_embedding_of_its_view(clip: Path) -> None:
    out = process(clip)()
    cameras = {
        (0, 0): 1,
        (0, 44): 1,
        (0, -44): 1,
        (0, 46): 0,
        (0, -90): 0,
        (0, 134): 0,
        (0, 136): 2,
        (0, 180): 2,
        (0, 181): 2,
        (0, -170): 2,
        (0, 350): 1,
        (0, 270): 0,
        (59, 0): 1,
        (61, 0): 3,
        (61, 180): 3,
    }
    got = out.get_text_embeddings(**views(*cameras))
    n = len(cameras)
    assert got.shape == (2 * n, N_TOKENS, N_FEATURES)
    index = list(cameras.values())
    torch.testing.assert_close(got[:n], out.text_embeddings_vd[index])
    torch.testing.assert_close(got[n:], out.uncond_text_embeddings_vd[index])
    plain = out.get_text_embeddings(**views(*cameras), view_dependent_prompting=False)
    torch.testing.assert_close(plain[:n], out.text_embeddings.expand(n, -1, -1))
    torch.testing.assert_close(plain[n:], out.uncond_text_embeddings.expand(n, -1, -1))


def test_the_thresholds_are_settings(clip: Path) -> None:
    out = process(clip, front_threshold=60.0, back_threshold=30.0, overhead_threshold=20.0)()
    cameras = {(0, 59): 1, (0, 61): 0, (0, 149): 0, (0, 151): 2, (19, 0): 1, (21, 0): 3}
    got = out.get_text_embeddings(**views(*cameras))[: len(cameras)]
    torch.testing.assert_close(got, out.text_embeddings_vd[list(cameras.values())])


def test_perp_neg_interpolates_and_pushes_away(clip: Path) -> None:
    out = process(
        clip,
        use_perp_neg=True,
        perp_neg_f_sb=[1.0, 0.5, -0.6],
        perp_neg_f_fsb=[1.0, 0.5, 0.9],
        perp_neg_f_fs=[4.0, 0.5, -2.4],
        perp_neg_f_sf=[3.0, 0.5, -1.8],
    )()
    assert out.use_perp_neg
    embeddings, weights = out.get_text_embeddings_perp_neg(
        **views((0, 30), (0, -120), (80, 0)), view_dependent_prompting=True
    )
    assert embeddings.shape == (12, N_TOKENS, N_FEATURES)
    assert weights.shape == (3, 2)
    side, front, back, overhead = out.text_embeddings_vd
    uncond = out.uncond_text_embeddings_vd
    close = torch.testing.assert_close
    # 30 degrees: two thirds front. -120 degrees: two thirds side.
    close(embeddings[0], 2 / 3 * front + 1 / 3 * side)
    close(embeddings[1], 2 / 3 * side + 1 / 3 * back)
    close(embeddings[2], overhead)
    close(embeddings[3:6], uncond[[1, 0, 3]])
    close(embeddings[6:8], torch.stack([front, side]))
    close(embeddings[8:10], torch.stack([side, front]))
    close(embeddings[10:12], uncond[[3, 3]])

    def curve(a: float, b: float, c: float, r: float) -> float:
        return -(a * math.exp(-b * r) + c)

    expected = [
        [curve(4.0, 0.5, -2.4, 2 / 3), curve(3.0, 0.5, -1.8, 1 / 3)],
        [curve(1.0, 0.5, -0.6, 2 / 3), curve(1.0, 0.5, 0.9, 2 / 3)],
        [0.0, 0.0],
    ]
    close(weights.cpu(), torch.tensor(expected), atol=1e-5, rtol=1e-5)


def test_embeddings_are_kept_on_disk(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = process(clip)()
    folder = Path(".threestudio_cache/text_embeddings")
    files = {p: p.stat().st_mtime_ns for p in folder.iterdir()}
    assert len(files) == 6  # prompt, negative prompt, four views
    again = process(clip)()
    torch.testing.assert_close(again.text_embeddings_vd, first.text_embeddings_vd)
    assert {p: p.stat().st_mtime_ns for p in folder.iterdir()} == files
