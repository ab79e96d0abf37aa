"""Tests of what reproduce.py is made of."""

import math
import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import race
import soundfile
from reproduce import parse_arguments
from reproduction import runs
from reproduction.data import over_seeds, read_scores, subtract, summarise
from reproduction.methods import (
    BY_NAME,
    METHODS,
    ORACLE,
    TABLE_1,
    TABLE_2,
    system_file,
)
from reproduction.plan import (
    Budget,
    Planner,
    make_schedule,
    read_keys,
    select_overrides,
)
from reproduction.runs import read_epoch_minutes
from reproduction.tables import TABLES, write_table
from ruamel.yaml import YAML

from speechbrain_kmdanet.errors import UserError
from speechbrain_kmdanet.utils.evaluation import SeparationReport

KEYS = {
    "segment_seconds": 4.0,
    "curriculum_seconds": 1.6,
    "batch_size": 8,
    "epoch_size": 20000,
    "number_of_epochs": 350,
    "sample_rate": 8000,
    "mix_mode": "min",
}


def write_silence(root, split, durations):
    """Mixtures of some durations in seconds."""
    folder = root / "wav8k" / "min" / split / "mix"
    folder.mkdir(parents=True)
    for index, seconds in enumerate(durations):
        samples = np.zeros(round(8000 * seconds))
        soundfile.write(folder / f"{index}.wav", samples, 8000)
    return root


@pytest.mark.parametrize("hours", [1.0, 5.0, 36.0, 5000.0])
@pytest.mark.parametrize("factor", [1, 2])
@pytest.mark.parametrize("curriculum", [False, True])
def test_hours_of_dynamic_mixing_are_those_asked_for(hours, factor, curriculum):
    schedule = make_schedule(
        Budget(hours, "corpus", None), KEYS, [], factor, curriculum
    )
    options = schedule.options
    size, epochs = options["epoch_size"], options["number_of_epochs"]
    short = options.get("curriculum_epochs", 0)
    seconds = size * (1.6 * short + 4.0 * (epochs - short))
    assert schedule.hours == pytest.approx(seconds / 3600)
    assert schedule.hours == pytest.approx(factor * hours, rel=0.03)
    assert schedule.epochs == epochs
    assert size % 16 == 0 and size <= 20000
    assert curriculum == (short > 0)
    if hours < 200:
        assert abs(epochs - 14 * factor) <= factor


def test_epoch_size_and_epochs_can_be_given():
    budget = Budget(2.0, "corpus", 300)
    options = make_schedule(budget, KEYS, []).options
    assert options["epoch_size"] == 300 and options["number_of_epochs"] == 6
    schedule = make_schedule(Budget(None, "corpus", None), KEYS, [])
    assert schedule.options == {"dynamic_mixing": "corpus", "epoch_size": 20000}
    assert schedule.hours == pytest.approx(350 * 20000 * 4 / 3600)


def test_hours_of_tr_are_those_of_its_segments(tmp_path):
    two = write_silence(tmp_path / "2speakers", "tr", [1.0, 3.0, 5.0, 9.0])
    three = write_silence(tmp_path / "3speakers", "tr", [2.0, 2.0])
    one_epoch = 1 + 3 + 4 + 4
    budget = Budget(10.4 * one_epoch / 3600, None, None)
    schedule = make_schedule(budget, KEYS, [two])
    assert schedule.options == {"number_of_epochs": 10}
    assert schedule.hours == pytest.approx(10 * one_epoch / 3600)
    schedule = make_schedule(budget, KEYS, [two, three])
    assert schedule.epochs == round(10.4 * 12 / 16)
    schedule = make_schedule(budget, KEYS, [two], curriculum=True)
    short_epoch = 1 + 3 * 1.6
    epochs = schedule.epochs
    assert schedule.options["curriculum_epochs"] == round(epochs / 2)
    expected = (short_epoch + one_epoch) / 2 * epochs
    assert schedule.hours == pytest.approx(expected / 3600, rel=0.1)
    with pytest.raises(UserError, match="--hours 0.001 is too short"):
        make_schedule(Budget(0.001, None, None), KEYS, [two])
    with pytest.raises(UserError, match="give more, or a smaller --epoch_siz"):
        make_schedule(Budget(0.001, "corpus", 100), KEYS, [two])


def test_every_method_has_a_yaml_file():
    for method in METHODS:
        assert system_file(method.system).is_file()
        assert {*method.options, *method.test_options} <= set(
            read_keys(method.system)
        )
        assert set(method.paper) <= {
            (train_on, test_on)
            for train_on in ("2", "3", "2+3")
            for test_on in method.tests(train_on)
        }


def test_plus_is_l_10_and_twice_as_long():
    for name in ("kmeans_danet_euclidean", "kmeans_danet_spherical"):
        method, plus = BY_NAME[name], BY_NAME[f"{name}_plus"]
        keys = {**read_keys(plus.system), **plus.options}
        assert keys["train_iterations"] == 10
        assert (method.factor, plus.factor) == (1, 2)
        assert keys["number_of_epochs"] == 700


@pytest.mark.parametrize("corpus", [None, "corpus"])
def test_every_plus_is_trained_twice_as_long(tmp_path, corpus):
    for number in (2, 3):
        for split in ("tr", "cv", "tt"):
            write_silence(tmp_path / f"{number}speakers", split, [1.0])
    plain, plus = {}, {}
    for hours in (None, 60.0):
        budget = Budget(hours, corpus, None)
        planner = Planner(tmp_path, tmp_path / "runs", budget)
        for cell in TABLES["table3"].cells(planner.choose_columns()):
            if cell.method.numbers == ORACLE:
                continue
            run = planner.training(cell.method, cell.train_on, 7)
            epochs = run.options.get("number_of_epochs")
            if epochs is None:
                epochs = read_keys(run.system)["number_of_epochs"]
            name = cell.method.name
            known = plus if "DANet⁺" in cell.method.label else plain
            known[name.removesuffix("_plus"), cell.train_on, hours] = (
                run.hours,
                epochs,
            )
    assert len(plus) == 2 * 2 * 3
    for key, (hours, epochs) in plus.items():
        assert hours == pytest.approx(2 * plain[key][0], rel=0.05), key
        if key[-1] is None:
            # Sec. 4.3: 350 epochs, and 700 of the plus
            assert (plain[key][1], epochs) == (350, 700), key


def test_mixtures_of_any_format_are_found(tmp_path):
    mix = tmp_path / "2speakers" / "wav8k" / "min" / "tr" / "mix"
    write_silence(tmp_path / "2speakers", "tr", [1.0])
    soundfile.write(mix / "1.flac", np.zeros(16000), 8000)
    soundfile.write(mix / "2.WAV", np.zeros(8000), 8000, format="WAV")
    keys = {**KEYS, "number_of_epochs": 1}
    schedule = make_schedule(
        Budget(None, None, None), keys, [tmp_path / "2speakers"]
    )
    assert schedule.hours == pytest.approx(4 / 3600)


def test_l_is_that_of_table_2():
    cells = TABLES["table2"].cells([("2", 2)])
    assert len(cells) == len(TABLE_2)
    for iterations, (method, *_) in zip(TABLE_2, cells):
        keys = {**read_keys(method.system), **method.options}
        assert keys["train_iterations"] == iterations
        assert keys["infer_iterations"] == 20
    assert BY_NAME["kmeans_danet_spherical"] in [cell[0] for cell in cells]


@pytest.mark.parametrize(
    "name, train_on, expected",
    [
        ("danet", "2", [2, 3]),
        ("danet", "2+3", [2, 3]),
        ("danet_fixed", "2", [2]),
        ("danet_fixed", "2+3", [2, 3]),
        ("upit", "3", [3]),
        ("upit", "2+3", []),
        ("oracle_ratio", "2", [2, 3]),
    ],
)
def test_methods_are_tested_on_what_they_can_separate(name, train_on, expected):
    columns = [(train_on, 2), (train_on, 3)]
    cells = TABLES["table3"].cells(columns, [name])
    assert [cell.test_on for cell in cells] == expected
    # There are no data of 3.
    cells = TABLES["table3"].cells(columns[:1], [name])
    assert [cell.test_on for cell in cells] == [x for x in expected if x == 2]


def test_overrides_go_to_the_systems_that_have_them():
    overrides = {
        "hidden_size": "8",
        "infer_iterations": "5",
        "loss": "si_sdr",
        "batch_size": "2",
        "threshold_db": "30",
        "noprogressbar": None,
        "embedding_dim": "6",
    }
    common = {"batch_size", "noprogressbar"}
    trunk = {"hidden_size", "embedding_dim"}
    for system, expected in {
        "danet": common | trunk | {"infer_iterations", "loss"},
        "adanet": common | trunk | {"loss"},
        # This one has a loss of its own
        "dpcl": common | trunk | {"infer_iterations", "threshold_db"},
        # These have a network of their own, with other meanings of the names
        "upit": common | {"hidden_size"},
        "conv_tasnet": common,
        "oracle": common | {"loss"},
    }.items():
        chosen = select_overrides(system, overrides)
        assert set(chosen) == expected, system
        assert chosen.items() <= overrides.items()


def test_settings_of_the_table_are_not_overridden(tmp_path):
    with pytest.raises(UserError, match="--seed is set by the table"):
        Planner(
            tmp_path, tmp_path, Budget(1.0, None, None), (1,), {"seed": "2"}
        )


@pytest.mark.parametrize(
    "overrides, message",
    [
        ({"batch_size": "abc"}, "batch_size must be a positive integer"),
        ({"segment_seconds": "0"}, "segment_seconds must be a number of sec"),
        ({"lr": "["}, "a value that cannot be understood"),
    ],
)
def test_settings_that_cannot_be(tmp_path, overrides, message):
    budget = Budget(1.0, None, None)
    with pytest.raises(UserError, match=message):
        Planner(tmp_path, tmp_path, budget, (1,), overrides)
    fine = {"noise": "/a: b #c", "noprogressbar": None, "dropout": "0"}
    Planner(tmp_path, tmp_path, budget, (1,), fine)


STUB = """\
import os, sys, time
print(*sys.argv[1:], os.getpid(), file=open("called.txt", "w"), flush=True)
time.sleep(float(sys.argv[1]))
sys.exit(3)
"""


@pytest.fixture
def stub(tmp_path, monkeypatch):
    """Stands for train.py; writes what it is called with, and its number."""
    (tmp_path / "train.py").write_text(STUB)
    monkeypatch.setattr(runs, "RECIPE", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "called.txt"


def test_train_is_called_as_a_process(stub):
    assert runs.call_train(["0", "--key", "two words"]) == 3
    assert stub.read_text().startswith("0 --key two words ")


def test_train_is_not_left_behind(stub):
    def stop(*_):
        if stub.is_file() and stub.read_text():
            sys.exit(143)

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
    try:
        with pytest.raises(SystemExit):
            runs.call_train(["60"])
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    with pytest.raises(ProcessLookupError):
        os.kill(int(stub.read_text().split()[-1]), 0)


def write_scores(folder, scores, num_spks=2):
    """What a test writes about some mixtures."""
    report = SeparationReport()
    for name, score in scores.items():
        row = {"num_spks": num_spks, "silent_sources": 0, "si_sdri": score}
        report.add(name, row)
    report.write(folder)
    return report.summary()["si_sdri"]


def test_scores_are_those_of_the_summary(tmp_path):
    scores = {"a": 4.0, "b": 7.5, "c": float("nan"), "d": -1.0}
    summary = write_scores(tmp_path / "2", scores)
    assert summarise(read_scores([tmp_path / "2"], 2)) == summary
    assert summary["scored"] == 3
    # Another number of speakers in the same test
    assert summarise(read_scores([tmp_path / "2"], 3))["mean"] is None
    assert summarise(read_scores([], 2))["mean"] is None


def test_seeds_are_averaged_by_mixture(tmp_path):
    write_scores(tmp_path / "one", {"a": 4.0, "b": 8.0})
    write_scores(tmp_path / "two", {"a": 6.0, "b": 0.0})
    scores = read_scores([tmp_path / "one", tmp_path / "two"], 2)
    assert scores == {"a": 5.0, "b": 4.0}


def test_differences_are_taken_by_mixture():
    rng = np.random.default_rng(0)
    scores = {str(i): x for i, x in enumerate(rng.normal(9, 5, 50))}
    others = {name: x - 0.3 for name, x in scores.items()}
    difference = summarise(subtract(scores, {**others, "more": 1.0}))
    assert difference["mean"] == pytest.approx(0.3)
    assert difference["ci95"] == pytest.approx(0.0, abs=1e-9)
    assert difference["scored"] == 50


def test_time_of_an_epoch(tmp_path):
    log = tmp_path / "train_log.txt"
    log.write_text(
        "epoch: 1, lr: 1.00e-03 - train loss: 1.0e-02, train seconds: 1.20e+02 "
        "- valid loss: 3.0e-02, valid si_sdri: 4.0\n"
        "epoch: 2, lr: 1.00e-03 - train loss: 1.0e-02, train seconds: 7.0 "
        "- valid loss: 3.0e-02, valid si_sdri: 4.0\n"
        "epoch: 3, lr: 1.00e-03 - train loss: 1.0e-02, train seconds: 1.23e+02 "
        "- valid loss: 3.0e-02, valid si_sdri: 4.0\n"
    )
    # The second epoch was interrupted.
    assert read_epoch_minutes(log) == pytest.approx(2.0)
    log.write_text("epoch: 1, lr: 1.00e-03 - train loss: 1.0e-02\n")
    assert read_epoch_minutes(log) is None


def test_command_line():
    options = parse_arguments(
        "table2 --data_folder /data/mix --hours 2.5 -- --lr 0.1 --flag "
        "--a=-1".split()
    )
    assert options.overrides == {"lr": "0.1", "flag": None, "a": "-1"}
    assert options.name == "mix" and options.runs.name == "mix_2.5h"
    assert options.seeds == [1234]
    assert options.results == Path(__file__).resolve().parents[2] / "results"


@pytest.mark.parametrize(
    "arguments, message",
    [
        ("table4 --data_folder x", "invalid choice: 'table4'"),
        ("table1", "required: --data_folder"),
        ("table1 --data_folder x --hours -1", "invalid positive float"),
        ("table1 --data_folder x --epoch_size 9", "goes with --dynamic_mixing"),
        ("table1 --data_folder x -- 5", "expected --KEY VALUE behind --"),
        ("table1 --data_folder x -- --a 5 6", "got '6'"),
        ("table3 --data_folder x --systems y", "invalid choice: 'y'"),
        ("table3 --data_folder x --seeds 1 -2", "invalid seed value: '-2'"),
        ("table1 --data_folder x -- --a 5 --a 6", "--a is given twice"),
    ],
)
def test_bad_command_lines(arguments, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        parse_arguments(arguments.split())
    assert message in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    "arguments, message",
    [
        ("--minutes nan", "invalid positive float"),
        ("--minutes -1", "invalid positive float"),
        ("--evaluations 0", "invalid positive int"),
        ("-- --lr", "expected pairs of --KEY VALUE"),
        ("-- --lr 1 --lr 2", "is given twice"),
    ],
)
def test_bad_command_lines_of_the_race(arguments, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        race.parse_arguments(arguments.split())
    assert message in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("text", ["", "3", "[a]", "a: 3", "a: [", "a: 1\na: 2"])
def test_files_without_candidates(text, tmp_path, capsys):
    path = tmp_path / "race.yaml"
    path.write_text(text)
    assert race.main(["--candidates", str(path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"race.py: error: {path} ")


def test_figures_of_the_paper_fit_its_text():
    # Sec. 3.1 and 4.3, in words
    euclidean, spherical = (figure for _, figure in TABLE_1.values())
    assert spherical - euclidean == pytest.approx(0.3)
    assert TABLE_2[10][0] - euclidean == pytest.approx(1.1)
    assert TABLE_2[10][0] - spherical == pytest.approx(0.8)
    # L = 5 unless stated otherwise
    for name in ("kmeans_danet_euclidean", "kmeans_danet_spherical"):
        assert BY_NAME[name].paper["2", 2] == TABLE_2[5][0]
        assert len(BY_NAME[name].paper) == 6
    assert TABLE_2[20][1] / TABLE_2[1][1] == pytest.approx(4.96, abs=5e-3)
    # Sec. 2.3: ADANet gives a small improvement of 0.1 dB.
    gain = BY_NAME["adanet"].paper["2", 2] - BY_NAME["danet"].paper["2", 2]
    assert gain == pytest.approx(0.1)


def test_several_folders_are_a_list_for_train(tmp_path):
    root = tmp_path / "a folder, with a comma"
    for number in (2, 3):
        for split in ("tr", "cv", "tt"):
            write_silence(root / f"{number}speakers", split, [1.0, 2.0])
    planner = Planner(root, tmp_path / "runs", Budget(None, None, None))
    training = planner.training(BY_NAME["danet"], "2+3", 7)
    folders = [str(root / "2speakers"), str(root / "3speakers")]
    text = f"data_folder: {training.options['data_folder']}"
    assert YAML().load(text) == {"data_folder": folders}
    assert training.folder == tmp_path / "runs" / "danet/2+3speakers/seed7"
    # 350 epochs with their validations, and the test
    assert training.hours == pytest.approx(350 * 6 / 3600)
    assert training.evaluations == 350 * 4 + 4
    # Of both numbers of speakers, and tested at once
    cells = TABLES["table3"].cells([("2+3", 2), ("2+3", 3)], ["danet"])
    assert len(planner.runs(cells)) == 1


def test_tables_have_the_figures_that_there_are(tmp_path):
    planner = Planner(tmp_path, tmp_path, Budget(None, None, None))
    columns = [("2", 2), ("2+3", 3)]
    text = write_table("table3", "mix.v1", columns, planner, tmp_path)
    assert (tmp_path / "table3_mix.v1.md").read_text("utf-8") == text
    assert "| DPCL++                          | 10.8         | –" in text
    assert "None of its runs is done yet." in text
    # Neither methods nor differences without a figure
    assert "uPIT" not in text and "Differences" not in text
    rows = (tmp_path / "table3_mix.v1.csv").read_text("utf-8").splitlines()
    assert "table3,dpcl_plus,2,2,10.8,,,0,,," in rows
    figures = [x.paper[y] for x in METHODS for y in columns if y in x.paper]
    assert len(rows) == 1 + len(figures)


def test_intervals_over_seeds(tmp_path):
    def write(name, scores):
        (tmp_path / name).mkdir()
        rows = [f"{i},2,{score}" for i, score in enumerate(scores)]
        text = "\n".join(["id,num_spks,si_sdri", *rows, ""])
        (tmp_path / name / "per_utterance.csv").write_text(text)
        return tmp_path / name

    ours = [write(f"ours{i}", [1 + i, 3 + i]) for i in (0, 1, 5)]
    theirs = [write(f"theirs{i}", [1, 3, 9]) for i in range(3)]
    # Differences of 0, 1 and 5 dB: their deviation is √7, t is 4.303.
    expected = 4.3027 * math.sqrt(7) / math.sqrt(3)
    found = over_seeds(ours, theirs, 2)
    assert found == pytest.approx(expected, rel=1e-4)
    assert over_seeds(ours[:1], theirs[:1], 2) is None
    assert over_seeds(ours, ours, 2) is None
