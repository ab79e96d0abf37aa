"""The benchmarks run and write what they measured."""

from recipe_runs import ROOT, run_python


def test_a_group_is_measured_and_written(tmp_path):
    status, output = run_python(
        ROOT / "benchmarks" / "run.py", "--groups", "evaluation",
        "--repeats", 2, "--threads", 1, "--results", tmp_path,
    )  # fmt: skip
    assert status == 0, output
    text = (tmp_path / "benchmarks.md").read_text()
    row = next(x for x in text.splitlines() if "over SI-SDR alone" in x)
    what, goal, measured, *_ = (cell.strip() for cell in row.split("|")[1:])
    assert goal == "at least 20" and float(measured) > 1
    assert text in output
