"""A refused name is answered with what it may have been."""

from difom_cache.base.errors import name_nearest


def test_a_refusal_lists_few_names_whole_and_of_many_the_nearest() -> None:
    few = name_nearest("codec", "int9", ["packed", "int8"])
    assert few == "there is no codec 'int9'; did you mean 'int8'? known: int8, packed"
    many = name_nearest("module", "layer29.comv", [f"layer{n}.conv" for n in range(300)])
    assert many.startswith("there is no module 'layer29.comv'; did you mean 'layer29.conv'? known: layer29.conv, ")
    assert many.count(".conv") == 9 and many.endswith(", ...")
