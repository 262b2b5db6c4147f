"""What threestudio needs in the environment beyond what we need ourselves."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import sysconfig
import tempfile
from importlib import metadata
from pathlib import Path

from headstudio.errors import HeadStudioError
from headstudio.paths import REPOSITORY, atomic_write

#: What threestudio imports at its start and pip can install: module -> requirement.
#: libigl's later releases have dropped functions that threestudio imports by name.
REQUIREMENTS = {
    "igl": "libigl==2.5.1",
    "nerfacc": "nerfacc==0.5.3",
    "einops": "einops",
    "IPython": "ipython",
}
#: What stays a placeholder where it cannot be had: torchvision has to be of torch's own build.
OPTIONAL = {"torchvision": "torchvision", "controlnet_aux": "controlnet-aux"}

AT_STARTUP = Path(__file__).with_name("at_startup")
_PTH = "headstudio_placeholders.pth"


def is_there(module: str) -> bool:
    """Whether a module is installed; placeholders, which answer threestudio only, do not count."""
    return importlib.util.find_spec(module) is not None


def missing() -> dict[str, str]:
    """The requirements that are not installed, by module."""
    return {module: what for module, what in REQUIREMENTS.items() if not is_there(module)}


def why_not_importable(module: str) -> str | None:
    """The last line of what ``import module`` says when it fails, in a Python of its own."""
    code = f"import {module}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    return None if done.returncode == 0 else (done.stderr.strip().splitlines() or ["killed"])[-1]


def install(requirements: list[str]) -> None:
    """``pip install`` them; what is installed already stays as it is, torch above all.

    Raises:
        HeadStudioError: with the last lines of what pip said.
    """
    command = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check"]
    if url := os.environ.get("TORCH_INDEX_URL"):
        command += ["--extra-index-url", url]
    with tempfile.TemporaryDirectory() as folder:
        constraints = Path(folder) / "constraints.txt"
        constraints.write_text("\n".join(_constraints()) + "\n")
        command += ["--constraint", str(constraints), *requirements]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = "\n  ".join((done.stderr or done.stdout).strip().splitlines()[-4:])
        raise HeadStudioError(
            f"pip could not install {', '.join(requirements)}:\n  {said}\n"
            "Check the connection (proxy: HTTPS_PROXY; mirror: PIP_INDEX_URL), then run this again."
        )


def _constraints() -> list[str]:
    """Lines for pip: the versions that are installed, and the tested ones of what is not."""
    # Not needed by `headstudio doctor`, which imports this module wherever it is run.
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    installed = {
        canonicalize_name(package.metadata["Name"]): package.version
        for package in metadata.distributions()
        if package.metadata["Name"]
    }
    pins = REPOSITORY / "constraints.txt"
    lines = pins.read_text().splitlines() if pins.is_file() else []
    tested = [
        line
        for line in lines
        if line.strip() and line[0] != "#" and Requirement(line).name not in installed
    ]
    return [f"{name}=={version}" for name, version in installed.items()] + tested


def install_optional() -> list[str]:
    """Install what needs a torchvision that fits torch, where there is one; says what was done."""
    if not _may_have_torchvision():
        return [
            "torchvision and controlnet-aux are not installed, because PyPI's torchvision does not "
            "load beside a torch without CUDA. Only stable-diffusion-controlnet-guidance, CO3D "
            "and Zero123 use them. With TORCH_INDEX_URL set to the index torch came from they are "
            "installed."
        ]
    said: list[str] = []
    for module, requirement in OPTIONAL.items():
        if is_there(module):
            continue
        try:
            install([requirement])
        except HeadStudioError as error:
            return [*said, f"going on with a placeholder for {module}: {error}"]
        if (reason := why_not_importable(module)) is not None:
            return [*said, broken(module, reason)]
        said.append(f"installed {requirement}")
    return said


def _may_have_torchvision() -> bool:
    import torch

    with_cuda = torch.version.cuda is not None
    return with_cuda or bool(os.environ.get("TORCH_INDEX_URL")) or is_there("torchvision")


def broken(module: str, reason: str) -> str:
    """What to do about a module that is installed and cannot be imported: threestudio stops."""
    return (
        f"{module} is installed but cannot be imported ({reason}). threestudio stops at it: "
        "install the build of the installed torch, or remove it, and a placeholder takes its "
        f"place: {sys.executable} -m pip uninstall {module.replace('_', '-')}"
    )


# ------------------------------------------------------------------------------ placeholders


def placeholder_file() -> Path:
    """The ``.pth`` file by which this environment finds the placeholders."""
    return Path(sysconfig.get_path("purelib")) / _PTH


def enable_placeholders() -> bool:
    """Have every Python of this environment import them at its start; whether that is new."""
    # A repository that was moved or deleted must not make every start of Python complain.
    content = (
        f"{AT_STARTUP}\n"
        "import importlib.util as _u; "
        "_u.find_spec('headstudio_placeholders') and __import__('headstudio_placeholders')\n"
    )
    path = placeholder_file()
    if path.is_file() and path.read_text() == content:
        return False
    with atomic_write(path) as temporary:
        temporary.write_text(content)
    return True


def disable_placeholders() -> bool:
    """Take them out of this environment; whether they were in it."""
    path = placeholder_file()
    there = path.is_file()
    path.unlink(missing_ok=True)
    return there


def placeholders_enabled() -> bool:
    return placeholder_file().is_file()


def placeholders_used() -> list[str]:
    """Which modules threestudio gets a placeholder for, were it imported now."""
    sys.path.insert(0, str(AT_STARTUP))
    try:
        import headstudio_placeholders
    finally:
        sys.path.remove(str(AT_STARTUP))
    return [name for name in headstudio_placeholders.PLACEHOLDERS if not is_there(name)]
