"""Take the README's pictures of the page from a running `herd demo`: `python scripts/page_images.py [URL]`.

Let the demo run for some minutes first. Needs Debian's chromium; where pngquant is installed, the files get smaller.
"""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import httpx
from playwright.sync_api import Browser, sync_playwright

FOLDER: Final = Path(__file__).parents[1] / "docs" / "images"
WIDTH: Final = 1280
LIMIT_BYTES: Final = 150_000
SETTLED_MS: Final = 1500  # for the live stream's word and the charts


def main(url: str) -> None:
    """Three pictures; says how large each of them is."""
    views = {
        "fleet": ("#/fleet", 900),
        "trace": (f"#/traces/{told(url)}", 1180),
        "latency": ("#/latency?hours=1", 1000),
    }
    FOLDER.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox", "--headless=new"])
        for name, (view, height) in views.items():
            path = FOLDER / f"{name}.png"
            picture(browser, f"{url}/dashboard{view}", height, path)
            smaller(path)
            print(f"{path.name}: {path.stat().st_size:,} bytes")
            assert path.stat().st_size < LIMIT_BYTES, "too large for a README"
        browser.close()


def told(url: str) -> str:
    """A request with a story: answered as a stream after a failed attempt, else after a cold load, else any."""
    found = httpx.get(f"{url}/dashboard/api/traces?limit=1000&status=completed").raise_for_status().json()["traces"]
    streams = [each for each in found if each["stream"] and each["time_to_first_token_ms"]]
    retried = [each for each in streams if each["retry_count"]]
    cold = [each for each in streams if (each["load_ms"] or 0) > 500]
    return str(max(retried or cold or streams, key=lambda each: each["load_ms"] or 0)["request_id"])


def picture(browser: Browser, address: str, height: int, path: Path) -> None:
    """The page as it is seen without scrolling."""
    page = browser.new_page(viewport={"width": WIDTH, "height": height}, color_scheme="light")
    page.goto(address)
    page.wait_for_selector("main h1")
    page.wait_for_timeout(SETTLED_MS)
    page.screenshot(path=path)
    page.close()


def smaller(path: Path) -> None:
    """Fewer colours are enough for a page without pictures."""
    if shutil.which("pngquant"):
        subprocess.run(["pngquant", "--force", "--skip-if-larger", "--output", path, "128", path], check=False)


if __name__ == "__main__":
    main(sys.argv[1].rstrip("/") if len(sys.argv) > 1 else "http://127.0.0.1:11435")
