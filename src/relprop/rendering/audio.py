"""Relevance of sound: the waveform over bands of relevance, and the spectrogram tinted by it."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike
from PIL import Image

from relprop.errors import InputError
from relprop.rendering import colours
from relprop.rendering.colours import RED_BLUE, Floats, Palette
from relprop.rendering.drawing import Drawing
from relprop.rendering.fonts import fit
from relprop.rendering.legend import colour_bar
from relprop.rendering.marks import FAINT, INK, LINE, SMALL, Line, Mark, Picture, Rect, Text
from relprop.rendering.scale import Scale, note, number, scale_for, to_array
from relprop.rendering.series import axis, binned

_WIDE, _HIGH = 640, 120
_BANDS = 320
# Lightness of silence and of the loudest sound. The loudest 70 dB are shown.
_LIGHTNESS = (96.0, 42.0)
_RANGE = 70.0


def audio(
    relevance: torch.Tensor | ArrayLike,
    signal: torch.Tensor | ArrayLike,
    rate: float,
    *,
    percentile: float | None = None,
    limit: float | Scale | None = None,
    palette: Palette | str = RED_BLUE,
) -> Drawing:
    """Draws the waveform over bands of its relevance, and below it the spectrogram, tinted by the same relevance.

    The relevance of single samples alternates in sign with the wave. So each band shows the sum over an interval, and
    the drawing says how long that is.

    Args:
        relevance: `(T,)`, the relevance of each sample.
        signal: `(T,)`, the sound.
        rate: samples per second.
        percentile: end of the scale, as a percentile of absolute relevance.
        limit: end of the scale.
        palette: the colours, or their name.

    Raises:
        InputError: the shapes do not match, the rate is not positive, or there is no such palette or scale.
    """
    values, wave = _line(relevance), _line(signal)
    if values.ndim != 1 or values.shape != wave.shape:
        raise InputError(
            f"relevance has the shape {values.shape}, the sound {wave.shape}: both must be (T,), the same."
        )
    if not rate > 0:
        raise InputError(f"rate is {rate}; it is the number of samples per second.")
    with np.errstate(invalid="ignore", over="ignore"):
        sums, each = binned(values, _BANDS)
    scale = scale_for([sums], percentile=percentile, limit=limit)
    scaled = scale(sums)
    # The last band may extend beyond the end of the sound; it is cut there.
    shown = np.repeat(scaled, each)[: len(values)]
    marks: list[Mark] = [Picture(0, 0, _WIDE, _HIGH, _across(shown[None], palette))]
    step = _WIDE / len(values)
    for place, value in enumerate(sums):
        start, stop = place * each, min((place + 1) * each, len(values))
        said = f"{start / rate:.3f} to {stop / rate:.3f} s: {number(float(value))}"
        marks.append(Rect(step * start, 0, step * (stop - start), _HIGH, title=said))
    marks += _wave(wave)
    marks.append(Rect(0, 0, _WIDE, _HIGH, None, LINE))
    top = _HIGH + 8.0
    spectrum, highest = spectrogram(wave, rate)
    marks.append(Picture(0, top, _WIDE, _HIGH, _tinted(spectrum, scaled, each, len(values), palette)))
    marks.append(Rect(0, top, _WIDE, _HIGH, None, LINE))
    marks.append(Text(4, top + 3, f"{highest / 1000:g} kHz", SMALL, INK))
    marks.append(Text(4, top + _HIGH - 15, "0", SMALL, INK))
    top += _HIGH
    marks += axis(len(values), rate, 0, top, _WIDE)
    bar = colour_bar(280, scale, palette)
    marks += bar.at(0, top + 24)
    said = f"each band: sum over {each / rate * 1000:.3g} ms"
    if extra := note(sums, scale, "band"):
        said = f"{said}; {extra}"
    marks.append(Text(bar.width + 12, top + 24, fit(said, _WIDE - bar.width - 12, SMALL), SMALL, FAINT))
    peak = int(np.argmax(np.abs(np.nan_to_num(sums))))
    about = f"Sound of {len(values) / rate:.3g} s; strongest relevance {number(float(sums[peak]))} at {peak * each / rate:.3g} s."
    return Drawing(_WIDE, top + 24 + bar.height, tuple(marks), about)


def spectrogram(wave: Floats, rate: float, *, window: int | None = None) -> tuple[Floats, float]:
    """Loudness `(frequency, time)` in dB relative to the loudest, high frequencies first; and the highest frequency.

    Near both ends the first or last whole window is used again: a window beyond the sound would contain a click.
    """
    if window is None:
        window = int(2 ** np.clip(np.round(np.log2(max(rate * 0.032, 2))), 4, 11))
    length = len(wave)
    window = min(window, 2 ** int(np.log2(max(length, 4))))
    wave = np.pad(np.where(np.isfinite(wave), wave, 0.0), (0, max(window - length, 0)))
    centres = np.arange(0, length, max(1, min(window // 4, length // _BANDS or 1)))
    starts = np.clip(centres - window // 2, 0, len(wave) - window)
    frames = wave[starts[:, None] + np.arange(window)] * np.hanning(window)
    power = np.abs(np.fft.rfft(frames, axis=1)) ** 2
    loudest = float(power.max())
    if loudest <= 0.0:
        return np.full((window // 2 + 1, len(starts)), -_RANGE), rate / 2
    decibels = 10 * np.log10(np.maximum(power / loudest, 1e-30))
    return np.maximum(decibels, -_RANGE).T[::-1], rate / 2


def _line(values: torch.Tensor | ArrayLike) -> Floats:
    """Sound of one channel, without its axes of length 1."""
    array = to_array(values)
    return array.reshape(-1) if array.size == max(array.shape, default=0) else array


def _tinted(spectrum: Floats, scaled: Floats, each: int, samples: int, palette: Palette | str) -> Image.Image:
    """The spectrogram in grey, tinted at each time by the relevance there."""
    frames = spectrum.shape[1]
    centres = np.minimum((np.arange(frames) + 0.5) * samples / frames, samples - 1).astype(int)
    tint = np.broadcast_to(scaled[centres // each], spectrum.shape)
    quiet, loud = _LIGHTNESS
    lightness = quiet + (loud - quiet) * (spectrum + _RANGE) / _RANGE
    return Image.fromarray(colours.tinted(tint, colours.luminance_of_lightness(lightness), palette))


def _across(scaled: Floats, palette: Palette | str) -> Image.Image:
    return Image.fromarray(colours.diverging(scaled, palette))


def _wave(wave: Floats) -> list[Mark]:
    """The wave as a line; if too many samples share a pixel, one line of the highest and one of the lowest values."""
    wave = np.where(np.isfinite(wave), wave, 0.0)
    largest = float(np.abs(wave).max()) or 1.0
    edges = [wave]
    if len(wave) > 4 * _WIDE:
        parts = np.array_split(wave, _WIDE // 2)
        edges = [np.array([part.max() for part in parts]), np.array([part.min() for part in parts])]
    middle = _HIGH / 2
    lines = []
    for edge in edges:
        heights = middle - (middle - 5) * edge / largest
        centres = _WIDE * (np.arange(len(edge)) + 0.5) / len(edge)
        lines.append(Line(tuple(zip(centres.tolist(), heights.tolist(), strict=True)), INK))
    return [line for line in lines if len(line.points) > 1]
