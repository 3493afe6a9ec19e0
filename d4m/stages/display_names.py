"""The names that a recipe gives to students and teachers: for people only, and in no stored unit.

A distilled data set is stored with names that follow from the networks, so that a renamed student
computes nothing. The recipe's own names come back where a data set is shown, exported or restored.
"""

import re
from collections.abc import Mapping
from typing import Any, TypeVar

from d4m.settings import OtherTeacherSettings, RecipeSettings, StudentSettings
from d4m.stages.unit_names import name_students, name_teacher

_Named = TypeVar("_Named", StudentSettings, OtherTeacherSettings)
_NO_NAME = re.compile(r"[^A-Za-z0-9_.]")


def without_names(settings: RecipeSettings) -> RecipeSettings:
    """Return the settings with names of students and teachers that follow from their networks.

    A student that has its architecture to itself has no name, as by default.
    """
    evaluation, teacher = settings.evaluation, settings.teacher
    students = [
        _renamed(student, "" if name == student.architecture else name)
        for student, name in zip(
            evaluation.students, name_students(evaluation.students), strict=True
        )
    ]
    others = [_renamed(other, name_teacher(other)) for other in teacher.others]
    return settings.model_copy(
        update={
            "evaluation": evaluation.model_copy(update={"students": tuple(students)}),
            "teacher": teacher.model_copy(update={"others": tuple(others)}),
        }
    )


def with_names(stored: Mapping[str, Any], present: RecipeSettings) -> dict[str, Any]:
    """Return stored settings with the names that a recipe has for the same networks.

    Args:
        stored: every section, as `RecipeSettings` dumps them.
        present: the recipe with the names.
    """
    students = _names(present.evaluation.students)
    others = _names(present.teacher.others)
    evaluation, teacher = stored["evaluation"], stored["teacher"]
    named = [_find_name(each, students) for each in evaluation["students"]]
    return {
        **stored,
        "evaluation": {**evaluation, "students": named},
        "teacher": {**teacher, "others": [_find_name(each, others) for each in teacher["others"]]},
    }


def names_of(stored: Mapping[str, Any], present: RecipeSettings) -> dict[str, str]:
    """Return the name in a stored table of scores -> the recipe's, of students and teachers.

    Args:
        stored: the settings that the table belongs to, as `RecipeSettings` dumps them.
        present: the recipe with the names.
    """
    named = with_names(stored, present)
    return {
        was["name"] or was["architecture"]: now["name"] or now["architecture"]
        for section, networks in (("evaluation", "students"), ("teacher", "others"))
        for was, now in zip(stored[section][networks], named[section][networks], strict=True)
    }


def _renamed(network: _Named, name: str) -> _Named:
    return network.model_copy(update={"name": _NO_NAME.sub("_", name)})


def _names(
    networks: tuple[StudentSettings, ...] | tuple[OtherTeacherSettings, ...],
) -> list[tuple[dict[str, Any], str]]:
    return [(each.model_dump(mode="json", exclude={"name"}), each.name) for each in networks]


def _find_name(
    network: Mapping[str, Any], names: list[tuple[dict[str, Any], str]]
) -> dict[str, Any]:
    own = {key: value for key, value in network.items() if key != "name"}
    found = (name for known, name in names if known == own)
    return {**network, "name": next(found, "") or network["name"]}
