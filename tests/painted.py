"""The colours of a figure as they are painted, whatever is transparent or lies above what."""

from labkit import figures


def contrasts_of_intervals(figure):
    """Of each interval, drawn as a level line, with what is above and below it.

    It is looked at a fifth of the way from its lower end, where no marker is if it is wide.
    """
    pixels = figures.painted(figure)[:, :, :3] / 255
    found = []
    for axes in figure.axes:
        for line in axes.lines:
            ends = line.get_xydata()
            if len(ends) != 2 or ends[0, 1] != ends[1, 1] or line.get_linestyle() != "-":
                continue
            (low, y), (high, _) = ends
            (left, up), (right, _) = axes.transData.transform([(low, y), (high, y)])
            column, row = int(left + (right - left) / 5), int(len(pixels) - up)
            beside = int(line.get_linewidth() * figure.dpi / 72 / 2) + 2
            seen = [tuple(pixels[at, column]) for at in (row - beside, row, row + beside)]
            found += [figures.contrast(seen[1], other) for other in (seen[0], seen[2])]
    return found
