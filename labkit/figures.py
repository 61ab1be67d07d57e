"""Pictures: what every figure has in common.

A figure is a `matplotlib.figure.Figure` painted by Agg: pyplot keeps global state that callbacks
on several threads corrupt. The background is white on purpose: it stays readable on a page of
any theme. Colours are those of Okabe and Ito (2008, "Color Universal Design"), always together
with a marker and a line style; orange and sky blue are darker than theirs, so that lines stand
out from white by 3 to 1 (WCAG 2.2, 1.4.11). Texts are black, or dark enough for 4.5 to 1.
"""

from __future__ import annotations

import base64
import io
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.image import imsave

if TYPE_CHECKING:
    from collections.abc import Callable

    from matplotlib.axes import Axes
    from matplotlib.typing import ColorType

COLOURS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#C48700", "#3A97D0")
# Not as many as colours, so that the fifteenth variant still has a look of its own.
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
LINES = ("-", "--", "-.", ":")
GREY = "#666666"
GRID: dict[str, Any] = {"visible": True, "color": "#dddddd", "linewidth": 0.6}


def style(number: int) -> tuple[str, str, str]:
    """Colour, marker and line style of the variant with this number."""
    return (
        COLOURS[number % len(COLOURS)],
        MARKERS[number % len(MARKERS)],
        LINES[number % len(LINES)],
    )


def ink(colour: str) -> str:
    """Black or white, whichever is easier to read on a colour.

    >>> ink("#0072B2"), ink("#C48700")
    ('white', 'black')
    """
    on_white, on_black = contrast(colour, "white"), contrast(colour, "black")
    return "white" if on_white >= on_black else "black"


def contrast(one: ColorType, other: ColorType) -> float:
    """The contrast ratio of two colours, from 1 to 21 (WCAG 2.2, definition of contrast ratio).

    Args:
        one: anything that matplotlib takes for a colour; what is transparent is seen on white.
        other: likewise.

    >>> round(contrast("black", "white")), round(contrast("#767676", "white"), 2)
    (21, 4.54)
    """
    lighter, darker = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour: ColorType) -> float:
    """Relative luminance of a colour of sRGB (WCAG 2.2)."""
    *rgb, alpha = to_rgba(colour)
    seen = [alpha * c + 1 - alpha for c in rgb]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in seen)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


class Picture(Figure):
    """A figure that a notebook shows by itself, also where pyplot was never imported.

    JupyterLab gives a PNG no alternative text, whatever its metadata say (seen in 4.6), so the
    picture comes as HTML, with the text for a screen reader and once more, folded, for everybody.
    What cannot show HTML takes the PNG.
    """

    _describe: Callable[[], str] | str = ""

    @property
    def description(self) -> str:
        """What it shows, in a few sentences with the main numbers."""
        text = self._describe if isinstance(self._describe, str) else self._describe()
        # One line: it stands in an attribute, and in the text of a saved output.
        return " ".join(text.split())

    def _repr_png_(self) -> bytes:
        return to_png(self)

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, str], dict[str, Any]]:
        text = self.description
        png = base64.b64encode(to_small_png(self)).decode()
        # The class marks measured output, as in labkit.tables.
        html = (
            f'<div class="labkit-result">{_image(png, text)}<details><summary>This plot in words'
            f"</summary><p>{escape(text)}</p></details></div><!-- labkit-result -->"
        )
        data = {"text/plain": f"Picture: {text}", "text/html": html, "image/png": png}
        return data, {"image/png": {"alt": text}}

    def html(self) -> str:
        """The picture with its description, for a page."""
        return _image(base64.b64encode(to_small_png(self)).decode(), self.description)


def _image(png: str, text: str) -> str:
    return f'<img alt="{escape(text)}" src="data:image/png;base64,{png}">'


def new_figure(width: float, height: float, describe: Callable[[], str] | str = "") -> Picture:
    """An empty figure on its own canvas.

    Args:
        width: in inches.
        height: in inches.
        describe: what it is going to show, in words (see `labkit.descriptions`); a function is
            asked when somebody wants the words, not each time that a live plot is painted.
    """
    figure = Picture(figsize=(width, height), dpi=100, facecolor="white", layout="constrained")
    figure._describe = describe  # noqa: SLF001 - matplotlib copies and pickles by attributes
    FigureCanvasAgg(figure)
    return figure


def fixed_axes(
    width: float,
    height: float,
    describe: Callable[[], str],
    *,
    left: float,
    top: float = 0.6,
    right: float = 0.2,
) -> Axes:
    """Axes with room around them in inches: the same place, whatever their labels are."""
    figure = new_figure(width, height, describe)
    figure.set_layout_engine("none")
    bottom = 0.55
    box = (left / width, bottom / height, 1 - (left + right) / width, 1 - (bottom + top) / height)
    return figure.add_axes(box)


def to_png(figure: Figure) -> bytes:
    """The figure as a PNG picture.

    Half the time of ``savefig``, which draws everything twice.
    """
    buffer = io.BytesIO()
    imsave(buffer, painted(figure), format="png", pil_kwargs={"compress_level": 3})
    return buffer.getvalue()


def to_small_png(figure: Figure) -> bytes:
    """The figure as a PNG picture of 256 colours, a third of the bytes, for a saved notebook."""
    from PIL import Image

    # Nothing is transparent: every figure here has a background.
    picture = Image.fromarray(painted(figure)).convert("RGB")
    buffer = io.BytesIO()
    picture.quantize(256, dither=Image.Dither.NONE).save(buffer, format="png", optimize=True)
    return buffer.getvalue()


def painted(figure: Figure) -> np.ndarray[Any, Any]:
    """Red, green, blue and opacity of every pixel."""
    canvas = figure.canvas
    if not isinstance(canvas, FigureCanvasAgg):
        canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    return np.asarray(canvas.buffer_rgba())  # type: ignore[no-untyped-call]
