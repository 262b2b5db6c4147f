"""What several of the registered classes need."""

import glob
from collections.abc import Sequence
from pathlib import Path

from headstudio.errors import HeadStudioError
from headstudio.paths import REPOSITORY, find_asset


def resolve_asset(path: str) -> str:
    """The path of a file or folder named in a configuration.

    What exists is taken as it is. ``load/...`` that does not exist under the working directory is
    looked for in the repository that holds this package, so that the embedded defaults are found
    from a threestudio checkout too. Anything else is returned unchanged: it may be the name of a
    repository on a model hub, and whoever loads it says what is wrong with it.

    Raises:
        HeadStudioError: for a ``load/...`` that is in neither place.
    """
    if Path(path).exists():
        return path
    parts = Path(path).parts
    if len(parts) > 1 and parts[0] == "load":
        return str(find_asset(Path(*parts[1:])))
    return path


def find_files(patterns: str | Sequence[str], what: str) -> list[str]:
    """The files that a glob pattern, or several, match; each once, a pattern's own in order.

    ``load/...`` is looked for where :func:`resolve_asset` looks.

    Args:
        patterns: as from a configuration.
        what: said in the message when there are none.

    Raises:
        HeadStudioError: if a pattern matches nothing.
    """
    patterns = [patterns] if isinstance(patterns, str) else list(patterns)
    found: list[str] = []
    for pattern in patterns:
        matches = sorted(glob.glob(pattern))
        if not matches and Path(pattern).parts[:1] == ("load",):
            matches = sorted(glob.glob(pattern, root_dir=REPOSITORY))
            matches = [str(REPOSITORY / match) for match in matches]
        if not matches:
            raise HeadStudioError(f"{pattern} matches nothing; expected {what}.")
        found += matches
    return list(dict.fromkeys(found))
