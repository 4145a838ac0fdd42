"""The page in a real browser: it draws, sorts, filters, follows links, and logs no error."""

import shutil
from pathlib import Path

import pytest
from hostile import hostile_history, hostile_report

from harness.report.files import read_report
from harness.report.html import render_page
from harness.report.trend import render_trend, trends

webdriver = pytest.importorskip("selenium.webdriver")
BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    not (BROWSER and DRIVER),
    reason="needs Chromium and chromedriver (Debian: packages chromium and chromium-driver)",
)
RECORD = Path(__file__).resolve().parents[2] / "results" / "2026-11-22-cpu"


@pytest.fixture(scope="module")
def browser():
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    options = Options()
    options.binary_location = BROWSER
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    driver.set_window_size(1280, 900)
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    for name, report in (("record", read_report(RECORD)), ("hostile", hostile_report())):
        (folder / f"{name}.html").write_text(render_page(report), encoding="utf-8")
    trend = render_trend(trends(hostile_history(), 2.0))
    (folder / "trend.html").write_text(trend, encoding="utf-8")
    return folder


@pytest.fixture
def visit(browser, files):
    """Return a function that opens a page, and runs JavaScript in it; no error may be logged."""

    def go(name, fragment=""):
        browser.get("about:blank")
        browser.get((files / f"{name}.html").as_uri() + fragment)
        return browser.execute_script

    browser.get_log("browser")
    yield go
    assert [
        one for one in browser.get_log("browser") if one["level"] in ("SEVERE", "WARNING")
    ] == []


def wait(browser, script):
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(browser, 20).until(lambda driver: driver.execute_script(script))


COLUMN = """return [...document.querySelectorAll('.findings tbody tr')]
    .map(row => row.cells[arguments[0]].textContent.trim())"""
SHOWN = "return document.querySelectorAll('.findings tbody tr:not([hidden])').length"


def test_it_sorts_by_a_column(visit):
    """A click on a head sorts by it, another turns the order; screen readers are told."""
    js = visit("record")
    click = "document.querySelectorAll('.findings thead button')[1].click();"
    js(click)
    codes = js(COLUMN, 1)
    assert codes == sorted(codes)
    js(click)
    assert js(COLUMN, 1) == codes[::-1]
    assert (
        js("return document.querySelectorAll('.findings th')[1].getAttribute('aria-sort')")
        == "descending"
    )


def test_it_filters(visit):
    """Matrix, findings and points follow the filters; reset brings all back."""
    js = visit("record")
    every = js(SHOWN)
    change = """const field = document.querySelector(`[name=${arguments[0]}]`);
        field.value = arguments[1]; field.dispatchEvent(new Event('input', {bubbles: true}));"""
    js(change, "variant", "merged")
    assert {
        point.split("-")[0]
        for point in js(
            "return [...document.querySelectorAll('.findings tbody tr:not([hidden])')]"
            ".map(row => row.cells[2].textContent.trim())"
        )
    } == {"merged"}
    assert js("return document.querySelectorAll('.matrix tbody tr:not([hidden])').length") == 3
    assert js("return document.querySelectorAll('details.point:not([hidden])').length") == 6
    js(change, "text", "accuracy falls")
    assert js(SHOWN) == 2
    js(change, "state", "bad")
    assert js(SHOWN) == 0
    js("document.querySelector('.filters').reset()")
    wait(js.__self__, f"{SHOWN} === {every}")


def test_a_link_to_a_finding_opens_it(visit):
    """A link from outside ends at the finding, unfolded and in view, though a filter hid it."""
    name = "finding-LOG001-merged-ple-pp4"
    js = visit("record", f"#{name}")
    assert js("return document.querySelector('tr:target').id") == name
    assert js("return document.querySelector('tr:target details').open")
    box = js(
        "const b = document.querySelector('tr:target').getBoundingClientRect();"
        "return [b.top, innerHeight]"
    )
    assert -1 <= box[0] < box[1]
    js("""const f = document.querySelector('[name=variant]'); f.value = 'fixed';
       f.dispatchEvent(new Event('input', {bubbles: true}));
       location.hash = 'finding-ACC001-merged-ple-pp2'""")
    wait(
        js.__self__,
        "const t = document.querySelector('tr:target');return t.id.includes('ACC001') && !t.hidden",
    )


def test_the_heat_map_is_drawn_in_both_themes(visit):
    """Its cells can be seen, say what they are, and change colour with the theme."""
    js = visit("hostile")
    js("for (const d of document.querySelectorAll('details')) d.open = true;")
    cell = "document.querySelector('.heat rect')"
    colour = f"return getComputedStyle({cell}).fill"
    assert js(f"return {cell}.getBoundingClientRect().width") > 10
    assert "position" in js(f"return {cell}.textContent")
    js("document.getElementById('theme').click()")  # light
    light = js(colour)
    js("document.getElementById('theme').click()")  # dark
    assert js(colour) != light


def test_the_page_of_a_history_shows_its_nights(visit):
    """Each night of a check is a mark that can be seen, and its names run nothing."""
    js = visit("trend")
    assert js("return document.querySelector('.nights').innerText.length") == 3
    assert js("return window.pwned === undefined")


def test_hostile_text_runs_nothing(visit):
    """No script, handler or image of a report's text takes effect, hovered and unfolded too."""
    js = visit("hostile")
    js("""for (const d of document.querySelectorAll('details')) d.open = true;
       for (const e of document.querySelectorAll('*')) e.dispatchEvent(new Event('mouseover'));""")
    assert js("return window.pwned === undefined")
    assert (
        js("return document.querySelectorAll('iframe, object, embed, main img, h1 b').length") == 0
    )
    assert js("return document.querySelectorAll('script').length") == 1
    assert js("return document.querySelector('.flip mark').textContent") == "a"


def test_it_prints_unfolded_and_light(visit):
    """Paper gets every finding's evidence, and what was folded is folded again afterwards."""
    js = visit("record")
    closed = "return document.querySelectorAll('.findings details:not([open])').length"
    before = js(closed)
    js("dispatchEvent(new Event('beforeprint'))")
    assert (before > 0, js(closed)) == (True, 0)
    js("dispatchEvent(new Event('afterprint'))")
    assert js(closed) == before
    assert len(js.__self__.print_page()) > 10_000


def test_controls_have_names(visit):
    """Every button, field, link and region says what it is to a screen reader; nothing traps."""
    js = visit("record")
    assert (
        js("""return [...document.querySelectorAll('button, select, input, a, [role=region]')]
        .filter(e => !(e.textContent.trim() || e.getAttribute('aria-label') || e.labels?.length))
        .map(e => e.outerHTML)""")
        == []
    )
    assert js("return [...document.querySelectorAll('[tabindex]')].every(e => e.tabIndex === 0)")
    assert js("return document.documentElement.lang") == "en"
    assert js("return document.querySelectorAll('table:not(:has(th[scope]))').length") == 0


@pytest.fixture
def phone(browser):
    size = {"width": 400, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    yield
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.fixture
def paper(browser):
    size = {"width": 720, "height": 1000, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    yield
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_paper_is_wide_enough(paper, visit):
    """Nothing is cut off at the edge of a printed page, where nothing scrolls."""
    js = visit("record")
    js("dispatchEvent(new Event('beforeprint'))")
    wide = """return [...document.querySelectorAll('body *')].filter(one =>
        !one.closest('svg') && one.getBoundingClientRect().right > 721)
        .map(one => one.tagName + '.' + one.className)"""
    assert js(wide) == []


@pytest.mark.parametrize("name", ["record", "hostile", "trend"])
def test_it_fits_a_narrow_screen(phone, visit, name):
    """Nothing but the regions that scroll on their own is wider than a phone."""
    js = visit(name)
    wide = """return [...document.querySelectorAll('body *')].filter(one =>
        !one.closest('.scroll *, svg') && one.getBoundingClientRect().right > 401)
        .map(one => one.tagName + '.' + one.className)"""
    assert js(wide) == []
    assert js("return document.documentElement.scrollWidth") <= 400
