import numpy as np

from pocketfleet.device_sim.ledger import Ledger


def waits(failures: int) -> float:
    ledger = Ledger(2)
    for _ in range(failures):
        ledger.drop(1, 1000.0, round_index=4)
    return float(ledger.column["not_before_s"][1]) - 1000.0


def test_a_back_off_doubles_up_to_five_hours() -> None:
    assert [waits(n) for n in (1, 2, 3, 4)] == [30.0, 60.0, 120.0, 240.0]
    assert waits(10) == 30.0 * 2**9  # 15,360 s
    assert waits(11) == waits(50) == 5 * 3600.0


def test_a_drop_is_one_devices_own() -> None:
    ledger = Ledger(3)
    ledger.drop(1, 10.0, round_index=4)
    assert ledger.column["dropped"].tolist() == [0, 1, 0]
    assert ledger.column["dropped_round"].tolist() == [-1, 4, -1]
    assert ledger.column["not_before_s"].tolist() == [0.0, 40.0, 0.0]


def test_a_restored_ledger_is_a_copy() -> None:
    ledger = Ledger(2)
    ledger.drop(0, 5.0, round_index=0)
    again = Ledger(2)
    again.restore(ledger.state())
    ledger.drop(0, 5.0, round_index=1)
    assert again.column["dropped"].tolist() == [1, 0]
    for name, column in again.state().items():
        assert column.dtype == Ledger(2).column[name].dtype
    assert np.isnan(again.column["metric_global"]).all()
