"""An extension: ``headstudio-system`` that writes down what every process has before each step.

Copied into ``custom/`` by test_host_ranks.py. A line of JSON for each step, in
``save/rank<N>.jsonl``.
"""

import hashlib
import json
import sys
from pathlib import Path

import torch

import threestudio

sys.path.append(str(Path("custom", "threestudio-headstudio").resolve()))

from headstudio.plugin.system import HeadStudioSystem
from threestudio.utils.misc import get_rank


@threestudio.register("watched-system")
class WatchedSystem(HeadStudioSystem):
    def on_train_batch_start(self, batch, batch_idx, unused=0):
        super().on_train_batch_start(batch, batch_idx)
        self.write_down(digest([batch["c2w"]]))

    def on_train_end(self):
        self.write_down(None)

    def write_down(self, views):
        seen = {
            "step": self.true_global_step,
            "n": self.geometry.splats.n,
            "splats": digest(self.geometry.state_dict().values()),
            "moments": digest(
                value
                for group in self.optimizers(use_pl_optimizer=False).param_groups
                for parameter in group["params"]
                for _, value in sorted(self.optimizers().state.get(parameter, {}).items())
            ),
            "views": views,
        }
        with open(self.get_save_path(f"rank{get_rank()}.jsonl"), "a") as file:
            file.write(json.dumps(seen) + "\n")


def digest(values):
    found = hashlib.sha256()
    for value in values:
        found.update(torch.as_tensor(value).detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()
