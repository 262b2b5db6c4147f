"""Our skinning against ``smplx.lbs.lbs``, which it does the same as without waiting for a GPU."""

import pytest
import torch
from smplx.lbs import lbs

from headstudio.flame.skinning import skin

PARENTS = (-1, 0, 1, 1, 1)  # FLAME's
V, E, S, J, P = 60, 7, 6, len(PARENTS), 3


def _model() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)

    def normal(*size: int) -> torch.Tensor:
        return torch.randn(size, generator=generator, dtype=torch.float64)

    return {
        "template": normal(V, 3),
        "shapedirs": 0.1 * normal(V, 3, S),
        "expression_directions": 0.1 * normal(V, 3, E),
        "posedirs": 0.1 * normal(9 * (J - 1), 3 * V),
        "J_regressor": normal(J, V).softmax(1),
        "weights": normal(V, J).softmax(1),
        "shape": normal(P, S),
        "expression": normal(P, E),
        "pose": normal(P, 3 * J),
    }


@pytest.mark.parametrize("shared_identity", [False, True])
def test_it_is_smplx(shared_identity: bool) -> None:
    m = _model()
    shape = m["shape"][:1].expand(P, -1) if shared_identity else m["shape"]
    expected_vertices, expected_joints = lbs(
        torch.cat([shape, m["expression"]], dim=1),
        m["pose"],
        m["template"].expand(P, -1, -1),
        torch.cat([m["shapedirs"], m["expression_directions"]], dim=2),
        m["posedirs"],
        m["J_regressor"],
        torch.tensor(PARENTS),
        m["weights"],
    )
    identity = m["template"] + torch.einsum("bl,mkl->bmk", shape, m["shapedirs"])
    vertices, joints = skin(
        m["expression"],
        m["pose"],
        identity[:1] if shared_identity else identity,
        m["expression_directions"],
        m["posedirs"],
        m["J_regressor"],
        PARENTS,
        m["weights"],
    )
    torch.testing.assert_close(vertices, expected_vertices, rtol=0, atol=1e-10)
    torch.testing.assert_close(joints, expected_joints, rtol=0, atol=1e-10)
