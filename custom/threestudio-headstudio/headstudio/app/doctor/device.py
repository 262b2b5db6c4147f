"""Which device trains and renders, and whether its rasteriser can run."""

from __future__ import annotations

import os
import shutil
import subprocess
from importlib.util import find_spec

from headstudio.app.doctor import gsplat_kernels, packages
from headstudio.app.doctor.findings import Finding


def check() -> list[Finding]:
    try:
        import torch
    except ImportError as error:
        return [Finding.problem(f"PyTorch cannot be imported: {error}", packages.INSTALL)]
    devices = cuda_devices()
    if devices:
        listed = ", ".join(devices)
        build = f"PyTorch {torch.__version__} with CUDA {torch.version.cuda}"
        return [
            Finding.ok(f"trains and renders on {listed}; {build}", device="cuda"),
            gsplat_kernels.check(torch.version.cuda),
        ]
    return [*_why_no_gpu(torch.version.cuda), _cpu()]


def cuda_devices() -> list[str]:
    """The CUDA devices that PyTorch can use, each with its memory."""
    import torch

    if not torch.cuda.is_available():
        return []
    properties = map(torch.cuda.get_device_properties, range(torch.cuda.device_count()))
    return [f"{p.name} ({p.total_memory / 2**30:.0f} GiB)" for p in properties]


def nvidia_gpus() -> list[str]:
    """The GPUs that NVIDIA's driver lists, whether PyTorch can use them or not."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    try:
        done = subprocess.run(
            [program, "--query-gpu=name", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in done.stdout.splitlines() if line.strip()]


def _why_no_gpu(cuda_build: str | None) -> list[Finding]:
    """A note if the machine has a GPU that PyTorch does not use."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if hidden is not None and hidden.strip() in ("", "-1"):
        return []
    gpus = nvidia_gpus()
    if not gpus:
        return []
    text = f"there is {', '.join(gpus)}, but PyTorch does not use it: "
    if cuda_build is None:
        pin = packages.pins().get("torch")
        wanted = f"torch=={pin}" if pin else "torch"
        return [
            Finding.note(
                f"{text}the installed build is for CPUs",
                f"python -m pip install --force-reinstall --no-deps {wanted}\n"
                "from an index that serves the CUDA build (without TORCH_INDEX_URL), then "
                "rm -f .venv/installed && ./install.sh",
            )
        ]
    return [
        Finding.note(
            f"{text}the driver may be older than CUDA {cuda_build}, which this build is for",
            "update NVIDIA's driver; nvidia-smi shows the newest CUDA it serves",
        )
    ]


def _cpu() -> Finding:
    import torch

    if find_spec("numba") is None:
        return Finding.problem(
            "numba, which renders on the CPU, is not installed", packages.INSTALL
        )
    import numba

    return Finding.ok(
        f"trains on the CPU with {torch.get_num_threads()} threads; renders with numba "
        f"{numba.__version__} kernels; PyTorch {torch.__version__}",
        device="cpu",
    )
