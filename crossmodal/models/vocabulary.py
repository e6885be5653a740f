"""The words of a model, as far as the files of its folder tell them; this needs no torch."""

from crossmodal.jobs.vocabulary import Vocabulary
from crossmodal.models.catalog import ModelFolder
from crossmodal.networks.bundle import DRAWING, WORDS, open_bundle
from crossmodal.text.vector_files import read_vectors


def vocabulary_of(found: ModelFolder) -> Vocabulary | None:
    """That of a bundle that reads word vectors; of others, only who has loaded it knows."""
    if found.format != "bundle":
        return None
    bundle = open_bundle(found.folder)
    config = bundle.config(DRAWING)
    if config.get("text", {}).get("source", "word2vec") != "word2vec":
        return None
    return Vocabulary.of(config.get("things", ()), read_vectors(bundle.path(WORDS)).words)
