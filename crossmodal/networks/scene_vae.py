"""A text-conditioned variational autoencoder whose latent is where things stand.

Kingma & Welling 2013 (https://arxiv.org/abs/1312.6114), conditional as in Sohn et al.
2015. The text fixes what there is: each object slot gets a presence, a color and a mask
template. The latent leaves open what the text may leave open: place and size of the
objects (a joint Gaussian whose mean and Cholesky factor the text predicts, so that "left
of" can correlate two places) and the shade of the background. The decoder is a spatial
transformer (Jaderberg et al. 2015): picture = background, then each object over it.
"""

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from crossmodal.networks.text_encoder import TextEncoder, TextEncoderConfig

OUTSIDE = 12.0  # a mask's logit outside its template: -12, coverage 6e-6
REACH = 1.2  # a template covers 1.2 radii around its object
MARGIN = 0.01  # between a drawn object and the picture's edge, of the side
BOX = 3  # numbers that place an object: x, y, radius


@dataclass(frozen=True)
class SceneVAEConfig:
    """Architecture of a `SceneVAE`; `side` is the height and width of its pictures.

    `edge_gain` steepens the edges of masks when drawing, as training found to be right.
    """

    text: TextEncoderConfig = field(default_factory=TextEncoderConfig)
    kind: Literal["scene"] = "scene"
    side: int = 128
    objects: int = 3
    template: int = 48
    shape_dim: int = 24
    shade_dim: int = 4
    edge_gain: float = 1.0
    things: tuple[str, ...] = ()
    """Words that name what it can draw."""


@dataclass(frozen=True)
class Plan:
    """All that the text says of a picture (S object slots).

    presence (B, S), color (B, S, 3), template logits (B, S, t, t), the Gaussian of the boxes:
    mean (B, 3S), lower-triangular factor (B, 3S, 3S), and the background slot (B, C).
    """

    slots: Tensor
    presence: Tensor
    color: Tensor
    template: Tensor
    mean: Tensor
    factor: Tensor
    ground: Tensor


@dataclass(frozen=True)
class Posterior:
    """Diagonal Gaussians q(boxes | image, text), (B, 3S), and q(shade | image, text), (B, Z)."""

    boxes: Tensor
    boxes_std: Tensor
    shade: Tensor
    shade_std: Tensor


class Planner(nn.Module):
    """Text slots -> `Plan`."""

    def __init__(self, config: SceneVAEConfig) -> None:
        super().__init__()
        width, boxes = config.text.width, config.objects * BOX
        self.config = config
        self.encoder = TextEncoder(config.text, slots=config.objects + 1)
        self.presence = nn.Linear(width, 1)
        self.color = nn.Sequential(nn.Linear(width, 64), nn.GELU(), nn.Linear(64, 3))
        self.shape = nn.Sequential(
            nn.Linear(width, config.shape_dim),
            nn.Linear(config.shape_dim, 256), nn.GELU(),
            nn.Linear(256, config.template**2),
        )  # fmt: skip
        self.mean = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, BOX))
        self.factor = nn.Sequential(
            nn.Linear(width, width), nn.GELU(), nn.Linear(width, BOX * boxes)
        )

    def forward(self, words: Tensor, keep: Tensor) -> Plan:
        all_slots = self.encoder(words, keep).float()  # (B, S + 1, C)
        with full_precision(words):
            return self._plan(all_slots)

    def _plan(self, all_slots: Tensor) -> Plan:
        slots, ground = all_slots[:, :-1], all_slots[:, -1]
        B, S, _ = slots.shape
        t = self.config.template
        raw = 0.1 * self.factor(slots).view(B, S * BOX, S * BOX)
        spread = F.softplus(raw.diagonal(dim1=1, dim2=2) * 10 - 1) * 0.3 + 0.003
        return Plan(
            slots=slots,
            presence=self.presence(slots).squeeze(-1),
            color=torch.sigmoid(self.color(slots)),
            template=self.shape(slots).view(B, S, t, t),
            mean=(self.mean(slots) * 0.3 + slots.new_tensor([0.5, 0.5, 0.12])).flatten(1),
            factor=raw.tril(-1) + torch.diag_embed(spread),
            ground=ground,
        )


class Localizer(nn.Module):
    """The posterior: finds in a picture what the text's slots speak of, by attention."""

    def __init__(self, config: SceneVAEConfig, channels: int = 64) -> None:
        super().__init__()
        width = config.text.width
        self.convs = nn.Sequential(
            nn.Conv2d(3, 32, 5, stride=2, padding=2), nn.GELU(),
            nn.Conv2d(32, 64, 3, stride=2, padding=1), nn.GELU(),
            nn.Conv2d(64, 64, 3, padding=1), nn.GELU(),
            nn.Conv2d(64, channels, 3, padding=1),
        )  # fmt: skip
        self.query = nn.Linear(width, channels)
        self.refine = nn.Sequential(
            nn.Linear(width + channels, 128), nn.GELU(), nn.Linear(128, 2 * BOX)
        )
        self.shade = nn.Sequential(
            nn.Linear(width + 3 * 16, 64), nn.GELU(), nn.Linear(64, 2 * config.shade_dim)
        )

    def forward(self, images: Tensor, plan: Plan) -> Posterior:
        x = self.convs(F.interpolate(images, size=64, mode="area") - 0.5).float()  # (B, C, 16, 16)
        with full_precision(images):
            return self._posterior(x, images, plan)

    def _posterior(self, x: Tensor, images: Tensor, plan: Plan) -> Posterior:
        B, S, _ = plan.slots.shape
        side = x.shape[-1]
        features = x.flatten(2)  # (B, C, N)
        score = self.query(plan.slots) @ features / features.shape[1] ** 0.5
        attention = score.softmax(-1)  # (B, S, N)
        where = attention @ _grid(side, images).view(-1, 2)  # (B, S, 2)
        seen = attention @ features.transpose(1, 2)  # (B, S, C)
        offset, log_std = self.refine(torch.cat([plan.slots, seen], -1)).chunk(2, -1)
        place = torch.cat([where, where.new_full((B, S, 1), 0.12)], -1)
        corners = F.interpolate(images, size=4, mode="area").flatten(1)
        shade, shade_log_std = self.shade(torch.cat([plan.ground, corners], -1)).chunk(2, -1)
        return Posterior(
            boxes=(place + 0.1 * offset).flatten(1),
            boxes_std=0.02 * torch.exp(log_std.clamp(-4, 1)).flatten(1),
            shade=shade,
            shade_std=torch.exp(shade_log_std.clamp(-4, 1)),
        )


class SceneVAE(nn.Module):
    """Text to pictures: `forward` to train on pairs, `sample` to draw from the prior."""

    def __init__(self, config: SceneVAEConfig) -> None:
        super().__init__()
        self.config = config
        self.planner = Planner(config)
        self.localizer = Localizer(config)
        self.background = nn.Sequential(
            nn.Linear(config.text.width + config.shade_dim, 128), nn.GELU(),
            nn.Linear(128, 64), nn.GELU(), nn.Linear(64, 3),
        )  # fmt: skip

    @property
    def latent_dim(self) -> int:
        return self.config.objects * BOX + self.config.shade_dim

    def sample(self, words: Tensor, keep: Tensor, noise: Tensor) -> Tensor:
        """Pictures (B, 3, side, side) in [0, 1] from standard-normal `noise` (B, latent_dim).

        Noise scaled by a temperature narrows the spread; zeros give the likeliest picture.
        """
        plan = self.planner(words, keep)
        boxes_noise, shade = noise.tensor_split([plan.mean.shape[1]], dim=1)
        boxes = plan.mean + (plan.factor @ boxes_noise.unsqueeze(-1)).squeeze(-1)
        boxes = _inside(boxes, self.config.objects)
        return self.render(plan, boxes, shade, self.config.side, self.config.edge_gain)

    def reconstruct(
        self,
        images: Tensor,
        words: Tensor,
        keep: Tensor,
        known: Tensor | None = None,
        is_known: Tensor | None = None,
    ) -> tuple[Tensor, Plan, Posterior]:
        """Encode `images` (B, 3, side, side), sample the posterior and decode it again.

        Where `is_known` (B, S), an object is decoded from its `known` box (B, S, 3) instead.
        """
        plan = self.planner(words, keep)
        q = self.localizer(images, plan)
        boxes = q.boxes + q.boxes_std * torch.randn_like(q.boxes)
        if known is not None and is_known is not None:
            boxes = torch.where(is_known[..., None], known, boxes.view_as(known)).flatten(1)
        shade = q.shade + q.shade_std * torch.randn_like(q.shade)
        return self.render(plan, boxes, shade, images.shape[-1]), plan, q

    def render(
        self, plan: Plan, boxes: Tensor, shade: Tensor, side: int, edge_gain: float = 1.0
    ) -> Tensor:
        """The decoder: boxes (B, 3S) and shade (B, Z) -> pictures (B, 3, side, side)."""
        with full_precision(boxes):
            return self._rendered(plan, boxes, shade, side, edge_gain)

    def _rendered(
        self, plan: Plan, boxes: Tensor, shade: Tensor, side: int, edge_gain: float
    ) -> Tensor:
        B, S = plan.presence.shape
        ground = torch.sigmoid(self.background(torch.cat([plan.ground, shade], -1)))
        cover = self._masks(plan, boxes.view(B, S, BOX), side, edge_gain)
        cover = cover * torch.sigmoid(plan.presence)[:, :, None, None]  # (B, S, side, side)
        picture = ground[:, :, None, None].expand(B, 3, side, side)
        for s in range(S):
            alpha = cover[:, s, None]
            picture = picture + alpha * (plan.color[:, s, :, None, None] - picture)
        return picture

    def _masks(self, plan: Plan, boxes: Tensor, side: int, edge_gain: float) -> Tensor:
        """Templates moved to their boxes: coverage (B, S, side, side) in [0, 1]."""
        B, S, _ = boxes.shape
        zoom = 1 / (boxes[..., 2:].clamp_min(0.02) * REACH)  # (B, S, 1)
        shift = (-boxes[..., :2] * zoom)[:, :, None, None]
        local = _grid(side, boxes) * zoom[:, :, None, None] + shift  # (B, S, side, side, 2)
        t = plan.template.shape[-1]
        logits = F.grid_sample(
            plan.template.view(B * S, 1, t, t) + OUTSIDE,
            local.view(B * S, side, side, 2),
            align_corners=False,
        )
        return torch.sigmoid(edge_gain * (logits - OUTSIDE)).view(B, S, side, side)


def full_precision(like: Tensor) -> torch.autocast:
    """Out of mixed precision: in bfloat16, a place above 0.5 would be known to half a pixel."""
    return torch.autocast(like.device.type, enabled=False)


def _inside(boxes: Tensor, objects: int) -> Tensor:
    """Boxes (B, 3S) moved so that no object is cut by the edge: a Gaussian knows no edges."""
    boxes = boxes.view(len(boxes), objects, BOX)
    x_y, radius = boxes[..., :2], boxes[..., 2:]
    x_y = torch.minimum(torch.maximum(x_y, radius + MARGIN), 1 - radius - MARGIN)
    return torch.cat([x_y, radius], dim=-1).flatten(1)


def _grid(side: int, like: Tensor) -> Tensor:
    """Pixel centres as (x, y) in [0, 1], (side, side, 2)."""
    ticks = (torch.arange(side, device=like.device, dtype=like.dtype) + 0.5) / side
    y, x = torch.meshgrid(ticks, ticks, indexing="ij")
    return torch.stack([x, y], dim=-1)


def boxes_divergence(q: Posterior, plan: Plan) -> Tensor:
    """KL(q || p) of the boxes, (B,): a diagonal Gaussian from one with a Cholesky factor."""
    eye = torch.eye(plan.factor.shape[1], device=plan.factor.device)
    with full_precision(eye):
        inverse = torch.linalg.solve_triangular(plan.factor, eye, upper=False)  # (B, n, n)
        mahalanobis = (inverse @ (q.boxes - plan.mean).unsqueeze(-1)).square().sum((1, 2))
    trace = (inverse * q.boxes_std[:, None, :]).square().sum((1, 2))
    log_det = plan.factor.diagonal(dim1=1, dim2=2).log().sum(1) - q.boxes_std.log().sum(1)
    kl: Tensor = 0.5 * (trace + mahalanobis - plan.mean.shape[1]) + log_det
    return kl


def shade_divergence(q: Posterior) -> Tensor:
    """KL(q || N(0, I)) of the background's shade, (B,)."""
    return 0.5 * (q.shade.square() + q.shade_std.square() - 1 - 2 * q.shade_std.log()).sum(1)
