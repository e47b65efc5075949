"""Spoil X-rays the way people do: what scripts/train_quality.py trains and measures on.

Every function takes and returns a square PIL image of mode "L" and draws its randomness from `rng`.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont, ImageOps

Picture = Image.Image
Rng = np.random.Generator

TURNS = {
    "upside down": (Image.Transpose.ROTATE_180, Image.Transpose.FLIP_TOP_BOTTOM),
    "turned left": (Image.Transpose.ROTATE_90, Image.Transpose.TRANSPOSE),
    "turned right": (Image.Transpose.ROTATE_270, Image.Transpose.TRANSVERSE),
}
LEAST_LOST = 0.15  # of the height or width of the lungs' box; less is not called cut off
LEAST_INK = 0.04  # of the pixels that writing changes; less is not called heavy
MOST_INK = 0.015  # and no more than this is called harmless
_LETTERS = np.array(list("ABCDEFGHIKLMNOPRSTUVWXYZabcdefghiklmnoprstuvwxyz0123456789   ./:-"))


def negative(image: Picture, rng: Rng) -> Picture:
    """Swap black and white, at times inside a black frame that stays black."""
    inverted = ImageOps.invert(image)
    return framed(inverted, rng, shades=(0,)) if rng.random() < 0.3 else inverted


def turned(image: Picture, rng: Rng, way: str) -> Picture:
    """Rotate by a quarter or a half, one time in five mirrored as well. way: of TURNS."""
    rotated, flipped = TURNS[way]
    return image.transpose(flipped if rng.random() < 0.2 else rotated)


def mirrored(image: Picture, rng: Rng) -> Picture:
    """Swap left and right."""
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def cut_off(image: Picture, rng: Rng, lungs: np.ndarray) -> Picture:
    """Crop away a part of the lungs at one side or two, and some of what surrounds them.

    lungs: (4,) top, bottom, left and right of the box around them, as shares of the side.
    """
    top, bottom, left, right = lungs
    lost = np.zeros(4)
    lost[rng.permutation(4)[: 1 if rng.random() < 0.75 else 2]] = rng.uniform(LEAST_LOST, 0.45)
    slack = rng.uniform(0, 1, 4)  # share of the surroundings that stays, where no lung is lost
    height, width = bottom - top, right - left
    edges = (
        top + lost[0] * height if lost[0] else top * (1 - slack[0]),
        bottom - lost[1] * height if lost[1] else bottom + (1 - bottom) * slack[1],
        left + lost[2] * width if lost[2] else left * (1 - slack[2]),
        right - lost[3] * width if lost[3] else right + (1 - right) * slack[3],
    )
    return _cropped(image, *edges)


def tight(image: Picture, rng: Rng, lungs: np.ndarray) -> Picture:
    """Crop away a part of what surrounds the lungs, and nothing of them: harmless."""
    top, bottom, left, right = lungs
    stays = rng.uniform(0.1, 1, 4)
    edges = (top * stays[0], 1 - (1 - bottom) * stays[1], left * stays[2], 1 - (1 - right) * stays[3])
    return _cropped(image, *edges)


def side_by_side(image: Picture, rng: Rng, other: Picture) -> Picture:
    """Put two images into one, next to each other, or one time in ten one below the other."""
    side = image.width
    stacked = rng.random() < 0.1
    pair = [image, other] if rng.random() < 0.5 else [other, image]
    shade, gap = int(rng.choice([0, 0, 255, 128])), int(side * rng.choice([0, rng.uniform(0, 0.06)]))
    split = int(side * rng.uniform(0.4, 0.6))
    canvas = Image.new("L", (side, side), shade)
    for start, end, each in ((0, split - gap // 2, pair[0]), (split + gap - gap // 2, side, pair[1])):
        across = int(side * (1 if rng.random() < 0.6 else rng.uniform(0.75, 1)))
        off = int(rng.uniform(0, side - across + 1))
        size, place = (
            ((across, end - start), (off, start)) if stacked else ((end - start, across), (start, off))
        )
        canvas.paste(each.resize(size, Image.Resampling.BILINEAR), place)
    return canvas


def photographed(image: Picture, rng: Rng) -> Picture:
    """A photograph of a screen or of a film on a light box: frame, perspective, moiré, glare, vignette."""
    side = image.width
    corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], float)
    scale = rng.uniform(0.62, 0.95, 2)
    angle = np.deg2rad(rng.normal(0, 4))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    quad = (corners - 0.5) * scale @ turn.T + 0.5 + rng.uniform(-0.5, 0.5, 2) * (1 - scale)
    quad += rng.uniform(-0.03, 0.03, (4, 2))
    rim = rng.uniform(0.015, 0.09)  # of bezel or light box
    on_screen = rng.random() < 0.6
    canvas = _room(side, rng)
    outer = quad + (quad - quad.mean(0)) * rim * rng.uniform(1.5, 3)
    bezel = int(rng.uniform(5, 60) if on_screen else rng.uniform(190, 255))
    ImageDraw.Draw(canvas).polygon([tuple(side * point) for point in outer], fill=bezel)
    shown = ImageOps.autocontrast(image)
    low, high = rng.uniform(5, 60), rng.uniform(170, 250)
    shown = shown.point([int(low + (high - low) * value / 255) for value in range(256)])
    numbers = _perspective(side * quad, side)
    warped = shown.transform((side, side), Image.Transform.PERSPECTIVE, numbers, Image.Resampling.BILINEAR)
    inside = Image.new("L", (side, side), 0)
    ImageDraw.Draw(inside).polygon([tuple(side * point) for point in quad], fill=255)
    canvas.paste(warped, mask=inside)
    pixels = np.asarray(canvas, np.float32)
    y, x = np.mgrid[0:side, 0:side].astype(np.float32) / side - 0.5
    if on_screen and rng.random() < 0.7:
        wave = rng.uniform(20, 70) * (x * np.cos(angle := rng.uniform(0, np.pi)) + y * np.sin(angle))
        bend = rng.uniform(0, 20) * (x * x + y * y)
        pixels = pixels * (1 + rng.uniform(0.02, 0.12) * np.sin(2 * np.pi * (wave + bend)))
    if rng.random() < 0.6:  # glare of a lamp or a window
        cx, cy, radius = rng.uniform(-0.4, 0.4), rng.uniform(-0.4, 0.4), rng.uniform(0.05, 0.25)
        pixels = pixels + rng.uniform(30, 150) * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / radius**2)
    shading = 1 - rng.uniform(0, 0.9) * (x * x + y * y) + rng.uniform(-0.4, 0.4) * x
    noisy = pixels * shading + rng.normal(0, rng.uniform(1, 6), pixels.shape)
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).filter(
        ImageFilter.GaussianBlur(side / 160 * rng.uniform(0, 0.9))
    )


def written_over(image: Picture, rng: Rng) -> Picture:
    """Cover the X-ray with patient data, notes, measurements or a watermark."""
    written = image
    while _ink(image, written) < LEAST_INK:
        written = _PENS[rng.integers(len(_PENS))](written, rng)
    return written


def labelled(image: Picture, rng: Rng) -> Picture:
    """Put a side marker or a short label into a corner or two: harmless."""
    written = image.copy()
    for _ in range(rng.integers(1, 3)):
        text = "LR"[rng.integers(2)] if rng.random() < 0.6 else _words(rng, 8)
        size = rng.uniform(0.04, 0.09) if len(text) == 1 else rng.uniform(0.02, 0.045)
        place = rng.uniform([0.01, 0.01], [0.12, 0.12])
        place = np.where(rng.random(2) < 0.5, place, 0.92 - place)
        ImageDraw.Draw(written).text(
            tuple(place * image.width), text, int(rng.choice([255, 255, 220, 0])), _font(size * image.width)
        )
    return written if _ink(image, written) <= MOST_INK else image


def framed(image: Picture, rng: Rng, shades: Sequence[int] = (0, 0, 255, 40)) -> Picture:
    """Put the image into a larger one of one shade, as scanners and slides do: harmless."""
    side = image.width
    width, height = (np.array([side, side]) * rng.uniform(0.8, 1, 2)).astype(int)
    canvas = Image.new("L", (side, side), int(rng.choice(shades)))
    place = int(rng.uniform(0, side - width + 1)), int(rng.uniform(0, side - height + 1))
    canvas.paste(image.resize((width, height), Image.Resampling.BILINEAR), place)
    return canvas


def tilted(image: Picture, rng: Rng) -> Picture:
    """Rotate by some degrees around the middle: harmless."""
    return image.rotate(
        rng.normal(0, 4), Image.Resampling.BILINEAR, fillcolor=int(rng.choice([0, 0, 0, 255]))
    )


def exposed(image: Picture, rng: Rng) -> Picture:
    """Change brightness, contrast, sharpness, noise and compression: harmless."""
    gamma, gain, offset = np.exp(rng.normal(0, 0.3)), np.exp(rng.normal(0, 0.2)), rng.normal(0, 12)
    curve = 255 * (np.arange(256) / 255) ** gamma
    image = image.point(((curve - 127) * gain + 127 + offset).clip(0, 255).astype(int).tolist())
    if rng.random() < 0.1:
        image = ImageOps.equalize(image)
    if rng.random() < 0.3:
        image = image.filter(ImageFilter.GaussianBlur(image.width / 160 * rng.uniform(0, 1.2)))
    if rng.random() < 0.3:
        noise = rng.normal(0, rng.uniform(0, 12), (image.height, image.width))
        image = Image.fromarray((np.asarray(image) + noise).clip(0, 255).astype(np.uint8))
    if rng.random() < 0.2:
        stream = io.BytesIO()
        image.save(stream, "JPEG", quality=int(rng.uniform(25, 85)))
        image = Image.open(stream)
        image.load()
    return image


def _cropped(image: Picture, top: float, bottom: float, left: float, right: float) -> Picture:
    side = image.width
    box = (side * left, side * top, side * right, side * bottom)
    return image.resize((side, side), Image.Resampling.BILINEAR, box)


def _perspective(quad: np.ndarray, side: int) -> list[float]:
    """What Pillow needs to draw a square of `side` pixels into `quad` (4, 2)."""
    square = np.array([[0, 0], [side, 0], [side, side], [0, side]], float)
    rows, targets = [], []
    for (x, y), (u, v) in zip(quad, square, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        targets += [u, v]
    return list(np.linalg.solve(np.array(rows), np.array(targets)))


def _room(side: int, rng: Rng) -> Picture:
    """A blurred background of shaded rectangles."""
    canvas = Image.new("L", (side, side), int(rng.uniform(0, 200)))
    draw = ImageDraw.Draw(canvas)
    for _ in range(rng.integers(0, 6)):
        x, y, width, height = side * rng.uniform([-0.2, -0.2, 0.05, 0.05], [1, 1, 1, 0.6])
        draw.rectangle((x, y, x + width, y + height), fill=int(rng.uniform(0, 255)))
    return canvas.filter(ImageFilter.GaussianBlur(rng.uniform(0, side / 40)))


@lru_cache(maxsize=64)
def _sized(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _font(size: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return _sized(max(5, round(size)))


def _words(rng: Rng, most: int) -> str:
    return "".join(_LETTERS[rng.integers(len(_LETTERS), size=rng.integers(2, most + 1))])


def _ink(before: Picture, after: Picture) -> float:
    """The share of pixels that differ clearly."""
    return float((np.abs(np.asarray(before, np.int16) - np.asarray(after, np.int16)) > 40).mean())


def _corners(image: Picture, rng: Rng) -> Picture:
    """Lines of small text in the corners, as viewers show them."""
    written, side, size = image.copy(), image.width, rng.uniform(0.025, 0.045)
    draw, shade = ImageDraw.Draw(written), int(rng.choice([255, 255, 220, 0]))
    for right, bottom in ((0, 0), (1, 0), (0, 1), (1, 1)):
        lines = [_words(rng, 16) for _ in range(rng.integers(1, 6))]
        anchor = ("r" if right else "l") + ("d" if bottom else "a")
        place = (side * (0.985 if right else 0.015), side * (0.985 if bottom else 0.015))
        align = "right" if right else "left"
        draw.multiline_text(place, "\n".join(lines), shade, _font(side * size), anchor, 2, align)
    return written


def _note(image: Picture, rng: Rng) -> Picture:
    """A block of text anywhere, at times in a box."""
    written, side = image.copy(), image.width
    draw, dark = ImageDraw.Draw(written), bool(rng.random() < 0.3)
    text = "\n".join(_words(rng, 22) for _ in range(rng.integers(1, 7)))
    place, font = tuple(side * rng.uniform([0, 0], [0.6, 0.85])), _font(side * rng.uniform(0.035, 0.1))
    if rng.random() < 0.4:
        draw.rectangle(draw.multiline_textbbox(place, text, font), fill=255 if dark else 0)
    stroke = int(rng.random() < 0.3) * max(1, side // 160)
    draw.multiline_text(
        place, text, 0 if dark else 255, font, stroke_width=stroke, stroke_fill=255 if dark else 0
    )
    return written


def _measures(image: Picture, rng: Rng) -> Picture:
    """Lines with ticks and numbers, arrows and rectangles."""
    written, side = image.copy(), image.width
    draw, width = ImageDraw.Draw(written), max(1, round(side * rng.uniform(0.006, 0.014)))
    for _ in range(rng.integers(2, 6)):
        start, end = side * rng.uniform(0.05, 0.95, (2, 2))
        shade = int(rng.choice([255, 255, 230, 0]))
        if rng.random() < 0.25:
            box = (*np.minimum(start, end), *np.maximum(start, end))
            draw.rectangle(box, outline=shade, width=width)
            continue
        draw.line((*start, *end), shade, width)
        across = (end - start)[::-1] * (1, -1) / (np.linalg.norm(end - start) + 1e-6) * side * 0.03
        for point in (start, end):
            draw.line((*(point - across), *(point + across)), shade, width)
        draw.text(tuple(end), f"{rng.uniform(1, 200):.1f} mm", shade, _font(side * rng.uniform(0.035, 0.06)))
    return written


def _watermark(image: Picture, rng: Rng) -> Picture:
    """Large text across the image, at times translucent and slanted."""
    side = image.width
    mask = Image.new("L", (side, side), 0)
    draw, font = ImageDraw.Draw(mask), _font(side * rng.uniform(0.09, 0.22))
    strength = int(rng.uniform(90, 255))
    for row in range(rng.integers(1, 4)):
        place = side * rng.uniform(0, 0.2), side * (0.1 + 0.3 * row + rng.uniform(0, 0.1))
        draw.text(place, _words(rng, 12), strength, font)
    if rng.random() < 0.5:
        mask = mask.rotate(rng.uniform(-45, 45))
    written = image.copy()
    written.paste(int(rng.choice([255, 255, 0])), mask=mask)
    return written


_PENS: Sequence[Callable[[Picture, Rng], Picture]] = (_corners, _note, _measures, _watermark)
