"""`make docs`: pictures of the pages that a finished run is looked at on.

python -m screenshots runs/self_guidance/latest docs/images
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from browsing import HEIGHT, WIDTH, browser, lacking, looks, served
from PIL import Image


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("run", type=Path, help="the folder of a finished run with MLflow")
    words.add_argument("folder", type=Path, help="where the pictures are written")
    given = words.parse_args()
    if reason := lacking():
        sys.exit(reason)
    if not (given.run / "report.html").exists():
        sys.exit(f"{given.run}: no report.html there; run its recipe first")
    given.folder.mkdir(parents=True, exist_ok=True)
    run = given.run.resolve()
    with served(run.parents[1]) as server, browser() as chromium:
        for look in looks(run, server).values():
            page = chromium.new_page(viewport={"width": WIDTH, "height": HEIGHT})
            look.open(page)
            path = given.folder / f"{look.name}.png"
            page.screenshot(path=path)
            page.close()
            with Image.open(path) as picture:
                picture.convert("RGB").save(path, optimize=True)
            print(f"{path}: {path.stat().st_size // 1000} kB")


if __name__ == "__main__":
    main()
