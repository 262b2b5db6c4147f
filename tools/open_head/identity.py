"""People: samples of anny's phenotypes and head changes, and the space they span."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

HEAD_CHANGES = ("cheek", "chin", "ear", "eyebrows", "eye", "forehead", "head", "mouth", "nose")
NECK_CHANGES = ("neck-double", "neck-scale", "neck-back")
# These move or turn the whole head, which is pose, not identity.
NOT_IDENTITY = ("head-angle", "head-trans")


def sample_people(
    rng: np.random.Generator, count: int, changes: list[str]
) -> tuple[dict[str, NDArray], dict[str, NDArray]]:
    """Phenotypes and local changes of ``count`` people, each value an array [count].

    Adults of all ages with a tenth of children, genders at both ends and between, ethnicities
    pure and mixed; every head change is normal with a deviation of 0.3, the two sides nearly
    alike as in real faces.
    """
    adult = rng.random(count) > 0.1
    phenotypes = {
        "gender": rng.beta(0.6, 0.6, count),
        "age": np.where(adult, rng.uniform(0.55, 1.0, count), rng.uniform(0.33, 0.55, count)),
        "muscle": rng.beta(3, 3, count),
        "weight": rng.beta(3, 3, count),
        "height": rng.beta(4, 4, count),
        "proportions": rng.uniform(0.3, 1.0, count),
    }
    ethnicity = rng.dirichlet([0.5, 0.5, 0.5], count)
    for column, name in enumerate(("african", "asian", "caucasian")):
        phenotypes[name] = ethnicity[:, column]
    local: dict[str, NDArray] = {}
    for name in changes:
        if not name.startswith(HEAD_CHANGES + NECK_CHANGES + ("l-", "r-")):
            continue
        bare = name[2:] if name[:2] in ("l-", "r-") else name
        if not bare.startswith(HEAD_CHANGES + NECK_CHANGES) or bare.startswith(NOT_IDENTITY):
            continue
        other = ("r-" if name[:2] == "l-" else "l-") + bare
        shared = local[other] if other in local else rng.normal(0, 0.3, count)
        own = shared + rng.normal(0, 0.04, count) if bare != name else shared
        local[name] = np.clip(own, -1, 1)
    return phenotypes, local


def batches(
    phenotypes: dict[str, NDArray], local: dict[str, NDArray], size: int
) -> Iterator[tuple[dict[str, NDArray], dict[str, NDArray]]]:
    """The same people, ``size`` at a time."""
    count = len(phenotypes["gender"])
    for start in range(0, count, size):
        part = slice(start, start + size)
        yield (
            {key: value[part] for key, value in phenotypes.items()},
            {key: value[part] for key, value in local.items()},
        )


# What a person's words for a face are in anny's phenotypes, and the value that the word means.
WORDS = {
    "female": ("gender", 1.0),
    "old": ("age", 1.0),
    "heavy": ("weight", 1.0),
    "african": ("african", 1.0),
    "asian": ("asian", 1.0),
}


def phenotype_directions(
    phenotypes: dict[str, NDArray], samples: NDArray
) -> tuple[list[str], NDArray]:
    """How heads [n,V,3] change with what people say of them, by linear regression.

    Returns:
        the names, and displacements [V,3,names] from the mean head to that of the word; minus
        one is about as far the other way (male, young).
    """
    names = list(WORDS)
    columns = [phenotypes[WORDS[name][0]] for name in names]
    # Regressed along with them, so that their effects are not taken for the others'.
    columns += [phenotypes[name] for name in ("muscle", "height", "proportions")]
    table = np.stack(columns, axis=1)
    centred = table - table.mean(axis=0)
    targets = (samples - samples.mean(axis=0)).reshape(len(samples), -1)
    slopes = np.linalg.lstsq(centred, targets, rcond=None)[0][: len(names)]
    reach = np.array([WORDS[name][1] for name in names]) - table.mean(axis=0)[: len(names)]
    return names, (slopes * reach[:, None]).T.reshape(*samples.shape[1:], -1)


def principal_components(samples: NDArray, count: int) -> tuple[NDArray, NDArray, NDArray]:
    """PCA of ``samples`` [n,V,3].

    Returns:
        mean [V,3]; components [V,3,count] in metres per standard deviation, so that coefficients
        of people are distributed as N(0, 1); the share of variance each explains [count].
    """
    n = len(samples)
    mean = samples.mean(axis=0)
    centred = (samples - mean).reshape(n, -1)
    # n is far below 3V, so the small Gram matrix gives the same components.
    values, vectors = np.linalg.eigh(centred @ centred.T / (n - 1))
    order = np.argsort(values)[::-1][:count]
    values, vectors = values[order], vectors[:, order]
    components = (centred.T @ vectors) / np.sqrt(n - 1)
    # A component's sign is arbitrary; fixing it makes the file reproducible.
    signs = np.sign(components[np.abs(components).argmax(axis=0), np.arange(components.shape[1])])
    components = (components * signs).reshape(*mean.shape, -1)
    return mean, components, values / centred.var(axis=0, ddof=1).sum()
