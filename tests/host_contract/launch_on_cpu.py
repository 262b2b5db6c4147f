"""A host's launcher, on CPUs: ``launch_on_cpu.py [--ranks N] LAUNCH.PY [arguments]``.

threestudio's launcher asks Lightning for a GPU, and everything in threestudio for ``cuda:0``. Both
are turned to the CPU before it runs, and nothing else is. With ``--ranks``, so many processes train
together, as on so many GPUs; the embedded host's launcher, too, does that on GPUs only.
"""

from __future__ import annotations

import functools
import runpy
import sys
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.strategies.launchers import subprocess_script

AS_CALLED = [sys.executable, *sys.argv]


def main() -> None:
    ranks = 1
    if sys.argv[1] == "--ranks":
        ranks = int(sys.argv[2])
        del sys.argv[1:3]
    sys.argv = sys.argv[1:]
    launcher = Path(sys.argv[0])
    embedded = launcher.parent / "host"
    sys.path[0] = str(embedded if embedded.is_dir() else launcher.parent)
    if "--typecheck" in sys.argv:  # as the launcher does, which is too late after the next import
        from jaxtyping import install_import_hook

        install_import_hook("threestudio", "typeguard.typechecked")
    import threestudio  # noqa: F401

    for name, module in list(sys.modules.items()):
        if name.startswith("threestudio.") and hasattr(module, "get_device"):
            vars(module)["get_device"] = lambda: torch.device("cpu")
    vars(pl)["Trainer"] = on_cpus(pl.Trainer, ranks)
    # Lightning starts the other processes by the command of this one, and has to start this script.
    vars(subprocess_script)["_basic_subprocess_cmd"] = lambda: AS_CALLED
    runpy.run_path(str(launcher), run_name="__main__")


def on_cpus(trainer: type[pl.Trainer], ranks: int) -> type[pl.Trainer]:
    """The trainer that runs on so many CPU processes, whatever it is asked for."""
    chosen = {"accelerator": "cpu", "devices": ranks, "strategy": "ddp" if ranks > 1 else "auto"}

    class OnCpus(trainer):  # type: ignore[misc, valid-type]
        @functools.wraps(trainer.__init__)
        def __init__(self, **settings: Any) -> None:
            super().__init__(**{**settings, **chosen})

    return OnCpus


if __name__ == "__main__":
    main()
