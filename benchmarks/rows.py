"""Rows of the benchmark: what is compared with what, and what is wanted."""

import statistics
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
from measure import Gauge, peak_memory, seconds, take_turns
from peers import (
    one_hot_kmeans,
    peer_sdr,
    plain_kmeans,
    sklearn_kmeans,
    torch_kmeans,
)
from subjects import (
    ITERATIONS,
    ConstantAttractors,
    Loader,
    PeerAttractors,
    Separator,
    TrainingStep,
    make_points,
    make_sources,
    step_seconds,
)
from torch import Tensor

from speechbrain_kmdanet.processing.kmeans import kmeans
from speechbrain_kmdanet.utils.evaluation import evaluate_utterance

AT_MOST, AT_LEAST = "at most", "at least"
L = 5  # iterations of the paper's Table 3
MIXTURE_SECONDS = 10
SAMPLES = 32000  # 4 s, to be evaluated
Gauges = dict[str, Gauge]
Functions = Mapping[str, Callable[..., Any]]
Options = dict[str, Any]  # of a training step


class Ratio(NamedTuple):
    """How many times as much one thing takes as another.

    Arguments
    ---------
    median : float
        Median over the rounds.
    low : float
        Least of them.
    high : float
        Largest of them.
    least : dict
        Least that was measured of each thing, by name.
    """

    median: float
    low: float
    high: float
    least: dict[str, float]


class Row(NamedTuple):
    """One comparison.

    Arguments
    ---------
    what : str
        What is compared with what.
    bound : str
        "at most" or "at least".
    goal : float
        The ratio that is wanted.
    make : callable
        Makes what measures the numerator, then the denominator, by name.
    unit : str
        Unit of what is measured.
    factor : float
        By which the ratio is multiplied.
    most : int
        Number of rounds that are enough, if there is one.
    warm_up : int
        Number of rounds that come first and do not count.
    """

    what: str
    bound: str
    goal: float
    make: Callable[[], Gauges]
    unit: str = "s"
    factor: float = 1.0
    most: int | None = None
    warm_up: int = 1

    def measure(self, repeats: int) -> Ratio:
        """Measures the two in turns.

        Arguments
        ---------
        repeats : int
            Number of rounds.

        Returns
        -------
        Ratio
            Of the first to the second.
        """
        rounds = min(repeats, self.most or repeats)
        found = take_turns(self.make(), rounds, self.warm_up)
        ratios = [self.factor * a / b for a, b in zip(*found.values())]
        least = {name: min(values) for name, values in found.items()}
        return Ratio(statistics.median(ratios), min(ratios), max(ratios), least)

    def is_met(self, ratio: Ratio) -> bool:
        """Whether a median reaches the goal.

        Arguments
        ---------
        ratio : Ratio
            What was measured.

        Returns
        -------
        bool
            Whether it does.
        """
        if self.bound == AT_MOST:
            return ratio.median <= self.goal
        return ratio.median >= self.goal


def _each(
    functions: Functions,
    *arguments: object,
    meter: Callable[[Callable[[], Any]], float] = seconds,
) -> Gauges:
    """Gauges of functions, called with the same arguments."""
    return {
        name: partial(meter, partial(function, *arguments))
        for name, function in functions.items()
    }


def _clustering(functions: Functions) -> Gauges:
    """Functions of points, initial centroids and a number of iterations."""
    return _each(functions, *make_points(), ITERATIONS)


def _our_kmeans(x: Tensor, initial: Tensor, iterations: int) -> None:
    """Our k-means, called like those in peers.py."""
    clusters = initial.shape[1]
    kmeans(x, clusters, initial_centroids=initial, iterations=iterations)


def _read(x: Tensor, initial: Tensor, iterations: int) -> None:
    """Reads the points once an iteration."""
    for _ in range(iterations):
        x.sum()


def _steps(options: Mapping[str, Options], **how: Any) -> Gauges:
    """Training steps with some options each."""
    steps = {name: TrainingStep(**options[name]) for name in options}
    return _each(steps, **how)


def _loading() -> Gauges:
    """The loader of dynamic mixing, and the step that it feeds."""
    step = TrainingStep()
    return {"loader": Loader().batch_seconds, "step": partial(seconds, step)}


def _processes() -> Gauges:
    """Training steps of one process, and of two."""
    numbers = {"one process": 1, "2 processes": 2}
    return {name: partial(step_seconds, numbers[name]) for name in numbers}


def _separating(
    name: str, label: str, num_spks: int | None = None, **options: str
) -> Gauges:
    """Another separator, and ours."""
    mixture = make_sources(1, MIXTURE_SECONDS).sum(2)
    both = {
        label: Separator(name),
        "k-means DANet": Separator("kmeans_danet", **options),
    }
    functions = {x: partial(y, num_spks=num_spks) for x, y in both.items()}
    return _each(functions, mixture)


def _embedding() -> Gauges:
    """Separation, and its embedding network alone."""
    mixture = make_sources(1, MIXTURE_SECONDS).sum(2)
    separator = Separator("kmeans_danet")
    return _each({"whole": separator, "network": separator.embed}, mixture)


def _evaluating() -> Gauges:
    """Evaluation with the SDR, and that SDR of mir_eval."""
    generator = torch.Generator().manual_seed(0)
    sources = torch.randn(SAMPLES, 2, generator=generator)
    estimates = sources + 0.1 * sources.flip(1)
    score = partial(
        evaluate_utterance, sources.sum(1), sources, estimates, True
    )
    return _each(
        {"mir_eval": partial(peer_sdr, sources, estimates), "ours": score}
    )


def _against_peer(name: str, peer: Callable[..., Any]) -> Row:
    """Row of another k-means."""
    make = partial(_clustering, {name: peer, "kmeans": _our_kmeans})
    return Row(f"{name}, over `kmeans`", AT_LEAST, 2.5, make)


def _step_of_peer(name: str, peer: Callable[..., Any]) -> Row:
    """Row of a training step with another k-means."""
    what = f"training step with {name} k-means, over ours, L = {L}"
    theirs: Options = {"attractors": PeerAttractors(peer, L)}
    make = partial(_steps, {name: theirs, "ours": {"iterations": L}})
    return Row(what, AT_LEAST, 1.3, make)


MANY_AND_ONE: dict[str, Options] = {
    "L = 20": {"iterations": 20},
    "L = 1": {"iterations": 1},
}
WITH_AND_WITHOUT: dict[str, Options] = {
    "L = 10": {"iterations": 10},
    "constant": {"attractors": ConstantAttractors()},
}
GROUPS = {
    "clustering": [
        Row(
            "`kmeans`, 10 iterations, over reading its input as often",
            AT_MOST,
            4.0,
            partial(_clustering, {"kmeans": _our_kmeans, "reading": _read}),
        ),
        _against_peer("scikit-learn", sklearn_kmeans),
        _against_peer("torch_kmeans", torch_kmeans),
        _against_peer("a plain PyTorch loop", plain_kmeans),
    ],
    "training": [
        Row(
            "training step, L = 20 over L = 1",
            AT_MOST,
            1.10,
            partial(_steps, MANY_AND_ONE),
        ),
        Row(
            "its peak memory, L = 20 over L = 1",
            AT_MOST,
            1.02,
            partial(_steps, MANY_AND_ONE, meter=peak_memory),
            unit="MB",
            most=2,  # What is allocated does not vary.
        ),
        Row(
            "training step, L = 10 over constant attractors",
            AT_MOST,
            1.10,
            partial(_steps, WITH_AND_WITHOUT),
        ),
        _step_of_peer("ESPnet's", plain_kmeans),
        _step_of_peer("tky823's", one_hot_kmeans),
    ],
    "loader": [
        Row(
            "loader of dynamic mixing, two workers, speeds, over a training "
            "step",
            AT_MOST,
            0.10,
            _loading,
        ),
    ],
    "distributed": [
        Row(
            "mixtures a second, two gloo processes of one thread over one",
            AT_LEAST,
            1.7,
            _processes,
            factor=2.0,
            most=3,  # Starting processes takes long.
            warm_up=0,
        ),
    ],
    "separation": [
        Row(
            "SepFormer over k-means DANet, 10 s",
            AT_LEAST,
            60.0,
            partial(_separating, "sepformer", "SepFormer"),
        ),
        Row(
            "SepFormer over k-means DANet, trunk `stacked`, 10 s",
            AT_LEAST,
            30.0,
            partial(_separating, "sepformer", "SepFormer", trunk="stacked"),
        ),
        Row(
            "Conv-TasNet over k-means DANet, 10 s",
            AT_LEAST,
            15.0,
            partial(_separating, "conv_tasnet", "Conv-TasNet"),
        ),
        Row("k-means DANet over its network, 10 s", AT_MOST, 1.3, _embedding),
    ],
    # The trunk runs once for all talkers, or once for each but the last.
    "recursion": [
        Row(
            f"one and rest over k-means DANet, {num_spks} talkers, 10 s",
            AT_LEAST,
            goal,
            partial(_separating, "one_and_rest", "one and rest", num_spks),
        )
        for num_spks, goal in ((2, 0.5), (3, 1.0), (4, 1.5))
    ],
    "evaluation": [
        Row(
            "SDR of mir_eval, of two talkers, over an evaluation",
            AT_LEAST,
            1.5,
            _evaluating,
        ),
    ],
}
