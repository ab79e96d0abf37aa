"""Any values of any keys: what they describe is made, or refused in a line."""

import warnings

import pytest
from hypothesis import (
    HealthCheck,
    given,
    settings,
    strategies as st,
)
from recipe_runs import BESIDE, OWN, RECIPE, ROOT, SYSTEMS, TRUNK

from speechbrain_kmdanet.errors import UserError
from speechbrain_kmdanet.utils.schema import read_schema
from speechbrain_kmdanet.utils.yaml_layers import (
    load_settings,
    parse_overrides,
    read_layers,
)

SCHEMA = read_schema(ROOT / "hparams" / "schema.yaml")
TRUNKS = {
    "blstm": {},
    "dual_path": {"channels": 4, "hidden_size": 4, "frame_size": 4},
    "stacked": {"channels": 4, "band_size": 4, "frame_size": 4},
}
# Small ones, as some are sizes of networks; and those beyond all bounds.
integers = st.integers(-2, 12) | st.sampled_from(
    [1000, 8000, 44101, -(10**9), 2**31, 2**63, 10**30, 10**400]
)
scalars = (
    st.none()
    | st.booleans()
    | integers
    | st.floats(width=32)
    | st.floats(0, 1)
    | st.text(max_size=6)
    | st.sampled_from(
        ["a\nb", "(1, 2)", "[", "!new:os.system", "<lr>", "1e400", "$a", "~"]
    )
)
values = st.recursive(
    scalars,
    lambda each: (
        st.lists(each, max_size=3)
        | st.dictionaries(st.text(max_size=4) | integers, each, max_size=2)
    ),
    max_leaves=4,
)


# Values that are often right, by what a schema says that they are.
LIKELY = {
    "array": st.lists(st.integers(1, 3) | st.floats(0.5, 2), min_size=1),
    "boolean": st.booleans(),
    "integer": st.integers(1, 7),
    "null": st.none(),
    "number": st.floats(0, 2),
    "string": st.sampled_from(["a", "a$b", "7", "ä: #"]),
}


def expand(schema):
    """A schema, and what it consists of."""
    yield schema
    parts = list(schema.get("anyOf", ()))
    if "$ref" in schema:
        parts.append(SCHEMA["$defs"][schema["$ref"].removeprefix("#/$defs/")])
    for part in parts:
        yield from expand(part)


def values_of(key):
    """Values that a key may have, right ones more often than others."""
    found = []
    for schema in expand(SCHEMA["properties"][key]):
        if "enum" in schema:
            found.append(st.sampled_from(schema["enum"]))
        elif schema.get("type") in LIKELY:
            found.append(LIKELY[schema["type"]])
    return st.one_of(*found, *found, values)


@st.composite
def runs(draw):
    """A system, and settings of some of its keys."""
    system = draw(st.sampled_from(SYSTEMS))
    given = dict(OWN.get(system, {**TRUNK, **BESIDE.get(system, {})}))
    if system not in OWN:
        given["trunk"] = draw(st.sampled_from(sorted(TRUNKS)))
        given.update(TRUNKS[given["trunk"]])
    if given.get("trunk") == "dual_path":
        del given["num_layers"]
    given["schedule"] = draw(st.sampled_from(["intervals", "warm_cool"]))
    given.update(data_folder="unused", output_folder="unused")
    path = RECIPE / "hparams" / f"{system}.yaml"
    layers = {key: given[key] for key in ("trunk", "schedule") if key in given}
    known = sorted(set(read_layers(path, layers)) & set(SCHEMA["properties"]))
    for key in draw(st.lists(st.sampled_from(known), min_size=1, max_size=3)):
        given[key] = draw(values_of(key))
    return path, given


@pytest.mark.filterwarnings("ignore")
@settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(runs())
def test_any_settings(run):
    path, given = run
    try:
        assert {"modules", "checkpointer"} <= set(load_settings(path, given))
    except UserError as error:
        assert "\n" not in str(error) and len(str(error)) < 500


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.text(max_size=40))
def test_any_text_of_options(text):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            assert isinstance(parse_overrides(text), dict)
        except UserError as error:
            assert "\n" not in str(error)
