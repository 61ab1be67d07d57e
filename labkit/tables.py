"""Results as tables, for a terminal and for a notebook."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from labkit.units import format_bytes, format_rate, format_ratio, format_time

if TYPE_CHECKING:
    from collections.abc import Sequence

    from labkit.caveats import Caveat
    from labkit.explaining import Explanation
    from labkit.peaks import Peaks
    from labkit.profiles import Findings
    from labkit.recordings import Recordings
    from labkit.results import Comparison
    from labkit.sweeps import Sweep


def _rows(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    head = ["variant", "time", "speed-up", "interval", "verdict", "rounds"]
    metrics = list(dict.fromkeys(m for t in comparison.trials.values() for m in t.metrics))
    head += ["peak memory"] * bool(comparison.memory)
    head += [m.removesuffix("_bytes") for m in metrics]
    rows = []
    for name, trial in comparison.trials.items():
        ratio, failure = comparison[name], comparison.failures.get(name)
        if name == comparison.baseline:
            cells = ["1x", "", "baseline"]
        elif ratio.rounds:
            cells = [format_ratio(ratio.speedup), ratio.interval_text, ratio.verdict.value]
        else:
            cells = ["", "", "not yet measured"]
        if failure:
            cells[2] = failure.reason
        time = format_time(trial.median_s) if trial.times_s else ""
        row = [name, time, *cells, str(len(trial.times_s))]
        if comparison.memory:
            peak = comparison.memory.get(name)
            row.append(format_bytes(peak.peak_bytes) if peak else "")
        row += [_metric(m, trial.metrics[m]) if m in trial.metrics else "" for m in metrics]
        rows.append(row)
    return head, rows


def _metric(name: str, value: float) -> str:
    return format_bytes(value) if name.endswith("_bytes") else f"{value:.4g}"


def text_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest cell."""
    widths = [max(len(r[i]) for r in [head, *rows]) for i in range(len(head))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in [head, *rows]
    ]
    return "\n".join(lines)


def html_table(head: Sequence[str], rows: Sequence[Sequence[str]], caption: str) -> str:
    """A table with a caption, a head, and a first column that names its rows; text is escaped."""
    top = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    body = "".join(
        f'<tr><th scope="row">{escape(row[0])}</th>'
        + "".join(f"<td>{escape(cell)}</td>" for cell in row[1:])
        + "</tr>"
        for row in rows
    )
    return (
        f"<table><caption>{escape(caption)}</caption>"
        f"<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"
    )


def _html_list(title: str, lines: Sequence[object]) -> str:
    if not lines:
        return ""
    items = "".join(f"<li>{escape(str(line))}</li>" for line in lines)
    return f"<p>{escape(title)}</p><ul>{items}</ul>"


def _values(comparison: Comparison) -> str:
    return ", ".join(f"{k}={v}" for k, v in comparison.parameters.items())


def as_text(comparison: Comparison) -> str:
    """The table, the verdicts in words and the caveats."""
    caveats = [f"caveat: {c}" for c in comparison.caveats]
    return "\n".join([text_table(*_rows(comparison)), *comparison.sentences, *caveats])


def table_html(comparison: Comparison) -> str:
    """The table alone, as HTML."""
    caption = " ".join(filter(None, [comparison.title, _values(comparison)]))
    return html_table(*_rows(comparison), caption)


def caveats_html(caveats: Sequence[Caveat]) -> str:
    """The caveats with their remedies, as HTML; empty without any."""
    return _html_list("What weakens this:", caveats)


def as_html(comparison: Comparison) -> str:
    """The table, the verdicts in words, the caveats and the machine, as HTML.

    The class of the outer element marks measured output: a regression test compares claims,
    not this.
    """
    machine = f"<p>{escape(comparison.machine.line())}</p>" if comparison.machine else ""
    verdicts = "".join(f"<p><strong>{escape(s)}</strong></p>" for s in comparison.sentences)
    inside = table_html(comparison) + verdicts + caveats_html(comparison.caveats) + machine
    return f'<div class="labkit-result">{inside}</div><!-- labkit-result -->'


def _sweep_rows(sweep: Sweep) -> tuple[list[str], list[list[str]]]:
    several = len(sweep.machines) > 1
    head = [*sweep.swept, *["machine"] * several]
    head += ["variant", "time", "speed-up", "interval", "verdict"]
    rows = []
    for point in sweep.points:
        values = [str(point.parameters[name]) for name in sweep.swept]
        values += [point.machine_id] * several
        if point.comparison is None:
            rows.append([*values, "", "", "", "", point.error])
            continue
        _, cells = _rows(point.comparison)
        rows += [[*values, *row[:5]] for row in cells]
    return head, rows


def sweep_as_text(sweep: Sweep) -> str:
    """The table of all points and what it says in words."""
    return "\n".join([text_table(*_sweep_rows(sweep)), *_sweep_lines(sweep)])


def _sweep_lines(sweep: Sweep) -> list[str]:
    """What it says in words, and which machines it speaks of where there are several."""
    lines = [f"machine {key}: {line}" for key, line in sweep.machines.items()]
    caveats = dict.fromkeys(
        str(c) for each in sweep.comparisons for c in each.caveats if c.kind == "side by side"
    )
    return [
        *sweep.sentences,
        *(lines if len(lines) > 1 else []),
        *(f"caveat: {c}" for c in caveats),
    ]


def sweep_table_html(sweep: Sweep) -> str:
    """The table of all points alone, as HTML."""
    return html_table(*_sweep_rows(sweep), sweep.title)


def sweep_as_html(sweep: Sweep) -> str:
    """The table of all points and what it says in words, as HTML."""
    verdicts = "".join(f"<p><strong>{escape(s)}</strong></p>" for s in sweep.sentences)
    others = "".join(f"<p>{escape(s)}</p>" for s in _sweep_lines(sweep)[len(sweep.sentences) :])
    inside = sweep_table_html(sweep) + verdicts + others
    return f'<div class="labkit-result">{inside}</div><!-- labkit-result -->'


def peaks_as_html(peaks: Peaks) -> str:
    """The rates by working set and matrix size, as HTML."""
    copies = [
        [format_bytes(c.working_set_bytes), format_rate(c.bytes_per_s, "B/s")] for c in peaks.copies
    ]
    gemms = [[str(g.size), format_rate(g.flops_per_s, "FLOP/s")] for g in peaks.gemms]
    inside = (
        html_table(["copy: both buffers", "bytes read and written"], copies, "Memory and caches")
        + html_table(["product: rows", "rate"], gemms, f"Arithmetic ({peaks.dtype})")
        + f"<p><strong>{escape(peaks.line())}</strong></p>"
    )
    return f'<div class="labkit-result">{inside}</div><!-- labkit-result -->'


def explanations_html(comparison: Comparison) -> str:
    """What binds each variant, a sentence each, as HTML."""
    lines = [comparison.explain(name).sentence for name in comparison.names[1:]]
    return "".join(f"<p>{escape(line[0].upper() + line[1:])}</p>" for line in lines)


def explanation_as_html(explanation: Explanation) -> str:
    """What binds a variant, with the evidence, as HTML."""
    first, *others = explanation.lines
    inside = f"<p>{escape(explanation.verdict)}</p><p><strong>{escape(first)}</strong></p>"
    inside += "".join(f"<p>{escape(line)}</p>" for line in others)
    return f'<div class="labkit-result">{inside}</div><!-- labkit-result -->'


def findings_as_html(findings: Findings) -> str:
    """What a profiler found, as HTML."""
    return result_html(findings.head, findings.rows, findings.title)


def recordings_as_html(recordings: Recordings) -> str:
    """Every recorded result with its machine, as HTML."""
    head = ["experiment", "recorded on", "date", "versions", "result"]
    rows = [
        [each.name, each.place, each.date, each.versions, sentence]
        for group in recordings.values()
        for each in group
        for sentence in each.result.sentences
    ]
    inside = html_table(head, rows, "Recorded, not measured here") if rows else ""
    lines = [] if rows else recordings.lines
    lines = [*lines, *(f"skipped {name}: {why}" for name, why in recordings.skipped.items())]
    inside += "".join(f"<p>{escape(line)}</p>" for line in lines)
    return f'<div class="labkit-result">{inside}</div><!-- labkit-result -->'


def result_html(head: Sequence[str], rows: Sequence[Sequence[str]], caption: str) -> str:
    """A table of measured numbers, marked as such."""
    inside = html_table(head, rows, caption)
    return f'<div class="labkit-result">{inside}</div><!-- labkit-result -->'
