import json

import pytest
from teacher_table import describe_all

from difom_cache import build_teacher, describe_teachers, fetch_weights
from difom_cache.errors import SettingsError, WeightsError
from difom_cache.teachers import TABLE, TEACHERS, TeacherRequest, format_teachers, parse_teacher


@pytest.mark.parametrize(
    ("spec", "parts"),
    [
        ("sam", ("sam", "", None)),
        ("dinov2:large@518", ("dinov2", "large", 518)),
        ("dinov2@518", ("dinov2", "", 518)),
        ("onnx:/a/b@home/net.onnx@224", ("onnx", "/a/b@home/net.onnx", 224)),
        ("onnx:C:/net.onnx", ("onnx", "C:/net.onnx", None)),
        ("hf:owner/model", ("hf", "owner/model", None)),
    ],
)
def test_a_teacher_is_read_as_name_variant_and_size(spec, parts):
    assert parse_teacher(spec) == TeacherRequest(*parts)
    assert parse_teacher(spec).spec == spec


@pytest.mark.parametrize("spec", ["", "@224", ":base"])
def test_a_teacher_without_a_name_is_refused(spec):
    with pytest.raises(SettingsError, match=r"expected a teacher as NAME\[:VARIANT\]\[@PX\]"):
        parse_teacher(spec)


def test_an_unknown_teacher_or_variant_names_the_nearest():
    with pytest.raises(SettingsError, match="no teacher 'dinov22'; did you mean 'dinov2'"):
        build_teacher("dinov22")
    with pytest.raises(SettingsError, match="no variant of mask2former 'swin-l'; did you mean 'swin_l'"):
        build_teacher("mask2former:swin-l")


@pytest.fixture(scope="module")
def described():
    return {entry["teacher"]: entry for entry in describe_teachers()}


def test_every_teacher_is_described_in_plain_json(described):
    assert json.loads(json.dumps(described)) == described
    assert {"sam:vit_h", "dinov2:giant", "oneformer:swin_l", "mask2former:swin_s", "onnx:FILE", "student:..."} <= set(
        described
    )
    assert {t for t, entry in described.items() if entry["default"]} == {
        "sam:vit_b",
        "dinov2:base",
        "dinov2_reg:base",
        "dinov3:base",
        "dinov3_convnext:convnext_base",
        "sam2:hiera_b_plus",
        "sam3:large",
        "radio:h",
        "clip:base",
        "oneformer:swin_l",
        "mask2former:swin_l",
    }


def test_the_table_says_what_the_networks_are():
    held = {entry["teacher"]: entry for entry in json.loads(TABLE.read_text("utf-8"))}
    assert held == {entry["teacher"]: entry for entry in describe_all()}, "run tests/teachers/teacher_table.py"


PUBLISHED = {  # encoders alone: segment-anything's README and arXiv:2304.07193, table 17; in millions
    "sam:vit_b": 89.7,
    "sam:vit_l": 308.3,
    "sam:vit_h": 637.0,
    "dinov2:small": 22.1,
    "dinov2:base": 86.6,
    "dinov2:large": 304.4,
    "dinov2:giant": 1136.5,
}


WHOLE_SAM2 = {"hiera_t": 38.9, "hiera_s": 46.0, "hiera_b_plus": 80.8, "hiera_l": 224.4}
"""Whole models, in millions: SAM 2's README. Decoder and memory are the same in all sizes."""


def test_the_sizes_of_sam_2_differ_as_the_published_ones_do(described):
    rest = {whole - described[f"sam2:{size}"]["parameters"] / 1e6 for size, whole in WHOLE_SAM2.items()}
    assert max(rest) - min(rest) < 0.11


@pytest.mark.parametrize("teacher", PUBLISHED)
def test_parameters_are_those_of_the_published_network(described, teacher):
    assert described[teacher]["parameters"] / 1e6 == pytest.approx(PUBLISHED[teacher], abs=0.06)


TINY = [f"{name}:tiny" for name in TEACHERS if name not in ("hf", "onnx")]


@pytest.mark.parametrize("teacher", TINY)
def test_a_description_is_true_of_the_teacher_that_is_built(described, teacher):
    built = build_teacher(teacher, weights="random", taps=[f"{described[teacher]['taps'][-1]['name']}@native"])
    entry = described[teacher]
    assert entry["input_px"] == built.spec.input_px
    assert {t["name"]: (t["channels"], t["stride_native"]) for t in entry["taps"]} == {
        name: (tap.channels, tap.stride_native) for name, tap in built.spec.native.items()
    }
    if not teacher.startswith(
        ("mask2former", "oneformer", "sam2", "sam3")
    ):  # what the last tap does not need is dropped
        assert entry["parameters"] == sum(p.numel() for p in built.network.parameters())


def test_the_deepest_default_tap_has_the_coarsest_stride(described):
    """As `tests/distill/test_matching.py` has them, where they meet students; neck, last block and last stage are the deepest."""
    taps = {name: entry["default_taps"] for name, entry in described.items() if entry["default"]}
    assert taps["sam:vit_b"] == ["block8@16", "neck@32"]
    assert taps["dinov2:base"] == taps["clip:base"] == ["block5@16", "block11@32"]
    assert [taps[name] for name in taps if name.startswith(("oneformer:", "mask2former:"))] == 2 * [
        ["pixel16@16", "pixel32@32"]
    ]
    assert [taps[name] for name in taps if name.startswith("sam3:")] == [["block23@16", "neck@32"]]
    assert [taps[name] for name in taps if name.startswith("sam2:")] == [["neck16@16", "stage4@32"]]


def test_bytes_of_a_view_are_a_byte_a_value_and_a_scale_a_channel(described):
    assert described["sam:vit_b"]["default_taps"] == ["block8@16", "neck@32"]
    assert described["sam:vit_b"]["view_bytes"] == 768 * (22 * 22 + 4) + 256 * (11 * 11 + 4)


def test_the_table_has_a_line_for_every_teacher_and_a_star_at_the_defaults(described):
    table = format_teachers(list(described.values()), everything=True)
    lines = {line.split()[0]: line for line in table.splitlines() if line}
    assert all(f"{name}{'*' if entry['default'] else ''}" in lines for name, entry in described.items())
    words = ("89.7 M", "0.41", "1024", "block8@16 neck@32", "facebook/sam-vit-base")
    assert all(word in lines["sam:vit_b*"] for word in words)


def test_without_all_the_table_fits_a_terminal_and_leaves_out_what_tests_use(described):
    lines = format_teachers(list(described.values())).splitlines()
    assert max(map(len, lines)) <= 80
    shown = {line.split()[0].rstrip("*") for line in lines[1:] if ":" in line.partition(" ")[0]}
    assert shown == {name for name in described if name.partition(":")[2] not in ("tiny", "tiny_gelu")}
    (gated,) = [line.split() for line in lines if line.startswith("dinov3:7b")]
    assert gated[:5] == ["dinov3:7b", "6716.0", "M", "704", "2.51"] and gated[-1] == "DINOv3"


def test_weights_on_this_machine_are_seen(monkeypatch, tmp_path):
    for folder in ("sam-vit_b", "sam-vit_l"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "config.json").write_text("{}")
    (tmp_path / "sam-vit_b" / "model.safetensors").touch()
    monkeypatch.setenv("DIFOM_WEIGHTS", str(tmp_path))
    entries = {entry["teacher"]: entry for entry in describe_teachers()}
    assert entries["sam:vit_b"]["here"] is True and entries["sam:tiny"]["here"] is None
    assert entries["sam:vit_l"]["here"] is False  # a configuration alone is no weights


def test_fetching_downloads_what_the_teacher_will_look_for(monkeypatch, tmp_path):
    asked = []

    def download(teacher, repository, to):
        asked.append((teacher, repository.name, repository.revision))
        return to

    monkeypatch.setattr("difom_cache.teachers.download.download", download)
    assert fetch_weights("dinov2", tmp_path) == tmp_path / "dinov2-base"
    assert fetch_weights("hf:google/vit-base", tmp_path, "v1") == tmp_path / "hf-google-vit-base"
    assert asked == [
        ("dinov2:base", "facebook/dinov2-base", "main"),
        ("hf:google/vit-base", "google/vit-base", "v1"),
    ]


@pytest.mark.parametrize("teacher", ["sam:tiny", "onnx:net.onnx", "student:run"])
def test_what_has_no_published_weights_cannot_be_fetched(teacher, tmp_path):
    with pytest.raises(SettingsError, match="has no published weights"):
        fetch_weights(teacher, tmp_path)


def test_a_teacher_without_its_weights_says_how_to_get_them(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        WeightsError, match=r"weights fetch mask2former:swin_l --to DIR.*--weights DIR/mask2former-swin_l"
    ):
        build_teacher("mask2former")
