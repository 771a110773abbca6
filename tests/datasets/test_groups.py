"""Groups as the user names them, and words where nobody knows any."""

from pathlib import Path

import pytest
from in_process import invoke
from painted_folder import paint_folder

from difom_cache import load_records, make_manifest
from difom_cache.data import DataSource, belongs_to_val
from difom_cache.errors import DataError, SettingsError


def paint_patients(home: Path, patients: int = 25, frames: int = 2) -> Path:
    """Write pictures called p003_1.png: frame 1 of patient 3."""
    paint_folder(home, patients * frames)
    for kind in ("images", "masks"):
        for number, path in enumerate(sorted((home / kind).iterdir())):
            path.rename(path.with_name(f"p{number // frames:03d}_{number % frames}.png"))
    return home


def test_a_rule_on_file_names_groups_and_no_group_is_torn(tmp_path: Path) -> None:
    home = paint_patients(tmp_path / "ward")
    records = load_records(DataSource(home, group_by=r"^(p\d+)_"))
    assert {record.group for record in records} == {f"ward/p{number:03d}" for number in range(25)}
    val = {record.group for record in records if record.split == "val"}
    assert val == {group for group in {record.group for record in records} if belongs_to_val(group)} and val
    assert not val & {record.group for record in records if record.split == "train"}


def test_a_rule_without_parentheses_names_what_it_finds_and_one_with_several_joins_them(tmp_path: Path) -> None:
    home = paint_patients(tmp_path / "ward", patients=2)
    assert {record.group for record in load_records(DataSource(home, group_by=r"p\d+"))} == {"ward/p000", "ward/p001"}
    several = {record.group for record in load_records(DataSource(home, group_by=r"(p)(\d+)"))}
    assert several == {"ward/p-000", "ward/p-001"}


def test_a_rule_with_a_slash_looks_at_folders(tmp_path: Path) -> None:
    for patient in ("anna", "bert"):
        paint_folder(tmp_path / "all" / patient, 3)
    records = load_records(DataSource(tmp_path / "all", group_by=r"^(\w+)/images"))
    assert {(record.dataset, record.group) for record in records} == {("anna", "anna/anna"), ("bert", "bert/bert")}


def test_a_column_of_a_table_groups_by_stem_file_name_or_id(tmp_path: Path) -> None:
    home = paint_patients(tmp_path / "ward", patients=2, frames=2)
    rows = ["p000_0,x", "p000_1.png,x", "ward/p001_0,y", "images/p001_1.png,y"]
    (tmp_path / "who.csv").write_text("name,patient\n" + "\n".join(rows) + "\n")
    records = load_records(DataSource(home, group_by=f"{tmp_path / 'who.csv'}:patient"))
    assert {(record.image.stem, record.group) for record in records} == {
        ("p000_0", "ward/x"),
        ("p000_1", "ward/x"),
        ("p001_0", "ward/y"),
        ("p001_1", "ward/y"),
    }


def test_a_manifest_can_be_grouped_and_keeps_its_splits(tmp_path: Path) -> None:
    home = paint_patients(tmp_path / "ward")
    before, _ = make_manifest(home, tmp_path / "m.csv")
    after = load_records(DataSource(tmp_path / "m.csv", group_by=r"p\d+"))
    assert [record.split for record in after] == [record.split for record in before]
    assert after[0].group == f"ward/{after[0].image.name[:4]}"


def test_rules_that_do_not_fit_are_one_line(tmp_path: Path) -> None:
    home = paint_patients(tmp_path / "ward", patients=2)
    (tmp_path / "who.csv").write_text("name,patient\np000_0,x\np000_0,y\n")
    (tmp_path / "nameless.csv").write_text("who,patient\np000_0,x\n")
    for rule, error, message in (
        (r"q\d+", DataError, r"no group for 4 records: ward/p000_0"),
        ("(p", SettingsError, "no regular expression"),
        (f"{tmp_path}/who.csv:ward", SettingsError, "expected a column ward, found name, patient"),
        (f"{tmp_path}/who.csv:patient", DataError, "p000_0 is in group x and in group y"),
        (f"{tmp_path}/nameless.csv:patient", SettingsError, "expected a column of file names"),
        (f"{tmp_path}/absent.csv:patient", DataError, "no such file"),
    ):
        with pytest.raises(error, match=message):
            load_records(DataSource(home, group_by=rule))


def test_manifest_says_where_groups_are_unknown(tmp_path: Path) -> None:
    home = paint_patients(tmp_path / "ward", patients=2)
    told = invoke("manifest", str(home))
    assert "groups unknown: every frame its own" in told
    told = invoke("manifest", str(home), "--check", "--allow-leaks")
    assert "groups unknown: every frame its own" in told
    told = invoke("manifest", str(home), "--group-by", r"p\d+")
    assert "groups unknown" not in told
    (home.parent / "CVC-ClinicDB").mkdir()
    paint_folder(home.parent / "CVC-ClinicDB", 1)
    for kind in ("images", "masks"):
        (home.parent / "CVC-ClinicDB" / kind / "000.png").rename(home.parent / "CVC-ClinicDB" / kind / "1.png")
    told = invoke("manifest", str(home), str(home.parent / "CVC-ClinicDB"))
    assert "ward: groups unknown: every frame its own" in told and "CVC-ClinicDB: groups" not in told


def test_manifest_takes_a_pair_of_folders(tmp_path: Path) -> None:
    home = paint_patients(tmp_path / "ward", patients=2)
    pair = ["--images", str(home / "images"), "--masks", str(home / "masks")]
    assert invoke("manifest", *pair) == invoke("manifest", str(home))
    for words in ([str(home), *pair], [], ["--masks", str(home / "masks")]):
        with pytest.raises(SettingsError):
            invoke("manifest", *words)
