"""The tokenizer learned from captions."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
from transformers import CLIPTokenizer

from headstudio.errors import HeadStudioError
from tools.prior.tokenizer import encode, train_tokenizer

CAPTIONS = ["a DSLR portrait of a woman with blue skin and long red hair, front view"] * 50


def test_tokenizer_files_are_deterministic(tmp_path: Path) -> None:
    for name in "ab":
        train_tokenizer(CAPTIONS, tmp_path / name, 1500)
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()
    vocabulary = json.loads((tmp_path / "a" / "vocab.json").read_text())
    assert sorted(vocabulary.values()) == list(range(len(vocabulary)))
    assert len(vocabulary) <= 1500


def test_tokenizer_knows_words_and_never_fails(tmp_path: Path) -> None:
    train_tokenizer(CAPTIONS, tmp_path, 1500)
    tokenizer = CLIPTokenizer.from_pretrained(tmp_path)
    assert tokenizer.model_max_length == 77
    pieces = tokenizer.tokenize("A Woman with BLUE skin, einstein")
    assert pieces == ["a</w>", "woman</w>", "with</w>", "blue</w>", "skin</w>", ",</w>",
                      "einstein</w>"]  # fmt: skip
    for text in ("größte 名前 ☃", "\x00\x1b", "x" * 500, "🙂🙂", "a\n\tb"):
        ids = encode(tokenizer, [text])[0]
        assert ids.shape == (77,)
        end = (ids == tokenizer.eos_token_id).nonzero()[0, 0]
        assert (ids[end:] == tokenizer.eos_token_id).all()  # nothing unknown in the middle
        assert end > 1
    assert encode(tokenizer, [""])[0, :2].tolist() == [
        tokenizer.bos_token_id,
        tokenizer.eos_token_id,
    ]
    for text in ("größte", "☃ snow", "zqx"):
        ids = tokenizer(text).input_ids
        assert tokenizer.decode(ids, skip_special_tokens=True) == text


def test_tokenizer_files_are_those_of_any_clip_reader(tmp_path: Path) -> None:
    """Encode with nothing but vocab.json and merges.txt, as CLIP's reference code does."""
    train_tokenizer(CAPTIONS, tmp_path, 1500)
    vocabulary = json.loads((tmp_path / "vocab.json").read_text())
    lines = (tmp_path / "merges.txt").read_text().strip().split("\n")
    assert lines[0].startswith("#version")
    ranks = {tuple(line.split()): i for i, line in enumerate(lines[1:])}
    for word in ("portrait", "blued", "qx"):
        parts = [*word[:-1], word[-1] + "</w>"]
        while len(parts) > 1:
            pairs = [(ranks.get(p, 1e9), i) for i, p in enumerate(itertools.pairwise(parts))]
            rank, i = min(pairs)
            if rank == 1e9:
                break
            parts[i : i + 2] = [parts[i] + parts[i + 1]]
        expected = [vocabulary[p] for p in parts]
        assert CLIPTokenizer.from_pretrained(tmp_path)(word).input_ids[1:-1] == expected


def test_tokenizer_refuses_what_it_cannot_learn(tmp_path: Path) -> None:
    with pytest.raises(HeadStudioError, match="514"):
        train_tokenizer(CAPTIONS, tmp_path, 500)
    with pytest.raises(HeadStudioError, match="0 captions"):
        train_tokenizer([], tmp_path, 1500)
