"""A contact sheet: pictures with their prompts and captions, on one page."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

COLUMNS = 4
CELL, PICTURE, MARGIN, LINE = 256, 240, 16, 15  # pixels
INK, PALE, PAPER = (30, 30, 30), (110, 110, 110), (255, 255, 255)


@dataclass(frozen=True)
class Entry:
    """One picture, with the prompt and the caption under it."""

    picture: Image.Image
    prompt: str
    caption: str


def write_contact_sheet(entries: Sequence[Entry], path: Path) -> None:
    """Write a PNG with the pictures in rows of four, prompt and caption under each."""
    font = ImageFont.load_default(size=12)
    texts = [
        [(line, INK) for line in _wrapped(e.prompt, font)]
        + [(line, PALE) for line in _wrapped(f"“{e.caption}”", font)]
        for e in entries
    ]
    height = PICTURE + MARGIN // 2 + LINE * max(len(lines) for lines in texts) + MARGIN
    rows = -(-len(entries) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * CELL + MARGIN, rows * height + MARGIN), PAPER)
    draw = ImageDraw.Draw(sheet)
    for i, (entry, lines) in enumerate(zip(entries, texts, strict=True)):
        x, y = MARGIN + (i % COLUMNS) * CELL, MARGIN + (i // COLUMNS) * height
        picture = entry.picture.convert("RGB").resize((PICTURE, PICTURE), Image.Resampling.LANCZOS)
        sheet.paste(picture, (x, y))
        draw.rectangle((x, y, x + PICTURE - 1, y + PICTURE - 1), outline=(200, 200, 200))
        for n, (line, color) in enumerate(lines):
            draw.text((x, y + PICTURE + MARGIN // 2 + n * LINE), line, color, font)
    sheet.save(path)


def _wrapped(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= PICTURE:
            lines[-1] = longer
        else:
            lines.append(word)
    return [line for line in lines if line]
