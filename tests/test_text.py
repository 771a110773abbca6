"""Words and numbers for people."""

from difom_cache import format_table, name_some


def test_a_long_list_of_names_says_how_many_more_there_are() -> None:
    assert name_some(["a", "b"]) == "a, b"
    assert name_some(list("abcd"), shown=2) == "a, b and 2 more"


def test_a_table_has_words_to_the_left_and_numbers_to_the_right() -> None:
    rows = [["set", "n"], ["a", "10"], ["longer", "7"]]
    assert format_table(rows).splitlines() == ["set      n", "a       10", "longer   7"]
    assert format_table(rows, left=None).splitlines() == ["set     n", "a       10", "longer  7"]
