"""Fuzzes one reader: ``python fuzz/fuzz_head_pkl.py -max_total_time=60``; see harness.py."""

from harness import main

if __name__ == "__main__":
    main("head_pkl")
