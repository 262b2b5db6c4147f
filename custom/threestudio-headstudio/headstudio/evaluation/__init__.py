"""How good is an avatar? Measured against characters whose every detail is known, and without them.

``closed_world`` trains and compares, ``ablations`` does so for variants of the method, ``wild``
judges an avatar for which there is no ground truth. docs/benchmark.md defines every figure.
"""

from __future__ import annotations
