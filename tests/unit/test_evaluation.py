"""Tests of the evaluation of separated mixtures."""

import csv
import json
import math

import pytest
import torch
from mir_eval.separation import bss_eval_sources

from speechbrain_kmdanet.nnet.loss.separation import si_sdr
from speechbrain_kmdanet.utils import evaluation
from speechbrain_kmdanet.utils.evaluation import (
    SeparationReport,
    evaluate_utterance,
)


def make_utterance(samples=2000, num_spks=2):
    """Mixture, sources and noisy estimates in the order of the sources."""
    sources = torch.randn(samples, num_spks)
    estimates = sources + 0.1 * torch.randn(samples, num_spks)
    return sources.sum(1), sources, estimates


def mean_si_sdr(estimates, sources):
    """Mean over the sources, in float64."""
    return float(
        si_sdr(estimates.double()[None], sources.double()[None]).mean()
    )


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 0, 2)])
def test_scores_and_order(order):
    mixture, sources, estimates = make_utterance(num_spks=3)
    scores, ordered = evaluate_utterance(
        mixture, sources, estimates[:, order].requires_grad_()
    )
    assert (ordered == estimates).all()
    expected = mean_si_sdr(estimates, sources)
    # noise 20 dB below
    assert expected == pytest.approx(20, abs=1)
    assert scores == {
        "num_spks": 3,
        "silent_sources": 0,
        "failed_estimates": 0,
        "si_sdr": pytest.approx(expected),
        "si_sdri": pytest.approx(
            expected - mean_si_sdr(mixture[:, None].expand(-1, 3), sources)
        ),
    }


def test_the_mixture_has_no_improvement():
    mixture, sources, _ = make_utterance()
    scores, _ = evaluate_utterance(
        mixture, sources, mixture[:, None].expand(-1, 2)
    )
    assert scores["si_sdri"] == pytest.approx(0, abs=1e-9)


def test_sdr_forgives_a_filter_and_si_sdr_does_not():
    mixture, sources, _ = make_utterance()
    sources[-2:] = 0.0  # so that the end of the filtered ones is not cut
    padded = torch.nn.functional.pad(sources.T, (2, 0))
    filtered = (padded[:, 2:] - padded[:, 1:-1] + 0.5 * padded[:, :-2]).T
    scores, ordered = evaluate_utterance(
        mixture, sources, filtered.flip(1), compute_sdr=True
    )
    # 1 against −1 and 0.5: 10 log₁₀ 1 / 1.25
    assert scores["si_sdr"] == pytest.approx(-0.97, abs=0.5)
    assert scores["sdr"] > 60
    expected, *_ = bss_eval_sources(
        sources.T.double().numpy(), ordered.T.double().numpy(), False
    )
    # No score is beyond 80 dB, which one of a few would make of a mean.
    assert expected.min() > 80 and scores["sdr"] == 80
    assert scores["sdri"] > 50


@pytest.mark.parametrize("samples", [300, 5000])
def test_sdr_is_that_of_mir_eval(samples):
    # As speech, little of whose energy is at high frequencies
    noise = torch.randn(4, samples + 7).double()
    smooth = noise.unfold(1, 8, 1).mean(2).T
    sources, errors = smooth.split(2, dim=1)
    estimates = sources + 0.3 * sources.flip(1) + 0.1 * errors
    scores, _ = evaluate_utterance(sources.sum(1), sources, estimates, True)
    arrays = [x.T.numpy() for x in (sources, estimates)]
    expected = bss_eval_sources(*arrays, False)[0].mean()
    assert scores["sdr"] == pytest.approx(expected, abs=1e-4)


def test_sdr_of_pure_tones():
    times = torch.arange(4000).double().unsqueeze(1)
    sources = (times * torch.tensor([0.1, 0.5])).sin()
    scores, _ = evaluate_utterance(sources.sum(1), sources, sources, True)
    assert scores["sdr"] > 60


def test_a_silent_reference_is_skipped_and_counted():
    mixture, sources, estimates = make_utterance()
    sources[:, 1] = 0.0
    scores, ordered = evaluate_utterance(
        sources.sum(1) + 0.5 * torch.randn(2000),
        sources,
        estimates.flip(1),
        compute_sdr=True,
    )
    assert (ordered == estimates).all()
    assert scores["silent_sources"] == 1
    assert scores["si_sdr"] == pytest.approx(
        mean_si_sdr(estimates[:, :1], sources[:, :1])
    )
    # noise: a filter of 512 taps explains about a quarter of it
    assert scores["sdr"] == pytest.approx(21, abs=1.5)
    assert scores["sdri"] == pytest.approx(14, abs=1.5)


def test_references_all_silent():
    mixture, sources, estimates = make_utterance()
    scores, _ = evaluate_utterance(mixture, 0 * sources, estimates, True)
    assert scores.pop("num_spks") == scores.pop("silent_sources") == 2
    assert scores.pop("failed_estimates") == 0
    assert set(scores) == {"si_sdr", "si_sdri", "sdr", "sdri"}
    assert all(math.isnan(score) for score in scores.values())


@pytest.mark.parametrize("offset", [0.1, -3.0])
def test_a_reference_that_is_an_offset_is_silent(offset):
    mixture, sources, estimates = make_utterance()
    sources[:, 1] = 0.0
    expected, _ = evaluate_utterance(mixture, sources, estimates, True)
    sources[:, 1] = offset
    scores, _ = evaluate_utterance(mixture, sources, estimates, True)
    assert scores == pytest.approx(expected)
    assert scores["silent_sources"] == 1


@pytest.mark.parametrize("bad", [0.25, math.nan])
def test_a_failed_estimate_has_the_least_score(bad):
    mixture, sources, estimates = make_utterance()
    good, _ = evaluate_utterance(mixture, sources, estimates, True)
    assert good["failed_estimates"] == 0
    alone, _ = evaluate_utterance(
        mixture, sources * torch.tensor([0.0, 1.0]), estimates, True
    )
    # One bad sample is enough where it is no number.
    estimates[:, 0] = bad if math.isfinite(bad) else estimates[:, 0]
    estimates[7, 0] = bad
    scores, ordered = evaluate_utterance(mixture, sources, estimates, True)
    assert scores["failed_estimates"] == 1
    assert ordered.isfinite().all() and (ordered[:, 1] == estimates[:, 1]).all()
    # The other one keeps its own.
    for name in ("si_sdr", "sdr"):
        expected = (alone[name] - 80) / 2
        assert scores[name] == pytest.approx(expected, abs=0.3)
        lost = good[name] - scores[name]
        improvements = good[f"{name}i"] - scores[f"{name}i"]
        assert improvements == pytest.approx(lost)


def test_a_silent_estimate_of_a_silent_reference_is_right():
    mixture, sources, estimates = make_utterance()
    sources[:, 0] = estimates[:, 1] = 0.0
    scores, _ = evaluate_utterance(mixture, sources, estimates.flip(1), True)
    assert (scores["silent_sources"], scores["failed_estimates"]) == (1, 0)


@pytest.mark.parametrize("rounding", [0.0, 2**-16])
@pytest.mark.parametrize("spread", [0.02, 1.0])
def test_a_mixture_that_is_its_source_has_no_improvement(rounding, spread):
    # As a file of 16 bits, in which the other talker is silent.
    sources = spread * torch.randn(4000, 2) * torch.tensor([1.0, 0.0])
    mixture = sources.sum(1) + rounding * (2 * torch.rand(4000) - 1)
    estimates = sources + 0.1 * torch.randn(4000, 2)
    scores, _ = evaluate_utterance(mixture, sources, estimates, True)
    assert math.isnan(scores["si_sdri"]) and math.isnan(scores["sdri"])
    assert math.isfinite(scores["si_sdr"]) and math.isfinite(scores["sdr"])


def test_a_mixture_that_is_silent_has_no_improvement():
    source = torch.randn(2000, 1)
    sources = torch.cat([source, -source], dim=1)
    scores, _ = evaluate_utterance(sources.sum(1), sources, sources, True)
    assert math.isnan(scores["si_sdri"]) and math.isnan(scores["sdri"])
    assert scores["si_sdr"] == pytest.approx(80, abs=1)


def test_a_faint_talker_keeps_the_improvements():
    sources = torch.randn(4000, 2) * torch.tensor([100.0, 0.1])
    scores, _ = evaluate_utterance(sources.sum(1), sources, sources)
    # From 60 and −60 dB to the limit
    assert 70 < scores["si_sdri"] < 90


def test_no_special_case_decides_a_mean():
    torch.manual_seed(0)
    report = SeparationReport()
    for index in range(9):
        mixture, sources, estimates = make_utterance()
        if index == 0:
            sources[:, 1] = 0.0
            mixture = sources.sum(1)
        elif index == 1:
            estimates[5] = math.nan
        report.add(
            str(index), evaluate_utterance(mixture, sources, estimates)[0]
        )
    summary = report.summary()
    assert summary["si_sdri"]["scored"] == 8
    assert summary["si_sdri"]["mean"] == pytest.approx((7 * 20 - 80) / 8, abs=1)
    assert str(report).endswith(
        "(9 mixtures; silent references: 1; failed estimates: 2; "
        "without improvement: 1)"
    )


def test_arguments_are_not_changed():
    arguments = make_utterance()
    before = [t.clone() for t in arguments]
    evaluate_utterance(*arguments)
    assert all((a == b).all() for a, b in zip(arguments, before))


def make_report(values):
    """Report of utterances with these SI-SDR improvements."""
    report = SeparationReport()
    for index, value in enumerate(values):
        report.add(
            f"utterance{9 - index}",
            {"num_spks": 2, "silent_sources": index, "si_sdri": value},
        )
    return report


def test_summary_by_hand():
    summary = make_report([1.0, 2.0, math.nan, 6.0]).summary()
    assert summary["utterances"] == 4
    assert summary["silent_sources"] == 0 + 1 + 2 + 3
    assert summary["num_spks"] == 2 and "by_num_spks" not in summary
    # variance (4 + 1 + 9) / 2 = 7 of the three that have a score
    assert summary["si_sdri"] == {
        "mean": pytest.approx(3.0),
        "ci95": pytest.approx(1.959964 * math.sqrt(7 / 3)),
        "scored": 3,
    }


def test_summary_of_little():
    assert SeparationReport().summary() == {
        "utterances": 0,
        "silent_sources": 0,
        "failed_estimates": 0,
        "num_spks": [],
    }
    one = make_report([5.0]).summary()["si_sdri"]
    assert one == {"mean": 5.0, "ci95": 0.0, "scored": 1}
    none = make_report([math.nan]).summary()["si_sdri"]
    assert none == {"mean": None, "ci95": None, "scored": 0}


def test_means_of_each_number_of_speakers():
    values = {2: [1.0, 3.0], 3: [math.nan, 5.0, 9.0]}
    report = SeparationReport()
    for num_spks, improvements in values.items():
        for index, value in enumerate(improvements):
            row = {"num_spks": num_spks, "silent_sources": 0, "si_sdri": value}
            report.add(f"{num_spks}-{index}", row)
    summary = report.summary()
    assert summary["num_spks"] == [2, 3]
    assert summary["si_sdri"]["mean"] == pytest.approx(18 / 4)
    for num_spks, improvements in values.items():
        alone = make_report(improvements).summary()
        part = summary["by_num_spks"][str(num_spks)]
        assert part["utterances"] == len(improvements)
        assert part["si_sdri"] == alone["si_sdri"]
    assert str(report) == (
        "SI-SDRi 4.50 ± 3.35 dB (5 mixtures; without improvement: 1); "
        "of 2 talkers: SI-SDRi 2.00 ± 1.96 dB (2 mixtures); "
        "of 3 talkers: SI-SDRi 7.00 ± 3.92 dB (3 mixtures; "
        "without improvement: 1)"
    )


@pytest.mark.parametrize("num_spks", [2, 3])
def test_files_round_trip(tmp_path, num_spks):
    values = [1.25, math.nan, -6.0]
    report = make_report(values)
    report.rows[-1]["num_spks"] = num_spks
    report.write(tmp_path / "new" / "folder", data_folder="corpus")
    folder = tmp_path / "new" / "folder"
    with open(folder / "per_utterance.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == [
        "utterance7",
        "utterance8",
        "utterance9",
    ]
    read = [float(row["si_sdri"]) for row in reversed(rows)]
    assert read == pytest.approx(values, nan_ok=True)
    assert [int(row["num_spks"]) for row in rows] == [num_spks, 2, 2]
    summary = json.loads(
        (folder / "summary.json").read_text(encoding="utf-8"),
        # NaN is no JSON
        parse_constant=lambda name: pytest.fail(name),
    )
    assert summary == {"data_folder": "corpus", **report.summary()}


def test_an_empty_report_is_written(tmp_path):
    SeparationReport().write(tmp_path)
    assert (tmp_path / "per_utterance.csv").read_text().strip() == "id"
    assert (
        json.loads((tmp_path / "summary.json").read_text())["utterances"] == 0
    )


def test_one_line():
    line = str(make_report([1.0, 3.0]))
    expected = "SI-SDRi 2.00 ± 1.96 dB (2 mixtures; silent references: 1)"
    assert line == expected


def test_an_utterance_of_two_processes_counts_once(monkeypatch):
    def scored(**si_sdris):
        report = SeparationReport()
        for name, value in si_sdris.items():
            scores = {"num_spks": 2, "silent_sources": 0, "si_sdri": value}
            report.add(name, scores)
        return report

    first, second = scored(a=1.0, c=5.0), scored(b=3.0, a=1.0)
    monkeypatch.setattr(evaluation, "gather", lambda rows: [rows, second.rows])
    first.gather()
    assert sorted(row["id"] for row in first.rows) == ["a", "b", "c"]
    assert first.summary()["si_sdri"]["mean"] == 3.0
