"""Fuzzes one reader: ``python fuzz/fuzz_prompt_cache.py -max_total_time=60``; see harness.py."""

from harness import main

if __name__ == "__main__":
    main("prompt_cache")
