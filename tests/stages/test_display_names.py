"""Names of students and teachers: away in what is stored, and back in what people see."""

from d4m.settings import RecipeSettings
from d4m.stages.display_names import names_of, with_names, without_names

NARROW = {"architecture": "resnet18", "options": {"channels": [8, 16]}}
WIDE = {"architecture": "resnet18", "options": {"channels": [16, 32]}}


def _settings(students, others=()):
    sections = {
        "dataset": {"source": "digits"},
        "evaluation": {"students": students},
        "teacher": {"others": others},
    }
    return RecipeSettings.model_validate(sections)


def test_a_recipe_without_names_is_stored_as_it_is():
    plain = _settings(["convnet3", "test_vit"])
    assert without_names(plain) == plain


def test_names_are_replaced_by_those_of_the_networks_and_come_back():
    students = [{"name": "one", **NARROW}, {"name": "two", **WIDE}, {"name": "three"}]
    others = [{"name": "quick", "epochs": 1}, {"name": "slow", "epochs": 9}]
    named = _settings(students, others)
    stored = without_names(named)
    names = [student.name for student in stored.evaluation.students]
    assert [name.partition(".")[0] for name in names] == ["resnet18", "resnet18", ""]
    assert len({*names}) == 3
    assert [other.name.partition(".")[0] for other in stored.teacher.others] == ["convnet3"] * 2
    # They are those of every recipe with these networks, and can be read back.
    renamed = [{**student, "name": f"other.{place}"} for place, student in enumerate(students)]
    assert (
        without_names(_settings(renamed, [{**o, "name": o["name"][0]} for o in others])) == stored
    )
    dump = stored.model_dump(mode="json")
    assert RecipeSettings.from_dump(dump) == stored
    assert with_names(dump, named) == named.model_dump(mode="json")


def test_networks_that_the_present_recipe_lacks_keep_their_stored_names():
    stored = without_names(_settings([{"name": "one", **NARROW}, {"name": "two", **WIDE}]))
    dump = stored.model_dump(mode="json")
    present = _settings([{"name": "narrow", **NARROW}, "convnet3"])
    names = [student["name"] for student in with_names(dump, present)["evaluation"]["students"]]
    unknown = stored.evaluation.students[1].name
    assert names == ["narrow", unknown]
    assert names_of(dump, present) == {
        stored.evaluation.students[0].name: "narrow",
        unknown: unknown,
    }
