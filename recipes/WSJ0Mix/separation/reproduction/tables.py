"""The tables: the paper's figures beside ours, as Markdown and as CSV."""

import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from reproduction.data import (
    Scores,
    over_seeds,
    read_scores,
    subtract,
    summarise,
)
from reproduction.methods import (
    BY_NAME,
    METHODS,
    ORACLE,
    TABLE_1,
    TABLE_2,
    Cell,
    Method,
    unfolded,
)
from reproduction.plan import Planner, has_trunk, read_keys
from reproduction.runs import Run, describe_sources, read_epoch_minutes
from speechbrain_kmdanet.utils.jobs import write_whole
from speechbrain_kmdanet.utils.report import (
    NOTHING,
    format_figure,
    format_hours,
    format_markdown,
    format_number,
)

REFERENCE = "kmeans_danet_spherical"
# Settings below the tables: of all trainings, and of those with the trunk.
COMMON = ("segment_seconds", "batch_size", "loss")
TRUNK = ("hidden_size", "num_layers")


class _Figure(NamedTuple):
    """A figure of a table: the paper's, and our scores by mixture, in dB."""

    cell: Cell
    paper: float | None
    scores: Scores
    folders: list[Path]  # of our results, one a seed

    def minus(self, other: "_Figure") -> dict[str, Any]:
        """Mean of the differences by mixture, see :func:`summarise`."""
        return summarise(subtract(self.scores, other.scores))

    def seeds_interval(self, other: "_Figure") -> float | None:
        """Half the 95 % interval of the difference over seeds, if several."""
        number = self.cell.test_on
        return over_seeds(self.folders, other.folders, number)

    def minutes(self) -> float | None:
        """Minutes that an epoch takes, mean over the seeds."""
        logs = [folder.parent / "train_log.txt" for folder in self.folders]
        minutes = [x for x in map(read_epoch_minutes, logs) if x is not None]
        complete = minutes and len(minutes) == len(logs)
        return sum(minutes) / len(minutes) if complete else None

    def paper_minutes(self) -> float:
        """Those of the paper's Table 2."""
        return TABLE_2[_ITERATIONS[self.cell.method.name]][1]


# What a table says about a figure and that of the reference, and what the CSV
# file says beside what it says of all.
_Text = Callable[[_Figure, _Figure], str]
_Columns = Callable[[_Figure, _Figure], dict[str, Any]]
_PLAIN: tuple[_Text, ...] = (
    lambda figure, _: format_number(figure.paper, 1),
    lambda figure, _: format_figure(summarise(figure.scores)),
)


def _paper_gain(figure: _Figure, reference: _Figure) -> str:
    """Difference of the paper's figures."""
    if figure.paper is None or reference.paper is None:
        return NOTHING
    return f"{figure.paper - reference.paper:+.1f}"


def _gain(figure: _Figure, reference: _Figure) -> str:
    """Difference of our figures: over mixtures, and over seeds."""
    if figure is reference:
        return NOTHING
    text = format_figure(figure.minus(reference), signed=True)
    seeds = figure.seeds_interval(reference)
    return text if seeds is None else f"{text} (seeds: ± {seeds:.2f})"


def _ratio(figure: _Figure, reference: _Figure) -> str:
    """How many times the time of the reference ours takes."""
    ours, one = figure.minutes(), reference.minutes()
    return format_number(ours / one if ours and one else None)


_TIMES: tuple[_Text, ...] = (
    lambda figure, one: format_number(figure.paper_minutes()),
    lambda figure, one: format_number(figure.minutes()),
    lambda figure, one: f"{figure.paper_minutes() / one.paper_minutes():.2f}",
    _ratio,
)


def _difference_columns(figure: _Figure, reference: _Figure) -> dict[str, Any]:
    """Columns of the CSV file about a difference, if there is any."""
    if figure is reference or figure.cell.method.numbers == ORACLE:
        return {}
    gain = figure.minus(reference)
    return {
        "difference": gain["mean"],
        "difference_ci95": gain["ci95"],
        "difference_ci95_seeds": figure.seeds_interval(reference),
    }


def _time_columns(figure: _Figure, reference: _Figure) -> dict[str, Any]:
    """Columns of the CSV file about the times of Table 2."""
    return {
        **_difference_columns(figure, reference),
        "train_iterations": _ITERATIONS[figure.cell.method.name],
        "paper_minutes_per_epoch": figure.paper_minutes(),
        "minutes_per_epoch": figure.minutes(),
    }


class _Line(NamedTuple):
    """Names in front, then texts about a method's figure in each column."""

    names: tuple[str, ...]
    method: str
    texts: tuple[_Text, ...] = _PLAIN


class _Part(NamedTuple):
    """Lines with a common header; those without a figure are left out."""

    caption: str
    names: tuple[str, ...]  # header of the names
    headers: tuple[str, ...]  # header of the texts of each column
    lines: list[_Line]


class Table(NamedTuple):
    """A table of the paper. In texts, {data} is the name of the data.

    Arguments
    ---------
    title : str
        Its title.
    methods : sequence of Method
        Methods that it is about.
    parts : tuple
        What is in it.
    reference : str
        Method that the others are compared to.
    columns : tuple
        What is trained on and the number of talkers to test on, pairs; empty
        to have all that there are data for.
    paper : mapping
        The paper's figures by method, where they are not those of Table 3.
    more : callable
        Columns of the CSV file beside those of all tables.
    """

    title: str
    methods: Sequence[Method]
    parts: tuple[_Part, ...]
    reference: str
    columns: tuple[tuple[str, int], ...] = (("2", 2),)
    paper: Mapping[str, float] = {}
    more: _Columns = _difference_columns

    def cells(
        self, columns: Sequence[tuple[str, int]], names: Sequence[str] = ()
    ) -> list[Cell]:
        """Figures to be made.

        Arguments
        ---------
        columns : sequence of tuple
            What to train on and the number of talkers to test on, pairs.
        names : sequence of str
            Names of methods; all by default.

        Returns
        -------
        list of Cell
            Method by method.
        """
        return [
            Cell(method, *column)
            for method in self.methods
            if method.name in names or not names
            for column in columns
            if column[1] in method.tests(column[0])
        ]


_UNFOLDED = {iterations: unfolded(iterations) for iterations in TABLE_2}
_ITERATIONS = {method.name: L for L, method in _UNFOLDED.items()}
TABLES = {
    "table1": Table(
        "Table 1: DANet with two k-means at inference, {data}-2mix",
        [BY_NAME[name] for name in TABLE_1],
        (
            _Part(
                "",
                ("network", "k-means at inference"),
                ("paper, wsj0-2mix (dB)", "ours, {data}-2mix (dB)"),
                [
                    *(
                        _Line(("DANet", metric), name)
                        for name, (metric, _) in TABLE_1.items()
                    ),
                    _Line(
                        ("", "spherical − Euclidean, by mixture"),
                        "danet_spherical",
                        (_paper_gain, _gain),
                    ),
                ],
            ),
        ),
        "danet",
        paper={name: dB for name, (_, dB) in TABLE_1.items()},
    ),
    "table2": Table(
        "Table 2: k-means DANet (spherical) by L, {data}-2mix",
        list(_UNFOLDED.values()),
        (
            _Part(
                "",
                ("L",),
                (
                    "SI-SDRi, paper, wsj0-2mix (dB)",
                    "ours, {data}-2mix (dB)",
                    "minutes an epoch, paper",
                    "ours",
                    "times L = 1, paper",
                    "ours",
                    "SI-SDRi over L = 1, ours (dB)",
                ),
                [
                    _Line((str(L),), method.name, (*_PLAIN, *_TIMES, _gain))
                    for L, method in _UNFOLDED.items()
                ],
            ),
        ),
        _UNFOLDED[1].name,
        paper={_UNFOLDED[L].name: dB for L, (dB, _) in TABLE_2.items()},
        more=_time_columns,
    ),
    "table3": Table(
        "Table 3: all methods, {data}-mix",
        METHODS,
        (
            _Part(
                "SI-SDRi in dB. “2 → 3” is trained on mixtures of 2 speakers "
                "and tested on mixtures of 3. The paper's data are wsj0-mix.",
                ("method",),
                ("{column}, paper", "{column}, ours"),
                [_Line((method.label,), method.name) for method in METHODS],
            ),
            _Part(
                f"Differences to {BY_NAME[REFERENCE].label}, by mixture.",
                ("method",),
                ("{column}",),
                [
                    _Line((method.label,), method.name, (_gain,))
                    for method in METHODS
                    if method.name != REFERENCE
                ],
            ),
        ),
        REFERENCE,
        columns=(),
    ),
}


def write_table(
    name: str,
    data: str,
    columns: Sequence[tuple[str, int]],
    planner: Planner,
    folder: Path,
) -> str:
    """Writes a table, with the figures that there are.

    Arguments
    ---------
    name : str
        Which one.
    data : str
        Name of the data.
    columns : sequence of tuple
        What is trained on and the number of talkers to test on, pairs.
    planner : Planner
        Knows the runs.
    folder : pathlib.Path
        Where NAME_DATA.md and NAME_DATA.csv go.

    Returns
    -------
    str
        The Markdown.
    """
    table = TABLES[name]
    cells = table.cells(columns)
    figures = {}
    for method in table.methods:
        for column in columns:
            cell = Cell(method, *column)
            paper = table.paper.get(method.name, method.paper.get(column))
            folders = planner.results(cell) if cell in cells else []
            scores = read_scores(folders, cell.test_on)
            figures[method.name, column] = _Figure(cell, paper, scores, folders)
    pairs = {
        key: (figure, figures[table.reference, key[1]])
        for key, figure in figures.items()
    }
    rows: list[dict[str, Any]] = []
    for pair in pairs.values():
        row = {"table": name, **_row(pair[0]), **table.more(*pair)}
        # An oracle has the same figure in several columns.
        if (row["mixtures"] or row["paper_si_sdri"]) and row not in rows:
            rows.append(row)
    text = f"# {table.title}\n".format(data=data)
    for part in table.parts:
        text += _write_part(part, data, columns, pairs)
    counts = sorted({row["mixtures"] for row in rows} - {0})
    done = [figure.cell for figure in figures.values() if figure.folders]
    text += "".join(f"\n{note}\n" for note in _notes(done, counts, planner))
    with write_whole(folder / f"{name}_{data}.md") as path:
        path.write_text(text, encoding="utf-8")
    with (
        write_whole(folder / f"{name}_{data}.csv") as path,
        path.open("w", newline="", encoding="utf-8") as file,
    ):
        fields = list(dict.fromkeys(key for row in rows for key in row))
        writer = csv.DictWriter(file, fields, lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({key: _round(x) for key, x in row.items()})
    return text


def _write_part(
    part: _Part,
    data: str,
    columns: Sequence[tuple[str, int]],
    pairs: Mapping[Any, tuple[_Figure, _Figure]],
) -> str:
    """Markdown of a part, nothing without figures."""
    header, lines = [*part.names], []
    for train_on, test_on in columns:
        column = f"{train_on} → {test_on}"
        header += [x.format(data=data, column=column) for x in part.headers]
    for line in part.lines:
        figures = [pairs[line.method, column] for column in columns]
        texts = [text(*pair) for pair in figures for text in line.texts]
        if set(texts) != {NOTHING}:
            lines.append([*line.names, *texts])
    if not lines:
        return ""
    caption = f"\n{part.caption}\n" if part.caption else ""
    return f"{caption}\n{format_markdown(header, lines)}"


def _row(figure: _Figure) -> dict[str, Any]:
    """What a row of the CSV file says about a figure."""
    method, train_on, test_on = figure.cell
    ours = summarise(figure.scores)
    return {
        "method": method.name,
        "trained_on": "" if method.numbers == ORACLE else train_on,
        "tested_on": test_on,
        "paper_si_sdri": figure.paper,
        "si_sdri": ours["mean"],
        "ci95": ours["ci95"],
        "mixtures": ours["scored"],
    }


def _round(value: Any) -> Any:
    """Digits that say something; other values as they are."""
    return round(value, 4) if isinstance(value, float) else value


def _notes(
    done: Sequence[Cell], counts: Sequence[int], planner: Planner
) -> list[str]:
    """Paragraphs below a table: measure, budget, sources."""
    if not done:
        return ["None of its runs is done yet."]
    measure = (
        "SI-SDRi: means over all mixtures of tt "
        f"({' and '.join(map(str, counts))}) with 95 % intervals."
    )
    if len(planner.seeds) > 1:
        measure += (
            f" The score of a mixture is its mean over {len(planner.seeds)} "
            "trainings; an interval over seeds is that of the mean difference "
            "of trainings with one seed (Student's t)."
        )
    trainings = [
        (cell.method, planner.training(*cell[:2], planner.seeds[0]))
        for cell in done
        if cell.method.numbers != ORACLE
    ]
    budget = [_describe_budget(trainings, planner)] if trainings else []
    return [measure, *budget, describe_sources(planner.runs(done))]


def _describe_budget(
    trainings: Sequence[tuple[Method, Run]], planner: Planner
) -> str:
    """What the trainings have in common, and what they have not."""
    hours = {format_hours(run.hours / it.factor) for it, run in trainings}
    text = f"Each training saw {' or '.join(sorted(hours))} of mixtures"
    if any(method.factor > 1 for method, _ in trainings):
        text += " (⁺: twice that)"
    made = "new ones in every epoch" if planner.budget.dynamic_mixing else ""
    seeds = ", ".join(map(str, planner.seeds))
    text += f", {made or 'those of tr'}; seed{'s' * (len(planner.seeds) > 1)} "
    text += f"{seeds}."
    if any(method.curriculum for method, _ in trainings):
        text += " W/ CL, the first half of the epochs has short segments."
    trunks = [x for x in trainings if has_trunk(x[0].system)]
    for names, chosen in ((COMMON, trainings), (TRUNK, trunks)):
        if chosen:
            text += f" {', '.join(_group(name, chosen) for name in names)}."
    without = {it.label for it, _ in trainings if not has_trunk(it.system)}
    if without:
        text += f" {', '.join(sorted(without))} have networks of their own."
    return text


def _group(name: str, trainings: Sequence[tuple[Method, Run]]) -> str:
    """A setting of most trainings, and which ones have another."""
    labels: dict[str, dict[str, None]] = {}
    for method, run in trainings:
        keys = read_keys(run.system, run.options.get("trunk"))
        value = str({**keys, **run.options}.get(name, NOTHING))
        labels.setdefault(value, {})[method.label] = None
    ranked = sorted(labels, key=lambda value: -len(labels[value]))
    others = [f"{value}: {', '.join(labels[value])}" for value in ranked[1:]]
    return f"{name} {ranked[0]}" + f" ({'; '.join(others)})" * bool(others)
