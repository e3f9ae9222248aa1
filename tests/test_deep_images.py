"""Images of more than 8 bits per channel: one rule for the whole data set says which value is
white."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from fw.core.errors import FwError, MissingFile
from fw.plugins.datasets.hub import Hub
from fw.plugins.datasets.image_folder import ImageFolder

SIDE = 6


def levels(white, seed=0, channels=1):
    """Values (H, W) or (H, W, C) from 0 to `white`, both of which occur."""
    found = (
        np.random.default_rng(seed).integers(0, white + 1, (SIDE, SIDE, channels)).astype(np.uint16)
    )
    found[0, 0], found[0, 1] = 0, white
    return found[..., 0] if channels == 1 else found


def png(pixels, sbit=None):
    """A PNG file of 16 bits per channel, written chunk by chunk, because Pillow writes no coloured
    ones."""
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[1 if pixels.ndim == 2 else pixels.shape[2]]

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    head = chunk(
        b"IHDR", struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 16, colour, 0, 0, 0)
    )
    bits = chunk(b"sBIT", bytes(sbit)) if sbit else b""
    return (
        b"\x89PNG\r\n\x1a\n"
        + head
        + bits
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def tiff(pixels, **options):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "TIFF", **options)
    return file.getvalue()


def twelve_bit_tiff(pixels):
    """A grey TIFF of 12 bits per sample, two values in three bytes, as scanners write it."""
    flat = pixels.astype(np.uint32).reshape(-1, 2)
    packed = np.stack(
        [flat[:, 0] >> 4, (flat[:, 0] & 15) << 4 | flat[:, 1] >> 8, flat[:, 1] & 255], axis=1
    )
    data = packed.astype(np.uint8).tobytes()
    height, width = pixels.shape
    tags = [
        (256, width),
        (257, height),
        (258, 12),
        (259, 1),
        (262, 1),
        (273, 8),
        (277, 1),
        (278, height),
    ]
    tags.append((279, len(data)))
    directory = struct.pack("<H", len(tags)) + b"".join(
        struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags
    )
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + directory + struct.pack("<I", 0)


def pgm(pixels, white):
    return (
        b"P5 %d %d %d\n" % (pixels.shape[1], pixels.shape[0], white)
        + pixels.astype(">u2").tobytes()
    )


def folder(tmp_path, train, test, **fields):
    """A data set of these files, given as name and bytes."""
    for split, files in (("train", train), ("test", test)):
        (tmp_path / "data" / split).mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            (tmp_path / "data" / split / name).write_bytes(data)
    return ImageFolder(
        root=tmp_path / "data", cache=tmp_path / "cache", **{"size": SIDE, "channels": 1, **fields}
    )


def expected(pixels, white, black=0):
    """(C, H, W), scaled and rounded."""
    rounded = np.round(
        (np.clip(pixels.astype(float), black, white) - black) * 255 / (white - black)
    )
    return rounded.reshape(SIDE, SIDE, -1).transpose(2, 0, 1)


def off(found, wanted):
    """By how much two images differ at most; rounding may differ by one level at exact halves."""
    return np.abs(found.numpy().astype(float) - wanted).max()


@pytest.mark.parametrize("bits", [10, 12, 14])
@pytest.mark.parametrize("write", [png, tiff])
def test_files_that_use_fewer_than_16_bits_are_bright_and_it_is_said(tmp_path, bits, write):
    bright, dark = levels(2**bits - 9), levels(2 ** (bits - 2), seed=1)
    data = folder(
        tmp_path, {"a.x.png": write(bright), "b.png": write(dark)}, {"c.png": write(dark // 2)}
    )
    found = data.load("train").images
    assert off(found[0], expected(bright, 2**bits - 1)) == 0
    assert off(found[1], expected(dark, 2**bits - 1)) == 0  # by the same rule, so it stays dark
    assert off(data.load("test").images[0], expected(dark // 2, 2**bits - 1)) == 0
    [said] = data.remarks()
    assert f"`range: [0, {2**bits - 1}]`" in said


@pytest.mark.parametrize("channels", [3, 4])
def test_coloured_files_are_scaled_with_all_their_bits(tmp_path, channels):
    pixels = levels(1023, channels=channels)
    pixels[..., 3:] = 1023  # opaque
    data = folder(tmp_path, {"a.png": png(pixels)}, {"b.png": png(pixels // 2)}, channels=3)
    assert off(data.load("train").images[0], expected(pixels[..., :3], 1023)) == 0


def test_files_that_use_all_16_bits_keep_their_pixels_and_their_keys(tmp_path):
    grey, colour = levels(65535), levels(65535, channels=3)
    data = folder(
        tmp_path, {"a.png": png(grey), "b.png": png(colour)}, {"c.png": png(grey // 8)}, channels=3
    )
    found = data.load("train").images
    assert off(found[0], np.repeat(expected(grey, 65535), 3, axis=0)) == 0
    assert off(found[1], (colour >> 8).transpose(2, 0, 1)) == 0  # the upper 8 bits, as ever
    assert off(data.load("test").images[0], np.repeat(expected(grey // 8, 65535), 3, axis=0)) == 0
    assert not {"range", "whites", "drop_repeats"} & data.identity().keys()
    assert not data.remarks()


def test_what_a_file_states_is_believed_without_a_word(tmp_path):
    pixels = levels(900)  # fewer than 10 bits, all the same of 12
    stated = {
        "a.png": png(pixels, sbit=[12]),
        "b.tif": twelve_bit_tiff(pixels),
        "c.pgm": pgm(pixels, 4095),
        "d.tif": tiff(pixels, tiffinfo={281: 4095}),
    }
    data = folder(tmp_path, stated, {"a.png": png(pixels // 2, sbit=[12])})
    for found in data.load("train").images:
        assert off(found, expected(pixels, 4095)) <= 1  # Pillow rounds PNM twice
    assert not data.remarks()


def test_significant_bits_beside_values_that_were_scaled_up_are_no_depth(tmp_path):
    pixels = levels(4095) * 16
    data = folder(
        tmp_path, {"a.png": png(pixels, sbit=[12])}, {"b.png": png(pixels // 2, sbit=[12])}
    )
    assert off(data.load("train").images[0], expected(pixels, 65535)) == 0
    assert "whites" not in data.identity()


def test_a_tiff_that_states_its_own_largest_value_and_no_depth_is_not_scaled_by_itself(tmp_path):
    dark = levels(1000)
    files = {
        "a.tif": tiff(dark, tiffinfo={281: 1000}),
        "b.tif": tiff(levels(4000), tiffinfo={281: 4000}),
    }
    found = folder(tmp_path, files, {"c.tif": tiff(dark // 2)}).load("train").images
    assert off(found[0], expected(dark, 4095)) == 0


def test_the_key_says_how_images_are_scaled(tmp_path):
    data = folder(tmp_path, {"a.png": png(levels(1000))}, {"b.png": png(levels(600))})
    assert data.identity()["whites"] == {"unstated": 1023}
    told = folder(tmp_path, {}, {}, range=[0, 1023])
    assert told.identity()["range"] == [0, 1023]
    assert "whites" not in told.identity()
    assert told.load("train").images.equal(data.load("train").images)
    assert not told.remarks()


@pytest.mark.parametrize(("black", "white"), [(0, 2000), (300, 900)])
def test_a_range_says_what_is_black_and_white(tmp_path, black, white):
    pixels = levels(1500)
    files = {
        "a.png": png(pixels),
        "b.tif": tiff(pixels.astype(np.int32)),
        "c.tif": tiff(pixels.astype(np.float32)),
    }
    data = folder(tmp_path, files, {"b.png": png(pixels // 2)}, range=[black, white])
    for found in data.load("train").images:
        assert off(found, expected(pixels, white, black)) <= 1
    assert not data.remarks()


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_32_bits_without_a_range_are_left_out_and_the_reason_names_the_remedy(tmp_path, dtype):
    files = {"a.tif": tiff(levels(1500).astype(dtype)), "b.png": png(levels(65535))}
    data = folder(tmp_path, files, {"b.png": png(levels(65535, seed=1))})
    assert len(data.load("train")) == 1
    [said] = data.remarks()
    assert "a.tif: " in said
    assert "set the dataset's `range`" in said


def test_numbers_that_are_not_finite_are_no_pixels(tmp_path):
    pixels = levels(3).astype(np.float32)
    pixels[2, 2] = np.nan
    data = folder(
        tmp_path,
        {"a.tif": tiff(pixels)},
        {"b.tif": tiff(levels(3).astype(np.float32))},
        range=[0, 3],
    )
    with pytest.raises(MissingFile, match=r"a\.tif: it has values that are not finite"):
        data.load("train")


def test_a_pinned_content_needs_a_range_because_its_key_is_known_without_the_files(tmp_path):
    files = {"a.png": png(levels(1000))}, {"b.png": png(levels(600))}
    content = folder(tmp_path, *files).identity()["content"]
    with pytest.raises(MissingFile, match=r"`range` to \[0, 1023\]"):
        folder(tmp_path, *files, content=content).preflight()
    folder(tmp_path, *files, content=content, range=[0, 1023]).preflight()


def test_an_upright_image_stays_upright_when_it_is_scaled(tmp_path):
    pixels = levels(1000)
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", exif=exif)
    data = folder(tmp_path, {"a.png": file.getvalue()}, {"b.png": png(levels(600))})
    assert off(data.load("train").images[0], expected(np.rot90(pixels, 3), 1023)) == 0


def test_a_range_whose_black_is_above_its_white_is_refused(tmp_path):
    with pytest.raises(ValueError, match="the first number is the smaller one"):
        folder(tmp_path, {}, {}, range=[5, 5])


def saved(tmp_path, white):
    datasets = pytest.importorskip("datasets")
    splits = {
        split: datasets.Dataset.from_dict(
            {"image": [png(levels(white, seed=seed))]},
            features=datasets.Features(image=datasets.Image()),
        )
        for seed, split in enumerate(("train", "test"))
    }
    datasets.DatasetDict(splits).save_to_disk(str(tmp_path / "saved"))
    return lambda **fields: Hub(
        path=str(tmp_path / "saved"), size=SIDE, channels=1, cache=tmp_path / "cache", **fields
    )


def test_rows_whose_images_would_be_black_are_refused_until_a_range_is_given(tmp_path):
    hub = saved(tmp_path, 1000)
    with pytest.raises(FwError, match=r"set the dataset's `range` to \[0, 1023\]"):
        hub().load("train")
    assert off(hub(range=[0, 1023]).load("train").images[0], expected(levels(1000), 1023)) == 0
    assert off(hub(range=[0, 65535]).load("train").images[0], expected(levels(1000), 65535)) == 0


def test_rows_of_16_full_bits_are_what_they_were(tmp_path):
    hub = saved(tmp_path, 65535)
    assert off(hub().load("train").images[0], expected(levels(65535), 65535)) == 0
