"""Figures in words: what each shows, in a few sentences with the main numbers.

For whoever cannot see a figure, and for whoever would rather read it. Every function that draws
gives its figure one of these texts (see `labkit.figures.new_figure`).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from labkit.pareto import frontier, placed
from labkit.units import format_bytes, format_rate, format_ratio, format_share, format_time

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from labkit.laws import Scaling
    from labkit.ledger import MemoryLedger
    from labkit.links import Link
    from labkit.peaks import Peaks
    from labkit.planning import Plan
    from labkit.results import Comparison
    from labkit.rooflines import RooflinePoint
    from labkit.scaling import WeakScaling
    from labkit.sensitivity import Sensitivity
    from labkit.sweeps import Sweep
    from labkit.training_steps import Prediction
    from labkit.traps import NaiveClaims

# A list that is read aloud, not looked over.
_MOST = 8


def joined(parts: Iterable[str], most: int = _MOST) -> str:
    """Parts with semicolons between them; how many more there are, where they are too many.

    >>> joined(["a", "b"]), joined("abcde", most=3)
    ('a; b', 'a; b; c; and 2 more')
    """
    parts = list(parts)
    left = [f"and {len(parts) - most} more"] if len(parts) > most else []
    return "; ".join([*parts[:most], *left])


def sentence(text: str) -> str:
    """With a capital and a full stop.

    >>> sentence("b is 2.00x faster")
    'B is 2.00x faster.'
    """
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")


def _titled(text: str, title: str) -> str:
    return f"{title}: {text}" if title else sentence(text)


def comparison(found: Comparison) -> str:
    """Of the figure with times, speed-ups and memory."""
    parts = []
    for name, trial in found.trials.items():
        ratio, failure = found[name], found.failures.get(name)
        said = [f"{name} {format_time(trial.median_s)}" if trial.times_s else name]
        if name == found.baseline:
            said.append("the baseline")
        elif ratio.rounds:
            said += [f"{format_ratio(ratio.speedup)} {ratio.interval_text}", ratio.verdict.value]
        if failure:
            said.append(failure.reason)
        if name in found.memory:
            said.append(f"peak memory {format_bytes(found.memory[name].peak_bytes)}")
        parts.append(", ".join(said))
    kinds = "Times, speed-ups and peak memory" if found.memory else "Times and speed-ups"
    return _titled(f"{kinds} of {len(found)} variants: {joined(parts)}.", found.title)


def intervals(found: Comparison) -> str:
    """Of the speed-ups as they become known."""
    known = [
        f"{name} {format_ratio(r.speedup)} {r.interval_text}, {r.verdict.value}"
        for name, r in found.ratios.items()
        if r.rounds
    ]
    if not known:
        return f"Speed-up over {found.baseline} by rounds: nothing is known yet."
    return (
        f"Speed-up over {found.baseline} by rounds, each interval narrowing around its line; "
        f"after {found.rounds} rounds: {joined(known)}."
    )


def times(found: Comparison) -> str:
    """Of the samples, a row for each variant."""
    seen = []
    for name, trial in found.trials.items():
        if trial.times_s:
            ordered = sorted(trial.times_s)
            # The picture leaves out the slowest of a hundred samples, too.
            ends = ordered[0], ordered[int(0.98 * (len(ordered) - 1))]
            low, high = (format_time(end) for end in ends)
            seen.append(f"{name} {format_time(trial.median_s)}, most from {low} to {high}")
        elif failure := found.failures.get(name):
            seen.append(f"{name}: {failure.reason}")
    return f"Times of the samples, the median first: {joined(seen) or 'none yet'}."


def memory(found: Comparison) -> str:
    """Of the bars of peak memory."""
    bars = [f"{name} {format_bytes(peak.peak_bytes)}" for name, peak in found.memory.items()]
    return f"Peak memory above the start: {joined(bars)}."


def pareto(found: Comparison, quality: str, size: str) -> str:
    """Of time against quality."""
    at, best = placed(found, quality), frontier(found, quality)

    def said(name: str) -> str:
        seconds, value = at[name]
        n_bytes = found.trials[name].metrics.get(size, math.nan)
        with_size = f", {format_bytes(n_bytes)}" if math.isfinite(n_bytes) else ""
        return f"{name} {format_time(seconds)}, {quality} {value:.4g}{with_size}"

    beaten = [said(name) for name in at if name not in best]
    others = f" Beaten by one of these: {joined(beaten)}." if beaten else ""
    return (
        f"Time against {quality} of {len(at)} variants. On the frontier, the fastest first: "
        f"{joined(map(said, best))}.{others}"
    )


def too_few_placed(found: Comparison, quality: str) -> str:
    """In place of time against quality, where variants failed."""
    failed = "; ".join(map(str, found.failures.values()))
    return f"Fewer than two variants have a time and {quality}: {failed}."


def sweep(found: Sweep) -> str:
    """Of times and speed-ups over a parameter."""
    axis = found.swept[0] if found.swept else "the parameter"
    values = list(dict.fromkeys(point.parameters[axis] for point in found.points))
    if not found.comparisons:
        failed = f": {joined(found.sentences, 3)}" if found.sentences else ""
        return _titled(f"Times and speed-ups over {axis}: nothing measured{failed}.", found.title)
    between = f"{axis} = {values[0]}" + (f" to {values[-1]}" if len(values) > 1 else "")
    kinds = "Times, speed-ups and peak memory"
    if not any(c.memory for c in found.comparisons):
        kinds = "Times and speed-ups"
    said = f" {joined(found.sentences, 6)}." if found.sentences else ""
    return _titled(f"{kinds} over {between}, {len(found)} points.{said}", found.title)


def curves(
    lines: Mapping[str, Sequence[float]], xs: Mapping[str, Sequence[float]], x: str, y: str
) -> str:
    """Of lines over something that is counted.

    >>> curves({"loss": [2.0, 0.5, 1.0]}, {"loss": [1, 2, 3]}, "step", "loss")
    'Loss over step: loss from 2 at step 1 to 1 at step 3, lowest 0.5 at 2, highest 2 at 1.'
    """
    said = []
    for name, line in lines.items():
        if not len(line):
            continue
        at = xs[name]
        low, high = (pick(range(len(line)), key=lambda i: line[i]) for pick in (min, max))
        said.append(
            f"{name} from {line[0]:.4g} at {x} {at[0]:g} to {line[-1]:.4g} at {x} {at[-1]:g}, "
            f"lowest {line[low]:.4g} at {at[low]:g}, highest {line[high]:.4g} at {at[high]:g}"
        )
    return sentence(f"{y} over {x}: {joined(said) or 'no points'}")


def sensitivity(found: Sensitivity) -> str:
    """Of the quality with one layer changed."""
    said = []
    for change in found.shares:
        by = {layer: qualities[change] for layer, qualities in found.alone.items()}
        worst = min(by, key=lambda layer: by[layer])
        said.append(
            f"{change} leaves {min(by.values()):.4g} to {max(by.values()):.4g}, least where "
            f"{worst} is changed"
        )
    return (
        f"Quality with one of {len(found.alone)} layers changed; unchanged it is "
        f"{found.quality:.4g}: {joined(said)}."
    )


def ledger(found: MemoryLedger) -> str:
    """Of predicted and measured bytes of training."""
    pairs = [
        f"{part} {format_bytes(n)} and {format_bytes(found.measured.parts[part])}"
        for part, n in found.predicted.parts.items()
    ]
    phase, most = max(found.measured.timeline, key=lambda entry: entry[1])
    return (
        f"Memory of training ({found.device}), predicted and measured: {joined(pairs)}. Over the "
        f"steps the most is held after {phase}: {format_bytes(most)} measured."
    )


def roofline(peaks: Peaks, points: Sequence[RooflinePoint]) -> str:
    """Of a machine's roofline and the variants beneath it."""
    ridge = peaks.ridge_flops_per_byte
    placed_there = [
        f"{p} at {format_rate(p.intensity_flops_per_byte, 'FLOP/B')}, where {p.limit} is the limit"
        for p in points
    ]
    roof = (
        f"Roofline ({peaks.device}): memory gives {format_rate(peaks.bandwidth_bytes_per_s, 'B/s')}"
        f", products {format_rate(peaks.gemm_flops_per_s, 'FLOP/s')}; memory is the limit up to "
        f"{format_rate(ridge, 'FLOP/B')}, arithmetic beyond."
    )
    return f"{roof} Beneath it: {joined(placed_there)}." if placed_there else roof


def naive(claims: Sequence[NaiveClaims], found: Comparison) -> str:
    """Of what wrong timers claim of identical code."""
    said = [str(claim).replace(";", ",").replace("_", " ") for claim in claims]
    return (
        f"Speed-ups that wrong timers claim for identical code: {joined(said)}. "
        f"labkit.compare: {found.sentences[0]}."
    )


def laws(scalings: Sequence[Scaling]) -> str:
    """Of measured speed-ups beside a law."""
    parts = []
    for scaling in scalings:
        points = [
            f"{p.workers} {scaling.unit} {format_ratio(p.speedup)} {p.interval_text}"
            for p in scaling.points
        ]
        kind = "Speed-up" if scaling.law == "Amdahl" else "Scaled speed-up"
        parts.append(f"{kind} by {scaling.unit}: {joined(points) or 'no points'}.")
        parts += [sentence(line) for line in scaling.sentences[:2]]
    return " ".join(parts)


def flames(root: str, whole_us: float, children: Sequence[tuple[str, float]]) -> str:
    """Of a block of a profile; children are names and microseconds."""
    by_name: dict[str, float] = {}
    for name, us in children:
        by_name[name] = by_name.get(name, 0.0) + us
    largest = sorted(by_name.items(), key=lambda pair: -pair[1])
    said = [f"{name} {format_share(round(us / whole_us, 3))}" for name, us in largest]
    inside = f" Most of it is in {joined(said, 5)}." if said else " It called nothing recorded."
    return f"Flame graph of {root}, {format_time(whole_us / 1e6)} in all.{inside}"


def link(found: Link) -> str:
    """Of measured messages and the fitted line."""
    sizes = [n for n, _ in found.points]
    collective, ranks = found.fitted
    return (
        f"Time of {collective.replace('_', '-')} of {ranks} ranks by bytes, "
        f"{len(found.points)} points from {format_bytes(min(sizes))} to "
        f"{format_bytes(max(sizes))}; fitted line: {found}."
    )


def weak_scaling(found: WeakScaling, words: Mapping[float, str]) -> str:
    """Of predicted throughput and efficiency; words say what each overlap is."""
    said = [
        f"{words[overlap]}: {format_ratio(steps[-1].speedup)} with {steps[-1].ranks} ranks, "
        f"efficiency {format_share(round(steps[-1].efficiency, 3))}"
        for overlap, steps in found.steps.items()
    ]
    title = found.title or "data parallel training"
    return f"Predicted throughput and efficiency by ranks, {title}. {sentence(joined(said))}"


def plan(found: Plan, drawn: Sequence[Prediction]) -> str:
    """Of the memory and the step of several splits."""
    from labkit.assumptions import seconds
    from labkit.language_models import gigabytes

    said = [
        f"{p.split}: {seconds(p.step_s)}, MFU {format_share(round(p.mfu, 3))}, "
        f"{gigabytes(p.memory.total)}"
        if p.fits
        else f"{p.split}: {gigabytes(p.memory.total)}, does not fit"
        for p in drawn
    ]
    return (
        f"Predicted memory of the fullest GPU and time of a step, {found.title}, "
        f"{gigabytes(found.gpu.limit_bytes)} each: {joined(said, 6)}."
    )
