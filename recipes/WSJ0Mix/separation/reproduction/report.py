"""Writes a table as Markdown and as CSV.

Authors
 * The speechbrain_kmdanet developers 2026
"""

import csv
import shlex
from pathlib import Path

from reproduction.formatting import format_hours, format_markdown
from reproduction.methods import ORACLE
from reproduction.systems import has_trunk, read_keys

COMMON = ("segment_seconds", "batch_size", "loss")
TRUNK = ("hidden_size", "num_layers")
# Options whose values are paths, and what is written in their place.
PLACEHOLDERS = {
    "--data_folder": "ROOT",
    "--dynamic_mixing": "CORPUS",
    "--separator": "SEPARATOR",
}
LEFT_OUT = ("--runs", "--results")


def write_table(table, planner, stem):
    """Writes a table beside its sources.

    Arguments
    ---------
    table : Table
        The table.
    planner : Planner
        Knows the runs.
    stem : pathlib.Path
        Path without its suffix.

    Returns
    -------
    str
        The Markdown.
    """
    text = f"# {table.title}\n"
    for caption, header, lines in table.parts:
        text += f"\n{caption}\n" if caption else ""
        text += f"\n{format_markdown(header, lines)}"
    text += "".join(f"\n{note}\n" for note in _notes(table, planner))
    stem.parent.mkdir(parents=True, exist_ok=True)
    stem.with_suffix(".md").write_text(text, encoding="utf-8")
    fields = list(dict.fromkeys(key for row in table.rows for key in row))
    path = stem.with_suffix(".csv")
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fields, lineterminator="\n")
        writer.writeheader()
        for row in table.rows:
            writer.writerow({key: _round(row[key]) for key in row})
    return text


def hide_paths(command):
    """The command with names in the place of folders.

    Arguments
    ---------
    command : list of str
        Program and arguments.

    Returns
    -------
    str
        One line, or several with backslashes.
    """
    parts, words = [], iter(command[2:])
    for word in words:
        name, equals, value = word.partition("=")
        if name in LEFT_OUT:
            _ = value if equals else next(words, "")
        elif name in PLACEHOLDERS:
            _ = value if equals else next(words, "")
            parts.append(f"{name} {PLACEHOLDERS[name]}")
        elif Path(word).is_absolute():
            parts.append("PATH")
        elif word.startswith("--") or not parts:
            parts.append(shlex.quote(word))
        else:
            parts[-1] += f" {shlex.quote(word)}"
    lines = [" ".join(command[:2])]
    for part in parts:
        if len(lines[-1]) + len(part) > 77:
            lines.append("   ")
        lines[-1] += f" {part}"
    return " \\\n".join(lines)


def _round(value):
    """Digits that say something; other values as they are."""
    return round(value, 4) if isinstance(value, float) else value


def _notes(table, planner):
    """Paragraphs below a table: measure, budget, sources."""
    done = [cell for cell in table.cells if planner.results(cell)]
    if not done:
        return ["None of its runs is done yet."]
    counts = sorted({row["mixtures"] for row in table.rows} - {0})
    measure = (
        "SI-SDRi: means over all mixtures of tt "
        f"({' and '.join(map(str, counts))}) with 95 % intervals."
    )
    if len(planner.seeds) > 1:
        measure += (
            f" The score of a mixture is its mean over {len(planner.seeds)} "
            "trainings."
        )
    trained = [cell for cell in done if cell.method.numbers != ORACLE]
    budget = [_describe_budget(trained, planner)] if trained else []
    return [measure, *budget, _describe_sources(done, planner)]


def _describe_budget(cells, planner):
    """What the trainings have in common, and what they have not."""
    trainings = [
        (cell.method, planner.training(*cell[:2], planner.seeds[0]))
        for cell in cells
    ]
    hours = {
        format_hours(run.hours / method.factor) for method, run in trainings
    }
    text = f"Each training saw {' or '.join(sorted(hours))} of mixtures"
    if any(method.factor > 1 for method, _ in trainings):
        text += " (⁺: twice that)"
    text += ", those of tr"
    if planner.budget.dynamic_mixing:
        text = text.replace("those of tr", "new ones in every epoch")
    seeds = ", ".join(map(str, planner.seeds))
    text += f"; {'seeds' if len(planner.seeds) > 1 else 'seed'} {seeds}."
    if any(method.curriculum for method, _ in trainings):
        text += " W/ CL, the first half of the epochs has short segments."
    for names, chosen in (
        (COMMON, trainings),
        (TRUNK, [x for x in trainings if has_trunk(x[0].system)]),
    ):
        settings = [_group(name, chosen) for name in names] if chosen else []
        text += f" {', '.join(settings)}." if settings else ""
    without = {x.label for x, _ in trainings if not has_trunk(x.system)}
    if without:
        text += f" {', '.join(sorted(without))} have networks of their own."
    return text


def _group(name, trainings):
    """A setting of most trainings, and which ones have another."""
    labels = {}
    for method, run in trainings:
        value = str({**read_keys(run.system), **run.options}[name])
        labels.setdefault(value, {})[method.label] = None
    ranked = sorted(labels, key=lambda value: -len(labels[value]))
    others = [f"{value}: {', '.join(labels[value])}" for value in ranked[1:]]
    return f"{name} {ranked[0]}" + f" ({'; '.join(others)})" * bool(others)


def _describe_sources(cells, planner):
    """When, with what and from which commit the runs were made."""
    records = [run.record()["about"] for run in planner.runs(cells)]
    found = {key: sorted({x[key] for x in records}) for key in records[0]}
    first, last = found["date"][0], found["date"][-1]
    when = f"on {first}" if first == last else f"from {first} to {last}"
    machine, versions, commit = (
        " and ".join(found[key]) for key in ("machine", "versions", "commit")
    )
    commands = "\n".join(found["command"])
    return (
        f"Measured {when}, {machine}; {versions}; commit {commit}; with\n\n"
        f"```shell\n{commands}\n```"
    )
