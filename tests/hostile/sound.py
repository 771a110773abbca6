"""The sound things that cases damage: pictures, a manifest, a cache, a run, scores, an HDF5 file, an ONNX network."""

from pathlib import Path

from painted_folder import paint_folder
from small_networks import save_onnx

from difom_cache import export_hdf5, extract, load_records, write_manifest
from difom_train import evaluate, train


def make_sound(root: Path) -> Path:
    """Make everything below `root` and return it."""
    data = paint_folder(root / "data", frames=12, width=48, height=40)
    write_manifest(load_records(data), root / "manifest.csv")
    extract(
        teacher="dinov2:tiny@56",
        weights="random",
        data=data,
        cache=root / "feats",
        input_size=64,
        views=2,
        device="cpu",
        quiet=True,
    )
    export_hdf5(root / "feats", root / "feats.h5")
    train(
        student="unet",
        cache=root / "feats",
        recipe="difom",
        width=4,
        input_size=32,
        batch_size=4,
        epochs=2,
        device="cpu",
        out=root / "run",
        changes=["machine.logger=none"],
    )
    evaluate(root / "run", data, workers=0)
    save_onnx(root / "net.onnx")
    return root
