"""Prompts that a text encoder has room for."""

from typing import Any

import threestudio
from headstudio.errors import HeadStudioError

# threestudio appends the direction: ", overhead view".
_ROOM_FOR_VIEW = 5


def with_fitting_prompts(cfg: dict[str, Any]) -> dict[str, Any]:
    """A prompt processor's configuration with prompts that are not too long for CLIP's 77 tokens.

    threestudio does not cut them: its tokenizer fails in a process of its own, and the run ends
    with "prompt embedding process failed". Here the last of the phrases between commas are left
    out, with a warning.

    Raises:
        HeadStudioError: the first phrase alone is too long.
    """
    from transformers import AutoTokenizer

    name = cfg.get("pretrained_model_name_or_path")
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            name, subfolder="tokenizer", trust_remote_code=False
        )
    except (OSError, ValueError):
        return cfg  # whoever needs it says what is wrong with it
    limits = {"prompt": _ROOM_FOR_VIEW, "negative_prompt": 0}
    return cfg | {
        key: _fitting(key, str(cfg[key]), tokenizer, tokenizer.model_max_length - reserved)
        for key, reserved in limits.items()
        if cfg.get(key)
    }


def _fitting(key: str, text: str, tokenizer: Any, limit: int) -> str:
    phrases = text.split(",")
    for kept in range(len(phrases), 0, -1):
        short = ",".join(phrases[:kept])
        if len(tokenizer(short).input_ids) <= limit:
            if kept < len(phrases):
                left_out = ",".join(phrases[kept:]).strip()
                threestudio.warn(
                    f"{key} is longer than the text encoder's {limit} tokens; "
                    f"left out of it: {left_out}"
                )
            return short
    raise HeadStudioError(
        f"system.prompt_processor.{key} is too long: the text encoder takes {limit} tokens, and "
        f"{phrases[0][:60]!r}... has {len(tokenizer(phrases[0]).input_ids)}. Say it in fewer words."
    )
