import torch
from updates import small_update

from pocketfleet.training.codec.flat_vector import flat_vector, piece_lengths, shaped_like


def test_tensors_stand_in_the_order_of_their_names() -> None:
    tensors = {"b": torch.tensor([[1.0, 2.0], [3.0, 4.0]]).T, "a": torch.tensor(9.0), "c": torch.zeros(0)}
    assert flat_vector(tensors).tolist() == [9.0, 1.0, 3.0, 2.0, 4.0]
    assert piece_lengths(tensors) == (1, 4, 0)
    assert flat_vector({}).tolist() == []


def test_they_come_back() -> None:
    delta = small_update().delta
    found = shaped_like(flat_vector(delta), delta)
    assert list(found) == list(delta)
    assert all(torch.equal(found[name], value) and found[name].shape == value.shape for name, value in delta.items())
