"""Caption scores: BLEU-1 to 4 (Papineni et al. 2002) and CIDEr (Vedantam et al. 2015).

Both are computed by the code of the COCO caption challenge (`pycocoevalcap`), on the tokens of
`crossmodal.text.tokens` instead of those of its Java tokenizer.
"""

from collections.abc import Sequence
from contextlib import redirect_stdout
from io import StringIO

from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider

from crossmodal.text.tokens import tokenize


def score(captions: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
    """Return corpus-level `bleu1` to `bleu4`, in [0, 1], and `cider`, in [0, 10].

    CIDEr weights words by inverse document frequency: for a single picture it is 0.
    """
    said = {i: [_plain(caption)] for i, caption in enumerate(captions)}
    wanted = {i: [_plain(text) for text in texts] for i, texts in enumerate(references)}
    with redirect_stdout(StringIO()):  # pycocoevalcap prints lengths
        bleu, _ = Bleu(4).compute_score(wanted, said)
        cider, _ = Cider().compute_score(wanted, said)
    named = {f"bleu{n}": round(float(value), 4) for n, value in enumerate(bleu, start=1)}
    return named | {"cider": round(float(cider), 4)}


def _plain(text: str) -> str:
    return " ".join(tokenize(text))
