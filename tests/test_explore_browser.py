"""The page in a real browser: it is slid, clicked and dragged, and what it shows is what the fit decodes."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import torch
from torch import Tensor

import ppl_vae as pv
from ppl_vae.explore.page import explore, shown
from tests.test_explore import NAMES, SHORT, SMALL, images

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed: pip install 'ppl_vae[browser]'")
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(not (BROWSER and DRIVER), reason="no Chromium with its chromedriver is installed")

CLOSED = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --window-size=1200,900"
)
READY = "return document.documentElement.dataset.ready"
PIXELS = """
const canvas = document.querySelector(arguments[0] + " canvas");
return Array.from(canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data).filter((_, i) => i % 4 === 0);
"""


class Browser:
    """A page in a browser, and what can be done with it."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(self, address: str) -> None:
        self.driver.get("about:blank")
        self.driver.get(address)
        self.until(lambda: self.driver.execute_script(READY) == "yes")

    def until(self, found: Callable[[], Any]) -> None:
        from selenium.webdriver.support.ui import WebDriverWait

        WebDriverWait(self.driver, 60, poll_frequency=0.05).until(lambda _: found())

    def one(self, selector: str) -> Any:
        return self.driver.find_element("css selector", selector)

    @property
    def state(self) -> dict[str, str]:
        return {name: values[0] for name, values in parse_qs(urlsplit(self.driver.current_url).fragment).items()}

    @property
    def code(self) -> Tensor:
        """What the address says is shown: z and a class, one-hot."""
        return torch.tensor([float(value) for value in self.state["z"].split(",")])

    def moved(self, act: Callable[[], Any]) -> None:
        """Do something that leads to another code."""
        before = self.state
        act()
        self.until(lambda: self.state != before)

    def pixels(self, name: str = "#decoded") -> Tensor:
        return torch.tensor(self.driver.execute_script(PIXELS, name), dtype=torch.float64) / 255

    def complaints(self) -> list[str]:
        found = [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]
        return [message for message in found if "favicon" not in message]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for word in (*CLOSED.split(), f"--user-data-dir={tmp_path_factory.mktemp('browser')}"):
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield Browser(driver)
    driver.quit()


@pytest.fixture(scope="module")
def fit() -> pv.Fit:
    return pv.fit(pv.CVAE(latent_dim=3, decoder=SMALL), images(), method=SHORT)


@pytest.fixture(scope="module")
def page(fit: pv.Fit, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return explore(fit, tmp_path_factory.mktemp("pages") / "page.html")


def check_decoded(browser: Browser, fit: pv.Fit) -> None:
    """What is shown is what the fit decodes, to a step of 255."""
    z, place = browser.code[:3], int(browser.code[3:].argmax())
    browser.until(lambda: float((browser.pixels() - fit.decode(z, y=NAMES_OF[place]).flatten()).abs().max()) <= 1 / 255)


NAMES_OF = sorted(NAMES)


def test_sliding_clicking_and_dragging_decode_as_the_fit_does(browser: Browser, fit: pv.Fit, page: Path) -> None:
    from selenium.webdriver import ActionChains, Keys

    browser.open(page.as_uri())
    assert browser.one("#trouble").text == ""
    check_decoded(browser, fit)

    before = browser.code
    browser.moved(lambda: browser.one("#dim-0").send_keys(Keys.ARROW_RIGHT * 9))  # a slider, by the keyboard
    assert int((browser.code != before).sum()) == 1
    check_decoded(browser, fit)
    browser.moved(
        lambda: ActionChains(browser.driver).move_to_element_with_offset(browser.one("#dim-1"), 40, 0).click().perform()
    )
    check_decoded(browser, fit)

    plane = browser.one("#plane")
    browser.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", plane)
    drag = ActionChains(browser.driver).move_to_element_with_offset(plane, -60, -40).click_and_hold().move_by_offset(90, 70)
    browser.moved(drag.release().perform)
    check_decoded(browser, fit)
    before = browser.code
    browser.moved(lambda: plane.send_keys(Keys.ARROW_UP))
    assert int((browser.code != before).sum()) in (1, 2)
    check_decoded(browser, fit)

    before = browser.code
    press = "document.querySelector('#choice-3 button:not([aria-pressed=true])').click()"
    browser.moved(lambda: browser.driver.execute_script(press))  # the other class, the same z
    assert torch.equal(browser.code, torch.cat([before[:3], 1 - before[3:]]))
    check_decoded(browser, fit)
    assert browser.complaints() == []


def test_data_stand_beside_their_reconstructions(browser: Browser, fit: pv.Fit, page: Path) -> None:
    from selenium.webdriver import ActionChains, Keys

    rows = fit.held_out
    assert rows is not None
    browser.open(page.as_uri())
    scatter = browser.one("#codes")
    browser.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", scatter)
    browser.moved(ActionChains(browser.driver).move_to_element_with_offset(scatter, 10, 10).click().perform)
    for act in (lambda: None, lambda: scatter.send_keys(Keys.ARROW_LEFT), browser.one("#next").click):
        act()
        place = int(browser.state["d"])
        assert f"row {place}" in browser.one("#datum-figure figcaption").text
        assert torch.equal(browser.pixels("#datum"), rows[place].x.flatten().double())
        wanted = fit.reconstruct(rows[place]).flatten()
        assert float((browser.pixels() - wanted).abs().max()) <= 1 / 255

    browser.moved(lambda: browser.one("#between").send_keys(Keys.END))  # from the first to the second datum
    assert float(browser.state["t"]) == 1
    torch.testing.assert_close(browser.code[:3], fit.encode(rows[1])[0], atol=1e-5, rtol=1e-5)
    check_decoded(browser, fit)
    browser.moved(lambda: browser.one("#strength").send_keys(Keys.ARROW_RIGHT))
    check_decoded(browser, fit)

    address, shown_now = browser.driver.current_url, browser.pixels()
    browser.open(address)  # the address holds the state
    browser.until(lambda: float((browser.pixels() - shown_now).abs().max()) <= 1 / 255)
    assert browser.complaints() == []


def test_a_server_decodes_for_its_page(browser: Browser, fit: pv.Fit) -> None:
    pytest.importorskip("uvicorn", reason="the extra explore is not installed")
    from selenium.webdriver import Keys

    from ppl_vae.explore.serving import server_of

    served = server_of(shown(fit), "a run")
    thread = threading.Thread(target=served.server.run, kwargs={"sockets": [served.listening]}, daemon=True)
    thread.start()
    browser.open(served.address)
    browser.moved(lambda: browser.one("#dim-0").send_keys(Keys.ARROW_LEFT * 5))
    check_decoded(browser, fit)
    assert browser.one("#trouble").text == ""
    assert browser.complaints() == []
    served.server.should_exit = True
    thread.join(10)
