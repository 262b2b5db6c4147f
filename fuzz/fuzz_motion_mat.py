"""Fuzzes one reader: ``python fuzz/fuzz_motion_mat.py -max_total_time=60``; see harness.py."""

from harness import main

if __name__ == "__main__":
    main("motion_mat")
