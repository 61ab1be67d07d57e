"""What a panel needs of the page that shows it: its style, and what widgets cannot be told.

ipywidgets sets neither roles nor names where they are missing (a slider's handle has no name, text
that changes is announced by nobody), and JupyterLab takes plain keys for commands while a control
in an output has the focus. panel.js mends that for elements with these classes.
"""

from __future__ import annotations

from functools import cache
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import ipywidgets as widgets

# On the outermost widget of a panel.
PANEL = "labkit-panel"
# On a widget whose text is announced when it changes, at the next pause of the reader's speech;
# with QUIET it is not announced, however often it changes.
LIVE, QUIET = "labkit-live", "labkit-quiet"
# On a button that does nothing at this moment. It keeps the focus, as a disabled one does not.
OFF = "labkit-off"
# On the widget that says what the panel's pictures show, in a paragraph for each: ipywidgets gives
# an image no alternative text, so panel.js takes it from there.
WORDS = "labkit-words"
# On a widget for screen readers alone.
UNSEEN = "labkit-unseen"


@cache
def head() -> str:
    """HTML that belongs at the beginning of a panel, in a widget inside of it.

    >>> head().startswith("<style onload=")
    True
    """
    here = Path(__file__)
    script = here.with_name("panel.js").read_text(encoding="utf-8")
    style = here.with_name("panel.css").read_text(encoding="utf-8")
    return f'<style onload="{escape(script)}">{style}</style>'


def in_order(widget: widgets.Widget) -> None:
    """Let what a person does with a widget and its children arrive in the order it was done.

    JupyterLab sends the messages of all widgets to one subshell of the kernel, but ipykernel 7.4
    sends each on to the thread that last published on the same widget: a press of Run could
    overtake the choice made before it, and the old value was measured.
    """
    comm: Any = getattr(widget, "comm", None)
    if hasattr(comm, "_reply_subshell_for"):
        comm._reply_subshell_for = _as_addressed  # noqa: SLF001  (there is no public way)
    for child in getattr(widget, "children", ()):
        in_order(child)


def _as_addressed(_: object, subshell: str | None) -> str | None:
    return subshell
