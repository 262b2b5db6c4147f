"""OpenCV's integer lines, for a whole batch at once, on any device.

``cv2.line`` without anti-aliasing is a rule over integers; here it is evaluated in closed form for
all lines together, as horizontal spans of pixels. A span adds one where it begins and takes one
away after it ends, so that a running sum along the row says what is covered. Nothing depends on
the order of evaluation, and nothing has to wait for the host.

The rule (OpenCV 4, ``imgproc/src/drawing.cpp``): a line one pixel wide is Bresenham's, walked from
left to right; a wider one is a rectangle in 16.16 fixed point, scan-converted, with its four sides
drawn as 8-connected lines, plus a filled circle at either end.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from headstudio.on_device import constant

_SHIFT = 16  # fractional bits of OpenCV's fixed-point coordinates
_ONE = 1 << _SHIFT
_HALF = _ONE >> 1


class Spans(NamedTuple):
    """Runs of pixels; all tensors have one shape [..., K].

    ``row`` and the inclusive ``left`` and ``right`` are int64 and may lie outside the picture;
    where ``valid`` is false the span does not exist.
    """

    row: Tensor
    left: Tensor
    right: Tensor
    valid: Tensor


def join(*parts: Spans) -> Spans:
    """Concatenate along the last axis."""
    return Spans(*(torch.cat(tensors, dim=-1) for tensors in zip(*parts, strict=True)))


def line_spans(start: Tensor, end: Tensor, thickness: int, height: int, width: int) -> Spans:
    """The pixels of ``cv2.line(picture, start, end, colour, thickness)``.

    Args:
        start: [..., 2] int64, pixels (x, y) inside the picture.
        end: [..., 2] likewise.
        thickness: in pixels, at least 1.
        height: of the picture.
        width: of the picture.

    Returns:
        Spans [..., K]; K depends on the picture's size (on the CPU: on the longest line).
    """
    reach = _reach(start, end, max(height, width)) + thickness + 3
    if thickness == 1:
        return _bresenham(start, end, reach)

    corners = _rectangle(start, end, thickness)
    sides = _fixed_point_line(corners.roll(1, dims=-2), corners, reach, height=height, width=width)
    parts = [
        _fill_rectangle(corners, reach),
        Spans(*(tensor.flatten(-2) for tensor in sides)),
        _disc(start, (thickness + 1) // 2),
        _disc(end, (thickness + 1) // 2),
    ]
    # A line from a pixel to itself is its discs alone.
    has_length = (start != end).any(dim=-1, keepdim=True)
    parts[:2] = [part._replace(valid=part.valid & has_length) for part in parts[:2]]
    return join(*parts)


def square_spans(center: Tensor, half_width: int) -> Spans:
    """The pixels of ``picture[y - h : y + h, x - h : x + h]``, by Python's rule for slices.

    Hence a square that would begin above or left of the picture is empty.

    Args:
        center: [..., 2] int64, pixels (x, y).
        half_width: h above.
    """
    rows = torch.arange(-half_width, half_width, device=center.device)
    x, y = center[..., :1], center[..., 1:]
    row = y + rows
    valid = ((x >= half_width) & (y >= half_width)).expand_as(row)
    left = (x - half_width).expand_as(row)
    return Spans(row, left, left + 2 * half_width - 1, valid)


def covered(spans: Spans, layer: Tensor, n_layers: int, height: int, width: int) -> Tensor:
    """Which pixels the spans cover, layer by layer.

    Args:
        spans: [B, S, K].
        layer: [S] int64, the layer that each of the S shapes belongs to.
        n_layers: how many layers there are.
        height: of the picture.
        width: of the picture.

    Returns:
        [B, n_layers, height, width] bool.
    """
    batch = spans.row.shape[0]
    device = spans.row.device
    inside = (
        spans.valid
        & (spans.row >= 0)
        & (spans.row < height)
        & (spans.right >= 0)
        & (spans.left < width)
        & (spans.left <= spans.right)
    )
    plane = torch.arange(batch, device=device)[:, None] * n_layers + layer  # [B, S]
    begin_of_row = (plane[..., None] * height + spans.row) * (width + 1)
    begin = begin_of_row + spans.left.clamp(0, width - 1)
    past = begin_of_row + spans.right.clamp(0, width - 1) + 1
    change = torch.zeros(batch * n_layers * height * (width + 1), dtype=torch.int32, device=device)
    # Most spans are not inside, and add nothing. On a GPU additions to one address wait for each
    # other: theirs are left where they fall, but for those that would fall out of the pictures.
    one = inside.to(torch.int32).flatten()
    last = len(change) - 1
    change.scatter_add_(0, begin.clamp(0, last).flatten(), one)
    change.scatter_add_(0, past.clamp(0, last).flatten(), -one)
    change = change.view(batch, n_layers, height, width + 1)
    return change.cumsum(dim=-1, dtype=torch.int32)[..., :width] > 0


def _reach(start: Tensor, end: Tensor, limit: int) -> int:
    """An upper bound on the pixels a line advances; exact where asking costs no synchronisation."""
    if start.device.type != "cpu" or start.numel() == 0:
        return limit
    return int((end - start).abs().max())


def _round_to_pixel(fixed: Tensor) -> Tensor:
    return (fixed + _HALF) >> _SHIFT


def _divide(numerator: Tensor, denominator: Tensor) -> Tensor:
    """C's integer division: towards zero."""
    return torch.div(numerator, denominator, rounding_mode="trunc")


def _bresenham(start: Tensor, end: Tensor, reach: int) -> Spans:
    """8-connected line of single pixels, from the left end to the right end."""
    backwards = end[..., :1] < start[..., :1]
    first, last = torch.where(backwards, end, start), torch.where(backwards, start, end)
    dx, dy = (last - first).unbind(dim=-1)
    steep = dy.abs() > dx
    major = torch.where(steep, dy.abs(), dx)[..., None]
    minor = torch.where(steep, dx, dy.abs())[..., None]
    k = torch.arange(reach, device=start.device)
    # The minor coordinate moves on when the error is strictly negative: halves round down.
    j = -torch.div(major - 2 * minor * k, (2 * major).clamp(min=1), rounding_mode="floor")
    j = torch.where(k == 0, 0, j)
    along_x = torch.where(steep[..., None], j, k)
    along_y = torch.where(steep[..., None], k, j) * torch.where(dy < 0, -1, 1)[..., None]
    column = first[..., :1] + along_x
    return Spans(first[..., 1:] + along_y, column, column, k <= major)


def _rectangle(start: Tensor, end: Tensor, thickness: int) -> Tensor:
    """Corners [..., 4, 2] (fixed point, in order around) of the line without its round ends."""
    along = (end - start).double()
    length = along.square().sum(dim=-1, keepdim=True).sqrt()
    half = (thickness * _HALF + (thickness & 1) * _HALF) / length.clamp(min=1.0)
    # Rounding half to even, as OpenCV does; x grows with the line's dy and y with minus its dx.
    side = torch.stack([along[..., 1], -along[..., 0]], dim=-1) * half
    side = side.round().long()
    a, b = start << _SHIFT, end << _SHIFT
    return torch.stack([a + side, a - side, b - side, b + side], dim=-2)


def _fill_rectangle(corners: Tensor, reach: int) -> Spans:
    """Rows between the top corner and the bottom one, the latter's row excluded."""
    top = _first_minimum(corners[..., 1])  # [..., 1]
    order = (top + torch.arange(4, device=corners.device)) % 4
    corners = corners.gather(-2, order[..., None].expand_as(corners))
    rows = _round_to_pixel(corners[..., 1])
    y = rows[..., :1] + torch.arange(reach, device=corners.device)  # [..., reach]

    def boundary(middle: int) -> Tensor:
        """x on each row along top -> corner ``middle`` -> bottom."""
        x_top, x_middle, x_bottom = (corners[..., i, 0][..., None] for i in (0, middle, 2))
        y_top, y_middle, y_bottom = (rows[..., i][..., None] for i in (0, middle, 2))
        upper = x_top + _slope(x_top, x_middle, y_middle - y_top) * (y - y_top)
        lower = x_middle + _slope(x_middle, x_bottom, y_bottom - y_middle) * (y - y_middle)
        return torch.where(y < y_middle, upper, lower)

    one, other = boundary(1), boundary(3)
    return Spans(
        row=y,
        left=_round_to_pixel(torch.minimum(one, other)),
        right=_round_to_pixel(torch.maximum(one, other)),
        valid=y < rows[..., 2:3],
    )


def _first_minimum(values: Tensor) -> Tensor:
    """Index [..., 1] of the smallest value; of the first one when several tie."""
    is_minimum = values == values.amin(dim=-1, keepdim=True)
    return is_minimum.to(torch.uint8).argmax(dim=-1, keepdim=True)


def _slope(x_from: Tensor, x_to: Tensor, n_rows: Tensor) -> Tensor:
    """Fixed-point change of x per row, rounded."""
    n_rows = n_rows.clamp(min=1)
    return _divide(2 * (x_to - x_from) + n_rows, 2 * n_rows)


def _fixed_point_line(start: Tensor, end: Tensor, reach: int, *, height: int, width: int) -> Spans:
    """8-connected line of single pixels between fixed-point ends [..., 2]."""
    start, end, valid = _clip(start, end, height, width)
    d = end - start
    wide = d[..., 0].abs() > d[..., 1].abs()
    major_axis = torch.where(wide, 0, 1)[..., None]  # [..., 1]
    backwards = d.gather(-1, major_axis) < 0
    start, end = torch.where(backwards, end, start), torch.where(backwards, start, end)
    d = end - start
    major_start, minor_start = start.gather(-1, major_axis), start.gather(-1, 1 - major_axis)
    major_d, minor_d = d.gather(-1, major_axis), d.gather(-1, 1 - major_axis)

    step = _divide(minor_d * _ONE, major_d | 1)
    k = torch.arange(reach, device=start.device)
    major = _round_to_pixel(major_start) + k
    minor = (minor_start + _HALF + k * step) >> _SHIFT
    n_steps = major_d >> _SHIFT
    column = torch.where(wide[..., None], major, minor)
    row = torch.where(wide[..., None], minor, major)
    line = Spans(row, column, column, valid[..., None] & (k <= n_steps))
    # The last pixel is always set; the walk may stop one short of it.
    x, y = (_round_to_pixel(end[..., i : i + 1]) for i in (0, 1))
    return join(line, Spans(y, x, x, valid[..., None]))


def _clip(start: Tensor, end: Tensor, height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Cut fixed-point lines at the picture's border, y before x, the start before the end.

    Returns:
        start, end, and a bool [...] that is false where nothing of the line is inside.
    """
    (x1, y1), (x2, y2) = start.unbind(dim=-1), end.unbind(dim=-1)
    right, bottom = width * _ONE - 1, height * _ONE - 1
    beside = (
        ((x1 < 0) & (x2 < 0))
        | ((x1 > right) & (x2 > right))
        | ((y1 < 0) & (y2 < 0))
        | ((y1 > bottom) & (y2 > bottom))
    )
    y1, x1 = _cut(y1, x1, y2, x2, bottom)
    y2, x2 = _cut(y2, x2, y1, x1, bottom)
    beside = beside | ((x1 < 0) & (x2 < 0)) | ((x1 > right) & (x2 > right))
    x1, y1 = _cut(x1, y1, x2, y2, right)
    x2, y2 = _cut(x2, y2, x1, y1, right)
    return torch.stack([x1, y1], dim=-1), torch.stack([x2, y2], dim=-1), ~beside


def _cut(
    u: Tensor, v: Tensor, other_u: Tensor, other_v: Tensor, limit: int
) -> tuple[Tensor, Tensor]:
    """Move the end (u, v) of a line along it until 0 <= u <= limit."""
    bound = u.clamp(0, limit)
    run = (other_u - u).double()
    shift = (bound - u).double() * (other_v - v).double() / torch.where(run == 0, 1.0, run)
    outside = bound != u
    return bound, torch.where(outside, v + shift.long(), v)


def _disc(center: Tensor, radius: int) -> Spans:
    """Filled circle around pixels [..., 2]."""
    offsets, half_widths = zip(*_disc_rows(radius), strict=True)
    x, y = center[..., :1], center[..., 1:]
    row = y + constant(offsets, center)
    half = constant(half_widths, center)
    return Spans(row, x - half, x + half, torch.ones_like(row, dtype=torch.bool))


def _disc_rows(radius: int) -> list[tuple[int, int]]:
    """(row offset, half width) of the rows of an integer midpoint circle."""
    half_width: dict[int, int] = {}
    x, y, error = radius, 0, 0
    while x >= y:
        for row, half in ((y, x), (x, y)):
            half_width[row] = max(half_width.get(row, 0), half)
        error += 2 * y + 1
        y += 1
        if error > 0:
            error -= 2 * x - 1
            x -= 1
    return [(sign * row, half) for row, half in half_width.items() for sign in (-1, 1)]
