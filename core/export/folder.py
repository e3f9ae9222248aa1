"""Images as a folder of PNG files, `000000.png`, `000001.png`, ..., as torch-fidelity, clean-fid
and others read it.

Grey images are grey files; these tools make RGB of them. Where conditions are classes,
`dataset.json` has that of each file, as in the data sets of StyleGAN and EDM.
"""

from __future__ import annotations

import json
from pathlib import Path

from fw.core.errors import FwError
from fw.core.export.images import Images
from fw.core.export.whole import new_folder
from fw.core.files.durable import write_text

CLASSES = "dataset.json"

DIGITS = 6
"""Those of a name at least, so that names sort as the images do."""


def write_folder(images: Images, path: Path) -> None:
    from PIL import Image

    channels = images.shape[0]
    if channels not in (1, 3):
        raise FwError(
            f"--to {path}: a PNG is grey or RGB, and these images have {channels} channels"
        )
    digits = max(DIGITS, len(str(len(images) - 1)))
    classes: list[tuple[str, int]] = []
    with new_folder(path) as temporary:
        number = 0
        for portion in images:
            pixels = portion.images.permute(0, 2, 3, 1).squeeze(-1).numpy()
            for place, image in enumerate(pixels):
                name = f"{number:0{digits}d}.png"
                Image.fromarray(image).save(temporary / name)
                if portion.classes is not None:
                    classes.append((name, int(portion.classes[place])))
                number += 1
        if images.have_classes:
            write_text(temporary / CLASSES, json.dumps({"labels": classes}))
