import csv
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketfleet.device_sim.dl4j_layer import Dl4jLayer, dl4j_profile, layer_seconds, layer_work
from pocketfleet.errors import InputError

PHONES = ("Nexus 6", "Redmi Note 8")
FITS = Path(__file__).parent / "data" / "dl4j_layer_fits.csv"
# The ranges of the published tables: inputs, outputs by kind; batch and positions of all.
RANGES = {
    "dense": ((50, 1000), (500, 10_000)),
    "lstm": ((50, 1000), (50, 1000)),
    "embedding": ((500, 10_000), (50, 1000)),
}
BATCH, POSITIONS = (5, 50), (2, 10)


def fits() -> dict[tuple[str, str], dict[str, float]]:
    lines = [line for line in FITS.read_text().splitlines() if not line.startswith("#")]
    return {
        (row["phone"], row["kind"]): {key: float(row[key]) for key in row if key not in {"phone", "kind"}}
        for row in csv.DictReader(lines)
    }


def fitted_s(layer: Dl4jLayer, phone: str) -> float:
    """The published fit's own formula, sizes counted here anew."""
    own = fits()[phone, layer.kind]
    i, o, examples = layer.inputs, layer.outputs, layer.batch * layer.positions
    weights = 4 * o * (i + o + 1) if layer.kind == "lstm" else i * o
    # A forward product is 2 operations a multiply-add; a step has three such.
    products = {"dense": i * o, "lstm": 4 * o * (i + o), "embedding": 0}[layer.kind]
    return (
        own["constant_s"]
        + 6e-9 * examples * products * own["s_per_gflop"]
        + 1e-6 * weights * own["s_per_mweight"]
        + 1e-6 * examples * o * own["s_per_mactivation"]
        + layer.positions * own["s_per_position"]
    )


@st.composite
def layers(draw: st.DrawFn) -> Dl4jLayer:
    kind = draw(st.sampled_from(("dense", "lstm", "embedding")))
    inputs, outputs = (draw(st.integers(*bounds)) for bounds in RANGES[kind])
    batch, positions = (draw(st.integers(*bounds)) for bounds in (BATCH, POSITIONS))
    return Dl4jLayer(kind=kind, inputs=inputs, outputs=outputs, batch=batch, positions=positions)


@given(layers(), st.sampled_from(PHONES))
def test_a_layer_takes_what_the_published_fit_says(layer: Dl4jLayer, phone: str) -> None:
    # Coefficients are kept to six digits.
    assert layer_seconds(layer, phone=phone) == pytest.approx(fitted_s(layer, phone), rel=1e-4)


@pytest.mark.parametrize("phone", PHONES)
def test_the_median_error_over_the_published_ranges_is_under_a_tenth(phone: str) -> None:
    errors = [
        abs(layer_seconds(layer, phone=phone) / fitted_s(layer, phone) - 1.0)
        for kind, (inputs, outputs) in RANGES.items()
        for i in np.linspace(*inputs, 6, dtype=int).tolist()
        for o in np.linspace(*outputs, 6, dtype=int).tolist()
        for b in (5, 20, 50)
        for layer in [Dl4jLayer(kind=kind, inputs=i, outputs=o, batch=b, positions=6)]
    ]
    assert len(errors) == 3 * 6 * 6 * 3
    assert np.median(errors) < 0.10


def test_a_dense_layer_is_as_the_published_table_has_it() -> None:
    # The table's own row for 1,000 inputs, 10,000 outputs, a batch of 10 and 10 positions: 2.1852 s on a Nexus 6, and
    # within the fit's p90 of 12.5 %.
    layer = Dl4jLayer(kind="dense", inputs=1000, outputs=10_000, batch=10, positions=10)
    assert layer_seconds(layer, phone="Nexus 6") == pytest.approx(2.1852, rel=0.125)


def test_only_phones_that_were_timed_are_told() -> None:
    with pytest.raises(InputError, match=r"timed under DL4J on Nexus 6 and Redmi Note 8, got 'Pixel 8'"):
        layer_seconds(Dl4jLayer(kind="dense", inputs=1, outputs=1, batch=1, positions=1), phone="Pixel 8")
    assert {phone for _, phone in dl4j_profile().efficiencies} == set(PHONES)


def test_a_lstm_has_a_group_for_its_time_steps() -> None:
    (steps,) = [
        group
        for group in layer_work(Dl4jLayer(kind="lstm", inputs=8, outputs=8, batch=2, positions=7))
        if group.operator_class == "lstm_time_step"
    ]
    assert steps.operators == 7
