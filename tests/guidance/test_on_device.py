"""Numbers on their way between the host and a device, which neither of them waits for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from headstudio.on_device import OnTheWay, constant

needs_gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
DEVICES = ["cpu", pytest.param("cuda", marks=needs_gpu)]
LONG = 200_000_000
"""Clock cycles of a GPU: about a tenth of a second."""


@contextmanager
def no_waiting() -> Iterator[None]:
    """An error for what makes the host wait until the GPU is done."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.int64])
def test_a_constant_is_what_new_tensor_makes(device: str, dtype: torch.dtype) -> None:
    like = torch.zeros(2, 5, dtype=dtype, device=device)
    made, expected = constant((0.0, 3.0, -7.0), like), like.new_tensor((0.0, 3.0, -7.0))
    assert torch.equal(made, expected)
    assert (made.dtype, made.device) == (expected.dtype, expected.device)


def test_a_constant_is_made_once_for_each_type() -> None:
    single, double = torch.zeros(1), torch.zeros(1, dtype=torch.float64)
    made = constant((1.0, 2.0), single)
    assert constant((1.0, 2.0), torch.ones(4, 4)) is made
    assert constant((1.0, 3.0), single) is not made
    assert constant((1.0, 2.0), double).dtype == torch.float64
    assert constant((1.0, 2.0), single) is made


def test_a_constant_made_without_gradients_can_be_trained_with() -> None:
    """What lives as long as the process must not keep the mode in which it was first asked for."""
    with torch.inference_mode():
        made = constant((0.125, 0.25), torch.zeros(1))
    assert not made.is_inference()
    weight = torch.ones(2, requires_grad=True)
    (weight * constant((0.125, 0.25), weight)).sum().backward()
    assert weight.grad.tolist() == [0.125, 0.25]
    assert not made.requires_grad


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    "values", [[1.0, 0.0, 0.5], [[True], [False]], 0.75, []], ids=["row", "bools", "scalar", "none"]
)
def test_a_copy_arrives_on_the_host(device: str, values: object) -> None:
    tensor = torch.tensor(values, device=device)
    arrived = OnTheWay(tensor).arrived()
    assert arrived.device.type == "cpu"
    assert arrived.dtype == tensor.dtype
    assert torch.equal(arrived, torch.tensor(values))


@pytest.mark.parametrize("device", DEVICES)
def test_a_copy_takes_no_gradient(device: str) -> None:
    tensor = torch.ones(3, device=device, requires_grad=True)
    assert not OnTheWay(2 * tensor).arrived().requires_grad


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_constant_is_not_waited_for() -> None:
    like = torch.zeros(3, device="cuda")
    constant((5.0, 6.0, 7.0), like)
    with no_waiting():
        like += constant((5.0, 6.0, 7.0), like)
        with pytest.raises(RuntimeError, match="synchroniz"):  # what it is there to avoid
            like.new_tensor((5.0, 6.0, 7.0))
    assert like.tolist() == [5.0, 6.0, 7.0]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_copy_is_waited_for_when_it_is_asked_for_and_no_longer() -> None:
    def mark() -> torch.cuda.Event:
        event = torch.cuda.Event()
        event.record()
        return event

    tensor = torch.zeros(4, device="cuda")
    OnTheWay(tensor).arrived()  # what is made at the first use of pinned memory is made
    torch.cuda.synchronize()
    with no_waiting():
        torch.cuda._sleep(LONG)
        tensor += 1
        before = mark()
        copy = OnTheWay(tensor)
        assert not before.query()  # to start it did not wait for the past
        torch.cuda._sleep(LONG)
        tensor += 1
        after = mark()
        arrived = copy.arrived().clone()
        assert before.query()
        assert not after.query()  # nor does it wait for what came later
    assert arrived.tolist() == [1.0] * 4
    assert tensor.tolist() == [2.0] * 4
