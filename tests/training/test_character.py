from pocketfleet.training.character import CHARACTERS, codes


def test_printable_characters_in_their_order_after_the_new_line() -> None:
    # The space is the first of the printable ones (0x20), the tilde the last (0x7e).
    assert codes("\n !~").tolist() == [0, 1, 2, 95]
    assert CHARACTERS == 96
    assert codes("\té\x7f").tolist() == codes(" ??").tolist()
    assert (codes("").shape, codes("a").dtype.name) == ((0,), "int64")
