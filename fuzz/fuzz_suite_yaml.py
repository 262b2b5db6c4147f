"""Fuzzes one reader: ``python fuzz/fuzz_suite_yaml.py -max_total_time=60``; see harness.py."""

from harness import main

if __name__ == "__main__":
    main("suite_yaml")
