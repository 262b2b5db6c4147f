"""The embedded host: the part of threestudio's API that an extension touches.

Names, configuration keys and shapes are those of threestudio 0.2.3, so that an extension runs
unchanged on either. Importing this package registers every class the host brings.
"""

import logging

from pytorch_lightning.utilities.rank_zero import (
    rank_zero_debug,
    rank_zero_info,
    rank_zero_only,
)

from threestudio._registry import MODULES as __modules__
from threestudio._registry import find, register

__version__ = "0.2.3"
__all__ = ["__modules__", "__version__", "debug", "find", "info", "register", "warn"]

logger = logging.getLogger("pytorch_lightning")
debug = rank_zero_debug
info = rank_zero_info


@rank_zero_only
def warn(*args: object, **kwargs: object) -> None:
    """Log a warning, once per run rather than once per process."""
    logger.warning(*args, **kwargs)  # type: ignore[arg-type]


from threestudio import data, models, systems  # noqa: E402, F401  (registers their classes)
