"""The methods of the tables, and the paper's figures.

C. Cadoux, S. Uhlich, M. Ferras and Y. Mitsufuji, "Closing the training/inference
gap for deep attractor networks": SI-SDR improvements in dB on mixtures of WSJ0.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

RECIPE = Path(__file__).resolve().parents[1]
# What trainings and tests are made of: numbers of talkers.
TRAIN_ON = ("2", "3", "2+3")
TEST_ON = (2, 3)
# Which numbers of talkers a method separates: any; those that it has seen in
# training; one alone. Nothing is trained for an oracle.
ANY, SEEN, ONE, ORACLE = "any", "seen", "one", "oracle"
# Curriculum learning of Luo et al.: segments of 100, then of 400 frames.
_CURRICULUM = {"curriculum_seconds": 1.6, "segment_seconds": 6.4}
_EUCLIDEAN, _SPHERICAL = "kmeans_danet_euclidean", "kmeans_danet_spherical"

# Table 1: DANet of the paper's authors, on wsj0-2mix.
TABLE_1 = {"danet": ("Euclidean", 9.6), "danet_spherical": ("spherical", 9.9)}

# Table 2: SI-SDRi on wsj0-2mix and minutes an epoch (RTX 2080 Ti) by L, the
# number of iterations of k-means in training.
TABLE_2 = {
    1: (9.7, 4.60),
    3: (10.2, 6.51),
    5: (10.5, 8.54),
    10: (10.7, 13.45),
    20: (10.7, 22.81),
}

# Table 3: trained on 2, 3 and 2+3 talkers, and tested on 2 and on 3, each. The
# paper cites DANet and ADANet from Luo et al., 2018, and DPCL and DPCL++ from
# Isik et al., 2016; methods without figures are ours.
TABLE_3 = {
    "danet": (9.5,),
    "danet_cl": (10.0, None, None, 8.6),
    "adanet": (9.6,),
    "adanet_cl": (10.4, None, None, 9.1),
    "dpcl": (10.3, 2.1, 8.5, 7.1, 10.5, 7.1),
    "dpcl_plus": (10.8,),
    _EUCLIDEAN: (10.5, 3.0, 7.7, 7.6, 10.2, 8.3),
    f"{_EUCLIDEAN}_plus": (10.8, 3.1, 8.9, 8.4, 10.4, 8.2),
    _SPHERICAL: (10.5, 3.6, 7.7, 7.8, 10.1, 7.8),
    f"{_SPHERICAL}_plus": (10.8, 3.2, 7.6, 7.6, 10.3, 8.0),
}


class Method(NamedTuple):
    """A row of a table.

    Arguments
    ---------
    name : str
        Name on the command line and of the folders.
    label : str
        Name in the tables.
    system : str
        YAML file of the system.
    options : mapping
        Settings of training and test that differ from those of the file.
    test_options : mapping
        Settings that differ in the test alone.
    numbers : str
        ANY, SEEN, ONE or ORACLE.
    weights_of : str
        Method that is trained instead, if the test alone is another.
    factor : int
        How many times the hours of the others it is trained for.
    curriculum : bool
        Whether it is first trained on short segments.
    """

    name: str
    label: str
    system: str
    options: Mapping[str, Any] = {}
    test_options: Mapping[str, Any] = {}
    numbers: str = ANY
    weights_of: str | None = None
    factor: int = 1
    curriculum: bool = False

    @property
    def paper(self) -> dict[tuple[str, int], float]:
        """Figures of Table 3 by (trained on, tested on), in dB."""
        keys = [(numbers, test) for numbers in TRAIN_ON for test in TEST_ON]
        figures = zip(keys, TABLE_3.get(self.name, ()))
        return {key: dB for key, dB in figures if dB is not None}

    def tests(self, train_on: str) -> tuple[int, ...]:
        """Numbers of talkers to test it on, trained on some mixtures."""
        seen = parse_numbers(train_on)
        if self.numbers in (ANY, ORACLE):
            return TEST_ON
        return () if self.numbers == ONE and len(seen) > 1 else seen


class Cell(NamedTuple):
    """One figure of a table.

    Arguments
    ---------
    method : Method
        What is trained.
    train_on : str
        Numbers of talkers that it is trained on: "2", "3" or "2+3".
    test_on : int
        Number of talkers that it is tested on.
    """

    method: Method
    train_on: str
    test_on: int


METHODS = (
    Method(
        "danet_fixed",
        "DANet, fixed attractors (E1)",
        "danet_fixed",
        numbers=SEEN,
    ),
    Method("danet", "DANet, Euclidean k-means (E2)", "danet"),
    Method(
        "danet_cl",
        "DANet, Euclidean k-means, w/ CL",
        "danet",
        _CURRICULUM,
        curriculum=True,
    ),
    Method(
        "danet_spherical",
        "DANet, spherical k-means",
        "danet",
        test_options={"infer_metric": "spherical"},
        weights_of="danet",
    ),
    Method("adanet", "ADANet (E3)", "adanet"),
    Method(
        "adanet_cl",
        "ADANet (E3), w/ CL",
        "adanet",
        _CURRICULUM,
        curriculum=True,
    ),
    Method("dpcl", "DPCL", "dpcl"),
    Method("dpcl_plus", "DPCL++", "dpcl_plus"),
    Method(_EUCLIDEAN, "k-means DANet (Euclidean)", _EUCLIDEAN),
    Method(
        f"{_EUCLIDEAN}_plus",
        "k-means DANet⁺ (Euclidean)",
        f"{_EUCLIDEAN}_plus",
        factor=2,
    ),
    Method(_SPHERICAL, "k-means DANet (spherical)", _SPHERICAL),
    Method(
        f"{_SPHERICAL}_plus",
        "k-means DANet⁺ (spherical)",
        f"{_SPHERICAL}_plus",
        factor=2,
    ),
    Method("chimera", "Chimera++", "chimera", numbers=ONE),
    Method("upit", "uPIT-BLSTM", "upit", numbers=ONE),
    Method("one_and_rest", "one and rest (OR-PIT)", "one_and_rest"),
    Method("blstm_tasnet", "BLSTM-TasNet", "blstm_tasnet", numbers=ONE),
    Method("furcanext", "FurcaNeXt", "furcanext", numbers=ONE),
    Method("conv_tasnet", "Conv-TasNet", "conv_tasnet", numbers=ONE),
    Method("dprnn", "DPRNN", "dprnn", numbers=ONE),
    Method("sepformer", "SepFormer", "sepformer", numbers=ONE),
    *(
        Method(
            f"oracle_{mask}",
            f"oracle: {label} masks",
            "oracle",
            {"mask": mask},
            numbers=ORACLE,
        )
        for mask, label in (
            ("binary", "ideal binary"),
            ("ratio", "ideal ratio"),
            ("wiener", "Wiener-like"),
            ("phase_sensitive", "phase-sensitive"),
        )
    ),
)
BY_NAME = {method.name: method for method in METHODS}


def system_file(system: str) -> Path:
    """The YAML file of a system."""
    return RECIPE / "hparams" / f"{system}.yaml"


def parse_numbers(train_on: str) -> tuple[int, ...]:
    """Numbers of talkers: (2, 3) for "2+3"."""
    return tuple(int(number) for number in train_on.split("+"))


def unfolded(iterations: int) -> Method:
    """Spherical k-means DANet with a number of iterations L in training.

    Arguments
    ---------
    iterations : int
        L.

    Returns
    -------
    Method
        That of Table 3 for L = 5, which is trained once for both tables.
    """
    method = BY_NAME[_SPHERICAL]
    if iterations == 5:
        return method
    return method._replace(
        name=f"{method.name}_L{iterations}",
        label=f"{method.label}, L = {iterations}",
        options={"train_iterations": iterations},
    )
