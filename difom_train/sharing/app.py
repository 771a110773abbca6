"""A page on this machine alone: an image, a video's frames or a webcam's go in; outline, probability and time come back."""

import base64
import io
import json
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from threading import Lock
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from difom_cache.base.errors import DifomError, SettingsError
from difom_cache.base.progress import explain_wait
from difom_cache.data import picture_of_bytes
from difom_train.commands import AppConfig
from difom_train.inference.frames import FIXED_THRESHOLD
from difom_train.inference.outline import draw_outline
from difom_train.inference.predict import OUTLINE_COLOUR
from difom_train.inference.segmenter import Segmenter, load_segmenter, prob_at_size, segment

HOST = "127.0.0.1"
LARGEST_BYTES = 1 << 26  # of an image that is sent to the page
ALONE = (
    "default-src 'none'; connect-src 'self'; img-src data: blob:; media-src blob:; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'"
)
"""What the page may load: itself, and nothing from elsewhere, whatever its text says."""


@dataclass(frozen=True)
class Marked:
    """A frame with its answer.

    Attributes:
        outlined: (H, W, 3) uint8 RGB, the frame with a line around each polyp.
        prob: (H, W) float32.
        mask: (H, W).
        took_ms: from the decoded frame to `prob`.
    """

    outlined: NDArray[np.uint8]
    prob: NDArray[np.float32]
    mask: NDArray[np.bool_]
    took_ms: float


def mark(segmenter: Segmenter, picture: NDArray[np.uint8], threshold: float = FIXED_THRESHOLD) -> Marked:
    """Return a frame (H, W, 3) marked; at the threshold 0.5 as `predict` marks it."""
    started_s = time.perf_counter()
    prob = prob_at_size(segment(segmenter, [picture])[0], *picture.shape[:2])
    took_ms = 1000 * (time.perf_counter() - started_s)
    mask = prob >= threshold
    return Marked(draw_outline(picture, mask, OUTLINE_COLOUR), prob, mask, took_ms)


def show_page(config: AppConfig) -> None:
    """Show the page until Ctrl-C.

    Raises:
        SettingsError: no network is named, or the port is taken.
        DifomError: a network cannot be loaded.
    """
    with explain_wait(f"loading {', '.join(config.runs)}"):
        networks = [load_segmenter(run, device=config.device, student=config.student) for run in config.runs]
    with open_server(networks, config.port) as server:
        print(
            f"http://{HOST}:{server.server_port} shows {', '.join(each.name for each in networks)}; Ctrl-C ends it",
            flush=True,
        )
        server.serve_forever()


def open_server(networks: Sequence[Segmenter], port: int = 0) -> ThreadingHTTPServer:
    """Return a server of the page that nobody outside this machine reaches; port 0 is any free one.

    Raises:
        SettingsError: the port is taken.
    """
    try:
        return ThreadingHTTPServer(
            (HOST, port), type("PageHandler", (_Handler,), {"networks": networks, "lock": Lock()})
        )
    except OSError as error:
        raise SettingsError(f"--port {port}: {error.strerror}; choose another, or 0 for any free one") from error


class _Handler(BaseHTTPRequestHandler):
    networks: Sequence[Segmenter]
    lock: Lock

    def log_message(self, *_: object) -> None:
        """Keep the terminal quiet."""

    def do_GET(self) -> None:
        if self._is_foreign():
            return
        if self.path == "/networks":
            self._give(200, "application/json", json.dumps([each.name for each in self.networks]).encode())
        elif self.path == "/":
            self._give(200, "text/html; charset=utf-8", files("difom_train.sharing").joinpath("app.html").read_bytes())
        else:
            self._give(404, "text/plain", b"")

    def do_POST(self) -> None:
        if self._is_foreign():
            return
        asked = parse_qs(urlsplit(self.path).query)
        try:
            size, threshold = int(self.headers["Content-Length"]), float(asked["threshold"][0])
            network = self.networks[int(asked["network"][0])]
            if size > LARGEST_BYTES:
                raise ValueError(f"an image of {size} bytes is too large")
            picture = picture_of_bytes(self.rfile.read(size), Path("the image")).rgb
            with self.lock:  # one network after the other, or their times would be each other's
                found = mark(network, picture, threshold)
        except (DifomError, KeyError, IndexError, TypeError, ValueError) as error:
            return self._give(400, "application/json", json.dumps({"error": str(error)}).encode())
        grey = Image.fromarray(np.rint(found.prob * 255).astype(np.uint8))
        answer = {
            "outlined": _encode(Image.fromarray(found.outlined), "JPEG", quality=92),
            "prob": _encode(grey, "PNG", compress_level=1),
            "polyp_px": int(np.count_nonzero(found.mask)),
            "took_ms": found.took_ms,
        }
        return self._give(200, "application/json", json.dumps(answer).encode())

    def _is_foreign(self) -> bool:
        """Refuse what reaches this server by another name, and say whether it did: a page from elsewhere may have made one up."""
        port = self.connection.getsockname()[1]
        foreign = self.headers.get("Host", "") not in {f"{HOST}:{port}", f"localhost:{port}"}
        if foreign:
            self._give(403, "text/plain", b"")
        return foreign

    def _give(self, status: int, kind: str, body: bytes) -> None:
        kinds = {"Content-Type": kind, "Content-Length": str(len(body)), "Content-Security-Policy": ALONE}
        with suppress(ConnectionError):  # the page was closed
            self.send_response(status)
            for name, value in kinds.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)


def _encode(image: Image.Image, kind: str, **options: Any) -> str:
    """Return an image as an address that holds it."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"
