"""The benchmarks measure what they say, and write it."""

import pytest
import torch
from measure import peak_memory
from recipe_runs import ROOT, run_python

from speechbrain_kmdanet.processing.kmeans import kmeans

BENCHMARKS = ROOT / "benchmarks"


def cells(line: str) -> list[str]:
    """Texts of a row of a table."""
    return [cell.strip() for cell in line.split("|")[1:-1]]


def test_a_group_is_measured_and_written(tmp_path):
    status, output = run_python(
        BENCHMARKS / "run.py",
        *("--groups", "evaluation", "--repeats", 2),
        *("--threads", 1, "--results", tmp_path),
    )
    assert status == 0, output
    text = (tmp_path / "benchmarks.md").read_text()
    row = next(x for x in text.splitlines() if "SDR of mir_eval" in x)
    _, goal, measured, *_ = cells(row)
    assert goal == "at least 1.5" and float(measured) > 1
    assert text in output
    command = "python benchmarks/run.py --groups evaluation --repeats 2"
    assert f"{command} --threads 1\n" in text


def test_iterations_are_measured_and_written(tmp_path):
    status, output = run_python(
        BENCHMARKS / "iterations.py",
        *("--device", "cpu", "--batch_size", 2, "--seconds", 0.5),
        *("--repeats", 1, "--precisions", "fp32"),
        *("--threads", 1, "--results", tmp_path),
    )
    assert status == 0, output
    text = (tmp_path / "iterations_cpu.md").read_text()
    rows = [cells(x) for x in text.splitlines() if x.startswith("| fp32")]
    assert [row[1] for row in rows] == ["1", "3", "5", "10", "20"]
    # The iterations before the last take no memory.
    assert len({row[-1] for row in rows}) == 1


def test_what_a_gpu_has_to_do_is_done_by_the_cpu(tmp_path):
    status, output = run_python(
        BENCHMARKS / "gpu_check.py",
        *("--device", "cpu", "--threads", 1, "--results", tmp_path),
    )
    assert status == 0, output
    text = (tmp_path / "gpu_check_cpu.md").read_text()
    rows = [cells(x) for x in text.splitlines() if "| at most " in x]
    assert [row[-1] for row in rows] == ["yes"] * 7


def test_an_older_version_without_a_profile_is_refused(tmp_path):
    status, output = run_python(
        BENCHMARKS / "step_profile.py", "--before", tmp_path
    )
    assert status == 2
    assert output.splitlines()[-1].startswith(
        "step_profile.py: error: --before: expected a checkout with "
        "benchmarks/step_profile.py"
    )


def test_rounds_are_compared_one_by_one():
    from rows import AT_LEAST, AT_MOST, Row

    ones = iter([9.0, 1.0, 3.0, 2.0, 7.0])
    gauges = {"one": lambda: next(ones), "other": lambda: 10.0}
    row = Row("", AT_MOST, 0.4, lambda: gauges, factor=2.0, most=3)
    ratio = row.measure(repeats=9)
    assert ratio[:3] == pytest.approx((0.4, 0.2, 0.6))
    assert ratio.least == {"one": 1.0, "other": 10.0}
    assert next(ones) == 7.0  # a round that does not count, and three
    assert row.is_met(ratio) and not row._replace(goal=0.3).is_met(ratio)
    other = row._replace(bound=AT_LEAST)
    assert other.is_met(ratio) and not other._replace(goal=0.5).is_met(ratio)


def test_peak_memory_of_known_sizes():
    def run():
        one, other = torch.zeros(1 << 20), torch.ones(1 << 20)
        total = one + other  # three tensors of 4 MB
        del one
        return other + total

    assert peak_memory(run) == pytest.approx(12, abs=0.01)


@pytest.mark.parametrize(
    "name", ["plain_kmeans", "one_hot_kmeans", "sklearn_kmeans", "torch_kmeans"]
)
def test_peers_find_the_same_centroids(name):
    import peers

    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 200, 5, generator=generator)
    initial = x[:, :2].clone()
    found = getattr(peers, name)(x, initial.clone(), 6)
    ours = kmeans(x, 2, initial_centroids=initial, iterations=6).centroids
    torch.testing.assert_close(found, ours)
