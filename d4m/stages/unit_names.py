"""The names of all units, and what can be read back from a name.

| artifact | names |
|---|---|
| real_images | `train-00003`, `test-00003`, `validation-00003`: one class of one split |
| generator | `vae`, `text_encoder`, `denoiser`, `scheduler` |
| latents, prototypes, synthetic_images | `class-00003` |
| teacher | `teacher`, `teacher-01`; `other-OTHER`, `other-OTHER-01`: members of an ensemble |
| baseline_images | `herding`, ...: a coreset; `training_log`; `mosaic_real-00003`, ...: a piece |
| synthesis_choice | `strength-0.1-guidance-3`: a candidate; `choice` |
| soft_labels | `epochs-000050`: the block that begins with this epoch |
| evaluation_scores | `synthetic-soft-convnet3-00`: a student; `teacher`, `teacher-OTHER` |
| image_fidelity | `synthetic`, `random_real`, ...: a training set |
| distilled_dataset | `distilled_dataset` |

OTHER is a further teacher: its architecture and a digest of its other settings. Names that a recipe
gives to students and teachers are in no unit's name, so that renaming one computes nothing.

Where a recipe is distilled several times, units of the distillations after the first have the
number of theirs in front: `set-01-class-00003`, `set-01-epochs-000050`,
`set-01-synthetic-soft-convnet3-00`.
"""

import re
from collections import Counter
from collections.abc import Sequence
from typing import cast, get_args

from d4m.settings import OtherTeacherSettings, StudentSettings
from d4m.sources.base import Split
from d4m.store.digest import digest_json

THE_TEACHER = ""
"""The teacher whose labels the distilled data set has; for the others see `name_teacher`."""

TRAINING_LOG = "training_log"
"""The unit of `baseline_images` that ranks images by how hard they are to learn."""


def name_students(students: Sequence[StudentSettings]) -> list[str]:
    """Return what tells students apart in the names of units, whatever the recipe calls them.

    It is the architecture, and where several students share that, a digest of the options too.

    Example:
        >>> name_students([StudentSettings(name="wide"), StudentSettings(architecture="resnet18")])
        ['convnet3', 'resnet18']
    """
    counts = Counter(student.architecture for student in students)
    return [
        _name_network(student) if counts[student.architecture] > 1 else student.architecture
        for student in students
    ]


def name_teacher(teacher: OtherTeacherSettings) -> str:
    """Return what tells a further teacher from others, whatever the recipe calls it.

    Example:
        >>> one, same = (OtherTeacherSettings(name=name, epochs=2) for name in ("one", "same"))
        >>> name_teacher(one) == name_teacher(same), name_teacher(one).partition(".")[0]
        (True, 'convnet3')
    """
    return _name_network(teacher)


def _name_network(network: StudentSettings | OtherTeacherSettings) -> str:
    unnamed = {"name", "architecture"}
    own = network.model_dump(mode="json", exclude=unnamed, exclude_defaults=True)
    return f"{network.architecture}.{digest_json(own)[:8]}" if own else network.architecture


_SET = re.compile(r"set-(\d+)-")


def of_distillation(distillation: int, unit: str) -> str:
    """Return the name that a unit of the first distillation has in another one.

    Example:
        >>> of_distillation(0, "class-00003"), of_distillation(1, "class-00003")
        ('class-00003', 'set-01-class-00003')
    """
    return f"set-{distillation:02d}-{unit}" if distillation else unit


def distillation_of(unit: str) -> int:
    """Return the number of the distillation that a unit is part of; 0 is the first.

    Example:
        >>> distillation_of("class-00003"), distillation_of("set-01-class-00003")
        (0, 1)
    """
    found = _SET.match(unit)
    return int(found.group(1)) if found else 0


def class_unit(class_id: int, distillation: int = 0) -> str:
    """Return the name of the unit of one class."""
    return of_distillation(distillation, f"class-{class_id:05d}")


def split_unit(split: Split, class_id: int) -> str:
    """Return the name of the unit of one class's images in one split."""
    return f"{split}-{class_id:05d}"


def split_of(unit: str) -> Split:
    """Return the split of a unit of real images."""
    return cast(Split, unit.rpartition("-")[0])


def class_of(unit: str) -> int | None:
    """Return the class that a unit is about; None for a unit about something else.

    Example:
        >>> class_of("class-00003"), class_of("train-00004"), class_of("epochs-000050")
        (3, 4, None)
        >>> class_of("set-01-class-00003")
        3
    """
    kind, _, number = _SET.sub("", unit).rpartition("-")
    return int(number) if kind in ("class", *get_args(Split)) else None


def class_id_of(unit: str) -> int:
    """Return the class of a unit that is about one class."""
    class_id = class_of(unit)
    assert class_id is not None, "artifacts with a unit per class have no other units"
    return class_id


def made_unit(baseline: str, piece: int, distillation: int = 0) -> str:
    """Return the name of a piece of a baseline's made images.

    Example:
        >>> made_unit("dm", 3, 1)
        'set-01-dm-00003'
    """
    return of_distillation(distillation, f"{baseline}-{piece:05d}")


def block_unit(first_epoch: int, distillation: int = 0) -> str:
    """Return the name of a block of labelled epochs."""
    return of_distillation(distillation, f"epochs-{first_epoch:06d}")


def first_epoch_of(block: str) -> int:
    """Return the epoch that a block of labelled epochs begins with."""
    return int(block.rpartition("-")[2])


def member_unit(teacher: str, member: int) -> str:
    """Return the name of one member of a teacher.

    Example:
        >>> member_unit(THE_TEACHER, 0), member_unit("resnet18.3fa2c1b0", 1)
        ('teacher', 'other-resnet18.3fa2c1b0-01')
    """
    name = f"other-{teacher}" if teacher else "teacher"
    return f"{name}-{member:02d}" if member else name


def teacher_score_unit(teacher: str) -> str:
    """Return the name of the unit of a teacher's own score."""
    return f"teacher-{teacher}" if teacher else "teacher"


def student_unit(
    training_set: str, labels: str, student: str, *, seed: int, augmented: bool, teacher: str
) -> str:
    """Return the name of the unit of a student's score.

    Example:
        >>> student_unit("synthetic", "soft", "resnet10", seed=2, augmented=True, teacher="vit.3f")
        'synthetic-soft-by-vit.3f-resnet10-02'
    """
    plain = "" if augmented else "-plain"
    by = f"-by-{teacher}" if teacher else ""
    return f"{training_set}-{labels}{plain}{by}-{student}-{seed:02d}"


def seed_number_of(student: str) -> int:
    """Return which of the seeds a student has, from the name of its unit."""
    return int(student.rpartition("-")[2])
