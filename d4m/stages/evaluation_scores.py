"""Artifact `evaluation_scores`: students of each training set, scored on held-out images."""

from collections.abc import Iterator, Sequence
from typing import ClassVar

from d4m.stages import compared_sets
from d4m.stages.base import Product, Stage
from d4m.stages.context import Inputs, StageContext
from d4m.stages.laboratory import Laboratory
from d4m.stages.student_runs import by_images, run_inputs, scored_inputs, student_runs
from d4m.stages.students_together import cohorts, train_cohort
from d4m.stages.teacher import load_teacher, teacher_inputs, teachers_of
from d4m.stages.unit_names import teacher_score_unit
from d4m.store.reference import Unit


class EvaluationScores(Stage):
    """The scores. Unit: one student, or one teacher.

    A student's unit depends on what the student is trained on, and on the scored images.
    """

    name: ClassVar[str] = "evaluation_scores"
    version: ClassVar[str] = "4"
    upstream: ClassVar[tuple[str, ...]] = (*compared_sets.ARTIFACTS, "soft_labels", "teacher")
    sections: ClassVar[tuple[str, ...]] = ("evaluation", "students")
    divisible: ClassVar[bool] = True

    def plan(self, context: StageContext) -> list[Unit]:
        """Return one unit per student of `student_runs`, and one per teacher."""
        recipe = context.recipe.settings
        students = [
            self.unit(context, run.unit_name, run_inputs(context, run))
            for run in student_runs(recipe)
        ]
        teachers = [
            self.unit(
                context,
                teacher_score_unit(teacher),
                Inputs(
                    {"training_set": "teacher", "precision": settings.optimizer.precision},
                )
                | scored_inputs(context)
                | teacher_inputs(context, teacher),
            )
            for teacher, settings in teachers_of(recipe).items()
        ]
        return [*students, *teachers]

    def pieces(self, context: StageContext, missing: Sequence[Unit]) -> list[list[Unit]]:
        """Return students that can be trained at once, as many as the device has use for."""
        return cohorts(by_images(missing), most=context.compute.most_together)

    def compute(
        self, context: StageContext, missing: Sequence[Unit]
    ) -> Iterator[tuple[Unit, Product]]:
        """Train and score students, one after the other or several at once.

        Students with the same images share them.
        """
        lab = Laboratory(context, checkpoint=context.checkpoint)
        for units in self.pieces(context, missing):
            if (unit := units[0]).settings["training_set"] == "teacher":
                model = load_teacher(context, unit.reads("teacher"))
                yield unit, lab.score(model, unit.settings, unit.settings["precision"])
            else:
                yield from train_cohort(lab, units)
