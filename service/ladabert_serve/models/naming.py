"""Which model a name means: its own, an alias, or none for the default."""

import logging
from collections.abc import Collection, Iterable

from ladabert_serve.errors import ArtefactError, StartError
from ladabert_serve.models.artefact import MANIFEST_FILE, Artefact
from ladabert_serve.settings import Settings

logger = logging.getLogger(__name__)

DEFAULT = "default"  # the name or alias of the model that answers requests which name none, unless a setting does


def choose_default(settings: Settings, artefacts: list[Artefact], unloaded: Collection[str] = ()) -> str:
    """Return the default model's name: as configured, or else called `default`, or else the first of the sorted names.

    Models for single texts come before those for pairs, which would refuse a request for one text. Raises StartError.
    """
    names = [name for _, name in sorted((artefact.task == "pair", artefact.name) for artefact in artefacts)]
    known = names_and_aliases(artefacts)
    wanted = settings.default_model
    if wanted is None:
        return known.get(DEFAULT, names[0])
    if wanted in unloaded:
        return wanted
    if wanted not in known:
        raise StartError(f"default_model {wanted!r} is not served; there are: {', '.join(names)}")
    if wanted not in (known[wanted], DEFAULT):
        log_alias(wanted, known[wanted])
    return known[wanted]


def names_and_aliases(artefacts: Iterable[Artefact]) -> dict[str, str]:
    """Return the model's name for each name and alias; raises ArtefactError when one means two models."""
    artefacts = list(artefacts)
    known = {artefact.name: artefact.name for artefact in artefacts}
    for artefact in artefacts:
        for alias in artefact.aliases:
            if alias in known:
                path = artefact.folder / MANIFEST_FILE
                raise ArtefactError(f"{path}: its alias {alias!r} is a name of model {known[alias]!r} already")
            known[alias] = artefact.name
    return known


def log_alias(alias: str, name: str) -> None:
    """Ask for the name in the place of an alias."""
    logger.warning("%r is an alias of the model %r, and deprecated: name %r instead", alias, name, name)
