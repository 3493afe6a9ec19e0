"""Images of one size and time, and what a recipe's first stage makes of them."""

import os

from PIL import Image

TIME = (1_000_000_000, 1_000_000_000)
SIDE = 8


def write_bmp(path, level):
    """Write an image in a format whose files of one image size all have one length."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (SIDE, SIDE), (level, level, level)).save(path)
    os.utime(path, TIME)


def index_images(workspace):
    """Run the first stage; return the digest of every image's bytes by split and name."""
    workspace.pipeline("own").run_stage("real_images")
    context = workspace.pipeline("own").open_context()
    return {
        (split, image): bytes(digest)
        for split in context.source.splits
        for class_id in context.class_ids
        for index in [context.image_index(split, class_id)]
        for image, digest in zip(index.image_ids, index.content_digests, strict=True)
    }


def change_last_pixel(content):
    """The same image but for its last pixel."""
    return content[:-3] + bytes([content[-3] ^ 1]) + content[-2:]
