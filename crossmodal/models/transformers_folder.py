"""An img2txt model from a folder of transformers.

Opens encoder-decoders and all that `AutoModelForImageTextToText` opens and that needs no prompt.
Loading makes no request to a hub, reads no pickle, and runs no code of the folder.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"  # before the import

import torch
import transformers

from crossmodal.errors import InvalidModel, described
from crossmodal.models.catalog import FolderConfig
from crossmodal.models.contract import Batch, Caption, Model, Outcome

LOCAL: dict[str, Any] = {"local_files_only": True}


class TransformersFolder(Model):
    """A captioner whose own processor resizes pictures."""

    kind = "img2txt"
    repeatable = "exact"
    shared: Sequence[str] = ("count", "beam_width", "max_words")

    def __init__(self, config: FolderConfig) -> None:
        self._config = config
        self.max_batch = config.max_batch

    def load(self, folder: Path, device: str) -> None:
        transformers.utils.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
        transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        folder = folder.resolve(strict=True)  # transformers would query a hub for a bare name
        dtype = self._config.dtype or ("float32" if device == "cpu" else "bfloat16")
        self._device, self._dtype = device, getattr(torch, dtype)
        try:
            self._images, self._texts = _processors(folder)
            auto: Any = transformers.AutoModelForImageTextToText
            model = auto.from_pretrained(
                folder, use_safetensors=True, trust_remote_code=False, dtype=self._dtype, **LOCAL
            )
        except Exception as e:
            raise InvalidModel(f"{folder} cannot be opened by transformers: {described(e)}") from e
        self._model = model.to(device).eval()

    def run(self, batch: Batch) -> Sequence[Outcome]:
        first = batch[0].params
        inputs = self._images(images=[request.image for request in batch], return_tensors="pt")
        with torch.inference_mode():
            found = self._model.generate(
                pixel_values=inputs["pixel_values"].to(self._device, self._dtype),
                num_beams=max(first.beam_width, first.count),
                do_sample=False,
                num_return_sequences=first.count,
                max_new_tokens=first.max_words,
                return_dict_in_generate=True,
                output_scores=True,
                stopping_criteria=transformers.StoppingCriteriaList(
                    [_Ticker(batch, first.max_words)]
                ),
            )
        texts = self._texts.batch_decode(found.sequences, skip_special_tokens=True)
        captions = [
            Caption(text.strip(), round(score, 4))
            for text, score in zip(texts, self._log_probabilities(found), strict=True)
        ]
        return [
            sorted(captions[i : i + first.count], key=lambda one: -one.log_probability)
            for i in range(0, len(captions), first.count)
        ]

    def _log_probabilities(self, found: Any) -> list[float]:
        """Return each text's sum over its tokens up to the end token, without padding."""
        beams = getattr(found, "beam_indices", None)
        scores = self._model.compute_transition_scores(
            found.sequences, found.scores, beams, normalize_logits=beams is None
        )  # (texts, tokens)
        tokens = found.sequences[:, -scores.shape[1] :]
        ends = torch.isin(tokens, self._ends()).cumsum(1)
        is_after = (ends - torch.isin(tokens, self._ends()).long()) > 0
        sums: list[float] = scores.masked_fill(is_after | ~scores.isfinite(), 0).sum(1).tolist()
        return sums

    def _ends(self) -> Any:
        """Return the ids of the end tokens (N,)."""
        ids = self._model.generation_config.eos_token_id
        ids = [] if ids is None else ids if isinstance(ids, list) else [ids]
        return torch.tensor(ids, device=self._device)


class _Ticker(transformers.StoppingCriteria):
    """A stopping criterion that reports each token of the batch as a step, and never stops it."""

    def __init__(self, batch: Batch, max_tokens: int) -> None:
        self._batch, self._max_tokens, self._done = batch, max_tokens, 0

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        self._done += 1
        self._batch.step(min(self._done, self._max_tokens), self._max_tokens)
        return torch.zeros(input_ids.shape[0], dtype=torch.bool, device=input_ids.device)


def _processors(folder: Path) -> tuple[Any, Any]:
    """Return the image processor and the tokenizer."""
    auto: Any = transformers
    processor = auto.AutoProcessor.from_pretrained(folder, trust_remote_code=False, **LOCAL)
    if hasattr(processor, "image_processor"):
        return processor.image_processor, processor.tokenizer
    # For some encoder-decoders, AutoProcessor returns the tokenizer alone.
    images = auto.AutoImageProcessor.from_pretrained(folder, trust_remote_code=False, **LOCAL)
    return images, auto.AutoTokenizer.from_pretrained(folder, trust_remote_code=False, **LOCAL)
