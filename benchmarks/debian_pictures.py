"""Colour pictures that every Debian has, as folders with recipes: icons and stamps.

    python benchmarks/debian_pictures.py icons FOLDER [--held-out Tango]
    python benchmarks/debian_pictures.py stamps FOLDER

`icons`: the categories of three icon themes at 32 px; one theme is the test split. `stamps`: Tux
Paint's stamps by subject, photographs and drawings with transparency, shrunk to 64 px. A class has
at least 50 training images. Packages that are not installed are downloaded by `apt-get download`
and unpacked into the folder. The rows of a table are then printed by

    D4M_STORE=FOLDER/store python benchmarks/class_labels.py \
        FOLDER/icons_ipc1.yaml FOLDER/icons_ipc10.yaml --rows synthetic random_real
"""

import argparse
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from shutil import copyfile

from PIL import Image

FEWEST = 50
STAMP_PX = 64
STAMPS = ("tuxpaint-stamps-default", Path("usr/share/tuxpaint/stamps"))
# Where each theme has its categories at 32 px.
THEMES: Mapping[str, tuple[str, Path]] = {
    "gnome": ("gnome-icon-theme", Path("usr/share/icons/gnome/32x32")),
    "oxygen": ("oxygen-icon-theme", Path("usr/share/icons/oxygen/base/32x32")),
    "Tango": ("tango-icon-theme", Path("usr/share/icons/Tango/32x32")),
}
_RECIPE = """\
preset: [dc, hard]
dataset: {{source: image_folder, path: {path}, size_px: {size_px}}}
prototypes: {{ipc: {ipc}}}
evaluation: {{seeds: 3, distillations: 3, baselines: [random_real]}}
"""


def main() -> None:
    """Fill the folder and write a recipe for one and for ten images per class."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("pictures", choices=["icons", "stamps"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--held-out", default="Tango", choices=list(THEMES))
    asked = parser.parse_args()
    name, folder = asked.pictures, asked.folder.resolve()
    images = folder / name
    images.mkdir(parents=True)  # a folder that exists may hold other pictures
    if name == "icons":
        found, size_px = list(_icons(folder, asked.held_out)), 32
    else:
        found, size_px = list(_stamps(folder)), STAMP_PX
    classes = _large_enough([(split, group) for split, group, _ in found])
    for number, (split, group, source) in enumerate(found):
        if group in classes:
            target = images / split / group / f"{number:05d}-{source.name}"
            target.parent.mkdir(parents=True, exist_ok=True)
            _copy(source, target, size_px)
    for ipc in (1, 10):
        text = _RECIPE.format(path=name, size_px=size_px, ipc=ipc)
        (folder / f"{name}_ipc{ipc}.yaml").write_text(text, encoding="utf-8")
    for group, count in classes.items():
        print(f"{group}: {count} training images")


def _icons(folder: Path, held_out: str) -> Iterator[tuple[str, str, Path]]:
    """Yield split, category and file of every icon that is no link to another."""
    for theme, (package, place) in THEMES.items():
        split = "test" if theme == held_out else "train"
        for path in sorted(_installed(folder, package, place).glob("*/*.png")):
            if not path.is_symlink():
                yield split, path.parent.name, path


def _stamps(folder: Path) -> Iterator[tuple[str, str, Path]]:
    """Yield subject and file of every stamp; without a split, d4m holds a share out."""
    root = _installed(folder, *STAMPS)
    for path in sorted(root.rglob("*.png")):
        mirrored = any(word in path.stem for word in ("_mirror", "_flip"))
        if not (mirrored or path.is_symlink()):
            yield "", path.relative_to(root).parts[0], path


def _installed(folder: Path, package: str, place: Path) -> Path:
    """Return where a package has its files: in the system, or unpacked in the folder."""
    if (system := Path("/") / place).is_dir():
        return system
    unpacked = folder / "packages" / package
    if not (unpacked / place).is_dir():
        unpacked.mkdir(parents=True, exist_ok=True)
        if not list(unpacked.glob("*.deb")):
            subprocess.run(["/usr/bin/apt-get", "download", package], cwd=unpacked, check=True)
        [archive] = unpacked.glob("*.deb")
        subprocess.run(["/usr/bin/dpkg-deb", "-x", archive, unpacked], check=True)
    return unpacked / place


def _large_enough(found: list[tuple[str, str]]) -> dict[str, int]:
    """Return the classes with enough training images, and how many these are."""
    train = [group for split, group in found if split != "test"]
    counts = {group: train.count(group) for group in sorted(set(train))}
    tested = {group for split, group in found if split != "train"}
    return {group: count for group, count in counts.items() if count >= FEWEST and group in tested}


def _copy(source: Path, target: Path, size_px: int) -> None:
    """Copy a picture, shrunk and centred on a transparent square where it is larger."""
    with Image.open(source) as opened:
        if max(opened.size) <= size_px:
            copyfile(source, target)
            return
        picture = opened.convert("RGBA")
        picture.thumbnail((size_px, size_px))
    square = Image.new("RGBA", (size_px, size_px))
    square.paste(picture, ((size_px - picture.width) // 2, (size_px - picture.height) // 2))
    square.save(target)


if __name__ == "__main__":
    main()
