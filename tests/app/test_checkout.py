"""Preparing a threestudio checkout: links, placeholders, what stands in the way."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from headstudio.app import checkout as preparing
from headstudio.app.checkout import links, packages
from headstudio.app.checkout.__main__ import main
from headstudio.errors import HeadStudioError


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """As much of a threestudio checkout as is looked at, and files of its owner."""
    folder = tmp_path / "three studio"
    for name in ("threestudio", "custom", "load/images", "configs"):
        (folder / name).mkdir(parents=True)
    (folder / "launch.py").touch()
    (folder / "threestudio" / "__init__.py").write_text("__version__ = '0.2.3'\n")
    (folder / "load" / "images" / "mine.png").touch()
    return folder


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An environment that lacks nothing, with a site-packages folder of its own."""
    purelib = tmp_path / "site-packages"
    purelib.mkdir()
    monkeypatch.setattr(packages.sysconfig, "get_path", lambda name: str(purelib))
    monkeypatch.setattr(packages, "missing", dict)
    monkeypatch.setattr(packages, "install_optional", list)
    monkeypatch.setattr(preparing, "check", lambda folder: None)
    return purelib


class Package:
    """An installed package, as importlib.metadata gives it."""

    def __init__(self, name: str, version: str) -> None:
        self.metadata, self.version = {"Name": name}, version


def everything(folder: Path) -> dict[str, Any]:
    """Every entry below a folder, and where links point."""
    return {
        str(path.relative_to(folder)): path.readlink() if path.is_symlink() else path.is_dir()
        for path in sorted(folder.rglob("*"))
    }


def test_what_is_put_in_is_taken_out_again(checkout, environment, capsys):
    before = everything(checkout)
    assert main([str(checkout)]) == 0
    said = capsys.readouterr().out
    assert "custom/threestudio-headstudio" in said
    assert "launch.py --train --gpu 0" in said
    config = "custom/threestudio-headstudio/configs/headstudio.yaml"
    assert (checkout / config).is_file()
    assert (checkout / "load" / "prior" / "unet" / "config.json").is_file()
    assert [path.name for path in environment.iterdir()] == ["headstudio_placeholders.pth"]
    after = everything(checkout)
    assert main([str(checkout)]) == 0
    assert everything(checkout) == after
    assert "linked" not in capsys.readouterr().out
    assert main([str(checkout), "--uninstall"]) == 0
    assert everything(checkout) == before
    assert list(environment.iterdir()) == []


def test_what_is_there_is_left_as_it_is(checkout, environment, capsys):
    (checkout / "load" / "flame").mkdir()
    (checkout / "load" / "flame" / "FLAME2020.pkl").touch()
    (checkout / "load" / "motion").symlink_to(checkout / "load" / "images")
    assert main([str(checkout)]) == 0
    said = capsys.readouterr().out
    assert "left load/flame as it is" in said
    assert "left load/motion as it is" in said
    assert main([str(checkout), "--uninstall"]) == 0
    assert (checkout / "load" / "flame" / "FLAME2020.pkl").is_file()
    assert (checkout / "load" / "motion").readlink() == checkout / "load" / "images"


def test_another_extension_in_our_place_stops_before_anything_is_done(
    checkout, environment, capsys
):
    (checkout / "custom" / links.EXTENSION.name).mkdir()
    before = everything(checkout)
    assert main([str(checkout)]) == 2
    assert "Nothing was changed" in capsys.readouterr().err
    assert everything(checkout) == before


def test_a_folder_that_is_no_checkout_is_refused(tmp_path, environment, capsys):
    for arguments in ([str(tmp_path)], [str(tmp_path / "nowhere"), "--uninstall"]):
        assert main(arguments) == 2
        assert "is no threestudio checkout" in capsys.readouterr().err


def test_a_clone_that_the_network_does_not_allow(tmp_path, monkeypatch):
    monkeypatch.setattr(preparing, "URL", str(tmp_path / "no.git"))
    with pytest.raises(HeadStudioError, match="could not be cloned") as raised:
        preparing.clone(tmp_path / "checkouts" / "threestudio")
    assert "--threestudio /path/to/threestudio" in str(raised.value)
    assert list((tmp_path / "checkouts").iterdir()) == []


def test_a_clone_is_of_the_tested_commit(tmp_path, checkout, monkeypatch):
    def git(*arguments: str) -> str:
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        done = subprocess.run(
            ["git", "-C", str(checkout), *who, *arguments],
            check=True,
            capture_output=True,
            text=True,
        )
        return done.stdout.strip()

    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "tested")
    monkeypatch.setattr(preparing, "COMMIT", git("rev-parse", "HEAD"))
    git("rm", "-q", "launch.py")
    git("commit", "-qm", "later")
    monkeypatch.setattr(preparing, "URL", str(checkout))
    folder = tmp_path / "checkouts" / "threestudio"
    assert preparing.clone(folder) == folder
    assert (folder / "launch.py").is_file()
    assert preparing.clone(folder) == folder  # and it is not cloned twice


def test_a_failing_pip_is_shown(tmp_path, monkeypatch):
    pip = tmp_path / "python"
    pip.write_text("#!/bin/sh\necho ERROR: no route to the index >&2; exit 1\n")
    pip.chmod(0o755)
    monkeypatch.setattr(packages.sys, "executable", str(pip))
    with pytest.raises(HeadStudioError, match="no route to the index"):
        packages.install(["libigl"])


def test_what_is_installed_is_not_changed(monkeypatch):
    """Whatever constraints.txt says: an environment of one's own has another torch."""
    asked: dict[str, Any] = {}

    def pip(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        path = command[command.index("--constraint") + 1]
        asked["lines"] = Path(path).read_text().splitlines()
        asked["command"] = command
        return subprocess.CompletedProcess(command, 0, "", "")

    versions = {"torch": "2.15.0+cu130", "Typing_Extensions": "9.9"}
    installed = [Package(name, version) for name, version in versions.items()]
    monkeypatch.setattr(packages.metadata, "distributions", lambda: installed)
    monkeypatch.setattr(packages.subprocess, "run", pip)
    packages.install(["nerfacc"])
    assert "torch==2.15.0+cu130" in asked["lines"]
    assert [line for line in asked["lines"] if line.startswith("torch=")] == ["torch==2.15.0+cu130"]
    assert "typing-extensions==9.9" in asked["lines"]
    assert any(line.startswith("numpy==") for line in asked["lines"])
    assert asked["command"][-1] == "nerfacc"


def test_a_library_that_does_not_load_is_named(tmp_path, monkeypatch):
    (tmp_path / "brokenlib.py").write_text("raise RuntimeError('operator nms does not exist')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    reason = packages.why_not_importable("brokenlib")
    assert reason == "RuntimeError: operator nms does not exist"
    assert packages.why_not_importable("json") is None
    said = packages.broken("brokenlib", reason)
    assert "operator nms" in said
    assert "-m pip uninstall brokenlib" in said


# --------------------------------------------------------------------------- placeholders


@pytest.fixture
def import_as(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], dict[str, Any]]]:
    """Run import statements as if they stood in a module of the given name."""
    monkeypatch.syspath_prepend(str(packages.AT_STARTUP))
    import headstudio_placeholders

    modules, finders = dict(sys.modules), list(sys.meta_path)
    monkeypatch.setitem(
        headstudio_placeholders.PLACEHOLDERS, "nolib", ("a thing", "pip install nolib")
    )
    headstudio_placeholders.install()

    def run(module: str, code: str) -> dict[str, Any]:
        space = {"__name__": module}
        exec(code, space)
        return space

    yield run
    for name in set(sys.modules) - set(modules):
        if name.partition(".")[0] == "nolib":
            del sys.modules[name]
    sys.meta_path[:] = finders


def test_threestudio_gets_a_placeholder_that_says_what_is_missing(import_as):
    space = import_as(
        "threestudio.utils.rasterize",
        "import nolib\nimport nolib.torch as dr\nfrom nolib.deep.er import Thing",
    )
    nolib, deep = space["nolib"], space["dr"]
    assert deep is nolib.torch
    for use in (
        lambda: deep.Context("cuda"),
        lambda: deep.Context.default,
        lambda: space["Thing"](),
    ):
        with pytest.raises(ImportError, match="pip install nolib"):
            use()
    # Annotations may speak of what is not there.
    assert (deep.Context | None) is not None


def test_nobody_else_gets_one(import_as):
    for asker in ("transformers.utils", "another_extension", "threestudio_extra"):
        with pytest.raises(ModuleNotFoundError, match="nolib"):
            import_as(asker, "import nolib")
    find = "import importlib.util as u; spec = u.find_spec('nolib')"
    assert import_as("diffusers.utils", find)["spec"] is None


def test_what_is_installed_is_found_first(import_as, tmp_path, monkeypatch):
    (tmp_path / "nolib").mkdir()
    (tmp_path / "nolib" / "__init__.py").write_text("real = True")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert import_as("threestudio.utils.misc", "import nolib")["nolib"].real
    with pytest.raises(ModuleNotFoundError, match=r"nolib\.torch"):
        import_as("threestudio.utils.misc", "import nolib.torch")


def test_every_python_of_the_environment_has_them(environment):
    assert packages.enable_placeholders()
    assert not packages.enable_placeholders()
    assert packages.placeholders_enabled()
    code = (
        f"import site, sys; site.addsitedir({str(environment)!r}); "
        "exec('import tinycudann; tinycudann.free_temporary_memory()', "
        "{'__name__': 'threestudio.utils.misc'}); print(sys.modules['tinycudann'].__name__)"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout == "tinycudann\n", done.stderr
    # A repository that is no longer there is passed over in silence.
    path = packages.placeholder_file()
    path.write_text(path.read_text().replace(str(packages.AT_STARTUP), "/nowhere"))
    code = f"import site; site.addsitedir({str(environment)!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
