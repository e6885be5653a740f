"""Draw scenes with OpenCV, at four times the resolution, averaged down."""

from collections.abc import Callable
from colorsys import hsv_to_rgb, rgb_to_hsv
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from crossmodal.datasets.scenes.world import COLORS, Rgb, Rng, Scene, Thing

Outline = list[NDArray[np.float64]]  # closed contours in the square [-1, 1]^2, even-odd filled
Color = NDArray[np.float32]
SUPERSAMPLING = 4


@dataclass(frozen=True)
class Jitter:
    """The max random deviations of a picture from the plain scene.

    `channel` and `hue` are fractions of their range, `value` of brightness, `angle` is in
    degrees; `rough` is the fraction of pictures that are blurred, and of those that are noisy.
    """

    channel: float = 0.03
    hue: float = 0.0
    value: float = 0.0
    angle: float = 0.0
    rough: float = 0.0


PLAIN = Jitter()
ROUGH = Jitter(hue=0.03, value=0.08, angle=9.0, rough=0.25)
MAX_BLUR, MAX_NOISE = 1.0, 10.0  # standard deviations: in pixels, in gray levels


def draw(scene: Scene, rng: Rng, side: int, jitter: Jitter = PLAIN) -> NDArray[np.uint8]:
    """Draw the scene as uint8 RGB (side, side, 3), with jitter."""
    image = np.empty((side, side, 3), np.float32)
    image[:] = _jittered(COLORS[scene.background], rng, jitter)
    for thing in scene.things:
        angle = rng.uniform(-jitter.angle, jitter.angle) if jitter.angle else 0.0
        _paint(image, thing, _jittered(COLORS[thing.color], rng, jitter), angle)
    return np.asarray(np.clip(_roughened(image, rng, jitter.rough) + 0.5, 0, 255), np.uint8)


def _jittered(color: Rgb, rng: Rng, by: Jitter) -> Color:
    off = rng.uniform(-1, 1, 3) * 255 * by.channel
    if by.hue or by.value:
        hue, saturation, value = rgb_to_hsv(*(c / 255 for c in color))
        value *= 1 + rng.uniform(-by.value, by.value)
        turned = hsv_to_rgb((hue + rng.uniform(-by.hue, by.hue)) % 1, saturation, min(1, value))
        off += np.array(turned) * 255 - np.array(color)
    return np.asarray(np.clip(np.array(color) + off, 0, 255), np.float32)


def _roughened(image: NDArray[np.float32], rng: Rng, rough: float) -> NDArray[np.float32]:
    if rough and rng.random() < rough:
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), rng.uniform(0.3, MAX_BLUR)), np.float32)
    if rough and rng.random() < rough:
        noise = rng.standard_normal(image.shape, np.float32)
        image = image + np.float32(rng.uniform(1, MAX_NOISE)) * noise
    return image


def _paint(image: NDArray[np.float32], thing: Thing, color: Color, angle: float) -> None:
    side = image.shape[0]
    reach = 1.2 * thing.radius * side + 1  # with room for rotated corners
    left, top = int(thing.x * side - reach), int(thing.y * side - reach)
    width = int(2 * reach) + 2
    alpha = coverage(thing, side, left, top, width, angle)
    y0, x0, y1, x1 = max(top, 0), max(left, 0), min(top + width, side), min(left + width, side)
    alpha = alpha[y0 - top : y1 - top, x0 - left : x1 - left, None]
    patch = image[y0:y1, x0:x1]
    patch += alpha * (color - patch)


def coverage(
    thing: Thing, side: int, left: int, top: int, width: int, angle: float = 0.0
) -> NDArray[np.float32]:
    """Return the fraction of each pixel that the thing covers, float32 (width, width).

    The thing is rotated by `angle` degrees.
    """
    s = SUPERSAMPLING
    mask = np.zeros((width * s, width * s), np.uint8)
    center = np.array([thing.x * side - left, thing.y * side - top])
    turn = _rotation(angle)
    contours = [
        np.round(((c @ turn * thing.radius * side + center) * s - 0.5) * 256).astype(np.int32)
        for c in outline(thing.shape)
    ]
    cv2.fillPoly(mask, contours, 255, shift=8)
    small = cv2.resize(mask, (width, width), interpolation=cv2.INTER_AREA)
    return np.asarray(small / 255, np.float32)


def _rotation(degrees: float) -> NDArray[np.float64]:
    sine, cosine = np.sin(np.deg2rad(degrees)), np.cos(np.deg2rad(degrees))
    return np.array([[cosine, sine], [-sine, cosine]])


@cache
def outline(shape: str) -> Outline:
    """Return the contours of a shape whose longer side fits [-1, 1] (y points down)."""
    outlines: dict[str, Callable[[], Outline]] = {
        "circle": lambda: [_disc(1.0)],
        "square": lambda: [np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * 0.95],
        "triangle": lambda: [np.array([[0, -0.9], [1, 0.83], [-1, 0.83]])],
        "star": lambda: [_star()],
        "ring": lambda: [_disc(1.0), _disc(0.55)],
        "cross": lambda: [_cross(0.34)],
        "heart": lambda: [_heart()],
        "diamond": lambda: [np.array([[0, -1], [0.72, 0], [0, 1], [-0.72, 0]])],
        "rectangle": lambda: [np.array([[-1, -0.52], [1, -0.52], [1, 0.52], [-1, 0.52]])],
        "oval": lambda: [_disc(1.0) * np.array([1.0, 0.6])],
    }
    return outlines[shape]()


def _disc(radius: float) -> NDArray[np.float64]:
    angle = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    return radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)


def _star() -> NDArray[np.float64]:
    angle = np.arange(10) * np.pi / 5 - np.pi / 2
    radius = np.where(np.arange(10) % 2 == 0, 1.05, 0.43)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle) + 0.08], axis=1)


def _cross(arm: float) -> NDArray[np.float64]:
    a = arm
    return np.array(
        [
            [-a, -1],
            [a, -1],
            [a, -a],
            [1, -a],
            [1, a],
            [a, a],
            [a, 1],
            [-a, 1],
            [-a, a],
            [-1, a],
            [-1, -a],
            [-a, -a],
        ]
    )


def _heart() -> NDArray[np.float64]:
    """Return the heart curve x = 16 sin^3 t, y = 13 cos t - 5 cos 2t - 2 cos 3t - cos 4t."""
    t = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    x = 16 * np.sin(t) ** 3
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return np.stack([x / 16, -(y + 2.5) / 16], axis=1)
