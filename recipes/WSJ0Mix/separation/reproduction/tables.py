"""The tables: the paper's figures beside ours.

Authors
 * The speechbrain_kmdanet developers 2026
"""

from typing import NamedTuple

from reproduction.formatting import NOTHING, format_figure, format_number
from reproduction.methods import (
    BY_NAME,
    METHODS,
    ORACLE,
    TABLE_1,
    TABLE_2,
    unfolded,
)
from reproduction.plan import Cell
from reproduction.scores import (
    read_epoch_minutes,
    read_scores,
    subtract,
    summarise,
)

REFERENCE = "kmeans_danet_spherical"


class Table(NamedTuple):
    """A table before it is written.

    Arguments
    ---------
    title : str
        Its title.
    parts : list of tuple
        Caption, header and rows of each part, texts all.
    rows : list of dict
        One for each figure, for the CSV file.
    cells : list of Cell
        What figures there are, done or not.
    """

    title: str
    parts: list
    rows: list
    cells: list


def cells_1():
    """Figures of Table 1.

    Returns
    -------
    list of Cell
        DANet with two metrics at inference.
    """
    return [Cell(BY_NAME[name], "2", 2) for name in TABLE_1]


def cells_2():
    """Figures of Table 2.

    Returns
    -------
    list of Cell
        k-means DANet with some numbers of iterations.
    """
    return [Cell(unfolded(iterations), "2", 2) for iterations in TABLE_2]


def cells_3(names, columns):
    """Figures of Table 3.

    Arguments
    ---------
    names : sequence of str
        Names of methods.
    columns : list of tuple
        What to train on and the number of speakers to test on, pairs.

    Returns
    -------
    list of Cell
        Method by method.
    """
    return [
        Cell(method, train_on, test_on)
        for method in METHODS
        if method.name in names
        for train_on, test_on in columns
        if test_on in method.tests(train_on)
    ]


def make_table_1(planner, data_name):
    """Table 1: the same DANet with two metrics of k-means at inference.

    Arguments
    ---------
    planner : Planner
        Knows where the results are.
    data_name : str
        Name of the data.

    Returns
    -------
    Table
        The table.
    """
    cells = cells_1()
    scores = [_scores(planner, cell) for cell in cells]
    header = [
        "network", "k-means at inference", "paper, wsj0-2mix (dB)",
        f"ours, {data_name}-2mix (dB)",
    ]  # fmt: skip
    lines, rows = [], []
    for cell, own in zip(cells, scores):
        metric, paper = TABLE_1[cell.method.name]
        figure = summarise(own)
        lines.append(["DANet", metric, f"{paper:.1f}", format_figure(figure)])
        row = _csv_row("table1", cell, paper, figure)
        rows.append({**row, **_difference(own, scores[0])})
    change = summarise(subtract(scores[1], scores[0]))
    gain = TABLE_1["danet_spherical"][1] - TABLE_1["danet"][1]
    change = format_figure(change, signed=True)
    lines.append(
        ["", "spherical − Euclidean, by mixture", f"+{gain:.1f}", change]
    )
    title = f"Table 1: DANet with two k-means at inference, {data_name}-2mix"
    return Table(title, [("", header, lines)], rows, cells)


def make_table_2(planner, data_name):
    """Table 2: k-means DANet by the number L of iterations in training.

    Arguments
    ---------
    planner : Planner
        Knows where the results are.
    data_name : str
        Name of the data.

    Returns
    -------
    Table
        The table.
    """
    cells = cells_2()
    header = [
        "L", "SI-SDRi, paper, wsj0-2mix (dB)", f"ours, {data_name}-2mix (dB)",
        "minutes an epoch, paper", "ours", "times L = 1, paper", "ours",
    ]  # fmt: skip
    first = _epoch_minutes(planner, cells[0])
    one = next(iter(TABLE_2.values()))[1]
    lines, rows = [], []
    for cell, (iterations, (paper, minutes)) in zip(cells, TABLE_2.items()):
        figure = summarise(_scores(planner, cell))
        ours = _epoch_minutes(planner, cell)
        ratio = ours / first if ours and first else None
        lines.append(
            [
                str(iterations), f"{paper:.1f}", format_figure(figure),
                f"{minutes:.2f}", format_number(ours), f"{minutes / one:.2f}",
                format_number(ratio),
            ]
        )  # fmt: skip
        row = _csv_row("table2", cell, paper, figure)
        times = {"paper_minutes_per_epoch": minutes, "minutes_per_epoch": ours}
        rows.append({**row, "train_iterations": iterations, **times})
    title = f"Table 2: k-means DANet (spherical) by L, {data_name}-2mix"
    return Table(title, [("", header, lines)], rows, cells)


def make_table_3(planner, data_name, columns):
    """Table 3: all methods, by what they are trained and tested on.

    Arguments
    ---------
    planner : Planner
        Knows where the results are.
    data_name : str
        Name of the data.
    columns : list of tuple
        What is trained on and the number of speakers to test on, pairs.

    Returns
    -------
    Table
        The table.
    """
    cells = cells_3(BY_NAME, columns)
    scores = {
        (cell.method.name, *cell[1:]): _scores(planner, cell) for cell in cells
    }
    header, header_2 = ["method"], ["method"]
    for train_on, test_on in columns:
        name = f"{train_on} → {test_on}"
        header += [f"{name}, paper", f"{name}, ours"]
        header_2.append(name)
    lines, lines_2, rows = [], [], []
    for method in METHODS:
        line, line_2 = [method.label], [method.label]
        for column in columns:
            own = scores.get((method.name, *column), {})
            other = scores.get((REFERENCE, *column), {})
            paper = method.paper.get(column)
            figure = summarise(own)
            line += [format_number(paper, 1), format_figure(figure)]
            change = summarise(subtract(own, other))
            line_2.append(format_figure(change, signed=True))
            row = _csv_row("table3", Cell(method, *column), paper, figure)
            if method.numbers != ORACLE:
                row.update(_difference(own, other))
            # An oracle has the same figure in several columns.
            if (own or paper is not None) and row not in rows:
                rows.append(row)
        lines.append(line)
        if method.name != REFERENCE:
            lines_2.append(line_2)
    caption = (
        "SI-SDRi in dB. “2 → 3” is trained on mixtures of 2 speakers and tested "
        "on mixtures of 3. The paper's data are wsj0-mix."
    )
    label = BY_NAME[REFERENCE].label
    parts = [
        (caption, header, _filled(lines)),
        (f"Differences to {label}, by mixture.", header_2, _filled(lines_2)),
    ]
    title = f"Table 3: all methods, {data_name}-mix"
    return Table(title, [part for part in parts if part[2]], rows, cells)


def _filled(lines):
    """Those lines that are more than a label."""
    return [line for line in lines if any(x != NOTHING for x in line[1:])]


def _scores(planner, cell):
    """Scores of a figure by mixture, none if it is not done."""
    return read_scores(planner.results(cell), cell.test_on)


def _epoch_minutes(planner, cell):
    """Mean over the seeds of the minutes an epoch takes, or None."""
    if not planner.results(cell):
        return None
    logs = [
        planner.training(cell.method, cell.train_on, seed).folder
        / "train_log.txt"
        for seed in planner.seeds
    ]
    minutes = [read_epoch_minutes(log) for log in logs]
    return None if None in minutes else sum(minutes) / len(minutes)


def _csv_row(table, cell, paper, figure):
    """What a row of the CSV file says about a figure."""
    oracle = cell.method.numbers == ORACLE
    return {
        "table": table,
        "method": cell.method.name,
        "trained_on": "" if oracle else cell.train_on,
        "tested_on": cell.test_on,
        "paper_si_sdri": paper,
        "si_sdri": figure["mean"],
        "ci95": figure["ci95"],
        "mixtures": figure["scored"],
    }


def _difference(scores, others):
    """Columns of the CSV file about a difference, if there is any."""
    if scores is others:
        return {}
    figure = summarise(subtract(scores, others))
    return {"difference": figure["mean"], "difference_ci95": figure["ci95"]}
