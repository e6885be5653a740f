"""The words that a model knows, read from its folder's files without torch."""

from pydantic import BaseModel, ValidationError

from crossmodal.errors import InvalidBundle
from crossmodal.invalid import words
from crossmodal.jobs.vocabulary import Vocabulary
from crossmodal.models.catalog import ModelFolder
from crossmodal.networks.bundle import DRAWING, WORDS, open_bundle
from crossmodal.text.vector_files import read_vectors


class _Text(BaseModel):
    source: str = "word2vec"


class _Drawing(BaseModel):
    """The part of a drawing model's config that is needed here."""

    text: _Text = _Text()
    things: tuple[str, ...] = ()


def vocabulary_of(found: ModelFolder) -> Vocabulary | None:
    """Return the vocabulary of a bundle with word vectors; None for others, known once loaded.

    Raises `InvalidBundle`.
    """
    if found.format != "bundle":
        return None
    bundle = open_bundle(found.folder)
    try:
        config = _Drawing.model_validate(bundle.config(DRAWING))
    except ValidationError as e:
        raise InvalidBundle(f"{bundle.path(DRAWING)}: {words(e.errors()[0])}") from e
    if config.text.source != "word2vec":
        return None
    return Vocabulary.of(config.things, read_vectors(bundle.path(WORDS)).words)
