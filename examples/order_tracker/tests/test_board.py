"""The board in headless Chromium."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

UNITS = 30
LIMIT = 10
PACKAGES = "chromium chromium-driver"
PATH = f"{os.environ.get('PATH', '')}:/usr/bin:/usr/local/bin"


def programs() -> tuple[str, str]:
    """Chromium and its driver; as root they are installed where they are missing."""
    browser = next((p for p in map(_which, ("chromium", "chromium-browser")) if p), None)
    driver = _which("chromedriver")
    if browser and driver:
        return browser, driver
    remedy = f"apt-get update && apt-get install --yes --no-install-recommends {PACKAGES}"
    if os.geteuid() != 0 or _which("apt-get") is None or os.environ.get("TEST_NO_INSTALL"):
        pytest.fail(f"Chromium is missing. Install it:\n\n    sudo {remedy}\n", pytrace=False)
    done = subprocess.run(
        ["flock", "/tmp/toolbox-tests-apt.lock", "sh", "-c", remedy],
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        pytest.fail(f"{remedy}\nfailed:\n{done.stdout[-2000:]}{done.stderr}", pytrace=False)
    return programs()


def _which(name: str) -> str | None:
    return shutil.which(name, path=PATH)


@pytest.fixture(scope="module")
def installed() -> tuple[str, str]:
    """The paths of the browser and its driver."""
    return programs()


@pytest.fixture
def browser(installed: tuple[str, str], tmp_path: Path) -> Iterator[webdriver.Chrome]:
    """A new browser, in which nothing but the tracker's own server can be reached."""
    options = webdriver.ChromeOptions()
    options.binary_location = installed[0]
    for argument in (
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
        "--window-size=1280,900",
        f"--user-data-dir={tmp_path}/profile",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(installed[1]))
    yield driver
    driver.quit()


class Board:
    """The page, as its user sees it."""

    def __init__(self, driver: webdriver.Chrome, url: str) -> None:
        self.driver = driver
        driver.get(f"{url}/board")

    def text(self, selector: str) -> str:
        """The text of the first element that fits, as far as it can be seen."""
        # In one go: the page may replace the element at any time.
        script = """
            const found = document.querySelector(arguments[0]);
            return found && found.getClientRects().length ? found.innerText : "";
        """
        return str(self.driver.execute_script(script, selector))

    def press(self, selector: str, *keys: str) -> None:
        """Send keys to an element, or click it."""

        def is_pressed(_: object) -> bool:
            element = self.driver.find_element(By.CSS_SELECTOR, selector)
            if keys:
                element.send_keys(*keys)
            else:
                element.click()
            return True

        wait = WebDriverWait(self.driver, 10, 0.1, [StaleElementReferenceException])
        wait.until(is_pressed)

    def wait_for(self, selector: str, text: str, timeout: float = 30) -> None:
        """Wait until an element's text contains this."""
        WebDriverWait(self.driver, timeout, 0.1).until(
            lambda _: text in self.text(selector), f"{selector} to say {text}"
        )

    def ids(self, status: str) -> list[str]:
        """The units of a column."""
        found = self.driver.execute_script(
            "return [...document.querySelectorAll(arguments[0])].map((a) => a.textContent)",
            f".column.{status} li a",
        )
        return list(found)

    def shot(self, name: str) -> None:
        """A screenshot, where TEST_SCREENSHOTS names a folder."""
        folder = os.environ.get("TEST_SCREENSHOTS")
        if folder:
            Path(folder).mkdir(parents=True, exist_ok=True)
            self.driver.save_screenshot(str(Path(folder) / f"{name}.png"))


def test_the_board_reaches_100_percent_by_itself(deploy: Any, browser: webdriver.Chrome) -> None:
    tracker = deploy(RTB_BROADCAST_MAX_QUEUE=LIMIT, RTB_ERROR_RATE=0.3, RTB_WORK_SECONDS=0.1)
    tracker.init(0)
    tracker.start_all()
    board = Board(browser, tracker.url)
    assert "order-tracker init --units 100" in board.text("#empty")
    assert board.text("#state") == "Stopped"
    board.shot("empty")

    tracker.call("POST", "/orders", [{"payload": {"name": f"<Ä & {n}>"}} for n in range(UNITS)])
    board.wait_for("#done", f"0 of {UNITS} units done")
    assert not board.text("#empty")
    board.press("#feed button", Keys.ENTER)
    board.wait_for("#state", "Feeding")
    assert browser.switch_to.active_element.text == "Stop feeding"  # The keyboard is still there.
    board.wait_for("#flight", f"{LIMIT} of {LIMIT} in flight")
    assert board.text("#used") == "100%"
    board.shot("half way")
    board.wait_for("#percent", "100%", 60)
    board.wait_for("#done", f"All {UNITS} units are done")
    counts = tracker.standing().counts
    WebDriverWait(browser, 5, 0.1).until(
        lambda _: len(board.ids("error")) == counts["error"] and not board.ids("queued")
    )
    assert [board.text(f".column.{name} .count") for name in ("success", "error")] == [
        str(counts["success"]),
        str(counts["error"]),
    ]
    path = browser.find_element(By.CSS_SELECTOR, "#chart .curve").get_attribute("d")
    assert path is not None
    assert path.count("V") > 3  # It has seen it come and go.
    board.shot("done")

    # A unit's history by keyboard alone; a failed one is tried again from there.
    failed = board.ids("error")[0]
    board.press(".column.error li a", Keys.ENTER)
    board.wait_for("#unit h1", f"Unit {failed}")
    for word in (
        "pending",
        "queued",
        "processing",
        "error",
        "RuntimeError: random error",
        "agent-",
    ):
        assert word in board.text("#unit table")
    assert f'"name": "<Ä & {int(failed) - 1}>"' in board.text("#unit pre")
    board.shot("unit")
    tracker.call("POST", "/stop/")
    board.press("#unit .retry button", Keys.ENTER)
    board.wait_for("#unit h1", "pending")
    assert "attempt 2" in board.text("#unit")
    WebDriverWait(browser, 5, 0.1).until(
        lambda _: browser.switch_to.active_element.get_attribute("aria-label") == "Close"
    )
    board.press("#unit", Keys.ESCAPE)
    WebDriverWait(browser, 5, 0.1).until(lambda _: not board.text("#unit"))
    board.wait_for(".column.pending .count", "1")

    browser.set_window_size(400, 800)
    wide = browser.execute_script(
        "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
    )
    assert wide <= 0  # Nobody has to scroll sideways on a phone.
    board.shot("phone")
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []  # type: ignore[no-untyped-call]


def test_a_lost_connection_is_told_and_mended(deploy: Any, browser: webdriver.Chrome) -> None:
    tracker = deploy()
    tracker.init(3)
    tracker.start_api()
    tracker.wait_for_api()
    board = Board(browser, tracker.url)
    board.wait_for("#done", "0 of 3 units done")
    tracker.fleet.kill("api0")
    board.wait_for("#problem", "The connection to the server is lost")
    board.shot("lost")
    tracker.start_api()
    tracker.wait_for_api()
    WebDriverWait(browser, 15, 0.1).until(lambda _: not board.text("#problem"))
    tracker.call("POST", "/orders", {})
    board.wait_for("#done", "0 of 4 units done")


def test_a_board_whose_last_agent_is_dead(deploy: Any, browser: webdriver.Chrome) -> None:
    tracker = deploy(RTB_BROADCAST_MAX_QUEUE=5, RTB_WORK_SECONDS=2)
    tracker.init(20)
    tracker.start_all(agents=2)
    board = Board(browser, tracker.url)
    board.press("#feed button")
    board.wait_for("#agents", "2 agents")
    board.wait_for("#moved", "The last unit moved")
    assert not board.text("#problem")
    tracker.fleet.kill("agent0")
    board.wait_for("#agents", "1 agent")
    tracker.fleet.kill("agent1")
    board.wait_for("#agents", "0 agents")
    board.wait_for("#problem", "No agent answers, so nothing moves.")
    board.wait_for("#moved", "The last unit moved 8 seconds ago")
    board.shot("no agent")
    tracker.fleet.start("agent2", "agent")
    board.wait_for("#agents", "1 agent")
    WebDriverWait(browser, 10, 0.1).until(lambda _: not board.text("#problem"))
    tracker.call("POST", "/stop/")


def test_a_refused_request_is_told(deploy: Any, browser: webdriver.Chrome) -> None:
    tracker = deploy(RTB_BROKER_URL="amqp://guest:guest@127.0.0.1:1//")
    tracker.init(3)
    tracker.start_api()
    tracker.wait_for_api()
    board = Board(browser, tracker.url)
    board.press("#feed button")
    board.wait_for("#state", "Feeding")
    board.wait_for("#problem", "503: the feeding has started, but the broker cannot be reached")


def test_the_pages_work_without_script(deploy: Any, browser: webdriver.Chrome) -> None:
    tracker = deploy()
    tracker.init(2)
    tracker.start_api()
    tracker.wait_for_api()
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    board = Board(browser, tracker.url)
    assert board.text(".column.pending li") == "1"
    board.press(".column.pending li a")
    board.wait_for("h1", "Unit 1")
    browser.get(f"{tracker.url}/board/99")
    assert "There is no such unit." in board.text("main")
