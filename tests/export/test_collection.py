import gc

import pytest

from pocketfleet.export.collection import collection_put_off


def fails_meanwhile() -> None:
    with collection_put_off():
        with collection_put_off():
            assert not gc.isenabled()
        assert not gc.isenabled()
        raise KeyError


def test_it_is_put_off_until_the_outermost_end_whatever_happens() -> None:
    assert gc.isenabled()
    with pytest.raises(KeyError):
        fails_meanwhile()
    assert gc.isenabled()
