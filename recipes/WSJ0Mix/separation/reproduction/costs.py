"""What runs will cost, told before they start.

Authors
 * The speechbrain_kmdanet developers 2026
"""

import json
from collections import Counter

from reproduction.formatting import format_hours, format_time
from reproduction.runs import DONE, RECORD

# A guess, for the paper's trunk on two cores of a CPU: seconds for an hour of
# mixtures in training, and for a mixture in validation or test.
HOUR_SECONDS = 200.0
EVALUATION_SECONDS = 0.12


def describe_costs(runs, folder):
    """Lists runs, and says how long those that are not done will take.

    Arguments
    ---------
    runs : list of Run
        The runs.
    folder : pathlib.Path
        Folder of all runs, in which speeds are looked up.

    Returns
    -------
    str
        Several lines.

    Raises
    ------
    ValueError
        If a run was made with other settings.
    """
    paces = _read_paces(folder)
    lines, todo, seconds, guesses = [], [], 0.0, 0
    for run in runs:
        state = run.state()
        what = f"test of {run.evaluations} mixtures"
        if not run.test_only:
            what = f"training, {format_hours(run.hours)} of mixtures"
        lines.append(f"  {state:8}{run.title}: {what}")
        if state != DONE:
            todo.append(run)
            pace = paces.get((run.test_only, run.name))
            pace = pace or paces.get((run.test_only, None))
            guesses += pace is None
            seconds += _guess(run.hours, run.evaluations) * (pace or 1.0)
    if not todo:
        return "\n".join([*lines, "All of these runs are done."])
    hours = format_hours(sum(run.hours for run in todo))
    basis = "by the speed of those that are done"
    if guesses:
        basis = "a guess for two CPU cores and the paper's trunk"
    lines.append(
        f"To make: {len(todo)} of {len(runs)} runs, {hours} of mixtures in "
        f"training, about {format_time(seconds)} ({basis})"
    )
    return "\n".join(lines)


def _guess(hours, evaluations):
    """Seconds that a run takes on two cores."""
    return HOUR_SECONDS * hours + EVALUATION_SECONDS * evaluations


def _read_paces(folder):
    """How many times the guess finished runs took.

    By whether they are tests alone, and name; None for all names together.
    """
    took, guessed = Counter(), Counter()
    for path in folder.rglob(RECORD):
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["finished"]:
            hours = record["hours"]
            for name in (record["name"], None):
                took[not hours, name] += record["seconds"]
                guess = _guess(hours, record["evaluations"])
                guessed[not hours, name] += guess
    return {key: took[key] / guessed[key] for key in took}
