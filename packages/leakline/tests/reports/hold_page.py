"""The page in a real browser: Chromium, driven through ChromeDriver (Debian's chromium and chromium-driver).

    python hold_page.py [FOLDER]

A program that leaks is launched with `leakline run --html`; its page is opened from its file, wide and as on a phone,
light and dark. It must load nothing, complain of nothing, fit the width, be readable (contrast 4.5 and more), zoom its
icicle, and print. With FOLDER, what it looked like is left there.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

TARGETS = Path(__file__).parents[1] / "targets.py"
PACKAGES = "chromium chromium-driver"
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
WIDTHS = {"wide": 1100, "phone": 390}
LEAST_CONTRAST = 4.5  # WCAG 2, level AA, for text
CONTRAST = """
function parts(text) { return text.match(/[\\d.]+/g).map(Number); }
function light(rgb) {
  var c = rgb.slice(0, 3).map(function (v) {
    v /= 255; return v <= 0.03928 ? v / 12.92 : Math.pow((v + 0.055) / 1.055, 2.4);
  });
  return 0.2126 * c[0] + 0.7152 * c[1] + 0.0722 * c[2];
}
function behind(e) {
  for (; e; e = e.parentElement) {
    var b = parts(getComputedStyle(e).backgroundColor);
    if (b.length < 4 || b[3] > 0) return b;
  }
  return [255, 255, 255];
}
var worst = [99, ""];
document.querySelectorAll("body *").forEach(function (e) {
  var own = Array.prototype.some.call(e.childNodes, function (n) { return n.nodeType === 3 && n.textContent.trim(); });
  if (!own || !e.offsetParent || ["SCRIPT", "STYLE"].indexOf(e.tagName) >= 0) return;
  var a = light(parts(getComputedStyle(e).color)), b = light(behind(e));
  var ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  if (ratio < worst[0]) worst = [ratio, e.tagName + "." + e.className + ": " + e.textContent.slice(0, 40)];
});
return worst;
"""
ZOOM = """
var chosen = Array.prototype.filter.call(document.querySelectorAll('#icicle .user'), function (e) {
  return parseFloat(e.style.width) < 60; })[0] || document.querySelector('#icicle .user');
chosen.click();
var zoomed = [parseFloat(chosen.style.left), parseFloat(chosen.style.width)];
var hidden = document.querySelectorAll('#icicle [hidden]').length;
document.querySelector('#icicle .all').click();
return [zoomed, hidden, document.querySelectorAll('#icicle [hidden]').length];
"""


def page_of_a_leak(folder: Path) -> Path:
    """The page that `leakline run` wrote of a client whose socket monitor is not read."""
    page = folder / "report.html"
    main = [sys.executable, "-m", "leakline", "run", "--html", str(page), "--"]
    words = [*main, sys.executable, str(TARGETS), "zmq_client", "undrained"]
    with (folder / "output").open("wb") as output:
        process = subprocess.Popen(words, stdout=output, stderr=output, env={**os.environ, "LEAKLINE_DIR": str(folder)})
        # Its lines tell how many sockets it has closed: 150 are enough for a verdict.
        wait(lambda: (folder / "output").read_bytes().count(b"\n") > 150, 60.0)
        process.send_signal(signal.SIGTERM)
        process.wait(60.0)
    return page


def wait(condition: Callable[[], bool], seconds: float) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > limit:
            sys.exit(f"hold_page: not ready after {seconds:.0f} s")
        time.sleep(0.05)


class Browser:
    """A session of ChromeDriver, by the W3C's WebDriver protocol."""

    def __init__(self, profile: Path) -> None:
        words = ["chromedriver", "--port=0"]
        self._driver = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self._driver.stdout is not None
        port = ""
        while not port:
            line = self._driver.stdout.readline()
            if not line:
                sys.exit("hold_page: chromedriver did not start")
            port = line.rpartition("on port ")[2].strip().rstrip(".") if "started successfully" in line else ""
        self._at = f"http://127.0.0.1:{port}/session"
        options = {"args": [*FLAGS, f"--user-data-dir={profile}"], "binary": shutil.which("chromium")}
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        self._at += "/" + self("POST", "", {"capabilities": {"alwaysMatch": wanted}})["sessionId"]

    def __call__(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._at + path, data, {"Content-Type": "application/json"}, method=method)
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as answer:
            return json.load(answer)["value"]

    def run(self, script: str) -> Any:
        return self("POST", "/execute/sync", {"script": script, "args": []})

    def devtools(self, command: str, **parameters: object) -> Any:
        return self("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def end(self) -> None:
        try:
            self("DELETE", "")
        finally:
            self._driver.terminate()
            self._driver.wait(20.0)


def look(browser: Browser, page: Path, scheme: str, size: str, pictures: Path | None) -> list[str]:
    """The faults of the page, looked at in one way."""
    browser.devtools(
        "Emulation.setDeviceMetricsOverride",
        width=WIDTHS[size],
        height=900,
        deviceScaleFactor=1,
        mobile=size == "phone",
    )
    browser.devtools("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    browser("POST", "/url", {"url": page.as_uri()})
    faults = []
    wide = browser.run("return document.documentElement.scrollWidth")
    if wide > WIDTHS[size]:
        faults.append(f"is {wide} wide in a window of {WIDTHS[size]}")
    if loaded := browser.run("return performance.getEntriesByType('resource').map(function (e) { return e.name; })"):
        faults.append(f"loads {loaded}")
    if said := browser("POST", "/se/log", {"type": "browser"}):
        faults.append(f"complains: {said}")
    ratio, where = browser.run(CONTRAST)
    if ratio < LEAST_CONTRAST:
        faults.append(f"has text of contrast {ratio:.1f}: {where}")
    (left, width), hidden, after = browser.run(ZOOM)
    if (left, width, after) != (0, 100, 0) or not hidden:
        faults.append(f"does not zoom: {left} {width}, {hidden} hidden, then {after}")
    dark = browser.run("return getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"
    if dark != (scheme == "dark"):
        faults.append(f"is {'dark' if dark else 'light'}")
    if pictures is not None:
        shown = browser.devtools("Page.captureScreenshot", captureBeyondViewport=True)
        (pictures / f"{size}-{scheme}.png").write_bytes(base64.b64decode(shown["data"]))
    print(f"{size}, {scheme}: least contrast {ratio:.1f}, {len(faults)} faults", flush=True)
    return [f"{size}, {scheme}: the page {fault}" for fault in faults]


def printed(browser: Browser, pictures: Path | None) -> list[str]:
    """The faults of the page on paper."""
    paper = base64.b64decode(browser.devtools("Page.printToPDF", printBackground=True)["data"])
    if pictures is not None:
        (pictures / "printed.pdf").write_bytes(paper)
    closed = browser.run("return document.querySelectorAll('details:not([open])').length")
    return [f"printed: {closed} stacks are not told"] if closed or not paper.startswith(b"%PDF") else []


def install() -> None:
    """Chromium, where it is not there and root allows."""
    if shutil.which("chromium") and shutil.which("chromedriver"):
        return
    if os.geteuid() == 0 and shutil.which("apt-get"):
        print(f"installing {PACKAGES}", file=sys.stderr)
        words = ["apt-get", "install", "-qq", "-y", "--no-install-recommends", *PACKAGES.split()]
        subprocess.run(words, stdout=subprocess.DEVNULL, env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"})
    if not (shutil.which("chromium") and shutil.which("chromedriver")):
        sys.exit(f"hold_page: no browser to look with: sudo apt-get install {PACKAGES}")


def main() -> int:
    """Make the page, look at it in every way, print what is wrong."""
    install()
    pictures = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    with tempfile.TemporaryDirectory(prefix="leakline-page-") as name:
        folder = Path(name)
        page = page_of_a_leak(folder)
        browser = Browser(folder / "profile")
        try:
            ways = [(scheme, size) for scheme in ("light", "dark") for size in WIDTHS]
            faults = [fault for scheme, size in ways for fault in look(browser, page, scheme, size, pictures)]
            faults += printed(browser, pictures)
        finally:
            browser.end()
    print("\n".join(faults) or "holds")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
