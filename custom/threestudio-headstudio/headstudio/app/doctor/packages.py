"""The Python packages: which are there, and whether in the versions that were tested."""

from __future__ import annotations

from importlib import metadata

from headstudio.app.doctor.findings import Finding
from headstudio.paths import REPOSITORY

# The dependencies of pyproject.toml. They are repeated because a threestudio user who dropped the
# extension into custom/ has installed no metadata that could be asked.
REQUIRED = (
    "torch",
    "numpy",
    "numba",
    "scipy",
    "gsplat",
    "smplx",
    "diffusers",
    "transformers",
    "accelerate",
    "safetensors",
    "huggingface-hub",
    "lightning",
    "omegaconf",
    "jaxtyping",
    "tensorboard",
    "imageio",
    "opencv-python-headless",
    "matplotlib",
    "packaging",
    "pillow",
    "plyfile",
    "pygltflib",
    "pyyaml",
    "trimesh",
    "torchmetrics",
    "tqdm",
    "viser",
)
INSTALL = (
    "./install.sh"
    if (REPOSITORY / "install.sh").is_file()
    else f"python -m pip install {' '.join(REQUIRED)} 'imageio[ffmpeg]'"
)
_SHOWN = ("torch", "gsplat", "numba", "diffusers", "transformers")


def check() -> list[Finding]:
    installed = {name: version(name) for name in REQUIRED}
    tested = pins()
    findings = []
    missing = [name for name, found in installed.items() if found is None]
    if missing:
        findings.append(Finding.problem(f"not installed: {', '.join(missing)}", INSTALL))
    other = {
        name: (found, tested[name])
        for name, found in installed.items()
        if found is not None and name in tested and _public(found) != tested[name]
    }
    if other:
        listed = ", ".join(
            f"{name} {found} (tested: {pin})" for name, (found, pin) in other.items()
        )
        findings.append(
            Finding.note(
                f"other versions than those of constraints.txt: {listed}",
                "./install.sh   (or: python -m pip install -c constraints.txt -e .)",
            )
        )
    listed = ", ".join(f"{name} {installed[name]}" for name in _SHOWN if installed[name])
    if listed:
        count = len(REQUIRED) - len(missing)
        findings.append(
            Finding.ok(f"{count} of {len(REQUIRED)} packages: {listed} …", installed=installed)
        )
    return findings


def version(name: str) -> str | None:
    """The installed version of a distribution, or None."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def pins() -> dict[str, str]:
    """The versions of ``constraints.txt`` for this Python; empty without that file.

    Raises:
        InvalidRequirement: for a line that pip would not understand either.
    """
    try:
        from packaging.requirements import Requirement
    except ImportError:
        return {}
    path = REPOSITORY / "constraints.txt"
    lines = path.read_text().splitlines() if path.is_file() else []
    requirements = [Requirement(line) for line in lines if line.strip() and line[0] != "#"]
    return {
        requirement.name: str(requirement.specifier).removeprefix("==")
        for requirement in requirements
        if requirement.marker is None or requirement.marker.evaluate()
    }


def _public(version: str) -> str:
    """Without the build, such as ``+cpu``."""
    return version.split("+")[0]
