"""Captions against references: BLEU-1 … 4 (Papineni et al. 2002) and CIDEr (Vedantam et al. 2015).

Both are the COCO caption challenge's own code (`pycocoevalcap`), given our tokens in place
of its Java tokenizer's.
"""

from collections.abc import Sequence
from contextlib import redirect_stdout
from io import StringIO

from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider

from crossmodal.text.tokens import tokenize


def score(captions: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
    """`bleu1` … `bleu4`, in [0, 1], and `cider`, in [0, 10], of the captions as a whole.

    CIDEr weighs words by how few of the references have them: of one picture it is 0.
    """
    said = {i: [_plain(caption)] for i, caption in enumerate(captions)}
    wanted = {i: [_plain(text) for text in texts] for i, texts in enumerate(references)}
    with redirect_stdout(StringIO()):  # it prints lengths
        bleu, _ = Bleu(4).compute_score(wanted, said)
        cider, _ = Cider().compute_score(wanted, said)
    named = {f"bleu{n}": round(float(value), 4) for n, value in enumerate(bleu, start=1)}
    return named | {"cider": round(float(cider), 4)}


def _plain(text: str) -> str:
    return " ".join(tokenize(text))
