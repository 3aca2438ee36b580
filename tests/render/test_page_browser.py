"""Both pages in a real browser, opened from a file: errors, requests, zoom, dark and light."""

from __future__ import annotations

import dataclasses
import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from page_samples import NASTY, backlog_sweep
from report_samples import too_many_open_files
from scenes import exhausted

from loadsim.analysis.dataset import Dataset
from loadsim.analysis.series import series_of
from loadsim.compare.page import comparison_page
from loadsim.render.html.page import run_page
from loadsim.render.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from selenium.webdriver.remote.webelement import WebElement

pytest.importorskip("selenium", reason="selenium is not installed: pip install loadsim[dev]")

from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="chromium or chromedriver is missing (chromium-driver)"),
]  # fmt: skip

#: Without these options the browser itself makes requests.
QUIET = [
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--window-size=1200,1000", "--hide-scrollbars",
]  # fmt: skip


class Browser:
    """A browser with the pages of a run and of a sweep."""

    def __init__(self, driver: webdriver.Chrome, folder: Path) -> None:
        self.driver = driver
        self.folder = folder

    def open(self, text: str, name: str = "report.html") -> None:
        """Open a page from a file, with empty logs."""
        (self.folder / name).write_text(text, encoding="utf-8")
        self._log("browser")
        self._log("performance")
        self.driver.get((self.folder / name).as_uri())

    def errors(self) -> list[str]:
        """Return the messages of the console since the page was opened."""
        return [entry["message"] for entry in self._log("browser")]

    def requests(self) -> list[str]:
        """Return the requested addresses since the page was opened."""
        events = [json.loads(entry["message"])["message"] for entry in self._log("performance")]
        sent = [event["params"] for event in events if event["method"] == "Network.requestWillBeSent"]
        return [params["request"]["url"] for params in sent]

    def _log(self, kind: str) -> list[dict[str, Any]]:
        """Return the entries of a log, and empty it."""
        entries: list[dict[str, Any]] = self.driver.get_log(kind)  # type: ignore[no-untyped-call]
        return entries

    def run(self, script: str) -> Any:  # noqa: ANN401 -- any value of JavaScript
        """Run a script and return its result."""
        return self.driver.execute_script(script)

    def ranges(self) -> list[list[float]]:
        """Return the range of the x axis of each time panel."""
        shown: list[list[float]] = self.run(
            "return loadsim.charts.filter(c => c.onTime).map(c => [c.plot.scales.x.min, c.plot.scales.x.max])"
        )
        return shown

    def panel(self, index: int) -> WebElement:
        """Return the area of a chart over which the pointer acts."""
        found = self.driver.find_elements(By.CSS_SELECTOR, ".chart .u-over")[index]
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", found)
        return found

    def drag(self, index: int, start: float, stop: float) -> None:
        """Drag over a panel between two shares of its width."""
        over = self.panel(index)
        width = over.size["width"]
        begin, end = round((start - 0.5) * width), round((stop - 0.5) * width)
        actions = ActionChains(self.driver, duration=40)
        actions.move_to_element_with_offset(over, begin, 0).click_and_hold()
        actions.move_by_offset((end - begin) // 2, 3).move_by_offset(end - begin - (end - begin) // 2, 0)
        actions.release().perform()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One browser for all tests."""
    options = Options()
    options.binary_location = CHROMIUM or ""
    folder = tmp_path_factory.mktemp("pages")
    for argument in (*QUIET, f"--user-data-dir={folder / 'profile'}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    driver.get("about:blank")  # the page of a new tab makes requests
    try:
        yield Browser(driver, folder)
    finally:
        driver.quit()


def run_text(**changes: Any) -> str:  # noqa: ANN401 -- any field of a summary
    """Return the page of a run with a leaking server."""
    return run_page(dataclasses.replace(too_many_open_files(), **changes), series_of(Dataset.of(exhausted())), host={})


@pytest.mark.parametrize("page", [run_text, lambda: comparison_page(backlog_sweep())], ids=["run", "sweep"])
def test_a_page_opens_from_a_file_without_errors(browser: Browser, page: Any) -> None:  # noqa: ANN401 -- makes a page
    """The console has no error, only the page itself is requested, and every chart is drawn."""
    browser.open(page())
    assert browser.errors() == []
    requested = [url for url in browser.requests() if not url.startswith("data:")]
    assert requested == [(browser.folder / "report.html").as_uri()]
    places = browser.driver.find_elements(By.CSS_SELECTOR, ".chart")
    assert len(places) == len(browser.driver.find_elements(By.CSS_SELECTOR, ".chart canvas")) > 0


def test_a_zoom_changes_all_panels(browser: Browser) -> None:
    """A drag over one panel zooms all of them; a double click resets them."""
    browser.open(run_text())
    assert browser.ranges() == [[0, 5]] * 4
    browser.drag(1, 0.2, 0.6)
    zoomed = browser.ranges()
    assert zoomed == [zoomed[0]] * 4
    assert zoomed[0] == pytest.approx([1.0, 3.0], abs=0.05)
    button = browser.driver.find_element(By.CSS_SELECTOR, ".reset")
    assert button.is_displayed()
    ActionChains(browser.driver).double_click(browser.panel(2)).perform()
    assert browser.ranges() == [[0, 5]] * 4
    assert not button.is_displayed()


def test_the_button_resets_the_zoom(browser: Browser) -> None:
    """A button resets the zoom as a double click does."""
    browser.open(run_text())
    browser.drag(0, 0.1, 0.3)
    assert browser.ranges() != [[0, 5]] * 4
    button = browser.driver.find_element(By.CSS_SELECTOR, ".reset")
    browser.run("document.querySelector('.reset').scrollIntoView({block: 'center', behavior: 'instant'})")
    button.click()
    assert browser.ranges() == [[0, 5]] * 4


def test_a_zoom_survives_a_change_of_colours(browser: Browser) -> None:
    """The charts are redrawn in dark colours and stay zoomed."""
    browser.open(run_text())
    browser.drag(0, 0.5, 0.9)
    before = browser.ranges()
    emulate(browser, "dark")
    try:
        assert browser.ranges() == before
        assert browser.run("return document.querySelectorAll('.chart canvas').length") == 5
    finally:
        emulate(browser, "light")


def test_the_pointer_shows_values_in_every_panel(browser: Browser) -> None:
    """With the pointer over one panel, the headings of all panels show the values of that moment."""
    browser.open(run_text())
    ActionChains(browser.driver).move_to_element(browser.panel(1)).perform()
    values = {
        item.text.rsplit(" ", 1)[0]: item.find_element(By.TAG_NAME, "b").text
        for item in browser.driver.find_elements(By.CSS_SELECTOR, "#time .readout")
    }
    assert values["open fds"] == "64"
    assert values["queue"] == "129"
    assert browser.driver.find_element(By.CSS_SELECTOR, "#chart-fds .at").text == "at 2.5 s"


@pytest.mark.parametrize("name", ["<script>document.title='owned'</script>\"&", NASTY])
def test_names_run_nothing(browser: Browser, name: str) -> None:
    """A name that looks like a script is shown as text, also in the charts."""
    marks = dataclasses.replace(too_many_open_files().timeline, marks=[])
    browser.open(run_text(scenario=name, description=name, timeline=marks, settings={name: {name: name}}))
    assert browser.driver.find_element(By.TAG_NAME, "h1").text == printable(name)
    assert browser.driver.title.startswith("<script>")
    assert browser.errors() == []
    groups = [dataclasses.replace(group, label=name) for group in backlog_sweep().groups]
    browser.open(comparison_page(backlog_sweep(title=name, groups=groups)))
    labels = browser.driver.find_elements(By.CSS_SELECTOR, "#chart-curves-0 .readout")
    assert [label.get_property("textContent") for label in labels] == [name + " "] * 5
    assert browser.driver.title.startswith("<script>")
    assert browser.errors() == []


def test_an_injected_script_does_not_run(browser: Browser) -> None:
    """The policy of the page allows only its two scripts."""
    browser.open(run_text().replace("</main>", "<script>document.title='owned'</script></main>"))
    assert browser.driver.title != "owned"
    assert any("Content Security Policy" in message for message in browser.errors())


def test_dark_is_dark(browser: Browser) -> None:
    """The background follows the preferred colour scheme."""
    browser.open(run_text())
    found = {}
    for scheme in ("light", "dark"):
        emulate(browser, scheme)
        found[scheme] = browser.run("return getComputedStyle(document.body).backgroundColor")
    emulate(browser, "light")
    assert brightness(found["light"]) > 230
    assert brightness(found["dark"]) < 50


def test_a_narrow_screen_never_scrolls_sideways(browser: Browser) -> None:
    """At 400 pixels, wide tables and drawings scroll in their boxes, and the page is as wide as the screen."""
    size = {"width": 400, "height": 900, "deviceScaleFactor": 1, "mobile": True}
    browser.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        for text in (run_text(), comparison_page(backlog_sweep())):
            browser.open(text)
            assert browser.run("return document.documentElement.scrollWidth") == 400
    finally:
        browser.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_without_a_script_the_page_can_be_read(browser: Browser) -> None:
    """Status, findings, ledger and tables are shown, and a note replaces the charts."""
    browser.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.open(run_text())
        text = browser.driver.find_element(By.TAG_NAME, "body").text
    finally:
        browser.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    for part in ("REPRODUCED", "The server leaked every descriptor", "adds up", "32 - 63 fds", "need JavaScript"):
        assert part in text


def emulate(browser: Browser, scheme: str) -> None:
    """Set the preferred colour scheme."""
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def brightness(colour: str) -> float:
    """Return the mean of the three numbers in "rgb(1, 2, 3)"."""
    return sum(float(part) for part in colour.removeprefix("rgb(").removesuffix(")").split(",")) / 3
