"""Whether gsplat's CUDA kernels are compiled, or can be: they are built at their first use.

gsplat's own loader is not asked, since asking compiles; the same places are looked at.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from headstudio.app.doctor.findings import Finding

ON_THE_CPU = "until then the CPU does: launch.py --gpu -1"


def check(torch_cuda: str | None) -> Finding:
    """Judge this machine for a PyTorch that was built for the CUDA version ``torch_cuda``."""
    if is_shipped_compiled():
        return Finding.ok("gsplat renders; its kernels came compiled")
    toolkit = f"CUDA toolkit {torch_cuda}" if torch_cuda else "CUDA toolkit"
    home = cuda_home()
    version = None if home is None else nvcc_version(home)
    if home is None or version is None:
        where = "" if home is None else f" (CUDA_HOME is {home}, with no working bin/nvcc)"
        return Finding.problem(
            f"gsplat cannot compile its kernels: there is no CUDA compiler, nvcc{where}",
            f"install the {toolkit} (from developer.nvidia.com/cuda-downloads, or your system's "
            "packages),\n"
            "then: export CUDA_HOME=FOLDER   (the one that holds bin/nvcc)\n" + ON_THE_CPU,
        )
    if torch_cuda and version.split(".")[0] != torch_cuda.split(".")[0]:
        return Finding.problem(
            f"gsplat cannot compile its kernels: nvcc in {home} is of CUDA {version}, PyTorch was "
            f"built for {torch_cuda}",
            f"install the {toolkit}, then: export CUDA_HOME=FOLDER   (the one that holds "
            f"bin/nvcc)\n{ON_THE_CPU}",
        )
    if (library := compiled_library(torch_cuda)) is not None:
        return Finding.ok(f"gsplat renders; its kernels are compiled ({library})")
    missing = missing_build_tools()
    if missing:
        return Finding.problem(
            f"gsplat cannot compile its kernels: {' and '.join(missing)} not found",
            "\n".join([*missing.values(), ON_THE_CPU]),
        )
    return Finding.ok(
        f"gsplat renders; its kernels will be compiled at first use, which takes minutes (nvcc "
        f"{version} in {home})"
    )


def is_shipped_compiled() -> bool:
    """Whether the installed gsplat brings its kernels as a compiled module."""
    spec = find_spec("gsplat")
    if spec is None or spec.origin is None:
        return False
    folder = Path(spec.origin).parent
    return any(folder.glob("csrc*.so")) or any(folder.glob("csrc*.pyd"))


def cuda_home() -> Path | None:
    """The CUDA toolkit's folder as PyTorch finds it."""
    from torch.utils.cpp_extension import CUDA_HOME

    return Path(CUDA_HOME) if CUDA_HOME else None


def nvcc_version(home: Path) -> str | None:
    """Such as "13.0", of the compiler in a toolkit's folder; None if it cannot be run."""
    try:
        done = subprocess.run(
            [str(home / "bin" / "nvcc"), "--version"],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.search(r"release (\d+\.\d+)", done.stdout)
    return match[1] if match else None


def compiled_library(torch_cuda: str | None) -> Path | None:
    """The library that an earlier run compiled, where PyTorch keeps such."""
    given = os.environ.get("TORCH_EXTENSIONS_DIR")
    if given:
        root = Path(given)
    else:
        from torch.utils.cpp_extension import get_default_build_root

        python = f"py{sys.version_info.major}{sys.version_info.minor}{sys.abiflags}"
        build = f"{python}_cu{(torch_cuda or '').replace('.', '')}"
        root = Path(get_default_build_root()) / build
    library = root / "gsplat_cuda" / "gsplat_cuda.so"
    return library if library.is_file() else None


def missing_build_tools() -> dict[str, str]:
    """What compiling needs besides nvcc and is not there, with how to get it."""
    tools = {}
    if shutil.which("ninja") is None:
        tools["ninja"] = "source .venv/bin/activate   (or: python -m pip install ninja)"
    if shutil.which(os.environ.get("CXX", "c++")) is None:
        tools["a C++ compiler"] = "sudo apt-get install g++   (or your system's like)"
    return tools
