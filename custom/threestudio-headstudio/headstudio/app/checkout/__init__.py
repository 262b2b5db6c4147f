"""A threestudio checkout that runs us, on a current Python, torch and diffusers.

``python -m headstudio.app.checkout DIR`` (what ``./install.sh --threestudio DIR`` calls) links the
extension, ``load/`` and ``configs/`` into it, installs what threestudio imports and this
environment lacks, and has placeholders stand in for what has to be compiled and is seldom used.
Nothing that is there is changed, and ``--uninstall`` takes exactly that out again.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from headstudio.app.checkout import links, packages
from headstudio.errors import HeadStudioError
from headstudio.paths import REPOSITORY

URL = "https://github.com/threestudio-project/threestudio.git"
#: What we are tested with: threestudio 0.2.3.
COMMIT = "28d9d80d9d00f308244adfcf3be8b17ca0cb6465"
DEFAULT = REPOSITORY / "checkouts" / "threestudio"


def install(folder: Path | None) -> Path:
    """Make a checkout able to run us, clone it first if none is given; returns its folder.

    Raises:
        HeadStudioError: it is none, the network does not allow it, or something stands in the way.
    """
    checkout = _given(folder) if folder is not None else clone(DEFAULT)
    _say(f"threestudio {links.host_version(checkout)} in {checkout}{_other_commit(checkout)}")
    made, taken = links.make(checkout)
    for link in made:
        _say(f"linked {link.place.relative_to(checkout)} -> {link.target}")
    for link in taken:
        _say(
            f"left {link.place.relative_to(checkout)} as it is, which is not ours; "
            f"ours stays at {link.target}"
        )
    wanted = packages.missing()
    if wanted:
        _say(f"installing {', '.join(wanted.values())}")
        packages.install(list(wanted.values()))
    for line in packages.install_optional():
        _say(line)
    packages.enable_placeholders()
    stand_ins = packages.placeholders_used()
    if stand_ins:
        _say(f"placeholders, which say how to install the real ones: {', '.join(stand_ins)}")
    check(checkout)
    return checkout


def uninstall(folder: Path | None) -> None:
    """Take our links out of a checkout, and the placeholders out of this environment."""
    checkout = _given(DEFAULT if folder is None else folder)
    for link in links.remove(checkout):
        _say(f"removed the link {link.place}")
    if packages.disable_placeholders():
        _say(f"removed the placeholders ({packages.placeholder_file()})")
    _say("packages that pip installed stay; pip uninstall takes them out")


def check(checkout: Path) -> None:
    """Import threestudio and the extension from the checkout, in a Python of their own.

    Raises:
        HeadStudioError: with the last line of what went wrong.
    """
    code = (
        "import threestudio; n = len(threestudio.__modules__); import runpy; "
        f"runpy.run_path('custom/{links.EXTENSION.name}/__init__.py'); "
        "print(n, len(threestudio.__modules__) - n)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=checkout,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["killed"])[-1]
        for module in packages.OPTIONAL:
            if packages.is_there(module) and (why := packages.why_not_importable(module)):
                raise HeadStudioError(packages.broken(module, why))
        raise HeadStudioError(
            f"threestudio does not import: {reason}\n"
            f"To see all of it: cd {checkout} && {sys.executable} -c 'import threestudio'"
        )
    theirs, ours = done.stdout.split()[-2:]
    _say(f"it imports: {theirs} classes of threestudio's, {ours} of ours")


def clone(folder: Path) -> Path:
    """threestudio at :data:`COMMIT` in ``folder``; nothing to do if it is there.

    Raises:
        HeadStudioError: git is missing, or the network does not allow it.
    """
    if links.is_checkout(folder):
        return folder
    if folder.exists():
        raise HeadStudioError(f"{folder} exists and is no threestudio checkout; move it away.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    _say(f"cloning {URL} at {COMMIT[:7]}")
    with tempfile.TemporaryDirectory(prefix=".threestudio-", dir=folder.parent) as temporary:
        part = Path(temporary) / "threestudio"
        try:
            _git("clone", "--quiet", "--filter=blob:none", "--no-checkout", URL, str(part))
            _git("-C", str(part), "checkout", "--quiet", COMMIT)
        except HeadStudioError as error:
            raise HeadStudioError(
                f"threestudio could not be cloned: {error}\n"
                "If this machine may not reach github.com, clone it on one that may, copy the "
                f"folder here, and name it:\n  git clone {URL} && git -C threestudio checkout "
                f"{COMMIT[:7]}\n  ./install.sh --threestudio /path/to/threestudio"
            ) from error
        part.rename(folder)
    return folder


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise HeadStudioError("git is not installed.") from error
    if done.returncode != 0:
        raise HeadStudioError((done.stderr.strip().splitlines() or ["git failed"])[-1])
    return done.stdout.strip()


def _given(folder: Path) -> Path:
    folder = folder.expanduser().resolve()
    if not links.is_checkout(folder):
        raise HeadStudioError(
            f"{folder} is no threestudio checkout: expected launch.py and threestudio/__init__.py "
            "in it. Without a folder, ./install.sh --threestudio clones one."
        )
    return folder


def _other_commit(checkout: Path) -> str:
    try:
        commit = _git("-C", str(checkout), "rev-parse", "HEAD")
    except HeadStudioError:
        return ""  # a copy without .git runs as well
    return "" if commit == COMMIT else f" (at {commit[:7]}; tested with {COMMIT[:7]})"


def _say(text: str) -> None:
    print(f"==> {text}", flush=True)
