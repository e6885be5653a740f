"""A text-conditioned variational autoencoder whose latents are the objects of a scene.

Kingma & Welling 2013 (https://arxiv.org/abs/1312.6114), conditional as in Sohn et al. 2015.
The latents are discrete choices (shape and color of each object slot, background color), the
boxes of the objects (a joint Gaussian whose mean and Cholesky factor the text predicts, so that
"left of" can correlate two places), and the shade of the background. The text gives the
probability of each choice; noise samples one category, never a mixture. The choices are
observed in training, as in Kingma et al. 2014 (https://arxiv.org/abs/1406.5298), which learns
their appearance: a palette, and a mask template per shape. The decoder is a spatial transformer
(Jaderberg et al. 2015): it composites each object over the background.
"""

import math
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from crossmodal.networks.sizes import Size
from crossmodal.networks.text_encoder import TextEncoder, TextEncoderConfig

OUTSIDE = 12.0  # a mask's logit outside its template: -12, coverage 6e-6
REACH = 1.2  # a template covers 1.2 radii around its object
MARGIN = 0.01  # min gap of a drawn object to others and to the edge, as a fraction of the side
ROUNDS = 12  # rounds of moving close objects apart
BOX = 3  # numbers that place an object: x, y, radius
LOGIT = 20.0  # scale of directly learned parameters, which would otherwise learn too slowly
SHADE = 0.04  # max deviation of a background from its palette color
UNLIKELY = 0.1  # choices less likely than this fraction of the likeliest are excluded


@dataclass(frozen=True)
class SceneVAEConfig:
    """Architecture of a `SceneVAE`; `side` is the height and width of its pictures.

    `things` are the words that name what it can draw. `edge_gain` steepens mask edges when
    drawing; training fits it.
    """

    text: TextEncoderConfig = field(default_factory=TextEncoderConfig)
    kind: Literal["scene"] = "scene"
    side: Size = 128
    objects: Size = 3
    shapes: Size = 10
    colors: Size = 17
    template: Size = 48
    shade_dim: Size = 4
    edge_gain: float = 1.0
    things: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """The text's prediction of a picture (S object slots, H shapes, C colors).

    Logits of presence (B, S), shape (B, S, H), color (B, S, C) and background (B, C); the mean
    (B, 3S) and the lower-triangular factor (B, 3S, 3S) of the Gaussian of the boxes; and the
    background's slot (B, W).
    """

    slots: Tensor
    presence: Tensor
    shape: Tensor
    color: Tensor
    ground: Tensor
    mean: Tensor
    factor: Tensor
    ground_slot: Tensor


@dataclass(frozen=True)
class Choices:
    """The discrete latents: presence, shapes and colors (B, S), background color (B,)."""

    present: Tensor
    shapes: Tensor
    colors: Tensor
    ground: Tensor


@dataclass(frozen=True)
class Posterior:
    """Diagonal Gaussians q(boxes | image, text), (B, 3S), and q(shade | image, text), (B, Z)."""

    boxes: Tensor
    boxes_std: Tensor
    shade: Tensor
    shade_std: Tensor


class Planner(nn.Module):
    """The conditional prior: words -> `Plan`."""

    def __init__(self, config: SceneVAEConfig) -> None:
        super().__init__()
        width, boxes = config.text.width, config.objects * BOX
        self.config = config
        self.encoder = TextEncoder(config.text, slots=config.objects + 1)
        self.presence = nn.Linear(width, 1)
        self.shape = nn.Linear(width, config.shapes)
        self.color = nn.Linear(width, config.colors)
        self.ground = nn.Linear(width, config.colors)
        self.mean = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, BOX))
        self.factor = nn.Sequential(
            nn.Linear(width, width), nn.GELU(), nn.Linear(width, BOX * boxes)
        )

    def forward(self, words: Tensor, keep: Tensor) -> Plan:
        all_slots = self.encoder(words, keep).float()  # (B, S + 1, W)
        with full_precision(words):
            return self._plan(all_slots)

    def _plan(self, all_slots: Tensor) -> Plan:
        slots, ground = all_slots[:, :-1], all_slots[:, -1]
        B, S, _ = slots.shape
        raw = 0.1 * self.factor(slots).view(B, S * BOX, S * BOX)
        spread = F.softplus(raw.diagonal(dim1=1, dim2=2) * 10 - 1) * 0.3 + 0.003
        return Plan(
            slots=slots,
            presence=self.presence(slots).squeeze(-1),
            shape=self.shape(slots),
            color=self.color(slots),
            ground=self.ground(ground),
            mean=(self.mean(slots) * 0.3 + slots.new_tensor([0.5, 0.5, 0.12])).flatten(1),
            factor=raw.tril(-1) + torch.diag_embed(spread),
            ground_slot=ground,
        )


class Localizer(nn.Module):
    """The posterior: locates the objects of the text's slots in a picture, by attention."""

    def __init__(self, config: SceneVAEConfig, channels: int = 64) -> None:
        super().__init__()
        width = config.text.width
        self.convs = nn.Sequential(
            nn.Conv2d(5, 32, 5, stride=2, padding=2),
            nn.GELU(),
            nn.Conv2d(32, 64, 3, stride=2, padding=1),
            nn.GELU(),
            nn.Conv2d(64, 64, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(64, channels, 3, padding=1),
        )
        self.query = nn.Linear(width, channels)
        self.refine = nn.Sequential(
            nn.Linear(width + channels, 128), nn.GELU(), nn.Linear(128, 2 * BOX)
        )
        self.shade = nn.Sequential(
            nn.Linear(width + 3 * 16, 64), nn.GELU(), nn.Linear(64, 2 * config.shade_dim)
        )

    def forward(self, images: Tensor, plan: Plan) -> Posterior:
        small = F.interpolate(images, size=64, mode="area")
        where = _grid(64, images).permute(2, 0, 1).expand(len(images), -1, -1, -1)
        x = self.convs(torch.cat([small, where], 1) - 0.5).float()  # (B, C, 16, 16)
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
        shade, shade_log_std = self.shade(torch.cat([plan.ground_slot, corners], -1)).chunk(2, -1)
        return Posterior(
            boxes=(place + 0.1 * offset).flatten(1),
            boxes_std=0.02 * torch.exp(log_std.clamp(-4, 1)).flatten(1),
            shade=shade,
            shade_std=torch.exp(shade_log_std.clamp(-4, 1)),
        )


class SceneVAE(nn.Module):
    """The VAE: `reconstruct` to train on pairs, `sample` to draw from the prior."""

    def __init__(self, config: SceneVAEConfig) -> None:
        super().__init__()
        self.config = config
        self.planner = Planner(config)
        self.localizer = Localizer(config)
        # Logits of RGB, of coverage, and of colors on backgrounds, all in units of LOGIT.
        self.palette = nn.Parameter(torch.zeros(config.colors, 3))
        self.templates = nn.Parameter(torch.zeros(config.shapes, config.template, config.template))
        self.contrast = nn.Parameter(torch.zeros(config.colors, config.colors))
        self.shade = nn.Linear(config.shade_dim, 3)

    @property
    def latent_dim(self) -> int:
        return sum(self._noises())

    def _noises(self) -> list[int]:
        """Return the noise dimensions of boxes, shade, background, colors and shapes."""
        c = self.config
        return [c.objects * BOX, c.shade_dim, c.colors, c.objects * c.colors, c.objects * c.shapes]

    def sample(self, words: Tensor, keep: Tensor, noise: Tensor) -> Tensor:
        """Draw pictures (B, 3, side, side) in [0, 1] by standard-normal `noise` (B, latent_dim).

        Noise scaled by a temperature narrows the spread; zeros give the likeliest picture.
        """
        plan = self.planner(words, keep)
        boxes_noise, shade, *chances = torch.split(noise, self._noises(), dim=1)
        boxes = plan.mean + (plan.factor @ boxes_noise.unsqueeze(-1)).squeeze(-1)
        made = self._chosen(plan, *chances)
        boxes = _apart(boxes.view(*made.present.shape, BOX), made.present).flatten(1)
        return self.render(made, boxes, shade, self.config.side, self.config.edge_gain)

    def _chosen(self, plan: Plan, ground: Tensor, colors: Tensor, shapes: Tensor) -> Choices:
        """Sample the choices by noise (B, C), (B, S * C) and (B, S * H).

        First the background, favoring contrast to the objects' colors, then colors, favoring
        contrast to the background. Both only weigh choices that the text leaves open.
        """
        present = plan.presence > 0
        on = choose(plan.ground, ground, self._fitting(plan, present))
        return Choices(
            present=present,
            shapes=choose(plan.shape, shapes.view_as(plan.shape)),
            colors=choose(plan.color, colors.view_as(plan.color), self._standing_out(on)),
            ground=on,
        )

    def _standing_out(self, ground: Tensor) -> Tensor:
        """Return the log-odds bonus (B, 1, C) of each color on the backgrounds (B,)."""
        return LOGIT * self.contrast[ground][:, None]

    def _fitting(self, plan: Plan, present: Tensor) -> Tensor:
        """Return the log-odds bonus (B, C) of each background under the objects' colors."""
        contrast = LOGIT * self.contrast  # (background, color)
        color = plan.color.log_softmax(-1)[:, :, None]  # (B, S, 1, C)
        of_each = (color + contrast).logsumexp(-1) - contrast.logsumexp(-1)  # (B, S, background)
        return (of_each * present[..., None]).sum(1)

    def color_logits(self, plan: Plan, ground: Tensor) -> Tensor:
        """Return the logits (B, S, C) of each object's color on the background (B,)."""
        return plan.color + self._standing_out(ground)

    def reconstruct(
        self,
        images: Tensor,
        words: Tensor,
        keep: Tensor,
        made: Choices,
        known: Tensor,
        is_known: Tensor,
    ) -> tuple[Tensor, Plan, Posterior]:
        """Encode `images` (B, 3, side, side), sample the posterior and decode the sample.

        `made` are the picture's choices. Objects with `is_known` (B, S) are decoded from their
        `known` boxes (B, S, 3) instead of the posterior.
        """
        plan = self.planner(words, keep)
        q = self.localizer(images, plan)
        boxes = (q.boxes + q.boxes_std * torch.randn_like(q.boxes)).view_as(known)
        boxes = torch.where(is_known[..., None], known, boxes).flatten(1)
        shade = q.shade + q.shade_std * torch.randn_like(q.shade)
        return self.render(made, boxes, shade, images.shape[-1]), plan, q

    def render(
        self, made: Choices, boxes: Tensor, shade: Tensor, side: int, edge_gain: float = 1.0
    ) -> Tensor:
        """Decode choices, boxes (B, 3S) and shade (B, Z) to pictures (B, 3, side, side)."""
        with full_precision(boxes):
            return self._rendered(made, boxes, shade, side, edge_gain)

    def _rendered(
        self, made: Choices, boxes: Tensor, shade: Tensor, side: int, edge_gain: float
    ) -> Tensor:
        B, S = made.shapes.shape
        palette = torch.sigmoid(LOGIT * self.palette)
        ground = palette[made.ground] + SHADE * torch.tanh(self.shade(shade))  # (B, 3)
        color = palette[made.colors]  # (B, S, 3)
        cover = self._masks(made.shapes, boxes.view(B, S, BOX), side, edge_gain)
        cover = cover * made.present[:, :, None, None]  # (B, S, side, side)
        picture = ground[:, :, None, None].expand(B, 3, side, side)
        for s in range(S):
            alpha = cover[:, s, None]
            picture = picture + alpha * (color[:, s, :, None, None] - picture)
        return picture

    def _masks(self, shapes: Tensor, boxes: Tensor, side: int, edge_gain: float) -> Tensor:
        """Move templates to their boxes; return coverage (B, S, side, side) in [0, 1]."""
        B, S, _ = boxes.shape
        zoom = 1 / (boxes[..., 2:].clamp_min(0.02) * REACH)  # (B, S, 1)
        shift = (-boxes[..., :2] * zoom)[:, :, None, None]
        local = _grid(side, boxes) * zoom[:, :, None, None] + shift  # (B, S, side, side, 2)
        templates = LOGIT * self.templates[shapes.flatten()][:, None]  # (B * S, 1, t, t)
        logits = F.grid_sample(
            templates + OUTSIDE, local.view(B * S, side, side, 2), align_corners=False
        )
        return torch.sigmoid(edge_gain * (logits - OUTSIDE)).view(B, S, side, side)


def choose(logits: Tensor, noise: Tensor, favor: Tensor | float = 0.0) -> Tensor:
    """Sample a category (...) of each row of logits (..., N) by standard-normal noise (..., N).

    Uses the Gumbel-max trick; zero noise gives the likeliest category. Categories that are
    `UNLIKELY` by the logits (the text) alone are excluded, whatever `favor` (log-odds) adds.
    """
    floor = logits.amax(-1, keepdim=True) + math.log(UNLIKELY)
    chance = torch.special.ndtr(noise.double()).clamp(1e-9, 1 - 1e-9)  # uniform in (0, 1)
    gumbel = -torch.log(-torch.log(chance))
    return (logits + favor + gumbel).masked_fill(logits < floor, float("-inf")).argmax(-1)


def full_precision(like: Tensor) -> torch.autocast:
    """Disable autocast: in bfloat16, coordinates above 0.5 are only precise to half a pixel."""
    return torch.autocast(like.device.type, enabled=False)


def _apart(boxes: Tensor, present: Tensor) -> Tensor:
    """Move boxes (B, S, 3) apart so that objects touch neither each other nor the edge.

    Samples of the Gaussian may overlap. Each round moves both objects of a close pair by half of
    the missing distance.
    """
    x_y, radius = boxes[..., :2], boxes[..., 2:]  # (B, S, 2), (B, S, 1)
    both = present[:, :, None] & present[:, None]  # (B, S, S)
    both = both & ~torch.eye(boxes.shape[1], dtype=torch.bool, device=boxes.device)
    wanted = radius + radius.transpose(1, 2) + MARGIN  # (B, S, S)
    for _ in range(ROUNDS):
        from_other = x_y[:, :, None] - x_y[:, None]  # (B, S, S, 2)
        distance = from_other.norm(dim=-1).clamp_min(1e-3)
        lack = ((wanted - distance).clamp_min(0) / distance * both)[..., None]
        x_y = x_y + (0.5 * lack * from_other).sum(2)
        x_y = torch.minimum(torch.maximum(x_y, radius + MARGIN), 1 - radius - MARGIN)
    return torch.cat([x_y, radius], dim=-1)


def _grid(side: int, like: Tensor) -> Tensor:
    """Return pixel centers as (x, y) in [0, 1], (side, side, 2)."""
    ticks = (torch.arange(side, device=like.device, dtype=like.dtype) + 0.5) / side
    y, x = torch.meshgrid(ticks, ticks, indexing="ij")
    return torch.stack([x, y], dim=-1)


def boxes_divergence(q: Posterior, plan: Plan) -> Tensor:
    """Return KL(q || p) of the boxes, (B,): q is diagonal, p is given by its Cholesky factor."""
    eye = torch.eye(plan.factor.shape[1], device=plan.factor.device)
    with full_precision(eye):
        inverse = torch.linalg.solve_triangular(plan.factor, eye, upper=False)  # (B, n, n)
        mahalanobis = (inverse @ (q.boxes - plan.mean).unsqueeze(-1)).square().sum((1, 2))
    trace = (inverse * q.boxes_std[:, None, :]).square().sum((1, 2))
    log_det = plan.factor.diagonal(dim1=1, dim2=2).log().sum(1) - q.boxes_std.log().sum(1)
    kl: Tensor = 0.5 * (trace + mahalanobis - plan.mean.shape[1]) + log_det
    return kl


def shade_divergence(q: Posterior) -> Tensor:
    """Return KL(q || N(0, I)) of the background's shade, (B,)."""
    return 0.5 * (q.shade.square() + q.shade_std.square() - 1 - 2 * q.shade_std.log()).sum(1)
