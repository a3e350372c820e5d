import numpy as np

from pocketfleet.device_sim.ledger import Ledger, back_off_s


def test_a_back_off_doubles_up_to_five_hours() -> None:
    assert back_off_s(np.array([1, 2, 3, 4])).tolist() == [30.0, 60.0, 120.0, 240.0]
    assert back_off_s(np.array([10])).tolist() == [30.0 * 2**9]  # 15,360 s
    assert back_off_s(np.array([11, 50, 10**6])).tolist() == [5 * 3600.0] * 3


def test_a_device_that_comes_twice_is_added_to_twice() -> None:
    ledger = Ledger(3)
    ledger.add("dropped", np.array([1, 2, 1]))
    ledger.add("energy_joules", np.array([1, 1]), np.array([0.5, 2.0]))
    assert ledger.column["dropped"].tolist() == [0, 2, 1]
    assert ledger.column["energy_joules"].tolist() == [0.0, 2.5, 0.0]


def test_a_restored_ledger_is_a_copy() -> None:
    ledger = Ledger(2)
    ledger.add("dropped", np.array([0]))
    again = Ledger(2)
    again.restore(ledger.state())
    ledger.add("dropped", np.array([0]))
    assert again.column["dropped"].tolist() == [1, 0]
    for name, column in again.state().items():
        assert column.dtype == Ledger(2).column[name].dtype
    assert np.isnan(again.column["metric_global"]).all()
