"""The report opens in a browser from a file, asks nothing of any network, and does what its buttons say."""

import base64
import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from painted_frames import paint_benchmark, save_small_student

from difom_train import compare, evaluate
from difom_train.reporting import Interval, Line, draw_intervals, draw_lines

BROWSERS = ("/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome")
SWITCHES = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking"]
PATIENCE_MS = 120_000  # a busy machine is no failure
HOSTILE = "a<script>alert(1)<b>&b"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of three painted runs, one of them with a hostile name and a log."""
    folder = tmp_path_factory.mktemp("report")
    data = paint_benchmark(folder / "data", frames=4)
    runs = []
    for seed, name in enumerate(("first-seed0", "second-seed0", HOSTILE)):
        runs.append(save_small_student(folder / name, seed=seed))
        evaluate(runs[-1], data, workers=0)
        taps = ("sam/neck@16", "sam/block@8", "dino/neck@16")
        keys = ("loss", "val_dice", *(f"distill/{what}/{tap}" for what in ("explained", "target_var") for tap in taps))
        log = [{"epoch": epoch, **dict.fromkeys(keys, (epoch + 1) / 9)} for epoch in range(3)]
        (runs[-1] / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log))
    compare(runs, out=folder / "out", resamples=100, gallery_per_set=4, device="cpu")
    return folder / "out" / "report.html"


def test_page_is_whole_and_names_are_escaped(report: Path) -> None:
    text = report.read_text(encoding="utf-8")
    assert text.startswith("<!doctype html>") and text.rstrip().endswith("</html>")
    assert "<script>alert" not in text
    assert "a&lt;script&gt;alert(1)&lt;b&gt;&amp;b" in text
    sections = re.findall(r'<section id="(\w+)"', text)
    assert sections == ["summary", "scores", "clean", "curves", "cost", "gallery"]


def test_page_refers_to_nothing_outside_itself(report: Path) -> None:
    text = report.read_text(encoding="utf-8")
    without_pictures = re.sub(r"base64,[A-Za-z0-9+/=]*", "", text)
    assert not re.findall(r"//[a-z]|url\(|@import", without_pictures)
    assert "default-src 'none'" in text
    sources = re.findall(r'(?:src|href)="([^"]*)"', text)
    assert all(source.startswith(("#", "data:")) for source in sources)


def test_page_has_both_protocols_published_rows_and_the_research_notice(report: Path) -> None:
    text = report.read_text(encoding="utf-8")
    for words in ("256 thresholds", "one threshold, 0.5", "PraNet †", "For research only", "paired bootstrap"):
        assert words in text, words


def test_curves_of_several_teachers_have_a_colour_for_each_and_a_style_for_each_tap(report: Path) -> None:
    page = report.read_text(encoding="utf-8")
    section = page.partition('<section id="curves"')[2].partition("</section>")[0]
    assert "first-seed0: variance explained of each tap" in section
    found = re.findall(r'stroke="(#\w+)" stroke-width="3" stroke-dasharray="([^"]*)"/></svg>([^<]*)</li>', section)
    looks = {name: (colour, dash) for colour, dash, name in found}
    sam, deep, dino = (
        looks[f"{name}"] for name in ("sam, neck at stride 16", "sam, block at stride 8", "dino, neck at stride 16")
    )
    assert sam[0] == deep[0] != dino[0] and sam[1] == dino[1] != deep[1]


def svg_of(source: str) -> ElementTree.Element:
    kind, _, data = source.partition(";base64,")
    assert kind == "data:image/svg+xml"
    return ElementTree.fromstring(base64.b64decode(data))


def curves_of(source: str) -> list[list[tuple[float, float]]]:
    """Return the points of each curve of a chart; matplotlib gives curves ids that begin with line2d."""
    drawn = []
    for group in svg_of(source).iter("{http://www.w3.org/2000/svg}g"):
        for path in group.findall("{http://www.w3.org/2000/svg}path"):
            if group.get("id", "").startswith("line2d") and "#123456" in path.get("style", ""):
                numbers = re.findall(r"[ML] (-?[\d.]+) (-?[\d.]+)", path.get("d", ""))
                drawn.append([(float(x), float(y)) for x, y in numbers])
    return drawn


def test_lines_with_one_point_are_dots_and_with_none_are_no_chart() -> None:
    assert draw_lines([Line("a", [], "#123456")]) == ""
    assert draw_lines([Line("a", [(1, float("nan"))], "#123456")]) == ""
    assert "use" in {
        each.tag.rpartition("}")[2] for each in svg_of(draw_lines([Line("a", [(1, 0.5)], "#123456")])).iter()
    }
    [points] = curves_of(draw_lines([Line("a<b", [(1, 0.5), (2, float("nan")), (3, 0.25)], "#123456")]))
    assert len(points) == 2 and points[0][0] < points[1][0] and points[0][1] < points[1][1]  # down on the page is less


def test_logarithmic_chart_leaves_out_what_it_cannot_show() -> None:
    chart = draw_lines([Line("a", [(1, 1.0), (2, 0.0), (3, 100.0)], "#123456")], logarithmic=True)
    assert [len(points) for points in curves_of(chart)] == [2]


def test_intervals_lie_on_their_side_of_zero_and_equal_charts_are_equal_bytes() -> None:
    intervals = [Interval("a$1$", 2, 1, 3, "#123456", "+2"), Interval("b", -2, -3, -1, "#123456", "-2")]
    right, left = (points for points in curves_of(draw_intervals(intervals)) if len(points) == 2)
    assert max(x for x, _ in left) < min(x for x, _ in right) and left[0][1] > right[0][1]
    assert draw_intervals(intervals) == draw_intervals(intervals)


def test_long_names_take_lines_of_their_own_and_the_chart_grows_with_them() -> None:
    def height_of(name: str) -> float:
        chart = draw_intervals([Interval(name, 1, 0, 2, "#123456", "+1")])
        picture = base64.b64decode(chart.partition(",")[2]).decode()
        return float(re.search(r'height="([\d.]+)pt"', picture)[1])

    assert height_of("-".join(["a name"] * 12)) > height_of("a name")


class Visit:
    """A page in headless Chromium that writes down what it asks for and complains about."""

    def __init__(self, browser: Any, report: Path, width: int, height: int) -> None:
        self.asked: list[str] = []
        self.complaints: list[str] = []
        self.page = browser.new_page(viewport={"width": width, "height": height})
        self.page.set_default_timeout(PATIENCE_MS)
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(report.as_uri())


@pytest.fixture(scope="module")
def browser() -> Any:
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed: no browser is driven")
    found = next((path for path in BROWSERS if Path(path).exists()), None)
    if found is None:
        pytest.skip(f"no browser at {', '.join(BROWSERS)}: the report is not opened (Debian: apt install chromium)")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=found, args=SWITCHES)
        yield browser
        browser.close()


@pytest.mark.journey
@pytest.mark.parametrize(("width", "height"), [(1280, 900), (390, 844)])
def test_browser_asks_nothing_complains_of_nothing_and_shows_every_picture(
    browser: Any, report: Path, width: int, height: int
) -> None:
    visit = Visit(browser, report, width, height)
    assert visit.page.locator("article.card").count() > 6
    broken = visit.page.evaluate("[...document.images].filter(image => !image.complete || !image.naturalWidth).length")
    assert broken == 0
    assert [url for url in visit.asked if not url.startswith(("file:", "data:"))] == []
    assert visit.complaints == []
    wider = visit.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert wider <= 0  # nothing but tables and picture rows scrolls sideways


@pytest.mark.journey
def test_filters_and_viewer_work_with_the_keyboard_alone(browser: Any, report: Path) -> None:
    page = Visit(browser, report, 1280, 900).page
    everything = page.locator("article.card").count()
    page.locator('input[name="set"]').first.focus()
    page.keyboard.press("ArrowRight")  # radio buttons: the next one is chosen
    chosen = page.locator('input[name="set"]:checked').get_attribute("value")
    titles = page.locator("article.card h3").all_inner_texts()
    assert 0 < len(titles) < everything and all(title.startswith(f"{chosen}/") for title in titles)
    assert page.locator("#shown").inner_text() == f"{len(titles)} of {everything} frames"
    page.locator('input[name="kind"][value="worst"]').check()
    assert page.locator("article.card").count() == 1
    page.locator('input[name="set"][value=""]').check()
    page.locator("article.card button").first.focus()
    page.keyboard.press("Enter")
    first = page.locator("#viewer-title").inner_text()
    page.keyboard.press("ArrowRight")
    assert page.locator("#viewer-title").inner_text() != first
    page.keyboard.press("Escape")
    assert not page.locator("#viewer").is_visible()
    page.locator('input[name="outlines"][value="off"]').check()
    overlays = page.locator("article.card .stack img + img")
    assert overlays.count() > 0 and not overlays.first.is_visible()
