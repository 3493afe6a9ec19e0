"""Images in a page: no more of them than it has room for, small ones without loss."""

import base64
from io import BytesIO

import numpy as np
from PIL import Image

from d4m.page.pictures import encode_picture
from d4m.page.steps import ClassSteps, show_steps


def decode(uri: str) -> Image.Image:
    """The picture of a `data:` URI."""
    return Image.open(BytesIO(base64.b64decode(uri.partition(",")[2])))


def weight(classes: list[ClassSteps]) -> int:
    """Bytes of all images."""
    return sum(
        len(uri)
        for each in classes
        for steps in each.images
        for uri in (steps.real, steps.prototype, steps.synthetic, steps.nearest)
    )


def test_a_page_with_little_room_shows_fewer_images_of_every_class(finished_once):
    context = finished_once.pipeline().open_context()
    every = show_steps(context, None, most_bytes=1_000_000)
    assert [len(each.images) for each in every] == [3] * 10
    assert [each.name for each in every] == list(context.source.class_table.names)
    room = int(0.8 * weight(every))
    fewer = show_steps(context, None, most_bytes=room)
    assert 10 * 1 < sum(len(each.images) for each in fewer) < 10 * 3
    assert weight(fewer) <= room
    least = show_steps(context, None, most_bytes=1)
    assert [len(each.images) for each in least] == [1] * 10
    assert {each.total for each in least} == {3}
    assert not least[0].images[0].copied


def test_small_images_are_kept_and_large_ones_are_made_smaller():
    rng = np.random.default_rng(0)
    small = rng.integers(0, 255, (64, 64, 3), np.uint8)
    np.testing.assert_array_equal(np.asarray(decode(encode_picture(small))), small)
    large = np.repeat(np.repeat(small, 8, axis=0), 8, axis=1)
    encoded = encode_picture(large)
    assert encoded.startswith("data:image/webp;base64,")
    assert decode(encoded).size == (96, 96)
    assert len(encoded) < 12_000  # noise, which nothing encodes well
