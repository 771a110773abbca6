"""The cases of the standing attack, by class. Each class is a function of the sound things; all are the same every time."""

import io
import itertools
import json
import os
import random
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
import onnx
from ground import Case
from mutations import flipped, json_mutations, whole_file
from PIL import Image

CACHE, TRAIN = "difom-cache", "difom-train"
Cases = Iterator[Case]
TINY = "--teacher dinov2:tiny@56 --weights random"


def images(sound: Path) -> Cases:
    """Pictures that are none, or not whole, or something else under a picture's name."""
    with Image.open(sound / "data" / "images" / "000.png") as picture:
        whole = picture.convert("RGB")
    command = (CACHE, "manifest", "{ground}/data")

    def case(
        name: str, content: bytes | None, file: str = "x.png", act: Callable[[Path], object] | None = None
    ) -> Case:
        def damage(ground: Path) -> None:
            path = ground / "data" / "images" / file
            mask = ground / "data" / "masks" / f"{path.stem}.png"
            mask.write_bytes((ground / "data" / "masks" / "000.png").read_bytes())
            if content is not None:
                path.write_bytes(content)
            if act is not None:
                act(path)

        return Case("images", name, command, damage, ("data",), names=(path_stem(file),))

    for kind in ("PNG", "JPEG", "TIFF", "BMP", "WEBP"):
        ending = {"JPEG": "jpg", "TIFF": "tif"}.get(kind, kind.lower())
        content = encode(whole, kind)
        for number in range(12):
            yield case(f"{kind} cut at {number}/12", content[: len(content) * number // 12], f"x.{ending}")
        draw = random.Random(zlib.crc32(kind.encode()))
        for number in range(40):
            flipped_content = bytearray(content)
            for _ in range(draw.choice((1, 4, 16))):
                flipped_content[draw.randrange(min(len(content), draw.choice((64, 10**9))))] ^= 1 << draw.randrange(8)
            yield case(f"{kind} flipped {number}", bytes(flipped_content), f"x.{ending}")
    for kind in (
        "EPS",
        "GIF",
        "PPM",
        "DDS",
        "PCX",
        "TGA",
        "ICO",
        "SGI",
        "JPEG2000",
        "PDF",
        "ICNS",
        "SPIDER",
        "XBM",
        "MSP",
    ):
        for file in ("x.png", "x.jpg", "x.tif"):
            with_mode = whole.convert({"XBM": "1", "MSP": "1", "SPIDER": "F", "GIF": "P"}.get(kind, "RGB")).resize(
                (64, 64)
            )
            yield case(f"{kind} as {file}", encode(with_mode, kind), file)
    for mode in ("LAB", "F", "I", "CMYK", "YCbCr", "1", "LA", "I;16"):
        yield case(f"TIFF of {mode}", encode(Image.new(mode, (48, 40)), "TIFF"), "x.tif")
    for width, height in ((0, 5), (2**31 - 1, 2**31 - 1), (60_000, 60_000), (1, 2**24), (2**31, 1)):
        yield case(f"PNG head of {width} x {height}", png_head(width, height))
    for name, text in {
        "text": b"hello",
        "HTML": b"<html>404</html>",
        "zip": b"PK\3\4" + bytes(40),
        "gzip": b"\x1f\x8b" + bytes(9),
    }.items():
        yield case(name, text)
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
    yield case("a pointer in place of a file", pointer)
    special = {
        "a FIFO": os.mkfifo,
        "a folder": Path.mkdir,
        "a dangling link": lambda p: p.symlink_to("/nowhere"),
        "a device": lambda p: p.symlink_to("/dev/zero"),
        "a link to itself": lambda p: p.symlink_to(p.name),
    }
    for name, act in special.items():
        found = case(name, None, act=act)
        yield Case(found.kind, name, found.command, found.damage, found.needs)  # other lines are right: a mask alone
    for name in (
        "a\nb.png",
        "=1+1.png",
        "\x1b[31m.png",
        "a,b.png",
        "'.png",
        " .png",
        "-rf.png",
        "%s.png",
        "a" * 240 + ".png",
    ):
        found = case(repr(name), encode(whole, "PNG"), name)
        yield Case("images", f"named {name!r}"[:60], found.command, found.damage, found.needs)


def masks(sound: Path) -> Cases:
    """Masks that say themselves, and masks that do not: none becomes empty in silence."""
    with Image.open(sound / "data" / "masks" / "000.png") as picture:
        where = np.asarray(picture.convert("L")) > 0
    out = ("--out", "{ground}/m.csv")

    def case(name: str, image: Image.Image, code: int, file: str = "000.png", **more: object) -> Case:
        def damage(ground: Path) -> None:
            (ground / "data" / "masks" / "000.png").unlink()
            image.save(ground / "data" / "masks" / file, **more)

        names = ("000", "--mask-levels") if code == 2 else ()
        return Case(
            "masks", name, (CACHE, "manifest", "{ground}/data", *out), damage, ("data",), (code,), names, ("m.csv",)
        )

    def levels(low: int, high: int, dtype: type = np.uint8) -> Image.Image:
        return Image.fromarray(np.where(where, high, low).astype(dtype))

    for high in (1, 255):
        yield case(f"grey 0 and {high}", levels(0, high), 0)
        yield case(f"16 bits 0 and {high}", levels(0, high, np.uint16), 0)
    yield case("16 bits 0 and 65535", levels(0, 65535, np.uint16), 0)
    yield case("all black", levels(0, 0), 0)
    for high in (2, 3, 7, 20, 50, 100, 127, 128, 129, 150, 180, 200, 230):
        yield case(f"grey 0 and {high}", levels(0, high), 2)
        yield case(f"TIFF 0 and {high}", levels(0, high), 2, "000.tif")
        yield case(f"BMP 0 and {high}", levels(0, high), 2, "000.bmp")
    for high in (2, 100, 256, 300, 1000, 32768, 40000, 65534):
        yield case(f"16 bits 0 and {high}", levels(0, high, np.uint16), 2)
    for third in (1, 2, 50, 100, 127, 128, 200):
        three = np.where(where, 255, 0).astype(np.uint8)
        three[:4, :9] = third
        yield case(f"classes 0, {third} and 255", Image.fromarray(three), 2)
    for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (128, 0, 0), (1, 0, 0)):
        yield case(f"colour {colour}", Image.fromarray(where[..., None] * np.array(colour, np.uint8)), 2)
        palette = Image.fromarray(where.astype(np.uint8)).convert("P")
        palette.putpalette([0, 0, 0, *colour])
        yield case(f"palette {colour}", palette, 2)
    rgba = np.zeros((*where.shape, 4), np.uint8)
    rgba[..., 3] = where * 255
    yield case("alpha", Image.fromarray(rgba), 2)
    yield case("RGB of black and white", Image.fromarray(np.repeat(where[..., None] * np.uint8(255), 3, 2)), 0)
    for quality in (30, 60, 90):
        yield case(f"JPEG of quality {quality}", levels(0, 255).resize((48, 40)), 0, "000.jpg", quality=quality)
        yield case(f"faint JPEG of quality {quality}", levels(0, 120), 2, "000.jpg", quality=quality)
    yield case("another size", Image.new("L", (20, 20)), 2)


def manifests(sound: Path) -> Cases:
    """Manifests as spreadsheets, editors and strangers leave them."""
    text = (sound / "manifest.csv").read_bytes()
    command = (CACHE, "manifest", "{ground}/manifest.csv")

    def case(name: str, content: bytes, codes: tuple[int, ...] = (0, 2)) -> Case:
        return Case(
            "manifests",
            name,
            command,
            lambda ground: (ground / "manifest.csv").write_bytes(content) and None,
            ("data", "manifest.csv"),
            codes,
            ("manifest.csv", "images", "masks"),
        )

    for name, mutation in whole_file().items():
        yield Case(
            "manifests",
            name,
            command,
            lambda g, m=mutation: m(g / "manifest.csv"),
            ("data", "manifest.csv"),
            (2,),
            ("manifest.csv",),
        )
    for separator in (b";", b"\t", b"|"):
        yield case(f"separated by {separator!r}", text.replace(b",", separator), (2,))
    yield case("a byte order mark", b"\xef\xbb\xbf" + text, (0,))
    yield case("lines of Windows", text.replace(b"\n", b"\r\n"), (0,))
    yield case("UTF-16", text.decode().encode("utf-16"), (2,))
    yield case("a line twice", text + text.splitlines(keepends=True)[-1], (2,))
    yield case("an open quote", text + b'"', (2,))
    yield case("one field of a megabyte", text + b"a" * 2**20, (2,))
    yield case("the head alone", text.splitlines(keepends=True)[0], (2,))
    lines = text.decode().splitlines()
    columns = lines[0].split(",")
    values = [
        "",
        "-1",
        "0",
        "\u00b2",
        "1e3",
        "NaN",
        "99999999999",
        "../../../etc/passwd",
        "/dev/zero",
        "a\0b",
        "=1+1",
        "x" * 5000,
    ]
    values += ["train", "TRAIN", "\u202e", "0" * 64, "g" * 64, "{}", '"', "\\", "%00", "48.0", " 48"]
    for column, value in itertools.product(columns, values):
        cells = lines[1].split(",")
        cells[columns.index(column)] = value.replace('"', '""') if '"' not in value else '""""'
        yield case(f"{column} = {value[:20]!r}", "\n".join([lines[0], ",".join(cells), *lines[2:], ""]).encode())
    for column in columns:
        place = columns.index(column)
        less = [",".join(cell for number, cell in enumerate(line.split(",")) if number != place) for line in lines]
        yield case(f"without {column}", "\n".join(less).encode(), (2,))
    for name, mutation in flipped(60, seed=1).items():
        yield Case(
            "manifests", name, command, lambda g, m=mutation: m(g / "manifest.csv"), ("data", "manifest.csv"), (0, 2)
        )


def cache_metadata(sound: Path) -> Cases:
    """Every file of a cache, mutated, under every command that reads caches; verify finds what matters."""
    commands = [
        ("verify", ("verify", "{ground}/feats"), (0, 1, 2), ("feats/damaged.json",)),
        ("info", ("info", "{ground}/feats"), (0, 2), ()),
        ("show", ("show", "{ground}/feats", "--out", "{ground}/v.png"), (0, 2), ("v.png",)),
        ("copy", ("copy", "{ground}/feats", "{ground}/copy"), (0, 2), ("copy",)),
        ("finish", ("finish", "{ground}/feats"), (0, 1, 2), ("feats",)),
        ("export", ("export", "{ground}/feats", "{ground}/f.h5"), (0, 2), ("f.h5",)),
    ]
    others = itertools.cycle(commands[1:])
    for path in sorted((sound / "feats").rglob("*")):
        if not path.is_file():
            continue
        name = str(path.relative_to(sound))
        mutations = list(whole_file().items()) + list(flipped(2, seed=len(name)).items())
        if path.suffix == ".json":
            mutations += list(json_mutations(path, 14, seed=len(name)))
        for change, mutation in mutations:
            found = _may_stay_unseen(path, change)
            for title, command, codes, writes in (commands[0], next(others)):
                yield Case(
                    "cache metadata",
                    f"{title}: {name} {change}",
                    (CACHE, *command),
                    lambda ground, name=name, mutation=mutation: mutation(ground / name),
                    ("feats",),
                    (1, 2) if title == "verify" and not found else codes,
                    ("feats",) if title != "verify" else (),
                    writes,
                )


def _may_stay_unseen(path: Path, change: str) -> bool:
    """Whether a mutation may leave a cache sound: attributes are for people, and so is what identities say beside."""
    if path.name == "zarr.json":
        single = json.loads(path.read_text()).get("data_type") in ("bool", "int8", "uint8")  # they have no byte order
        single = single and "index_codecs" not in change
        same = single and change.endswith(("configuration = null", "configuration = {}", "endian = gone"))
        return same or "attributes" in change or "storage_transformers" in change or change.startswith("flip")
    if path.name in ("identity.json", "source.json"):
        return True  # what an identity says is true by definition, where it can be
    if path.parent.name == "ticks":
        lost = change in ("gone", "a dangling link", "a link to itself")  # a block that is not there yet is no damage
        return lost or change.startswith(("flip", "text")) or "fidelity" in change
    return path.suffix == ".png"


def hdf5(sound: Path) -> Cases:
    """Files that say they are exported caches."""
    command = (CACHE, "import", "{ground}/feats.h5", "{ground}/back")

    def case(name: str, damage: Callable[[Path], object], codes: tuple[int, ...] = (2,)) -> Case:
        def check(ground: Path, code: int) -> str:
            return "a cache was left although the import failed" if code and (ground / "back").exists() else ""

        return Case(
            "HDF5",
            name,
            command,
            lambda ground: damage(ground / "feats.h5") and None,
            ("feats.h5",),
            codes,
            ("feats.h5",),
            ("back",),
            check=check,
        )

    for name, mutation in whole_file().items():
        if name != "longer":
            yield case(name, mutation)
    for name, mutation in flipped(120, seed=2).items():
        yield case(name, mutation, (0, 2))
    names: list[str] = []
    with h5py.File(sound / "feats.h5") as book:
        book.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)

    def change(act: Callable[[h5py.File], object]) -> Callable[[Path], None]:
        def damage(path: Path) -> None:
            with h5py.File(path, "r+") as book:
                act(book)

        return damage

    def replace(name: str, make: Callable[[h5py.File, np.ndarray], object]) -> Callable[[Path], None]:
        def act(book: h5py.File) -> None:
            values = book[name][...]
            del book[name]
            make(book, values)

        return change(act)

    for name in names:
        rebuilt = (0, 2) if name.endswith("statistics.safetensors") else (2,)  # summed up from the codes
        yield case(f"{name} gone", change(lambda b, n=name: b.__delitem__(n)), rebuilt)
        yield case(
            f"{name} a soft link", replace(name, lambda b, v, n=name: b.__setitem__(n, h5py.SoftLink("/records.csv")))
        )
        yield case(
            f"{name} an external link",
            replace(name, lambda b, v, n=name: b.__setitem__(n, h5py.ExternalLink("/etc/passwd", "/a"))),
        )
        yield case(f"{name} a group", replace(name, lambda b, v, n=name: b.create_group(n)))
        yield case(f"{name} shorter", replace(name, lambda b, v, n=name: b.create_dataset(n, data=v[:-2])))
        yield case(f"{name} doubles", replace(name, lambda b, v, n=name: b.create_dataset(n, data=v.astype("c16"))))
        yield case(
            f"{name} filtered",
            replace(name, lambda b, v, n=name: b.create_dataset(n, data=v, compression="gzip", shuffle=True)),
        )
        yield case(
            f"{name} elsewhere",
            replace(
                name,
                lambda b, v, n=name: b.create_dataset(n, v.shape, v.dtype, external=[("/etc/passwd", 0, v.nbytes)]),
            ),
        )
        yield case(
            f"{name} a hole", replace(name, lambda b, v, n=name: b.create_dataset(n, v.shape, v.dtype, chunks=v.shape))
        )
        yield case(f"{name} text", replace(name, lambda b, v, n=name: b.create_dataset(n, data="../../x")))
    for group in ("/", "pictures", f"teachers/{label_of(sound)}"):
        for number, value in enumerate([3, "", "{", "[]", "null", "{}", b"\xff\xfe", np.zeros(4), "[" * 9000]):
            yield case(
                f"identity of {group}, {number}",
                change(lambda b, g=group, v=value: b[g].attrs.__setitem__("identity", v)),
            )
        yield case(f"identity of {group} gone", change(lambda b, g=group: b[g].attrs.__delitem__("identity")))
    for label in ("..", "../x", ".hidden", "-rf", "a b/c", "x\ny", "\u202e", "a" * 250):
        yield case(
            f"a teacher called {label!r:.20}",
            change(lambda b, n=label: b.move(f"teachers/{label_of(sound)}", f"teachers/{n}")),
            (0, 2),
        )


def networks(sound: Path) -> Cases:
    """ONNX files of unknown origin, and the settings beside them."""
    command = (
        *(
            CACHE,
            "extract",
            "--teacher",
            "onnx:{ground}/net.onnx@64",
            "--data",
            "{ground}/data",
            "--cache",
            "{ground}/f",
        ),
        *("--input-size", "64", "--views", "1", "--device", "cpu", "--dry-run"),
    )

    def case(name: str, damage: Callable[[Path], object], codes: tuple[int, ...] = (0, 2)) -> Case:
        return Case(
            "ONNX", name, command, lambda g: damage(g / "net.onnx") and None, ("data", "net.onnx"), codes, ("net.onnx",)
        )

    for name, mutation in whole_file().items():
        if name != "longer":
            yield case(name, mutation, (2,))
    for name, mutation in flipped(60, seed=3).items():
        yield case(name, mutation)

    def edit(change: Callable[[onnx.ModelProto], object]) -> Callable[[Path], None]:
        def damage(path: Path) -> None:
            model = onnx.load(path)
            change(model)
            path.write_bytes(model.SerializeToString())

        return damage

    for kind in ("UINT8", "INT64", "DOUBLE", "FLOAT16", "STRING", "BOOL"):
        wanted = onnx.TensorProto.DataType.Value(kind)
        yield case(
            f"takes {kind}", edit(lambda m, w=wanted: setattr(m.graph.input[0].type.tensor_type, "elem_type", w)), (2,)
        )
    for number in (0, 1, 99, 2**31 - 1):
        yield case(f"opset {number}", edit(lambda m, n=number: setattr(m.opset_import[0], "version", n)))
        yield case(f"IR version {number}", edit(lambda m, n=number: setattr(m, "ir_version", n)))
    for op in ("Nothing", "If", "Loop", "", "PythonOp"):
        yield case(f"operator {op!r}", edit(lambda m, o=op: setattr(m.graph.node[0], "op_type", o)), (2,))
    for domain in ("com.microsoft", "ai.onnx.ml", "../x"):
        yield case(f"domain {domain}", edit(lambda m, d=domain: setattr(m.graph.node[0], "domain", d)), (2,))
    for location in ("/etc/passwd", "../data/images/000.png", "net.onnx", "", "a/../../x"):
        yield case(f"weights at {location!r}", edit(lambda m, where=location: _point_outside(m, where)), (2,))
    for text in (
        "",
        "{",
        "[]",
        "3",
        '{"mean": [NaN, 0, 0]}',
        '{"mean": [1]}',
        '{"mean": "x"}',
        '{"std": [0, 1, 1]}',
        '{"size": -1}',
        '{"size": 1e9}',
        '{"size": "64"}',
        '{"logits": 3}',
        '{"logits": ["x"]}',
        '{"logits": [3]}',
        '{"x": 1}',
        '{"std": [Infinity, 1, 1]}',
        '{"mean": [1e400, 0, 0]}',
        "\u00b2",
        "[" * 9000,
    ):
        yield case(f"FILE.json {text[:30]}", lambda path, t=text: Path(f"{path}.json").write_text(t), (2,))


def _point_outside(model: onnx.ModelProto, location: str) -> None:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    del tensor.external_data[:]
    tensor.external_data.add(key="location", value=location)


def run_metadata(sound: Path) -> Cases:
    """Every file of a run folder, mutated, under the commands that read runs."""
    commands = [
        (
            "evaluate",
            (
                "evaluate",
                "{ground}/run",
                "--data",
                "{ground}/data",
                "--workers",
                "0",
                "--limit",
                "1",
                "--device",
                "cpu",
            ),
            ("run/eval",),
        ),
        (
            "compare",
            ("compare", "{ground}/run", "--out", "{ground}/c", "--no-cost", "--resamples", "50", "--gallery", "1"),
            ("c",),
        ),
        ("curves", ("curves", "{ground}/run", "--out", "{ground}/c.png"), ("c.png",)),
        (
            "predict",
            ("predict", "{ground}/run", "{ground}/data/images", "--out", "{ground}/p", "--device", "cpu"),
            ("p",),
        ),
    ]
    turns = itertools.cycle(commands)
    for path in sorted((sound / "run").rglob("*")):
        if not path.is_file() or (path.suffix == ".png" and path.stem not in ("curves", "000")):
            continue
        name = str(path.relative_to(sound))
        mutations = list(whole_file().items()) + list(flipped(3, seed=len(name)).items())
        if path.suffix in (".json", ".jsonl"):
            mutations += list(json_mutations(path, 20, seed=len(name)))
        for change, mutation in mutations:
            title, command, writes = next(turns)
            yield Case(
                "run metadata",
                f"{title}: {name} {change}",
                (TRAIN, *command),
                lambda ground, name=name, mutation=mutation: mutation(ground / name),
                ("run", "data"),
                (0, 2),
                ("run",),
                writes,
            )


def recipes(sound: Path) -> Cases:
    """Recipes and settings from elsewhere; what can be trained is stopped by a cache that is not there."""
    start = ("--cache", "{ground}/nowhere", "--out", "{ground}/r", "--device", "cpu")

    def case(name: str, text: bytes, *settings: str) -> Case:
        return Case(
            "recipes",
            name,
            (TRAIN, "--recipe", "{ground}/x.toml", *start),
            lambda ground: (ground / "x.toml").write_bytes(text) and None,
            (),
            (2,),
            ("x.toml", "nowhere", *settings),
        )

    texts = [
        b"",
        b"seed",
        b"[",
        b"seed = 1\nseed = 2",
        b"\xff",
        b"x = 1",
        b"[x]",
        b"[student]\nname = 3",
        b"[student]\nwidth = -1",
    ]
    texts += [
        b"a" * 10**6,
        b"[optimiser]\nlr = nan",
        b"[optimiser]\nlr = inf",
        b"[optimiser]\nepochs = 0",
        b"[data]\nscales = []",
    ]
    texts += [
        b"[data]\nscales = [nan]",
        b"[distill]\nkind = '../x'",
        b"[distill]\nteachers = 'x'",
        b"[machine]\ndevice = 'gpu9'",
        b"student = 3",
    ]
    for number, text in enumerate(texts):
        yield case(f"text {number}", text, "distillation", "student", "optimiser", "data", "machine")
    keys = [
        "student.name",
        "student.width",
        "data.input_px",
        "data.batch_size",
        "data.labels_frac",
        "data.scales",
        "colour.hue",
    ]
    keys += [
        "optimiser.lr",
        "optimiser.epochs",
        "optimiser.clip_norm",
        "machine.precision",
        "distill.kind",
        "distill.channels",
        "seed",
    ]
    values = [
        "-1",
        "0",
        "1e400",
        "nan",
        "''",
        "'\u00b2'",
        "[]",
        "{}",
        "[[1]]",
        "true",
        "99999999999999999999",
        "'../../x'",
        "2026-01-01",
    ]
    for key, value in itertools.product(keys, values):
        section, _, name = key.rpartition(".")
        yield case(
            f"{key} = {value}", (f"[{section}]\n" if section else "").encode() + f"{name} = {value}\n".encode(), key
        )
        yield Case(
            "recipes", f"--set {key}={value}", (TRAIN, *start, "--set", f"{key}={value.strip(chr(39))}"), codes=(2,)
        )


def out_paths(sound: Path) -> Cases:
    """Places to write to that are none: files, below files, dangling links, folders, devices, names too long."""

    def lay(ground: Path) -> None:
        (ground / "file").write_text("mine")
        (ground / "full").mkdir()
        (ground / "full" / "mine.txt").write_text("mine")
        (ground / "dangling").symlink_to(ground / "nowhere" / "x")
        (ground / "loop").symlink_to(ground / "loop")
        os.mkfifo(ground / "fifo")

    places = [
        "file",
        "file/below",
        "full",
        "full/mine.txt/x",
        "dangling",
        "dangling/x",
        "loop",
        "fifo",
        "fifo/x",
        "n" * 300,
        "",
        "/dev/full",
    ]
    places += ["/dev/null/x", "/proc/x", "/sys/x/y"]
    small = "--input-size 64 --views 1 --device cpu"
    narrow = "--student unet --width 4 --epochs 1 --device cpu --input-size 32 --batch-size 4 --recipe baseline"
    commands = {
        "extract": (f"extract {TINY} --data {{ground}}/data {small} --cache", "", "data"),
        "show": ("show {ground}/feats --out", "", "feats"),
        "manifest": ("manifest {ground}/data --out", "", "data"),
        "montage": ("manifest {ground}/data --check --montage", "", "data"),
        "names": ("manifest {ground}/data --names", "", "data"),
        "sample": ("sample", "--train 1 --test 1 --side 64", ""),
        "copy": ("copy {ground}/feats", "", "feats"),
        "export": ("export {ground}/feats", "", "feats"),
        "import": ("import {ground}/feats.h5", "", "feats.h5"),
        "info": ("info", "", ""),
        "verify": ("verify", "", ""),
        "finish": ("finish", "", ""),
        "drop": ("drop", f"--teacher {label_of(sound)}", ""),
        "curves": ("curves {ground}/run --out", "", "run"),
        "compare": ("compare {ground}/run --no-cost --resamples 20 --gallery 1 --out", "", "run data"),
        "predict": ("predict {ground}/run {ground}/data/images --device cpu --out", "", "run data"),
        "evaluate": ("evaluate {ground}/run --data {ground}/data --workers 0 --limit 1 --out", "", "run data"),
        "torch file": ("export {ground}/run --format torch --out", "", "run"),
        "train": (f"{narrow} --cache {{ground}}/feats --out", "", "feats"),
    }
    in_train = ("curves", "compare", "predict", "evaluate", "torch file", "train")
    for (title, (before, after, needs)), place in itertools.product(commands.items(), places):
        where = place if place.startswith("/") or not place else f"{{ground}}/{place}"
        program = TRAIN if title in in_train else CACHE
        codes = (0, 2) if place in ("full", "dangling", "/dev/full") else (2,)
        codes = (0, 1, 2) if title in ("manifest", "montage", "names") else codes
        if title in ("evaluate", "compare", "predict", "names", "sample") or place == "file":
            codes = (0, *codes)
        yield Case(
            "out paths",
            f"{title} to {place[:20]!r}",
            (program, *before.split(), where, *after.split()),
            lay,
            tuple(needs.split()),
            codes,
            (),
            ("full", "nowhere", "dangling", *(("file",) if title in ("manifest", "montage") else ())),
            check=_nothing_lost,
        )


def _nothing_lost(ground: Path, code: int) -> str:
    mine = ground / "full" / "mine.txt"
    return "" if mine.is_file() and mine.read_text() == "mine" else "a file that lay there is lost"


def full_disks(sound: Path) -> Cases:
    """Disks that are full after so many bytes: nothing half-written is left under its name, and the same command works later."""
    small = "--input-size 64 --views 1 --device cpu"
    narrow = "--student unet --width 4 --epochs 1 --device cpu --input-size 32 --batch-size 4 --recipe baseline"
    commands = {
        "extract": (f"{CACHE} extract {TINY} --data {{ground}}/data --cache {{ground}}/out {small}", "data"),
        "show": (f"{CACHE} show {{ground}}/feats --out {{ground}}/out.png", "feats"),
        "manifest": (f"{CACHE} manifest {{ground}}/data --force --out {{ground}}/out", "data"),
        "montage": (f"{CACHE} manifest {{ground}}/data --check --montage {{ground}}/out.png", "data"),
        "sample": (f"{CACHE} sample {{ground}}/out --train 2 --test 1 --side 64", ""),
        "copy": (f"{CACHE} copy {{ground}}/feats {{ground}}/out", "feats"),
        "export": (f"{CACHE} export {{ground}}/feats {{ground}}/out", "feats"),
        "import": (f"{CACHE} import {{ground}}/feats.h5 {{ground}}/out", "feats.h5"),
        "curves": (f"{TRAIN} curves {{ground}}/run --out {{ground}}/out.png", "run"),
        "compare": (
            f"{TRAIN} compare {{ground}}/run --no-cost --resamples 20 --gallery 1 --out {{ground}}/out",
            "run data",
        ),
        "predict": (
            f"{TRAIN} predict {{ground}}/run {{ground}}/data/images --device cpu --out {{ground}}/out",
            "run data",
        ),
        "evaluate": (
            f"{TRAIN} evaluate {{ground}}/run --data {{ground}}/data --workers 0 --limit 2 --out {{ground}}/out",
            "run data",
        ),
        "train": (f"{TRAIN} {narrow} --cache {{ground}}/feats --out {{ground}}/out", "feats"),
    }
    sizes = (0, 1, 50, 300, 900, 2000, 5000, 12_000, 40_000)
    for (title, (words, needs)), size_bytes in itertools.product(commands.items(), sizes):
        # once there, an export stays as it is and a run wants --resume: the same command is then right to refuse
        again = f"{words} --force" if title == "predict" else words  # what was finished is there already
        then = tuple(again.split()) if title not in ("export", "import", "train") else ()
        yield Case(
            "full disks",
            f"{title} at {size_bytes} bytes",
            tuple(words.split()),
            needs=tuple(needs.split()),
            codes=(0, 1, 2) if title == "montage" else (0, 2),
            writes=("out", "out.png", "out.check.json", "out.check.png"),
            file_bytes=size_bytes,
            then=then,
            check=_whole_or_absent,
        )


def _whole_or_absent(ground: Path, code: int) -> str:
    for path in ground.rglob("*"):
        if not path.is_file() or path.is_symlink():
            continue
        if path.suffix in (".png", ".jpg"):
            try:
                with Image.open(path) as picture:
                    picture.load()
            except Exception as error:
                return f"{path.relative_to(ground)} is not whole: {error}"
        if code and path.parent == ground and path.name in ("out", "out.png") and path.stat().st_size == 0:
            return f"{path.name} was left empty"
    return ""


def options(sound: Path) -> Cases:
    """Values that no option can have."""
    numbers = [
        "-1",
        "0",
        "1.5",
        "nan",
        "inf",
        "",
        "\u00b2",
        "\u0663",
        "1e9",
        "99999999999999999999",
        "0x10",
        "a,b",
        "--",
        "1,2",
    ]
    extract = (
        "extract",
        "--teacher",
        "dinov2:tiny@56",
        "--weights",
        "random",
        "--data",
        "{ground}/data",
        "--cache",
        "{ground}/f",
    )
    small = ("--input-size", "64", "--views", "1", "--device", "cpu", "--dry-run")
    flags = [
        "--views",
        "--seed",
        "--input-size",
        "--batch-size",
        "--limit",
        "--strides",
        "--workers",
        "--epochs",
        "--runs",
        "--part",
    ]
    for flag, value in itertools.product(flags, numbers):
        yield Case("options", f"extract {flag} {value!r}", (CACHE, *extract, *small, flag, value), needs=("data",))
    words = ["", "x", "../x", "a" * 300, "\0", "cuda:99", "\u202e", "-", "{}", "None"]
    words_flags = [
        "--teacher",
        "--weights",
        "--plan",
        "--codec",
        "--taps",
        "--split",
        "--device",
        "--precision",
        "--engine",
        "--scheduler",
        "--jobs",
    ]
    for flag, value in itertools.product(words_flags, words):
        yield Case("options", f"extract {flag} {value!r}"[:60], (CACHE, *extract, *small, flag, value), needs=("data",))
    for flag, value in itertools.product(["--record", "--view"], [*words, *numbers[:5], *numbers[6:]]):
        command = (CACHE, "show", "{ground}/feats", "--out", "{ground}/v.png", flag, value)
        yield Case("options", f"show {flag} {value!r}"[:60], command, needs=("feats",), writes=("v.png",))
    for flag, value in itertools.product(["--taps", "--codec"], words):
        command = (CACHE, "copy", "{ground}/feats", "{ground}/c", flag, value)
        yield Case("options", f"copy {flag} {value!r}"[:60], command, needs=("feats",), writes=("c",))
    for flag, value in itertools.product(["--recompute", "--seed"], numbers):
        command = (CACHE, "verify", "{ground}/feats", "--data", "{ground}/data", "--weights", "random", flag, value)
        yield Case("options", f"verify {flag} {value!r}", command, needs=("feats", "data"))
    for value in words:
        yield Case(
            "options",
            f"drop {value!r}"[:60],
            (CACHE, "drop", "{ground}/feats", "--teacher", value),
            needs=("feats",),
            codes=(2,),
        )
    for flag, value in itertools.product(["--limit", "--batch-size", "--workers"], numbers):
        command = (
            TRAIN,
            "evaluate",
            "{ground}/run",
            "--data",
            "{ground}/data",
            "--device",
            "cpu",
            "--workers",
            "0",
            flag,
            value,
        )
        if (flag, value) in (("--workers", "\u0663"), ("--workers", "1e9"), ("--workers", "99999999999999999999")):
            continue  # a pool of processes inside a fork
        yield Case("options", f"evaluate {flag} {value!r}", command, needs=("run", "data"), writes=("run/eval",))
    for value in [*words, "teacher:", "teacher:x", "{ground}/data", "{ground}/manifest.csv"]:
        command = (
            TRAIN,
            "evaluate",
            value,
            "--data",
            "{ground}/data",
            "--device",
            "cpu",
            "--workers",
            "0",
            "--out",
            "{ground}/e",
        )
        yield Case("options", f"evaluate {value!r}"[:60], command, needs=("data", "manifest.csv"), writes=("e",))


def lists(sound: Path) -> Cases:
    """Lists of pictures whose names lead elsewhere: predict writes below --out, and never onto a picture."""
    entries = [
        "../../data/images/000.png",
        "/etc/passwd",
        "{ground}/data/images/000.png",
        "",
        ".",
        "..",
        "data/images",
        "nowhere.png",
        "a\0b",
    ]
    entries += [
        "data/images/000.png\ndata/images/000.png",
        "data/images/000.png\n./data/images/../images/000.png",
        "\ufeffdata/images/000.png",
    ]
    entries += ["data/images/000.png\r", "~", "$HOME", "data/images/*.png", "http://localhost/x.png"]
    for number, (entry, out) in enumerate(
        itertools.product(entries, ["{ground}/o", "{ground}/data", "{ground}/data/images", "{ground}/lists/o"])
    ):

        def damage(ground: Path, entry: str = entry) -> None:
            (ground / "lists" / "x").mkdir(parents=True)
            (ground / "lists" / "x" / "all.txt").write_text(entry.replace("{ground}", str(ground)) + "\n")

        def check(ground: Path, code: int) -> str:
            for path in (ground / "data" / "images").glob("0??.png"):
                with Image.open(path) as picture:
                    if picture.mode != "RGB":
                        return f"{path.name} was overwritten"
            return ""

        command = (TRAIN, "predict", "{ground}/run", "{ground}/lists/x/all.txt", "--out", out, "--device", "cpu")
        place = out.removeprefix("{ground}/")
        yield Case(
            "lists",
            f"{number}: {entry[:30]!r} to {place}",
            command,
            damage,
            ("run", "data"),
            writes=(place,),
            check=check,
        )


CLASSES: dict[str, Callable[[Path], Cases]] = {
    "images": images,
    "masks": masks,
    "manifests": manifests,
    "cache metadata": cache_metadata,
    "run metadata": run_metadata,
    "HDF5": hdf5,
    "ONNX": networks,
    "recipes": recipes,
    "out paths": out_paths,
    "full disks": full_disks,
    "options": options,
    "lists": lists,
}


def label_of(sound: Path) -> str:
    """Return the name of the teacher in the sound cache."""
    return next(path.name for path in (sound / "feats" / "teachers").iterdir() if path.is_dir())


def encode(image: Image.Image, kind: str) -> bytes:
    """Return a picture as the bytes of a file."""
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def png_head(width: int, height: int) -> bytes:
    """Return a PNG that says it is so large, and holds one byte."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    head = struct.pack(">IIBBBBB", width % 2**32, height % 2**32, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


def path_stem(file: str) -> str:
    """Return what a line must name of a file."""
    return Path(file).stem
