#!/usr/bin/env python3
"""Times the report's gallery in headless Chromium over a catalogue of many drawn photos.

    scripts/gallery_bench.py target/release/lookbook FOLDER [--photos 20000]

Draws small photos of outfits with their masks, and metadata, takes them through convert, segment, similarity and report, and
then opens the page, searches, filters, chooses and scrolls. Each figure is the time from the event to the end of its layout,
in milliseconds, as performance.now() of the page has it. FOLDER is made, unless it has the report from an earlier call. Needs
chromedriver (scripts/install_test_tools.sh) and nothing else.
"""

import argparse
import csv
import json
import random
import re
import struct
import subprocess
import urllib.request
import zlib
from pathlib import Path

WIDTH, HEIGHT = 60, 90
COLORS = [(216, 196, 160), (12, 12, 12), (30, 60, 190), (110, 65, 30), (128, 128, 128), (30, 130, 60), (240, 130, 30),
          (240, 160, 190), (130, 30, 160), (200, 20, 30), (245, 245, 245), (240, 220, 40)]
# Ids of what is worn from head to foot, as `lookbook convert` counts them.
OUTFITS = [[10, 1, 11, 15], [21, 7, 2, 15], [6, 5, 13, 15], [14, 22, 18, 20, 15], [4, 5, 11, 3, 15], [1, 16, 19, 15], [7, 15]]
SEARCHES = ["r", "re", "red", "red ", "red d", "red dress", "look 0012", "shoe", "no such photo", "black shoe red dress", ""]


def png(rows: list[bytes], color_type: int) -> bytes:
    """A PNG file (ISO/IEC 15948) of 8 bits a channel."""
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, color_type, 0, 0, 0)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
            + chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows), 1)) + chunk(b"IEND", b""))


def draw(source: Path, photos: int) -> None:
    """Photos, their masks, and a table of metadata."""
    draws = random.Random(7)
    for folder in ("photos", "masks"):
        (source / folder).mkdir(parents=True)
    with open(source / "items.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["file_name", "brand", "price", "stock", "title"])
        for number in range(photos):
            name, outfit = f"look {number:05}", draws.choice(OUTFITS)
            heights = [draws.randint(4, 20) for _ in outfit]
            photo, mask = [bytes((225, 225, 220)) * WIDTH] * 6, [bytes(WIDTH)] * 6
            for category, height in zip(outfit, heights):
                color = bytes(max(0, min(255, channel + draws.randint(-8, 8))) for channel in draws.choice(COLORS))
                photo += [bytes((225, 225, 220)) * 10 + color * (WIDTH - 20) + bytes((225, 225, 220)) * 10] * height
                mask += [bytes(10) + bytes([category]) * (WIDTH - 20) + bytes(10)] * height
            photo = (photo + [bytes((225, 225, 220)) * WIDTH] * HEIGHT)[:HEIGHT]
            mask = (mask + [bytes(WIDTH)] * HEIGHT)[:HEIGHT]
            (source / "photos" / f"{name}.png").write_bytes(png(photo, 2))
            (source / "masks" / f"{name}.png").write_bytes(png(mask, 0))
            table.writerow([f"{name}.png", f"Brand {draws.randint(1, 20)}", draws.randint(500, 40000) / 100,
                            draws.randint(0, 50), f"{draws.choice(['Summer', 'Winter'])} look, number {number}"])


def report(program: str, folder: Path, photos: int) -> Path:
    """The page, which is made unless it is there."""
    page = folder / "report/index.html"
    if not page.exists():
        draw(folder / "source", photos)
        stages = [["convert", "--source", "source"], ["segment", "--from", "labels", "--catalogue", "dataset"],
                  ["similarity", "--features", "features", "--matrix", "none"],
                  ["report", "--run", ".", "--metadata", "source/items.csv"]]
        outputs = {"convert": "dataset", "segment": "features"}
        for stage, *flags in stages:
            output = outputs.get(stage, stage)
            subprocess.run([str(Path(program).resolve()), stage, *flags, "--output", output], cwd=folder, check=True)
    return page


class Browser:
    """Headless Chromium by WebDriver."""

    def __init__(self) -> None:
        self.driver = subprocess.Popen(["chromedriver", "--port=0"], stdout=subprocess.PIPE, text=True)
        port = next(found[1] for line in self.driver.stdout if (found := re.search(r"successfully on port (\d+)", line)))
        self.url = f"http://127.0.0.1:{port}/session"
        options = {"args": ["--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1400,900"]}
        capabilities = {"alwaysMatch": {"browserName": "chrome", "goog:chromeOptions": options}}
        self.url += "/" + self.post("", {"capabilities": capabilities})["sessionId"]

    def post(self, command: str, content: dict) -> object:
        headers = {"content-type": "application/json"}
        request = urllib.request.Request(self.url + command, json.dumps(content).encode(), headers, method="POST")
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)["value"]

    def run(self, script: str) -> object:
        return self.post("/execute/async", {"script": f"const done = arguments[0]; {script}", "args": []})

    def close(self) -> None:
        urllib.request.urlopen(urllib.request.Request(self.url, method="DELETE")).close()
        self.driver.terminate()


TIMED = """const timed = (act) => { const from = performance.now(); act(); document.body.offsetHeight; return performance.now() - from; };"""
FIRST_VIEW = """const [page] = performance.getEntriesByType('navigation');
    const [paint] = performance.getEntriesByName('first-contentful-paint');
    const tiles = [...document.querySelectorAll('#wall .thumbnail')];
    const sheets = [...new Set(tiles.map((it) => it.style.backgroundImage.slice(5, -2)))];
    Promise.all(sheets.map((src) => Object.assign(new Image(), { src }).decode())).then(() => done({
        'first paint': paint.startTime, 'tiles drawn': page.domInteractive, 'thumbnails there': performance.now(),
        'tiles': tiles.length, 'sheets': sheets.length }));"""
SEARCH = TIMED + """const search = document.getElementById('search');
    done(%s.map((text) => { const ms = timed(() => { search.value = text; search.dispatchEvent(new Event('input')); });
        return [text, ms, document.getElementById('count').textContent]; }));"""
CLICKS = TIMED + """const click = (selector, at = 0) => timed(() => document.querySelectorAll(selector)[at].click());
    done({ 'tick a category': click('#facets-inner input', 6), 'tick a colour as well': click('.facet:nth-of-type(2) input', 9),
           'choose a photo': click('#wall .tile', 3), 'why': click('.why'), 'more like this': click('.worn [data-like]'),
           'compare': click('#wall .mark', 2), 'clear the filters': click('[data-clear-filters]') });"""
SCROLL = """const wall = document.getElementById('wall'); const gaps = []; let last;
    const step = (now) => { if (last !== undefined) gaps.push(now - last); last = now; wall.scrollTop += wall.scrollHeight / 300;
        if (gaps.length < 200) return requestAnimationFrame(step);
        gaps.sort((a, b) => a - b); done({ 'median frame': gaps[100], 'longest frame': gaps.at(-1) }); };
    requestAnimationFrame(step);"""


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("program")
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--photos", type=int, default=20_000)
    given = arguments.parse_args()
    page = report(given.program, given.folder, given.photos)
    browser = Browser()
    try:
        browser.post("/url", {"url": page.resolve().as_uri()})
        size = (page.parent / "gallery.js").stat().st_size
        print(f"gallery.js: {size / 1e6:.1f} MB")
        for name, value in browser.run(FIRST_VIEW).items():
            print(f"first view, {name}: {value:.0f}")
        for text, ms, count in browser.run(SEARCH % json.dumps(SEARCHES)):
            print(f"search {text!r}: {ms:.1f} ({count})")
        for name, value in {**browser.run(CLICKS), **browser.run(SCROLL)}.items():
            print(f"{name}: {value:.1f}")
    finally:
        browser.close()


if __name__ == "__main__":
    main()
