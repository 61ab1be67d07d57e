"""One ipywidgets control for each parameter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import ipywidgets as widgets

if TYPE_CHECKING:
    from collections.abc import Callable

    from labkit.parameters import Parameter

# Wide enough for a slider with its readout; two stand side by side at 700 pixels.
_WIDTH = "290px"


def allowed(parameter: Parameter) -> str:
    """What a parameter may be, in a few words.

    >>> from labkit.parameters import parse
    >>> allowed(parse("size", [64, 256])), allowed(parse("threads", (1, 4)))
    ('64, 256', '1 to 4')
    """
    match parameter.kind:
        case "choice":
            return ", ".join(label for label, _ in parameter.choices)
        case "switch":
            return "on or off"
        case "range":
            return f"{parameter.low:g} to {parameter.high:g}"
        case _:
            return "a text"


def make_control(
    parameter: Parameter, value: Any, on_value: Callable[[Any], None]
) -> widgets.DOMWidget:
    """A control that calls ``on_value`` when somebody moves it."""
    name = parameter.name.replace("_", " ")
    common = {
        "description": name,
        "tooltip": f"{name}: {allowed(parameter)}",
        "style": {"description_width": "initial"},
        "layout": widgets.Layout(width=_WIDTH, margin="2px 16px 2px 0"),
    }
    control: Any
    match parameter.kind:
        case "choice":
            control = widgets.Dropdown(options=_options(parameter, value), value=value, **common)
        case "switch":
            control = widgets.Checkbox(value=value, indent=False, **common)
        case "range":
            whole = isinstance(parameter.default, int)
            kind = widgets.IntSlider if whole else widgets.FloatSlider
            control = kind(
                value=value,
                min=parameter.low,
                max=parameter.high,
                step=parameter.step,
                continuous_update=False,
                **common,
            )
            if not whole:
                control.readout_format = ".3g"
        case _:
            control = widgets.Text(value=value, continuous_update=False, **common)
    control.observe(lambda change: on_value(change["new"]), names="value")
    return control


def show_value(control: Any, parameter: Parameter, value: Any) -> None:
    """Let a control stand at a value, also at one that is not among its choices."""
    if parameter.kind == "choice" and all(
        v is not value and v != value for _, v in control.options
    ):
        control.options = _options(parameter, value)
    if control.value != value:
        control.value = value


def _options(parameter: Parameter, value: Any) -> list[tuple[str, Any]]:
    options = list(parameter.choices)
    if all(v is not value and v != value for _, v in options):
        options.append((str(value), value))
    return options
