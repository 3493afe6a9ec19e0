"""How an image of any shape becomes a square, by Pillow; without torch."""

from collections.abc import Mapping

from PIL import Image

from d4m.settings import CentreCropSettings, Resampling

FILTERS: Mapping[Resampling, Image.Resampling] = {
    "lanczos": Image.Resampling.LANCZOS,
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
}
_LONGEST_STRIP = 32  # times as long as wide


def crop_centre(image: Image.Image, settings: CentreCropSettings) -> Image.Image:
    """Resize the shorter side of an image, and cut out the centre.

    Lengths are rounded as torchvision rounds them: the longer side down, the corner of the centre
    to the nearest even number where it is halfway between two.

    Args:
        image: of any shape.
        settings: length of the shorter side, size of the centre, and filter.

    Source:
        torchvision's `Resize(resize_px)` and `CenterCrop(crop_px)`, by which ImageNet's test images
        are read in the public code of D4M, SRe2L and RDED.

    Example:
        >>> settings = CentreCropSettings(resize_px=16, crop_px=8)
        >>> crop_centre(Image.new("L", (300, 200)), settings).size
        (8, 8)
    """
    crop_px, resampling = settings.crop_px, FILTERS[settings.resampling]
    size = tuple(settings.resize_px * side // min(image.size) for side in image.size)
    left, top = (round((side - crop_px) / 2) for side in size)
    centre = (left, top, left + crop_px, top + crop_px)
    if max(size) <= _LONGEST_STRIP * settings.resize_px:
        return image.resize((size[0], size[1]), resampling).crop(centre)
    # A strip of 20,000 x 1 pixels would become one of gigabytes, so its centre alone is computed.
    box = [place * image.size[n % 2] / size[n % 2] for n, place in enumerate(centre)]
    return image.resize((crop_px, crop_px), resampling, (box[0], box[1], box[2], box[3]))
