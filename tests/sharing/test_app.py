"""The page marks as `predict` does, is reached from this machine alone, and asks nobody else."""

import base64
import http.client
import io
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from painted_frames import paint_frame, save_small_student
from painted_videos import write_video
from PIL import Image

from difom_cache import read_image, read_mask
from difom_train import predict
from difom_train.cli import main
from difom_train.inference import OUTLINE_COLOUR, load_segmenter
from difom_train.sharing import mark, open_server

BROWSER = Path("/usr/bin/chromium")


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    return [save_small_student(tmp_path / name, seed=seed) for seed, name in enumerate(("small", "other"))]


@pytest.fixture
def frame(tmp_path: Path) -> Path:
    (tmp_path / "frames").mkdir()
    Image.fromarray(paint_frame(7, 90, 70)[0]).save(tmp_path / "frames" / "one.png")
    return tmp_path / "frames" / "one.png"


@pytest.fixture
def served(runs: list[Path]) -> Iterator[int]:
    """A running page of both runs; its port."""
    with open_server([load_segmenter(run, device="cpu") for run in runs]) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        yield server.server_port
        server.shutdown()


def ask(port: int, method: str, path: str, body: bytes = b"", host: str | None = None) -> tuple[int, bytes, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request(method, path, body, {"Host": host or f"127.0.0.1:{port}"})
    reply = connection.getresponse()
    return reply.status, reply.read(), reply.headers.get("Content-Security-Policy", "")


def decode(address: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2])))


def test_a_frame_is_marked_as_predict_marks_it(runs: list[Path], frame: Path, tmp_path: Path) -> None:
    predict(runs[0], frame, out=tmp_path / "marked")
    expected = read_mask(tmp_path / "marked" / "masks" / "one.png").astype(bool)
    picture = read_image(frame)
    found = mark(load_segmenter(runs[0], device="cpu"), picture)
    np.testing.assert_array_equal(found.mask, expected)
    assert expected.any() and not expected.all() and found.took_ms > 0
    changed = (found.outlined != picture).any(axis=-1)
    assert changed.any() and not (changed & expected).any()  # the line lies outside the polyp
    assert (found.outlined[changed] == OUTLINE_COLOUR).all(axis=-1).any()
    np.testing.assert_array_equal(mark(load_segmenter(runs[0], device="cpu"), picture, 0.9).mask, found.prob >= 0.9)


def test_the_server_gives_outline_probability_and_time_of_the_network_that_was_asked(
    served: int, runs: list[Path], frame: Path
) -> None:
    assert json.loads(ask(served, "GET", "/networks")[1]) == ["small", "other"]
    for number, run in enumerate(runs):
        status, body, _ = ask(served, "POST", f"/mark?network={number}&threshold=0.6", frame.read_bytes())
        found, expected = json.loads(body), mark(load_segmenter(run, device="cpu"), read_image(frame), 0.6)
        assert status == 200 and found["took_ms"] > 0 and found["polyp_px"] == np.count_nonzero(expected.prob >= 0.6)
        assert decode(found["outlined"]).size == (90, 70)
        np.testing.assert_array_equal(np.asarray(decode(found["prob"])), np.rint(expected.prob * 255))


def test_what_cannot_be_marked_is_said_and_the_page_stays(served: int, frame: Path) -> None:
    status, body, _ = ask(served, "POST", "/mark?network=0&threshold=0.5", b"no image")
    assert status == 400 and "the image: " in json.loads(body)["error"]
    for path in ("/mark?network=2&threshold=0.5", "/mark?network=0&threshold=much", "/mark"):
        assert ask(served, "POST", path, frame.read_bytes())[0] == 400
    assert ask(served, "GET", "/../card.md")[0] == 404 and ask(served, "GET", "/")[0] == 200


def test_the_page_is_for_this_machine_alone_and_may_load_nothing_from_elsewhere(served: int, frame: Path) -> None:
    for method, path in (("GET", "/"), ("GET", "/networks"), ("POST", "/mark?network=0&threshold=0.5")):
        assert ask(served, method, path, frame.read_bytes(), host=f"elsewhere.example:{served}")[0] == 403
    _, page, policy = ask(served, "GET", "/")
    assert policy.startswith("default-src 'none'; connect-src 'self'") and "http" not in policy
    assert b"://" not in page and b"Not a medical device" in page
    with open_server([]) as server:
        assert server.server_address[0] == "127.0.0.1"


def test_a_port_that_is_taken_is_one_line(served: int, runs: list[Path], monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["difom-train", "app", str(runs[0]), "--port", str(served), "--device", "cpu"])
    with pytest.raises(SystemExit) as ended:
        main()
    err = capsys.readouterr().err
    assert ended.value.code == 2 and f"--port {served}: Address already in use; choose another" in err


@pytest.mark.slow
@pytest.mark.skipif(not BROWSER.exists(), reason=f"no {BROWSER}")
def test_a_browser_shows_two_students_side_by_side_and_no_request_leaves_this_machine(
    runs: list[Path], frame: Path, tmp_path: Path
) -> None:
    """An image, a video and a webcam (the browser's own painted one); DIFOM_BENCHMARK gives a real image."""
    driver = pytest.importorskip("playwright.sync_api")
    if benchmark := os.environ.get("DIFOM_BENCHMARK"):
        frame = sorted((Path(benchmark) / "TestDataset" / "Kvasir" / "images").iterdir())[0]
    clip = write_video(tmp_path / "clip.mp4", [paint_frame(n, 64, 48)[0] for n in range(50)], pixels="yuv420p")
    command = [sys.executable, "-c", "from difom_train.cli import main; main()", "app", *runs, "--port", "0"]
    asked: list[str] = []
    said: list[str] = []
    flags = ["--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    with (
        subprocess.Popen([*command, "--device", "cpu"], stdout=subprocess.PIPE, text=True) as server,
        driver.sync_playwright() as play,
        play.chromium.launch(executable_path=str(BROWSER), args=flags) as browser,
    ):
        try:
            assert server.stdout is not None
            url = server.stdout.readline().split()[0]
            page = browser.new_page(viewport={"width": 1200, "height": 1000})
            page.on("request", lambda request: asked.append(request.url))
            page.on("console", lambda message: said.append(message.text))
            page.goto(url)
            driver.expect(page.locator("h2")).to_have_text(["small", "other"])
            page.set_input_files("#file", str(frame))
            marks = [mark(load_segmenter(run, device="cpu"), read_image(frame)).mask for run in runs]
            times = [re.compile(rf"^\d+\.\d ms a frame, {mask.sum()} px of polyp$") for mask in marks]
            driver.expect(page.locator(".ms")).to_have_text(times)
            sizes = page.locator("img").evaluate_all("all => all.map(each => [each.naturalHeight, each.naturalWidth])")
            assert sizes == [list(marks[0].shape)] * 4
            page.locator("#threshold").fill("0.99")
            driver.expect(page.locator(".ms").first).to_contain_text(", 0 px of polyp")
            page.locator("#threshold").fill("0.5")
            driver.expect(page.locator(".ms")).to_have_text(times)
            if shots := os.environ.get("DIFOM_SHOTS"):
                page.screenshot(path=f"{shots}/app.png", full_page=True)
            starts = {
                "video": lambda: page.set_input_files("#file", str(clip)),
                "webcam": page.locator("#webcam").click,
            }
            for name, start in starts.items():
                before = len(asked)
                start()
                driver.expect(page.locator("#video")).to_be_visible()
                page.wait_for_timeout(3000)
                assert sum("/mark" in each for each in asked[before:]) > 4, name
                driver.expect(page.locator("#error")).to_be_empty()
                if shots:
                    page.screenshot(path=f"{shots}/app-{name}.png", full_page=True)
            assert {each.split("/")[2] for each in asked if not each.startswith(("data:", "blob:"))} == {
                url.split("/")[2]
            }
            page.evaluate("() => fetch('http://localhost:1/').catch(() => 0)")
            assert [each for each in said if "Content Security Policy" in each and "localhost:1" in each]
        finally:
            server.terminate()
        assert server.wait(timeout=30) in (143, 130)
