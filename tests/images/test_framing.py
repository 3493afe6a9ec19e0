"""A centre crop is that of torchvision, bit for bit, for every shape and filter."""

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize

from d4m.images.framing import FILTERS, crop_centre
from d4m.settings import CentreCropSettings

THEIRS = {
    "lanczos": InterpolationMode.LANCZOS,
    "bicubic": InterpolationMode.BICUBIC,
    "bilinear": InterpolationMode.BILINEAR,
}


def _image(width, height, mode="RGB"):
    shape = (height, width, 3) if mode == "RGB" else (height, width)
    pixels = np.random.default_rng(width * height).integers(0, 256, shape)
    return Image.fromarray(pixels.astype(np.uint8))


@pytest.mark.parity
@pytest.mark.parametrize("resampling", FILTERS)
@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize(
    ("width", "height"),
    [(500, 375), (375, 500), (224, 224), (256, 256), (33, 57), (101, 100), (640, 427), (900, 30)],
)
@pytest.mark.parametrize(("resize_px", "crop_px"), [(256, 224), (73, 48), (32, 31), (64, 64)])
def test_a_centre_is_torchvisions(width, height, mode, resampling, resize_px, crop_px):
    image = _image(width, height, mode)
    settings = CentreCropSettings(resize_px=resize_px, crop_px=crop_px, resampling=resampling)
    theirs = Compose([Resize(resize_px, THEIRS[resampling]), CenterCrop(crop_px)])
    assert np.array_equal(np.asarray(crop_centre(image, settings)), np.asarray(theirs(image)))


@pytest.mark.parity
@pytest.mark.parametrize("resampling", FILTERS)
def test_the_centre_of_a_long_strip_is_that_of_the_whole_strip(resampling):
    strip = _image(1600, 40)  # 40 times as long as wide: only its centre is computed
    settings = CentreCropSettings(resize_px=64, crop_px=48, resampling=resampling)
    theirs = Compose([Resize(64, THEIRS[resampling]), CenterCrop(48)])(strip)
    gaps = np.abs(np.asarray(crop_centre(strip, settings)).astype(int) - np.asarray(theirs))
    # Pillow may resize the other axis first, and rounds and clips between the two.
    assert (gaps > 1).mean() < 0.1
    assert gaps.mean() < 1


@pytest.mark.parametrize("size", [(20_000, 1), (1, 20_000), (31, 1), (1, 1)])
def test_a_line_of_pixels_has_a_centre(size):
    settings = CentreCropSettings(resize_px=256, crop_px=224)
    centre = crop_centre(Image.new("RGB", size, (9, 99, 199)), settings)
    assert centre.size == (224, 224)
    assert centre.getextrema() == ((9, 9), (99, 99), (199, 199))
