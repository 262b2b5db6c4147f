"""What the doctor says of machines in all kinds of states."""

from __future__ import annotations

import shutil
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import torch

from headstudio.app import doctor
from headstudio.app.checkout import links
from headstudio.app.checkout import packages as packages_of_threestudio
from headstudio.app.doctor import (
    configs,
    device,
    gsplat_kernels,
    heads,
    hosts,
    machine,
    motions,
    packages,
    priors,
)
from headstudio.app.doctor.findings import Finding, Report
from tests.app.conftest import REPOSITORY


def only(findings: list[Finding], status: str) -> Finding:
    """The one finding of a status."""
    (finding,) = [finding for finding in findings if finding.status == status]
    return finding


def statuses(findings: list[Finding]) -> list[str]:
    return [finding.status for finding in findings]


# ------------------------------------------------------------------------------- machine


def test_another_python_is_a_problem(monkeypatch):
    monkeypatch.setattr(machine, "python_version", lambda: (3, 13, 0))
    finding = only(machine.check(), "problem")
    assert "Python 3.13.0" in finding.text
    assert "PYTHON=python3.11 ./install.sh" in finding.fix


@pytest.mark.parametrize(
    ("probe", "value", "said"),
    [("memory_bytes", 2**31, "2.0 GiB of memory"), ("free_disk_bytes", 2**28, "0.2 GiB of disk")],
)
def test_little_memory_or_disk_is_noted(monkeypatch, probe, value, said):
    monkeypatch.setattr(machine, "memory_bytes", lambda: 2**36)
    monkeypatch.setattr(machine, "free_disk_bytes", lambda: 2**36)
    assert "note" not in statuses(machine.check())
    monkeypatch.setattr(machine, probe, lambda: value)
    finding = only(machine.check(), "note")
    assert said in finding.text
    assert finding.fix


def test_an_output_folder_that_cannot_be_written_is_a_problem(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(machine, "output_folder_writable", lambda: False)
    finding = only(machine.check(), "problem")
    assert str(tmp_path / "outputs") in finding.text
    assert "exp_root_dir" in finding.fix


def test_no_ffmpeg_is_a_problem(monkeypatch):
    def absent() -> str:
        raise RuntimeError("No ffmpeg exe could be found.")

    monkeypatch.setattr(machine, "ffmpeg", absent)
    assert "imageio-ffmpeg" in only(machine.check(), "problem").fix


# ------------------------------------------------------------------------------ packages


def test_the_packages_looked_for_are_those_of_pyproject():
    tomllib = pytest.importorskip("tomllib")
    requirements = pytest.importorskip("packaging.requirements")
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    names = [requirements.Requirement(line).name for line in project["dependencies"]]
    assert sorted(packages.REQUIRED) == sorted(names)


def test_every_package_that_is_needed_is_pinned():
    assert set(packages.REQUIRED) <= set(packages.pins())


def test_the_pins_are_those_of_this_python(workplace):
    (workplace / "constraints.txt").write_text(
        "# a comment\n\n"
        'torch==9.1; python_version >= "3.0"\n'
        'torch==8.0; python_version < "3.0"\n'
        "numpy==1.2.3\n"
    )
    packages_pins = _pins_of(workplace)
    assert packages_pins == {"torch": "9.1", "numpy": "1.2.3"}


def _pins_of(place: Path) -> dict[str, str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packages, "REPOSITORY", place)
        return packages.pins()


def test_a_missing_package_is_a_problem_and_another_version_a_note(monkeypatch):
    there = dict.fromkeys(packages.REQUIRED, "1.0")
    found = {**there, "numba": None, "torch": "2.0+cu999", "diffusers": "1.1"}
    monkeypatch.setattr(packages, "version", found.get)
    monkeypatch.setattr(packages, "pins", lambda: {**there, "torch": "2.0"})
    findings = packages.check()
    assert only(findings, "problem").text == "not installed: numba"
    assert only(findings, "problem").fix == "./install.sh"
    note = only(findings, "note")
    assert "diffusers 1.1 (tested: 1.0)" in note.text
    assert "torch" not in note.text, "the build of a version is no other version"


def test_a_version_is_what_the_installed_metadata_say():
    assert packages.version("torch") == metadata.version("torch")
    assert packages.version("no-such-distribution") is None


# -------------------------------------------------------------------------------- device


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine with a GPU and everything gsplat needs to compile; returns its CUDA folder."""
    home = tmp_path / "cuda"
    (home / "bin").mkdir(parents=True)
    nvcc = home / "bin" / "nvcc"
    nvcc.write_text("#!/bin/sh\necho 'Cuda compilation tools, release 13.0, V13.0.88'\n")
    nvcc.chmod(0o755)
    monkeypatch.setattr(device, "cuda_devices", lambda: ["Card (24 GiB)"])
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(gsplat_kernels, "is_shipped_compiled", lambda: False)
    monkeypatch.setattr(gsplat_kernels, "cuda_home", lambda: home)
    monkeypatch.setattr(gsplat_kernels, "missing_build_tools", dict)
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path / "extensions"))
    return home


def test_a_gpu_with_a_compiler_is_ready(gpu):
    findings = device.check()
    assert statuses(findings) == ["ok", "ok"]
    assert "Card (24 GiB)" in findings[0].text
    assert "will be compiled at first use" in findings[1].text


def test_a_gpu_without_nvcc_is_told_what_to_install(gpu, monkeypatch):
    monkeypatch.setattr(gsplat_kernels, "cuda_home", lambda: None)
    finding = only(device.check(), "problem")
    assert "no CUDA compiler, nvcc" in finding.text
    assert "CUDA toolkit 13.0" in finding.fix
    assert "export CUDA_HOME=" in finding.fix
    assert "--gpu -1" in finding.fix


def test_a_cuda_folder_without_a_working_nvcc_is_named(gpu):
    (gpu / "bin" / "nvcc").unlink()
    finding = only(device.check(), "problem")
    assert str(gpu) in finding.text
    assert "CUDA toolkit 13.0" in finding.fix


def test_nvcc_of_another_major_version_is_a_problem(gpu):
    nvcc = gpu / "bin" / "nvcc"
    nvcc.write_text(nvcc.read_text().replace("13.0", "12.4"))
    finding = only(device.check(), "problem")
    assert "CUDA 12.4" in finding.text
    assert "13.0" in finding.text
    # A minor version apart compiles.
    nvcc.write_text(nvcc.read_text().replace("12.4", "13.2"))
    assert statuses(device.check()) == ["ok", "ok"]


def test_missing_build_tools_are_a_problem_unless_it_is_compiled_already(
    gpu, monkeypatch, tmp_path
):
    monkeypatch.setattr(
        gsplat_kernels, "missing_build_tools", lambda: {"ninja": "pip install ninja"}
    )
    finding = only(device.check(), "problem")
    assert "ninja not found" in finding.text
    assert finding.fix.startswith("pip install ninja\n")
    library = tmp_path / "extensions" / "gsplat_cuda" / "gsplat_cuda.so"
    library.parent.mkdir(parents=True)
    library.touch()
    assert f"kernels are compiled ({library})" in device.check()[1].text


def test_the_compiled_library_is_looked_for_where_pytorch_puts_it(monkeypatch, tmp_path):
    from torch.utils import cpp_extension

    monkeypatch.delenv("TORCH_EXTENSIONS_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    folder = Path(cpp_extension._get_build_directory("gsplat_cuda", verbose=False))
    assert gsplat_kernels.compiled_library("13.0") is None
    (folder / "gsplat_cuda.so").touch()
    assert gsplat_kernels.compiled_library("13.0") == folder / "gsplat_cuda.so"


def test_missing_build_tools_are_those_not_on_the_path(monkeypatch, tmp_path):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert list(gsplat_kernels.missing_build_tools()) == ["ninja", "a C++ compiler"]
    for name in ("ninja", "c++"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    assert gsplat_kernels.missing_build_tools() == {}


@pytest.mark.parametrize(
    ("build", "hidden", "said", "fix"),
    [
        (None, None, "the installed build is for CPUs", "--force-reinstall --no-deps torch=="),
        ("13.0", None, "the driver may be older than CUDA 13.0", "update NVIDIA's driver"),
        ("13.0", "-1", None, None),
    ],
)
def test_a_gpu_that_pytorch_does_not_use_is_noted(monkeypatch, build, hidden, said, fix):
    monkeypatch.setattr(device, "cuda_devices", list)
    monkeypatch.setattr(device, "nvidia_gpus", lambda: ["Card"])
    monkeypatch.setattr(torch.version, "cuda", build)
    if hidden is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    findings = device.check()
    assert "trains on the CPU" in findings[-1].text
    if said is None:
        assert len(findings) == 1
    else:
        note = only(findings, "note")
        assert said in note.text
        assert fix in note.fix


# --------------------------------------------------------------------------- head models


def test_flame_that_is_not_there_is_a_note_with_its_address(workplace):
    findings = heads.check()
    assert statuses(findings) == ["ok", "note"]
    assert heads.FLAME_SITE in findings[1].fix
    assert configs.full().head in findings[1].fix


def test_a_damaged_head_is_a_problem(workplace):
    path = workplace / "load" / "flame" / "open_head.npz"
    path.write_bytes(path.read_bytes()[:5000])
    finding = only(heads.check(), "problem")
    assert "load/flame/open_head.npz cannot be used" in finding.text
    assert "restore load/flame/open_head.npz" in finding.fix


def test_another_head_is_offered_to_headstudio_yaml(workplace):
    folder = workplace / "load" / "flame"
    shutil.copy(folder / "open_head.npz", folder / "mine.npz")
    np.savez(folder / "masks.npz", face=np.arange(3))
    findings = heads.check()
    assert statuses(findings) == ["ok", "ok", "note"]
    assert findings[2].fix == "launch.py … system.geometry.head_model='load/flame/mine.npz'"


def test_a_damaged_head_that_is_not_needed_is_a_note(workplace):
    folder = workplace / "load" / "flame"
    (folder / "mine.npz").write_bytes((folder / "open_head.npz").read_bytes()[:5000])
    findings = heads.check()
    assert "problem" not in statuses(findings)
    assert any("mine.npz cannot be used" in finding.text for finding in findings)


# -------------------------------------------------------------------------------- priors


def test_a_complete_prior_has_its_parts_and_sizes_listed(workplace, monkeypatch):
    monkeypatch.setattr(priors, "in_hub_cache", lambda *_: True)
    findings = priors.check()
    assert statuses(findings) == ["ok", "ok", "ok"]
    sizes = findings[0].details["mebibytes"]
    assert set(sizes) == {"tokenizer", "text_encoder", "vae", "unet", "scheduler", "controlnet"}
    weights = workplace / "load" / "prior" / "unet" / "diffusion_pytorch_model.safetensors"
    assert sizes["unet"] >= weights.stat().st_size / 2**20


def test_priors_of_the_hub_that_are_not_here_are_notes(workplace, monkeypatch):
    asked = []
    monkeypatch.setattr(priors, "in_hub_cache", lambda *file: asked.append(file))
    assert statuses(priors.check()) == ["ok", "note", "note"]
    assert asked == [
        (configs.full().prior, "unet/config.json"),
        (configs.full().controlnet, "diffusion_sd15/config.json"),
    ]


def _damage_cut(folder: Path) -> str:
    path = folder / "vae" / "diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    return "vae/diffusion_pytorch_model.safetensors"


def _damage_config(folder: Path) -> str:
    (folder / "unet" / "config.json").write_text('{"sample_size": ')
    return "unet/config.json"


def _damage_part(folder: Path) -> str:
    shutil.rmtree(folder / "controlnet")
    return "controlnet: there is no folder"


def _damage_all(folder: Path) -> str:
    shutil.rmtree(folder)
    return "load/prior is missing"


@pytest.mark.parametrize("damage", [_damage_cut, _damage_config, _damage_part, _damage_all])
def test_a_damaged_prior_is_a_problem_that_names_the_part(workplace, damage):
    said = damage(workplace / "load" / "prior")
    finding = only(priors.check(), "problem")
    assert said in finding.text
    assert finding.fix == f"git -C '{workplace}' restore load/prior"


def test_a_second_prior_that_is_damaged_is_a_note(workplace):
    folder = workplace / "load" / "prior"
    shutil.copytree(folder, workplace / "second")
    shutil.move(workplace / "second", folder / "mine")
    _damage_part(folder / "mine")
    findings = priors.check()
    assert "problem" not in statuses(findings)
    assert "load/prior/mine" in findings[1].text


# ------------------------------------------------------------------------------- motions


def test_motions_are_listed(workplace):
    assert "talk" in only(motions.check(), "ok").text


def test_a_damaged_motion_is_a_problem(workplace):
    (workplace / "load" / "motion" / "talk.npz").write_bytes(b"no zip")
    findings = motions.check()
    assert "load/motion/talk.npz" in only(findings, "problem").text
    assert "talk" not in only(findings, "ok").text


def test_no_motions_are_a_problem(workplace):
    shutil.rmtree(workplace / "load" / "motion")
    assert "restore load/motion" in only(motions.check(), "problem").fix


# --------------------------------------------------------------------------------- hosts


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What is looked at of a threestudio checkout."""
    folder = tmp_path / "three studio"
    (folder / "threestudio").mkdir(parents=True)
    (folder / "custom").mkdir()
    (folder / "launch.py").touch()
    (folder / "threestudio" / "__init__.py").write_text('import x\n__version__ = "0.2.9"\n')
    return folder


def test_the_embedded_host_is_enough(workplace):
    assert statuses(hosts.check()) == ["ok", "note"]


def test_a_checkout_is_told_how_to_get_the_extension(workplace, checkout, monkeypatch):
    monkeypatch.setenv("HEADSTUDIO_HOST", str(checkout))
    finding = only(hosts.check(), "note")
    assert f"threestudio 0.2.9 in {checkout}" in finding.text
    assert finding.fix == f"./install.sh --threestudio '{checkout}'"
    links.make(checkout)
    monkeypatch.setattr(packages_of_threestudio, "missing", dict)
    monkeypatch.setattr(packages_of_threestudio, "placeholders_enabled", lambda: False)
    assert "it lacks" in only(hosts.check(), "note").text
    monkeypatch.setattr(packages_of_threestudio, "placeholders_enabled", lambda: True)
    assert statuses(hosts.check()) == ["ok", "ok"]
    monkeypatch.setattr(packages_of_threestudio, "missing", lambda: {"igl": "libigl==2.5.1"})
    assert "libigl==2.5.1" in only(hosts.check(), "note").text


def test_a_host_that_is_no_checkout_is_noted(workplace, monkeypatch, tmp_path):
    monkeypatch.setenv("HEADSTUDIO_HOST", str(tmp_path / "nowhere"))
    texts = [finding.text for finding in hosts.check() if finding.status == "note"]
    assert f"HEADSTUDIO_HOST is {tmp_path / 'nowhere'}" in texts[0]


def test_no_host_at_all_is_a_problem(workplace, monkeypatch):
    shutil.rmtree(workplace / "host")
    monkeypatch.setattr(hosts, "candidates", list)
    assert "git restore host" in only(hosts.check(), "problem").fix


# -------------------------------------------------------------------------------- report


def test_a_check_that_fails_is_reported_and_the_others_go_on(workplace, monkeypatch):
    def broken() -> list[Finding]:
        import no_such_module  # noqa: F401

        return []

    monkeypatch.setitem(doctor.SECTIONS, "device", broken)
    report = doctor.examine()
    finding = only(report.sections["device"], "problem")
    assert "no_such_module" in finding.text
    assert "ok" in statuses(report.sections["hosts"])
    assert not report.ready


def test_without_pytorch_the_doctor_still_speaks(workplace, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    assert "PyTorch cannot be imported" in only(device.check(), "problem").text


def test_the_text_marks_problems_and_never_breaks_a_command():
    command = "git -C '/a folder' restore " + "x" * 120
    report = Report(
        {"one": [Finding.ok("fine " * 40), Finding.problem("gone", command)], "two": []}
    )
    text = report.as_text()
    assert f"-> {command}\n" in text
    assert "  PROBLEM  gone" in text
    assert max(len(line) for line in text.splitlines() if "->" not in line) <= 100
    assert text.endswith("Not ready: 1 problem, marked PROBLEM above.")
    assert Report({"one": [Finding.note("no FLAME")]}).as_text().endswith("demo can run.")
