"""The numbers that define what a splat looks like, equal to those in gsplat's kernels."""

from __future__ import annotations

EPS2D = 0.3
"""Added to the diagonal of the projected covariance (px²): no splat is thinner than a pixel."""

EXTENT = 3.33
"""Half size of a splat's box in standard deviations; outside, opacity 1 is too faint to draw."""

MIN_ALPHA = 1.0 / 255.0
"""A splat that covers less of a pixel than this leaves the pixel alone."""

MAX_ALPHA = 0.999
"""A splat never covers more of a pixel than this, so that transmittance can be divided by."""

MIN_TRANSMITTANCE = 1e-4
"""A pixel is finished before the splat that would leave less light than this."""

FOV_MARGIN = 0.3
"""The Jacobian is taken no further outside the picture than this fraction of half its size."""

MIN_COVERAGE = 1e-10
"""Accumulated depth is divided by alpha, but by no less than this."""
