import gc

import pytest

from pocketfleet.export.collection import collection_put_off


def test_it_is_put_off_until_the_outermost_end_whatever_happens() -> None:
    assert gc.isenabled()
    with pytest.raises(KeyError), collection_put_off():
        with collection_put_off():
            assert not gc.isenabled()
        assert not gc.isenabled()
        raise KeyError
    assert gc.isenabled()
