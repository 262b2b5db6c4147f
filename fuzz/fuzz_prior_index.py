"""Fuzzes one reader: ``python fuzz/fuzz_prior_index.py -max_total_time=60``; see harness.py."""

from harness import main

if __name__ == "__main__":
    main("prior_index")
