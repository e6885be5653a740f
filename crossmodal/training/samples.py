"""Sample outputs of a model in training, drawn without changing its random state."""

from itertools import islice

import numpy as np
import torch
from torch import Tensor

from crossmodal.datasets.base import TRAIN, Dataset, Example, examples
from crossmodal.errors import InvalidData
from crossmodal.networks.beam import Limits, search
from crossmodal.networks.captioner import Captioner
from crossmodal.networks.picture_vae import PictureVAE
from crossmodal.networks.scene_vae import SceneVAE
from crossmodal.text.tokens import joined
from crossmodal.text.vectors import TextVectors
from crossmodal.training.loop import Course
from crossmodal.training.objectives import vectors_of
from crossmodal.training.pictures import Picture, draw_grid, draw_losses
from crossmodal.vision.preprocess import fit_square

COUNT = 8
SEED = 7  # of the shown examples and their noise


def drawing_samples(
    model: SceneVAE | PictureVAE, source: TextVectors, data: Dataset, course: Course
) -> None:
    """Write `txt2img.samples.png`: real pictures above two rows drawn for their captions."""
    shown = _shown(data)
    config = model.config
    words, keep = vectors_of([e.captions[0].text for e in shown], source, config.text.max_words)
    generator = torch.Generator().manual_seed(SEED)
    rows = [[fit_square(e.image, config.side) for e in shown]]
    for _ in range(2):
        noise = torch.randn(len(shown), model.latent_dim, generator=generator)
        rows.append(_drawn(model, words, keep, noise, course.device))
    captions = [[""] * len(shown), [""] * len(shown), [e.captions[0].text for e in shown]]
    draw_grid(rows, captions, course.folder / "txt2img.samples.png")
    draw_losses(course.log, course.folder / "txt2img.losses.png")


def caption_samples(model: Captioner, data: Dataset, course: Course) -> None:
    """Write `img2txt.samples.png`: pictures with the captions generated for them."""
    images = [fit_square(e.image, model.config.side) for e in _shown(data)]
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).to(course.device)
    was_training = model.training
    model.eval()
    found = search(model, pixels, [Limits(3, 30, 1)] * len(pixels))
    model.train(was_training)
    captions = [joined([model.config.words[i] for i in h[0].words]) for h in found]
    draw_grid([images], [captions], course.folder / "img2txt.samples.png")
    draw_losses(course.log, course.folder / "img2txt.losses.png")


def _shown(data: Dataset) -> list[Example]:
    """Return examples of a split that is not trained on, if there is one, else of `train`."""
    for split in (*data.judged[:1], TRAIN):
        if shown := list(islice(examples(data, split, SEED), COUNT)):
            return shown
    raise InvalidData(f"no picture of {data.name} can be read")


@torch.inference_mode()
def _drawn(
    model: SceneVAE | PictureVAE, words: Tensor, keep: Tensor, noise: Tensor, device: torch.device
) -> list[Picture]:
    was_training = model.training
    model.eval()
    drawn = model.sample(words.to(device), keep.to(device), noise.to(device))  # (B, 3, H, W)
    model.train(was_training)
    return list((drawn.float().clamp(0, 1) * 255).byte().permute(0, 2, 3, 1).cpu().numpy())
