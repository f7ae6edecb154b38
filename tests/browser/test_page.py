"""The page in a browser: clicks hit their pixel, and all of it works from the keyboard."""

import contextlib
import io
import json
import shlex

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from jobs.cli import cli
from tests.geotiffs import scene, write

YELLOW = (255, 240, 0)


@pytest.fixture
def marked(tmp_path):
    """A grey picture with a yellow square of 5 pixels a side around (93, 41)."""
    pixels = np.full((120, 200, 3), 60, np.uint8)
    pixels[39:44, 91:96] = YELLOW
    Image.fromarray(pixels).save(tmp_path / "marked.png")
    return tmp_path / "marked.png"


def yellow_centre(page, ratio):
    """Where in the window the yellow square is, in CSS pixels, as a person sees it."""
    page.wait_for_timeout(500)
    box = page.locator("#panel-try canvas").bounding_box()
    shot = np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("RGB")).astype(int)
    yellow = (shot[..., 0] > 170) & (shot[..., 1] > 160) & (shot[..., 2] < 90)
    top, left = round(box["y"] * ratio), round(box["x"] * ratio)
    yellow[:top], yellow[:, :left] = False, False
    yellow[round((box["y"] + box["height"]) * ratio) :] = False
    yellow[:, round((box["x"] + box["width"]) * ratio) :] = False
    rows, columns = np.nonzero(yellow)
    assert len(rows) > 8
    return (columns.min() + columns.max() + 1) / 2 / ratio, (rows.min() + rows.max() + 1) / 2 / ratio


def open_file(visit, path):
    visit.page.set_input_files("#file", path)
    visit.page.wait_for_function(
        "name => document.querySelector('.status').textContent.startsWith(`${name} ·`)", arg=path.name
    )


@pytest.mark.parametrize(
    ("ratio", "zoomed", "how"),
    [
        (1, False, {}),
        (1.25, True, {}),
        (2, True, {}),
        (3, False, {"has_touch": True, "is_mobile": True, "viewport": {"width": 390, "height": 844}}),
    ],
    ids=["1", "1.25 zoomed", "2 zoomed", "3 with touch"],
)
def test_a_click_hits_the_pixel_that_is_seen(visit, marked, ratio, zoomed, how):
    seen = visit(device_scale_factor=ratio, **how)
    seen.answered(1)
    open_file(seen, marked)
    seen.page.check("input[value=point]", force=True)
    x, y = yellow_centre(seen.page, ratio)
    if zoomed:
        seen.page.mouse.move(x + 20, y + 10)
        for _ in range(3):
            seen.page.mouse.wheel(0, -220)
        x, y = yellow_centre(seen.page, ratio)
    before = len(seen.asked)
    (seen.page.touchscreen.tap if how else seen.page.mouse.click)(x, y)
    seen.answered(before + 1)
    assert seen.asked[-1]["points"] == [[93.5, 41.5]]


def test_a_drawn_box_is_the_pixels_between(visit, marked):
    seen = visit()
    seen.answered(1)
    open_file(seen, marked)
    seen.page.check("input[value=box]", force=True)
    x, y = yellow_centre(seen.page, 1)
    canvas = seen.page.locator("#panel-try canvas").bounding_box()
    scale = min(canvas["width"] / 200, canvas["height"] / 120)
    seen.page.mouse.move(x - 2 * scale, y - 2 * scale)
    seen.page.mouse.down()
    seen.page.mouse.move(x, y + scale, steps=4)
    seen.page.mouse.move(x + 2 * scale, y + 2 * scale, steps=4)
    before = len(seen.asked)
    seen.page.mouse.up()
    seen.answered(before + 1)
    assert seen.asked[-1]["box"] == [91, 39, 96, 44]


def test_the_first_sight_is_segmented_and_the_address_keeps_what_was_asked(visit):
    seen = visit()
    seen.answered(1)
    assert "score" in seen.page.locator("#answer").inner_text()
    first = seen.page.locator("#answer dl").inner_text()
    address = seen.page.url.partition("/#")[2]
    again = visit(f"#{address}")
    again.answered(1)
    assert again.page.locator("#answer dl").inner_text() == first and again.asked[0] == seen.asked[0]


def choose(page, kind):
    """Goes to the kinds of instructions by Tab, and to one of them by arrows."""
    for _ in range(80):
        if page.evaluate("document.activeElement.name") == "kind":
            break
        page.keyboard.press("Tab")
    for _ in range(4):
        if page.evaluate("document.activeElement.value") == kind:
            return
        page.keyboard.press("ArrowRight")
    raise AssertionError(f"{kind} cannot be reached")


def test_all_of_it_from_the_keyboard(visit):
    seen = visit()
    seen.answered(1)
    page, keys = seen.page, seen.page.keyboard
    said = page.locator("#spoken")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    for _ in range(40):
        keys.press("Tab")
        if page.evaluate("document.activeElement.tagName") == "CANVAS":
            break
    assert page.evaluate("document.activeElement.tagName") == "CANVAS"
    keys.press("Enter")  # the cursor appears in the middle
    keys.press("ArrowRight")
    page.wait_for_function("() => document.getElementById('spoken').textContent.startsWith('x ')")
    choose(page, "point")
    while page.evaluate("document.activeElement.tagName") != "CANVAS":
        keys.press("Shift+Tab")
    keys.press("Shift+ArrowLeft")
    keys.press("Enter")
    seen.answered(2)
    assert len(seen.asked[-1]["points"]) == 1
    page.wait_for_function(
        "() => /^(Marked|Nothing was marked)/.test(document.getElementById('spoken').textContent)"
    )
    keys.press("Control+z")
    page.wait_for_function("() => document.getElementById('spoken').textContent === 'Undone'")
    choose(page, "box")
    while page.evaluate("document.activeElement.tagName") != "CANVAS":
        keys.press("Shift+Tab")
    keys.press("Enter")
    keys.press("Shift+ArrowRight")
    keys.press("Shift+ArrowDown")
    before = len(seen.asked)
    keys.press("Enter")
    seen.answered(before + 1)
    x0, y0, x1, y1 = seen.asked[-1]["box"]
    assert x1 - x0 > 1 and y1 - y0 > 1
    choose(page, "text")
    keys.press("Tab")
    assert page.evaluate("document.activeElement.id") == "words"
    keys.type("the block")
    before = len(seen.asked)
    keys.press("Enter")
    seen.answered(before + 1)
    assert seen.asked[-1]["text"] == "the block"
    page.locator("#tab-try").focus()
    keys.press("ArrowRight")
    page.wait_for_selector("#panel-store .card .legend")
    assert page.evaluate("document.activeElement.id") == "tab-store"
    assert said.get_attribute("aria-live") == "polite"


def test_undo_goes_back_one_answer_and_not_to_another_picture(visit, marked):
    seen = visit()
    seen.answered(1)
    open_file(seen, marked)
    page = seen.page
    page.check("input[value=point]", force=True)
    box = page.locator("#panel-try canvas").bounding_box()
    asked = "() => document.querySelector('#answer dl')?.textContent || ''"
    shown = []
    for share in (0.3, 0.5, 0.7):
        before = len(seen.asked)
        page.mouse.click(box["x"] + share * box["width"], box["y"] + box["height"] / 2)
        seen.answered(before + 1)
        shown.append(page.evaluate(asked))
    assert len(set(shown)) == 3 and len(seen.asked[-1]["points"]) == 3
    for wanted in (shown[1], shown[0], ""):
        page.click("#undo")
        assert page.evaluate(asked) == wanted
    page.click("#undo")
    assert page.evaluate(asked) == "" and "marked.png" in page.locator("#panel-try .status").inner_text()


def test_store_evaluation_and_map(visit):
    seen = visit("#tab=store")
    page = seen.page
    page.wait_for_function("() => /IoU with/.test(document.querySelector('#panel-store .card').textContent)")
    page.select_option("#panel-store select[name=task]", "interactive")
    page.wait_for_function(
        "() => /interactive/.test(document.querySelector('#panel-store .card').textContent)"
    )
    twin = page.locator("#panel-store .card select")
    twin.select_option(index=1)
    page.wait_for_function(
        "() => /asked with a twin/.test(document.querySelector('#panel-store .card').textContent)"
    )
    page.click("#tab-evaluation")
    page.wait_for_selector("#panel-evaluation .item")
    assert page.locator("#panel-evaluation canvas").count() == 2
    worst = page.locator("#panel-evaluation .item p").all_inner_texts()
    firsts = [float(text.split()[0]) for text in worst]
    assert firsts == sorted(firsts)
    page.click("#tab-map")
    page.wait_for_selector("#panel-map .item")
    page.locator("#panel-map .item").first.click()
    page.wait_for_function("() => /^Shown/.test(document.getElementById('spoken').textContent)")


def test_a_tiff_is_decoded_by_the_server_and_has_an_area(visit, tmp_path):
    path = write(tmp_path / "city.tif", scene(90, 120, dtype=np.uint16))
    seen = visit()
    seen.answered(1)
    open_file(seen, tmp_path / "city.tif")
    seen.page.check("input[value=point]", force=True)
    canvas = seen.page.locator("#panel-try canvas").bounding_box()
    before = len(seen.asked)
    seen.page.mouse.click(canvas["x"] + canvas["width"] / 2, canvas["y"] + canvas["height"] / 2)
    seen.answered(before + 1)
    card = seen.page.locator("#answer").inner_text()
    assert ("m²" in card or "Nothing" in card) and "GeoTIFF" in card and path
    with seen.page.expect_download() as download:
        seen.page.click("text=RLE JSON")
    told = json.loads(download.value.path().read_text())
    assert told["window"] == [0, 0, 120, 90] and told["mask"]["size"] == [90, 120]


def test_a_click_counts_while_the_picture_is_read(visit, marked):
    """The words over a picture whose tiles are on their way do not take the click."""
    seen = visit()
    seen.answered(1)
    held = []
    seen.page.route("**/tiles/**", lambda route: held.append(route))  # it names its handlers
    open_file(seen, marked)
    seen.page.wait_for_selector(".reading:visible")
    seen.page.check("input[value=point]", force=True)
    canvas = seen.page.locator("#panel-try canvas").bounding_box()
    before = len(seen.asked)
    seen.page.mouse.click(canvas["x"] + canvas["width"] / 2, canvas["y"] + canvas["height"] / 2)
    seen.answered(before + 1)
    assert seen.asked[-1]["points"] == [[100.5, 60.5]] and held
    for route in held:
        route.continue_()


def test_what_is_copied_gives_the_same_mask(visit, marked, export, monkeypatch, tmp_path):
    seen = visit(permissions=["clipboard-read", "clipboard-write"])
    seen.answered(1)
    open_file(seen, marked)
    monkeypatch.chdir(tmp_path)
    for kind, look in (("text", "whole"), ("point", "around")):
        seen.page.check(f"input[value={kind}]", force=True)
        before = len(seen.asked)
        seen.page.locator("#panel-try select").select_option(look)
        if kind == "text":
            seen.page.fill("#words", 'the block\'s "roof"')
            seen.page.press("#words", "Enter")
        else:
            seen.page.mouse.click(*yellow_centre(seen.page, 1))
        with seen.page.expect_download() as download:
            seen.answered(before + 1)
            seen.page.click("text=RLE JSON")
        told = json.loads(download.value.path().read_text())
        copied = {}
        for name in ("command", "Python"):
            seen.page.click(f"text=Copy as {name}")
            seen.page.wait_for_timeout(200)
            copied[name] = seen.page.evaluate("navigator.clipboard.readText()")
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            exec(copied["Python"].replace("print(", "print(found.mask.sum(), "), {})
        assert said.getvalue().split()[:2] == [str(told["area_px"]), str(told["score"])]
        *cut, predict = copied["command"].splitlines()
        if cut:
            _, _, x, y, width, height, _, part = shlex.split(cut[0])
            x, y, width, height = map(int, (x, y, width, height))
            Image.open(marked).crop((x, y, x + width, y + height)).save(tmp_path / part)
        words = shlex.split(predict)
        assert words[:2] == ["unigeoseg", "predict"]
        done = CliRunner().invoke(cli, words[1:])
        assert done.exit_code == 0, done.output
        assert json.loads((tmp_path / "out/prediction.json").read_text())["mask"] == told["mask"]


def test_html_stays_text(visit, tmp_path):
    name = "<img src=x onerror=document.title=1>.png"
    Image.fromarray(np.full((80, 80, 3), 90, np.uint8)).save(tmp_path / "a.png")
    seen = visit()
    seen.answered(1)
    payload = {"name": name, "mimeType": "image/png", "buffer": (tmp_path / "a.png").read_bytes()}
    seen.page.set_input_files("#file", payload)
    seen.page.wait_for_function("() => document.querySelector('.status').textContent.includes('onerror')")
    seen.page.check("input[value=text]", force=True)
    seen.page.fill("#words", "<script>document.title=2</script><b>x</b>")
    before = len(seen.asked)
    seen.page.press("#words", "Enter")
    seen.answered(before + 1)
    assert "<b>x</b>" in seen.page.locator("#answer").inner_text()
    assert seen.page.title() == "UniGeoSeg"
    assert seen.page.evaluate("document.querySelectorAll('img[src=x], #answer b').length") == 0


@pytest.mark.parametrize("tab", ["try", "store", "evaluation", "map"])
@pytest.mark.parametrize(
    "how",
    [{}, {"color_scheme": "dark", "viewport": {"width": 390, "height": 844}, "device_scale_factor": 2}],
    ids=["large", "small and dark"],
)
def test_no_serious_findings(visit, axe, tab, how):
    seen = visit(f"#tab={tab}", **how)
    seen.page.wait_for_selector(f"#panel-{tab} canvas")
    seen.page.wait_for_timeout(800)
    seen.page.evaluate(axe)
    found = seen.page.evaluate("() => axe.run(document)")
    serious = [
        (one["id"], [node["html"][:160] for node in one["nodes"][:3]])
        for one in found["violations"]
        if one["impact"] in ("serious", "critical")
    ]
    assert serious == [] and found["passes"]
    width = seen.page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
    assert width <= 0  # nothing to scroll sideways
