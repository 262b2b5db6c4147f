"""A small byte-pair tokenizer in the file format of CLIP's."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTokenizer

from headstudio.errors import HeadStudioError

START = "<|startoftext|>"
END = "<|endoftext|>"
WORD_END = "</w>"
CONTEXT = 77
# CLIP's own rule for what a word is: contractions, runs of letters, single digits, runs of others.
_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"

# Words that prompts hold and our captions may not. Each becomes a token of its own, so that one
# the model never saw arrives as a single vector near zero, and not as the sum of syllables that
# mean something in other words. None of them names an attribute of the characters.
_WORD_LIST = """
a an the of with and or in on at by for from to as is who that this his her their its
portrait photo photograph picture image painting drawing sketch sculpture bust statue render
rendering model avatar head face headshot selfie closeup close up shot view front side back
overhead top left right profile facing looking camera dslr studio quality masterpiece best
highly detailed detail realistic photorealistic hyperrealistic ultra hd hdr uhd high
resolution sharp focus depth field bokeh lighting light lit soft cinematic dramatic natural
background plain simple dark bright colorful vibrant octane unreal engine raytracing cg
cgi digital art artstation concept character design game pixar disney cartoon anime comic
style oil watercolor photography nikon canon lens film
man woman boy girl person people male female gentleman lady guy human young old elderly
middle aged teenager child adult face cheek chin jaw forehead nose ear ears mouth lips lip
teeth eyes eye brow brows eyebrow eyebrows eyelashes hair haired skin skinned neck
beautiful handsome pretty cute serious happy sad angry smiling smile laughing calm friendly
strong tall thin famous actor actress singer king queen prince princess president doctor
scientist soldier knight warrior wizard witch elf dwarf orc vampire zombie monster robot
alien clown pirate ninja samurai superhero hero villain batman joker hulk superman spiderman
einstein lincoln vincent van gogh mona lisa
not no without very long short big small large wide narrow round square full slim
worst low blurry blurred noisy ugly deformed distorted bad anatomy extra limbs watermark text
logo signature jpeg artifacts cropped out frame duplicate mutated grayscale monochrome
"""
PORTRAIT_WORDS = tuple(dict.fromkeys(_WORD_LIST.split()))

# Put into captions now and then, to teach that they say nothing about what is to be seen.
STRAY_PHRASES = (
    "beautiful", "handsome", "famous", "serious", "cinematic", "octane render", "sharp focus",
    "artstation", "digital art", "photorealistic", "ultra detailed", "soft light", "bokeh",
    "concept art", "dramatic lighting", "high resolution", "plain background", "unreal engine",
    "looking at the camera", "film photography", "friendly", "calm", "hdr", "realistic", "uhd",
    "character design", "best quality", "photography", "game character", "pixar style",
)  # fmt: skip


def byte_alphabet() -> list[str]:
    """The 256 printable stand-ins for bytes, in CLIP's order (its token ids 0 to 255)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in set(printable)]
    return [chr(b) for b in printable] + [chr(256 + i) for i in range(len(others))]


def learn_merges(captions: Iterable[str], n_merges: int) -> list[tuple[str, str]]:
    """Byte-pair merges, most useful first, from captions and :data:`PORTRAIT_WORDS`."""
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix=WORD_END))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    # The trainer numbers letters that end a word in the random order of a hash map, and breaks
    # ties between merges by these numbers; naming them beforehand fixes the order.
    trainer = trainers.BpeTrainer(
        vocab_size=n_merges + 512,
        min_frequency=2,
        special_tokens=[c + WORD_END for c in byte_alphabet()],
        initial_alphabet=byte_alphabet(),
        end_of_word_suffix=WORD_END,
        show_progress=False,
    )
    emphasised = [" ".join(PORTRAIT_WORDS)] * 20
    tokenizer.train_from_iterator([*captions, *emphasised], trainer)
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    pairs = [tuple(m.split(" ")) if isinstance(m, str) else tuple(m) for m in merges]
    return [(a, b) for a, b in pairs][:n_merges]


def train_tokenizer(captions: Sequence[str], folder: str | Path, vocabulary: int = 2000) -> None:
    """Learn a tokenizer from captions and write it as ``CLIPTokenizer`` reads it.

    The vocabulary is laid out as CLIP's: 256 bytes, 256 bytes that end a word, the merges, the two
    special tokens. Every string can therefore be encoded, letter by letter where need be.

    Args:
        captions: sentences the model will be trained on.
        folder: where ``vocab.json``, ``merges.txt`` and the two configuration files go.
        vocabulary: largest number of tokens; there are fewer if the captions do not hold as many.

    Raises:
        HeadStudioError: without captions, or with a vocabulary that has no room for the bytes.
    """
    n_merges = vocabulary - 2 * 256 - 2
    if n_merges < 1 or not captions:
        raise HeadStudioError(
            f"cannot learn {vocabulary} tokens from {len(captions)} captions; a tokenizer needs "
            "captions, and more than 514 tokens (bytes, bytes that end a word, two special ones)"
        )
    merges = learn_merges(captions, n_merges)
    letters = byte_alphabet()
    tokens = [*letters, *(c + WORD_END for c in letters)]
    tokens += [a + b for a, b in merges]
    tokens = [*dict.fromkeys(tokens), START, END]

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END}
    config = {
        **special,
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": CONTEXT,
        "do_lower_case": True,
        "add_prefix_space": False,
        "errors": "replace",
    }
    _write_json(folder / "vocab.json", {token: i for i, token in enumerate(tokens)})
    lines = ["#version: 0.2", *(f"{a} {b}" for a, b in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    _write_json(folder / "tokenizer_config.json", config)
    _write_json(folder / "special_tokens_map.json", special)


def _write_json(path: Path, value: dict) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=0) + "\n", encoding="utf-8")


def load_tokenizer(folder: str | Path) -> CLIPTokenizer:
    """The tokenizer in a folder written by :func:`train_tokenizer`."""
    return CLIPTokenizer.from_pretrained(str(folder))


def encode(tokenizer: CLIPTokenizer, captions: Sequence[str]) -> torch.Tensor:
    """Token ids ``[n, 77]`` (int64), cut or padded to CLIP's context as the pipelines do."""
    return tokenizer(
        list(captions),
        padding="max_length",
        truncation=True,
        max_length=CONTEXT,
        return_tensors="pt",
    ).input_ids
