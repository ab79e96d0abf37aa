"""The page: what its button does, and what a browser gets of it."""

import io
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
from recipe_runs import ROOT
from tiny_separator import write_separator

gr = pytest.importorskip("gradio")

from speechbrain_kmdanet.errors import UserError  # noqa: E402
from speechbrain_kmdanet.inference import page  # noqa: E402
from speechbrain_kmdanet.inference.separation import (  # noqa: E402
    AttractorSeparation,
)

STEP = 2**-15  # of 16 bits
PATIENCE = 90  # seconds, on a busy machine


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Folder of a tiny separator."""
    return write_separator(tmp_path_factory.mktemp("separator"))


@pytest.fixture(scope="module")
def separator(tiny):
    """The tiny separator."""
    return AttractorSeparation.from_hparams(tiny)


def press(separator):
    """What is called when the button is pressed."""
    functions = page.make_page(separator).fns.values()
    return next(each.fn for each in functions if each.fn.__name__ == "press")


def test_tracks_and_background_are_the_mixture(separator, tmp_path):
    result = page.separate_for_page(separator, page.EXAMPLE, 3, tmp_path)
    assert [*result.pictures] == [*page.PICTURES]
    assert result.summary == "**3 talkers**, as asked for."
    with zipfile.ZipFile(result.archive) as archive:
        parts = {
            name: soundfile.read(io.BytesIO(archive.read(name)))
            for name in archive.namelist()
        }
    names = [f"two_talkers_{part}.wav" for part in (1, 2, 3, "background")]
    assert [*parts] == names
    mixture, rate = soundfile.read(page.EXAMPLE)
    assert {each for _, each in parts.values()} == {rate}
    total = sum(samples for samples, _ in parts.values())
    assert np.abs(total - mixture).max() <= 5 * STEP
    assert np.abs(soundfile.read(result.mixture)[0] - mixture).max() <= STEP


def test_a_long_recording_of_another_rate(separator, tmp_path):
    rng = np.random.default_rng(0)
    recording = tmp_path / "stereo.wav"
    sound = 0.1 * rng.standard_normal((12 * 11025, 2))
    soundfile.write(recording, sound, 11025)
    result = page.separate_for_page(separator, recording, 2, tmp_path / "out")
    parts = [*result.recording.tracks, result.recording.background]
    assert {soundfile.info(part).samplerate for part in parts} == {11025}
    total = sum(soundfile.read(part)[0] for part in parts)
    assert np.abs(total - sound.mean(1)).max() <= 5 * STEP


def test_silence_has_no_embeddings(separator, tmp_path):
    recording = tmp_path / "silence.wav"
    soundfile.write(recording, np.zeros(8000), 8000)
    result = page.separate_for_page(separator, recording, 2, tmp_path / "out")
    assert result.recording.turns == []
    assert "Nobody" in result.summary
    assert "turns" in result.pictures


def test_what_cannot_be_separated_takes_one_line(separator, tmp_path):
    bad = tmp_path / "notes.wav"
    bad.write_text("no audio")
    with pytest.raises(UserError):
        page.separate_for_page(separator, bad, 2, tmp_path)
    button = press(separator)
    with pytest.raises(gr.Error, match="^'cannot separate notes.wav: [^\n]*$"):
        next(button(str(bad), 2))
    with pytest.raises(gr.Error, match="give a recording first"):
        next(button(None, 2))


def test_what_was_made_is_removed(separator):
    steps = press(separator)(str(page.EXAMPLE), 2)
    updates = next(steps)
    files = [
        Path(update["value"])
        for update in updates
        if isinstance(update, dict) and update.get("value")
    ]
    assert len(files) == 7 and all(file.is_file() for file in files)
    assert next(steps, None) is None
    assert not any(file.exists() for file in files)


def test_a_port_that_is_taken(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))  # and back again
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"--port {port} cannot be served"):
            page.serve(tiny, port=port)


@pytest.fixture
def address(tiny, tmp_path):
    """Address of a page that is served by another process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "speechbrain_kmdanet", "page", str(tiny)]
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "TMPDIR": str(tmp_path),
        "NO_PROXY": "*",
    }
    server = subprocess.Popen(
        [*command, "--port", str(port)],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        line = server.stdout.readline()
        assert line.startswith(f"http://127.0.0.1:{port} "), line
        yield line.split()[0]
    finally:
        server.terminate()
        server.wait(30)
    assert not list(tmp_path.glob("kmdanet_page_*"))


@pytest.fixture
def browser():
    """Chromium without a window, which logs what it asks for."""
    webdriver = pytest.importorskip("selenium.webdriver")
    programs = shutil.which("chromium"), shutil.which("chromedriver")
    if None in programs:
        pytest.skip("chromium and chromedriver are not installed")
    options = webdriver.ChromeOptions()
    for option in ("headless=new", "no-sandbox", "disable-dev-shm-usage"):
        options.add_argument(f"--{option}")
    options.binary_location = programs[0]
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    service = webdriver.ChromeService(programs[1])
    driver = webdriver.Chrome(options, service)
    yield driver
    driver.quit()


def wait_for(driver, selector, attribute=None):
    """The first element of the page that fits, once it is there."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        found = driver.find_elements("css selector", selector)
        if found and (attribute is None or found[0].get_attribute(attribute)):
            return found[0]
        time.sleep(0.2)
    raise AssertionError(f"there is no {selector}")


def fetch(address):
    """Samples of what a player plays."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(address) as answer:
        return soundfile.read(io.BytesIO(answer.read()))[0]


def test_a_browser_hears_and_sees_talkers(address, browser):
    browser.get(address)
    wait_for(browser, "#example").click()
    example = wait_for(browser, "#recording a[download]", "href")
    assert example.get_attribute("href").endswith(page.EXAMPLE.name)
    browser.refresh()
    upload = wait_for(browser, "#recording input[type=file]")
    upload.send_keys(str(page.EXAMPLE))
    wait_for(browser, "#recording a[download]", "href")
    browser.find_element("css selector", "#separate").click()
    for name in page.PICTURES:
        picture = wait_for(browser, f"#{name} img", "src")
        width = "return arguments[0].complete && arguments[0].naturalWidth"
        end = time.monotonic() + PATIENCE
        while not browser.execute_script(width, picture):
            assert time.monotonic() < end
            time.sleep(0.2)
    heard = {}
    for name in ("mixture", "track_1", "track_2", "background"):
        link = wait_for(browser, f"#{name} a[download]", "href")
        heard[name] = fetch(link.get_attribute("href"))
    mixture = heard.pop("mixture")
    assert np.abs(mixture - soundfile.read(page.EXAMPLE)[0]).max() <= STEP
    assert np.abs(sum(heard.values()) - mixture).max() < 1e-2
    assert np.abs(heard["track_1"]).max() > 1e-2
    assert not browser.find_elements("css selector", "#track_3 a[download]")
    events = [
        json.loads(entry["message"])["message"]
        for entry in browser.get_log("performance")
    ]
    asked = {
        event["params"]["request"]["url"]
        for event in events
        if event["method"] == "Network.requestWillBeSent"
    }
    assert asked
    for url in asked:
        assert url.startswith((address, "data:", "blob:")), url
