"""Decoding of every kind of image that Pillow reads, checked against values worked by hand."""

import struct
import warnings
import zlib
from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageOps
from torchvision import transforms

from d4m.errors import UnreadableImageError
from d4m.settings import CentreCropSettings, ImageFolderSettings
from d4m.sources.decode import (
    decode_file,
    decode_raw,
    file_decoding,
    load_image,
    quiet_pillow,
    raw_decoding,
)
from tests.export.odd_images import white_is_zero

GREEN = (0, 200, 100)


PHOTOGRAPH = np.random.default_rng(0).integers(0, 256, (40, 30, 3)).astype(np.uint8)


def _settings(**settings):
    defaults = {"source": "image_folder", "path": ".", "size_px": 8, "channels": 3}
    return ImageFolderSettings.model_validate(defaults | settings)


def _bytes(image, kind="PNG", **options):
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _decode(content, size_px=8, **settings):
    return decode_file(content, _settings(**settings), size_px)


def _level(content, **settings):
    """Return the colour of an image that has only one."""
    pixels = _decode(content, **settings)
    assert (pixels == pixels[0, 0]).all()
    return pixels[0, 0].tolist()


def _png(colour_type, depth, row, *, extra=b""):
    """Build an 8 x 8 PNG of equal rows by hand, because Pillow writes no 16-bit colours."""

    def chunk(kind, data):
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    header = struct.pack(">IIBBBBB", 8, 8, depth, colour_type, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress((b"\0" + row) * 8))
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    return start + (chunk(b"tRNS", extra) if extra else b"") + pixels + chunk(b"IEND", b"")


def test_grey_becomes_colour_and_colour_becomes_grey():
    assert _level(_bytes(Image.new("L", (8, 8), 90))) == [90, 90, 90]
    assert _level(_bytes(Image.new("L", (8, 8), 90)), channels=1) == [90]
    red = _bytes(Image.new("RGB", (8, 8), (255, 0, 0)))
    assert _level(red, channels=1) == [76]  # 0.299 * 255, as in ITU-R 601
    assert _level(_bytes(Image.new("1", (8, 8), 1))) == [255, 255, 255]


def test_palettes_become_their_colours():
    image = Image.new("P", (8, 8), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    assert _level(_bytes(image)) == [10, 20, 30]
    assert _level(_bytes(image, "GIF")) == [10, 20, 30]


@pytest.mark.parametrize("alpha", [0, 1, 51, 128, 254, 255])
@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_transparent_pixels_show_the_background(alpha, kind):
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    content = _bytes(Image.new("RGBA", (8, 8), (250, 100, 0, alpha)), kind, **options)
    share = alpha / 255
    for background in (GREEN, (255, 255, 255), (0, 0, 0)):
        over = [c * share + b * (1 - share) for c, b in zip((250, 100, 0), background, strict=True)]
        assert _level(content, background=background) == pytest.approx(over, abs=0.51)


def test_transparent_grey_shows_the_background_also_where_grey_is_asked_for():
    content = _bytes(Image.new("LA", (8, 8), (100, 51)))  # a fifth of 100, four fifths of GREEN
    assert _level(content, background=GREEN) == [20, 180, 100]
    grey = round(0.299 * 20 + 0.587 * 180 + 0.114 * 100)
    assert _level(content, background=GREEN, channels=1) == [grey]
    assert _level(content, channels=1) == [224]  # white is the default


@pytest.mark.parametrize("alpha", [0, 51, 255])
def test_palettes_with_transparent_colours_show_the_background(alpha):
    image = Image.new("P", (8, 8), 1)
    image.putpalette([0, 0, 0, 100, 50, 0])
    share = alpha / 255
    over = [c * share + b * (1 - share) for c, b in zip((100, 50, 0), GREEN, strict=True)]
    content = _bytes(image, transparency=bytes([255, alpha]))
    assert _level(content, background=GREEN) == pytest.approx(over, abs=0.51)
    with_alpha = Image.new("PA", (8, 8), (1, alpha))
    with_alpha.putpalette([0, 0, 0, 100, 50, 0])
    content = _bytes(with_alpha, "TIFF")
    assert _level(content, background=GREEN) == pytest.approx(over, abs=0.51)


@pytest.mark.parametrize(("mode", "colour"), [("L", 5), ("RGB", (1, 2, 3)), ("1", 1)])
def test_a_colour_that_means_transparent_shows_the_background(mode, colour):
    content = _bytes(Image.new(mode, (8, 8), colour), transparency=colour)
    assert _level(content, background=GREEN) == list(GREEN)
    other = Image.new(mode, (8, 8), 0)
    other.info["transparency"] = colour
    assert _level(_bytes(other, transparency=colour), background=GREEN) == [0, 0, 0]


def test_a_transparent_first_frame_of_a_gif_shows_the_background():
    image = Image.new("P", (8, 8), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    assert _level(_bytes(image, "GIF", transparency=1), background=GREEN) == list(GREEN)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled_and_not_cut_off(kind, channels):
    levels = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1024 + 200
    image = _decode(_bytes(Image.fromarray(levels), kind), channels=channels)
    assert np.array_equal(image, np.broadcast_to((levels // 256)[..., None], (8, 8, channels)))


def test_16_bit_grey_in_which_0_is_white_is_turned_round():
    """As gel scanners and archives of X-rays write them; Pillow leaves them as they are."""
    levels = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1024 + 200
    content = white_is_zero(_bytes(Image.fromarray(levels), "TIFF"))
    assert np.array_equal(_decode(content, channels=1)[..., 0], (65_535 - levels) // 256)
    small = Image.fromarray(levels.astype(np.uint8))
    eight = white_is_zero(_bytes(small, "TIFF"))
    assert np.array_equal(_decode(eight, channels=1)[..., 0], 255 - np.asarray(small))


def test_16_bit_grey_of_either_byte_order_is_scaled():
    levels = np.full((8, 8), 40_000, ">u2")
    tags = [(256, 8), (257, 8), (258, 16), (259, 1), (262, 1), (273, 98), (277, 1), (279, 128)]
    entries = b"".join(struct.pack(">HHII", tag, 4, 1, value) for tag, value in tags)
    big = b"MM\0*" + struct.pack(">IH", 8, len(tags)) + entries + bytes(4)
    offset = len(big)
    big = big.replace(struct.pack(">HHII", 273, 4, 1, 98), struct.pack(">HHII", 273, 4, 1, offset))
    assert _level(big + levels.tobytes(), channels=1) == [156]


def test_16_bit_colours_with_and_without_alpha_are_scaled():
    words = struct.pack(">4H", 0x80FF, 0x40AA, 0x2011, 0x3333)
    assert _level(_png(2, 16, words[:6] * 8)) == [0x80, 0x40, 0x20]
    over = [c / 5 + b * 4 / 5 for c, b in zip((0x80, 0x40, 0x20), GREEN, strict=True)]
    assert _level(_png(6, 16, words * 8), background=GREEN) == pytest.approx(over, abs=0.51)
    grey_alpha = words[:2] + words[6:]
    over = [0x80 / 5 + level * 4 / 5 for level in GREEN]
    assert _level(_png(4, 16, grey_alpha * 8), background=GREEN) == pytest.approx(over, abs=0.51)


def test_a_16_bit_level_that_means_transparent_shows_the_background():
    row = struct.pack(">2H", 0x80FF, 0x80FE) * 4  # equal in 8 bits; only the first is transparent
    image = _decode(_png(0, 16, row, extra=b"\x80\xff"), background=GREEN)
    assert (image[:, ::2] == GREEN).all()
    assert (image[:, 1::2] == 0x80).all()


def test_print_colours_become_rgb():
    ink = Image.new("CMYK", (8, 8), (255, 0, 0, 0))
    assert _level(_bytes(ink, "TIFF")) == [0, 255, 255]
    jpeg = _decode(_bytes(ink, "JPEG", quality=100)).astype(int)
    assert np.abs(jpeg - [0, 255, 255]).max() <= 3
    half = _bytes(Image.new("CMYK", (8, 8), (0, 0, 0, 127)), "TIFF")
    assert _level(half) == [128, 128, 128]


def test_print_colours_as_photoshop_stores_them_become_rgb():
    """YCCK with luminance 128, chroma 90 and 200 and inverted black 255 is CMY 229, 90, 61."""
    stored = Image.new("CMYK", (8, 8), tuple(255 - level for level in (128, 90, 200, 255)))
    plain = _bytes(stored, "JPEG", quality=100, subsampling=0)
    transform = plain.index(b"Adobe") + 11
    assert plain[transform] == 0
    content = plain[:transform] + b"\x02" + plain[transform + 1 :]
    assert np.abs(_decode(content).astype(int) - [255 - 229, 255 - 90, 255 - 61]).max() <= 3


def test_tiff_colours_of_television_become_rgb():
    content = _bytes(Image.new("RGB", (8, 8), (200, 100, 50)).convert("YCbCr"), "TIFF")
    assert np.abs(_decode(content).astype(int) - [200, 100, 50]).max() <= 2


TURNS = {  # EXIF orientation -> the turn that shows the stored pixels upright
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.T,
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].T,
    8: np.rot90,
}


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_photographs_are_turned_upright(orientation, kind):
    stored = np.arange(64, dtype=np.uint8).reshape(8, 8) * 3
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {}
    content = _bytes(Image.fromarray(stored), kind, exif=exif, **options)
    assert np.array_equal(_decode(content, channels=1)[..., 0], TURNS[orientation](stored))


def test_broken_metadata_does_not_spoil_an_image():
    """Pillow's own function fails on orientation 6 with a width entry of the wrong type."""
    exif = Image.Exif()
    exif[0x0100], exif[0x0112] = 8, 6
    stored = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8) * 3)
    plain = _bytes(stored, "JPEG", exif=exif)
    width = plain.index(struct.pack(">HH", 0x0100, 4))
    content = plain[: width + 3] + b"\x0a" + plain[width + 4 :]
    with Image.open(BytesIO(content)) as opened, pytest.raises(struct.error):
        ImageOps.exif_transpose(opened)
    upright = np.rot90(_decode(_bytes(stored, "JPEG"), channels=1)[..., 0], -1)
    assert np.array_equal(_decode(content, channels=1)[..., 0], upright)


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "PNG", "WEBP"])
def test_the_first_of_several_frames_or_pages_is_the_image(kind):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ((200, 0, 0), (0, 0, 200))]
    options = {"lossless": True} if kind == "WEBP" else {}
    content = _bytes(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    with Image.open(BytesIO(content)) as opened:
        assert getattr(opened, "n_frames", 1) == 2
    assert _level(content) == [200, 0, 0]


def test_squashing_keeps_the_whole_image_and_cropping_keeps_the_centre():
    image = Image.new("L", (24, 8), 0)
    image.paste(255, (8, 0, 16, 8))  # the middle third is bright
    assert (_decode(_bytes(image), channels=1, resize="crop") == 255).all()
    squashed = _decode(_bytes(image), channels=1)[..., 0]
    assert squashed.mean() == pytest.approx(255 / 3, abs=2)
    assert (squashed == squashed[0]).all()
    assert squashed[0, 0] < 30
    assert squashed[0, 3] > 220


@pytest.mark.parametrize("resize", ["squash", "crop"])
@pytest.mark.parametrize("size", [(1, 1), (4000, 1), (1, 4000), (3, 2)])
def test_any_size_and_shape_becomes_the_square(resize, size):
    content = _bytes(Image.new("RGB", size, (9, 99, 199)))
    assert _level(content, resize=resize) == [9, 99, 199]


@pytest.mark.parametrize("resize", ["squash", "crop"])
@pytest.mark.parametrize("resampling", [None, "lanczos", "bicubic", "bilinear"])
def test_resizing_is_by_pillows_filter_and_by_default_lanczos(resize, resampling):
    image = Image.fromarray(PHOTOGRAPH)
    way = {"squash": Image.Image.resize, "crop": ImageOps.fit}[resize]
    chosen = {} if resampling is None else {"resampling": resampling}
    kind = Image.Resampling[(resampling or "lanczos").upper()]
    expected = np.asarray(way(image, (16, 16), kind))
    assert np.array_equal(_decode(_bytes(image), 16, resize=resize, **chosen), expected)
    raw = decode_raw(PHOTOGRAPH.tobytes(), PHOTOGRAPH.shape, 16, **chosen)
    assert np.array_equal(raw, np.asarray(image.resize((16, 16), kind)))


@pytest.mark.parity
def test_images_are_read_as_the_published_code_reads_them_for_the_encoder():
    """It has torchvision's `Resize((512, 512))`, which squeezes by a bilinear filter."""
    image = Image.fromarray(PHOTOGRAPH)
    theirs = np.asarray(transforms.Resize((64, 64))(image))
    assert np.array_equal(_decode(_bytes(image), 64, resampling="bilinear"), theirs)


@pytest.mark.parity
@pytest.mark.parametrize("channels", [1, 3])
def test_a_centre_is_torchvisions_from_a_file_and_from_raw_pixels(channels):
    image = Image.fromarray(PHOTOGRAPH).convert("L" if channels == 1 else "RGB")
    crop = CentreCropSettings(resize_px=24, crop_px=20)
    theirs = transforms.Compose([transforms.Resize(24), transforms.CenterCrop(20)])(image)
    expected = np.asarray(theirs).reshape(20, 20, channels)
    for resize in ("squash", "crop"):  # neither of which plays a part
        found = _decode(_bytes(Image.fromarray(PHOTOGRAPH)), crop, resize=resize, channels=channels)
        assert np.array_equal(found, expected)
    raw = decode_raw(PHOTOGRAPH.tobytes(), PHOTOGRAPH.shape, crop, channels=channels)
    assert np.array_equal(raw, expected)


def test_an_image_above_pillows_warning_size_is_read_without_a_warning(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40)
    with pytest.warns(Image.DecompressionBombWarning):
        Image.open(BytesIO(_bytes(Image.new("L", (8, 8), 7))))
    assert _level(_bytes(Image.new("L", (8, 8), 7)), channels=1) == [7]


def test_the_pixel_limit_holds_where_other_code_has_lifted_pillows(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    content = bytearray(_bytes(Image.new("L", (8, 8), 7), "BMP"))
    content[18:26] = struct.pack("<ii", 13_378, 13_377)
    with pytest.raises(UnreadableImageError, match=r"^has more than 178,956,970 pixels$"):
        _decode(bytes(content))


def test_other_warnings_appear_again_after_pillow_was_silenced():
    def warn_as_pillow():
        warnings.warn_explicit("of no use", UserWarning, "Image.py", 1, module="PIL.Image")

    with quiet_pillow():
        with quiet_pillow():
            warn_as_pillow()
        warn_as_pillow()
        with pytest.raises(UserWarning, match="of use"):
            warnings.warn("of use", UserWarning, stacklevel=1)
    with pytest.raises(UserWarning, match="of no use"):
        warn_as_pillow()
    with pytest.raises(UserWarning, match="of use"):
        warnings.warn("of use", UserWarning, stacklevel=1)


def test_a_decoder_that_runs_out_of_memory_does_not_blame_the_file(monkeypatch):
    def fail(*_, **__):
        raise MemoryError

    monkeypatch.setattr(Image, "open", fail)
    with pytest.raises(MemoryError):
        load_image(_bytes(Image.new("L", (8, 8), 7)))


def _photograph(height, width, kind="JPEG", **options):
    """Return a file of smooth colours, as photographs have."""
    coarse = Image.fromarray(PHOTOGRAPH[:6, :8])
    return _bytes(coarse.resize((width, height), Image.Resampling.BICUBIC), kind, **options)


@pytest.mark.parametrize("settings", [{}, {"resize": "crop"}, {"channels": 1}], ids=str)
@pytest.mark.parametrize(("sides", "divisor"), [((200, 304), 8), ((60, 300), 2), ((31, 300), 1)])
def test_scaled_jpeg_files_are_decoded_at_the_smallest_size_that_is_twice_the_result(
    settings, sides, divisor
):
    exif = Image.Exif()
    exif[0x0112] = 6
    for options in ({}, {"exif": exif}):
        content = _photograph(*sides, **options)
        image = load_image(content, jpeg_px=16)
        upright = sides if options else sides[::-1]
        assert image.size == tuple(side // divisor for side in upright)
        whole, scaled = (_decode(content, **settings, jpeg=jpeg) for jpeg in ("full", "scaled"))
        assert np.array_equal(whole, scaled) == (divisor == 1)
        assert np.abs(whole.astype(int) - scaled).max() <= 4


def test_only_jpeg_files_are_scaled_and_the_centre_has_its_own_least_size():
    for kind in ("PNG", "WEBP"):
        content = _photograph(200, 300, kind)
        assert np.array_equal(_decode(content), _decode(content, jpeg="scaled"))
    content, scaled = _photograph(200, 300), _settings(jpeg="scaled")
    large, small = (CentreCropSettings(resize_px=px, crop_px=8) for px in (51, 50))
    for centre, same in ((large, True), (small, False)):
        whole, own = (decode_file(content, each, centre) for each in (_settings(), scaled))
        assert np.array_equal(whole, own) == same


def test_the_decoding_names_all_that_decides_except_the_size():
    assert file_decoding(_settings(size_px=9, test_share=0.5, background=GREEN)) == {
        "version": 1,
        "channels": 3,
        "resize": "squash",
        "background": [0, 200, 100],
    }
    assert "resampling" not in file_decoding(_settings(resampling="lanczos"))
    assert file_decoding(_settings(resampling="bicubic"))["resampling"] == "bicubic"
    assert file_decoding(_settings(jpeg="scaled"))["jpeg"] == "scaled"
    assert dict(raw_decoding(3, "lanczos")) == {"channels": 3}
    assert dict(raw_decoding(1, "bilinear")) == {"channels": 1, "resampling": "bilinear"}


def test_raw_pixels_are_unchanged_unless_another_size_or_colour_is_asked_for():
    pixels = np.random.default_rng(0).integers(0, 256, (6, 6, 3)).astype(np.uint8)
    raw = pixels.tobytes()
    assert np.array_equal(decode_raw(raw, (6, 6, 3), 6), pixels)
    grey = np.asarray(Image.fromarray(pixels).convert("L"))
    assert np.array_equal(decode_raw(raw, (6, 6, 3), 6, channels=1)[..., 0], grey)
    small = Image.fromarray(pixels).resize((4, 4), Image.Resampling.LANCZOS)
    assert np.array_equal(decode_raw(raw, (6, 6, 3), 4), np.asarray(small))
    one = decode_raw(grey.tobytes(), (6, 6, 1), 6, channels=3)
    assert np.array_equal(one, np.repeat(grey[..., None], 3, axis=2))
    assert decode_raw(grey.tobytes(), (6, 6, 1), 9).shape == (9, 9, 1)
