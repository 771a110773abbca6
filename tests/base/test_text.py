"""Words and numbers for people."""

from difom_cache.base.text import (
    format_csv,
    format_markdown,
    format_rows,
    format_table,
    guard_cell,
    name_some,
    unguard_cell,
)


def test_a_long_list_of_names_says_how_many_more_there_are() -> None:
    assert name_some(["a", "b"]) == "a, b"
    assert name_some(list("abcd"), shown=2) == "a, b and 2 more"


def test_a_table_has_words_to_the_left_and_numbers_to_the_right() -> None:
    rows = [["set", "n"], ["a", "10"], ["longer", "7"]]
    assert format_table(rows).splitlines() == ["set      n", "a       10", "longer   7"]
    assert format_table(rows, left=None).splitlines() == ["set     n", "a       10", "longer  7"]


def test_a_table_in_markdown_has_its_head_ruled_and_bars_stay_words() -> None:
    rows = [["set", "n"], ["a | b", "10"]]
    assert format_markdown(rows) == "| set | n |\n| --- | --- |\n| a \\| b | 10 |\n"
    assert format_markdown(rows, left=1).splitlines()[1] == "| --- | ---: |"


def test_a_csv_has_the_keys_of_its_first_line_and_no_formula() -> None:
    assert format_csv([{"name": "=1", "n": 2}, {"name": "a,b", "n": -1}]) == 'name,n\n\'=1,2\n"a,b",-1\n'


def test_no_cell_of_a_csv_is_a_formula_and_every_cell_reads_back() -> None:
    for word in ("=HYPERLINK(1)", "+1", "-x", "@a", "\tb", "'=1", "''", "plain", "", "a=b"):
        guarded = guard_cell(word)
        assert not guarded.startswith(("=", "+", "-", "@", "\t", "\r")) and unguard_cell(guarded) == word
    assert format_rows(["name", "value"], [["=1", -0.5]]) == "name,value\n'=1,-0.5\n"
