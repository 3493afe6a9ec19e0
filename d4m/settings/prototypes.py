"""Prototypes: how each class's latents are clustered (D4M, section 3.2)."""

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, JsonValue, model_validator

from d4m.settings.augmentation import AugmentationSettings, BatchChanges
from d4m.settings.classifier import ClassifierSettings, Network
from d4m.settings.optimizer import Precision
from d4m.settings.section import Section


def _drawn_as_in_dsa() -> AugmentationSettings:
    return AugmentationSettings(
        one_of=True,
        crop_scale=(1.0, 1.0),
        rotation_degrees=15.0,
        shift=0.125,
        zoom=1.2,
        brightness=0.7,
        contrast=0.5,
        cutout=0.5,
        cutmix=0.0,
    )


class RefinementSettings(Section):
    """Gradient steps that move all prototypes together, until a regression predicts better."""

    steps: int = Field(default=400, ge=1, le=100_000, description="Number of gradient steps.")
    learning_rate: float = Field(
        default=0.02,
        gt=0,
        le=1,
        description=(
            "Initial learning rate of Adam, for latents with a standard deviation of about 1; it "
            "falls to zero along a cosine."
        ),
    )
    labels: Literal["class", "teacher", "both"] = Field(
        default="class",
        description=(
            "The labels that the regression is fitted to and predicts: the `class` of each image, "
            "the `teacher`'s logits, or `both`, in alternate steps. Choose the labels that "
            "students will be trained with. `teacher` and `both` need `representative: "
            "explaining` with `explained: teacher`."
        ),
    )
    through: Literal["synthesis", "vae"] = Field(
        default="synthesis",
        description=(
            "The way from prototypes to the images that are judged. `synthesis`: the diffusion "
            "of this recipe, with each image's own noise, so that the refined images are those "
            "that come out. `vae`: the decoder alone, which takes less time, and suits a strength "
            "close to 0."
        ),
    )
    augmentation: AugmentationSettings = Field(
        default_factory=_drawn_as_in_dsa,
        description=(
            "With `class`, how views are drawn; by default as in DSA. With `teacher`, views are "
            "those of `soft_labels.augmentation`, or by a ridge regression those of the teacher. "
            "With `both`, each step has its own."
        ),
    )
    batch_changes: BatchChanges = Field(
        default=(),
        exclude_if=lambda value: not value,
        description=(
            "With `class` and `both`, DSA's changes in place of `augmentation`, on standardised "
            "pixels; each view has one of them. Name those of `evaluation.hard.batch_changes`, "
            "so that images are refined for the views that students see."
        ),
    )
    precision: Precision = Field(
        default="float32",
        description=(
            "With `class`, the number format of the networks whose features the regression "
            "takes. With `teacher` it is the teacher's. With `both`, each step has its own."
        ),
    )
    regression: Literal["logistic", "ridge"] = Field(
        default="logistic",
        description=(
            "How labels are predicted from features. `logistic`: a linear layer that is trained "
            "on cross-entropy, as the last layer of students is. `ridge`: a ridge regression."
        ),
    )
    regressions: int = Field(
        default=1,
        ge=1,
        le=100,
        exclude_if=lambda value: value == 1,
        description=(
            "How many regressions a step averages, each with a student and views of its own; a "
            "ridge regression towards the teacher has one. The images are drawn once for all of "
            "them, so several are worth more than as many steps where the generator takes most of "
            "the time."
        ),
    )
    views: int = Field(
        default=100,
        ge=1,
        le=100_000,
        exclude_if=lambda value: value == 100,
        description=(
            "How many views of images a regression has, of up to 25 classes: several of each image "
            "where images are few, and of some of them where they are many; a ridge regression "
            "towards the teacher has 200. Images that are hardly ever looked at together are "
            "not refined to differ, so as many as there are images are worth their time."
        ),
    )
    students: tuple[Network, ...] = Field(
        default=(ClassifierSettings(),),
        min_length=1,
        exclude_if=lambda value: value == (ClassifierSettings(),),
        description=(
            "The networks whose features the regression takes, each in as many steps as the "
            "others; a ridge regression towards the teacher takes ConvNet3's. Name those that are "
            "to learn from the images: images that are refined for one architecture may be worth "
            "less to another than random ones."
        ),
    )

    @property
    def of_classes(self) -> bool:
        """Whether the classes of real images are predicted."""
        return self.labels != "teacher"

    @property
    def of_teacher(self) -> bool:
        """Whether the teacher's logits on real images are predicted."""
        return self.labels != "class"

    @property
    def as_students_learn(self) -> bool:
        """Whether the teacher is predicted by the last layer of students that learn from it."""
        return self.of_teacher and self.regression == "logistic"

    def used(self) -> dict[str, JsonValue]:
        """Return the settings that refined prototypes depend on.

        A ridge regression, the only one that there was at first, is not named.
        """
        ridge = self.regression == "ridge"
        unused = {"regression"} if ridge else set[str]()
        if self.labels == "teacher":
            unused |= {"augmentation", "batch_changes", "precision"}
            if ridge:
                unused |= {"students", "views"}
                if self.learning_rate == RefinementSettings().learning_rate:
                    unused.add("learning_rate")  # the only rate there was, and in no key
        return self.model_dump(mode="json", exclude=unused)

    @classmethod
    def among(cls, values: Mapping[str, Any]) -> Self:
        """Return the settings among those of a unit; `used` says what is absent."""
        return super().among({"regression": "ridge", **values})


class PrototypeSettings(Section):
    """Clustering of each class's latents (D4M, section 3.2)."""

    ipc: int = Field(
        default=10, ge=1, le=5000, description="Images per class. Each prototype gives one image."
    )
    method: Literal["kmeans", "minibatch_kmeans", "gaussian_mixture"] = Field(
        default="kmeans",
        description=(
            "`kmeans`: exact Lloyd iterations. `minibatch_kmeans`: the paper's mini-batches. "
            "`gaussian_mixture`: diagonal covariances, fitted by EM."
        ),
    )
    pooling: int = Field(
        default=1,
        ge=1,
        le=64,
        description=(
            "Clusters are found on latents that are averaged over squares of this edge. "
            "Prototypes keep the full size."
        ),
    )
    outlier_share: float = Field(
        default=0.0,
        ge=0,
        lt=0.5,
        description="Share of a class's images that is left out: those in the sparsest places.",
    )
    representative: Literal["mean", "medoid", "explaining"] = Field(
        default="mean",
        description=(
            "`mean`: the mean of the cluster. `medoid`: the real latent nearest to the mean. "
            "`explaining`: one real latent per cluster, chosen together so that a kernel "
            "regression on their images predicts `explained` on other images; more than 2,000 "
            "prototypes are chosen by groups of classes."
        ),
    )
    explained: Literal["teacher", "class"] = Field(
        default="teacher",
        exclude_if=lambda value: value == "teacher",
        description=(
            "With `explaining`, what is predicted: the `teacher`'s logits, or the `class` of each "
            "image, for which no teacher is asked. Choose the labels that students will be "
            "trained with."
        ),
    )
    refinement_steps: int = Field(
        default=0,
        ge=0,
        le=100_000,
        description=(
            "Short for `refinement: {steps: ..., labels: teacher, through: vae, regression: "
            "ridge}`, which needs `representative: explaining`."
        ),
    )
    refinement: RefinementSettings | None = Field(
        default=None,
        description="Moves prototypes so that their images teach more. With `null` they stay.",
    )
    batch_size: int = Field(
        default=1024, ge=1, description="Latents per mini-batch (`minibatch_kmeans` only)."
    )
    starts: int = Field(
        default=4, ge=1, le=100, description="Number of k-means++ starts. The best result is kept."
    )

    @model_validator(mode="after")
    def _check_refinement(self) -> Self:
        if self.refinement_steps and self.refinement:
            msg = "`refinement_steps` is short for `refinement`: wanted one of them, found both"
            raise ValueError(msg)
        refined = self.refined
        if refined and refined.of_teacher and not self.explains_teacher:
            msg = (
                "a refinement towards the teacher moves prototypes that explain it: wanted "
                "`representative: explaining` with `explained: teacher`, found "
                f"{self.representative} with {self.explained}; or set `refinement.labels: class`"
            )
            raise ValueError(msg)
        return self

    @property
    def is_open(self) -> bool:
        """Whether a recipe names nothing but how many prototypes it wants."""
        return self.model_fields_set <= {"ipc"}

    @property
    def explains_teacher(self) -> bool:
        """Whether prototypes are chosen so that they predict the teacher."""
        return self.representative == "explaining" and self.explained == "teacher"

    @property
    def refined(self) -> RefinementSettings | None:
        """How prototypes are refined, by either of the two keys; None: not at all."""
        if not self.refinement_steps:
            return self.refinement
        return RefinementSettings(
            steps=self.refinement_steps, labels="teacher", through="vae", regression="ridge"
        )

    def used(self) -> dict[str, JsonValue]:
        """Return the settings that prototypes depend on."""
        unused = {"refinement"} if self.refinement is None else set[str]()
        if not self.refinement_steps:
            unused.add("refinement_steps")
        if self.method != "minibatch_kmeans":
            unused.add("batch_size")
        if self.representative != "explaining":
            unused.add("explained")
        used = self.model_dump(mode="json", exclude=unused)
        if self.refinement:
            used["refinement"] = self.refinement.used()
        return used

    @classmethod
    def among(cls, values: Mapping[str, Any]) -> Self:
        """Return the settings among those of a unit; `RefinementSettings.used` says what is absent.

        Example:
            >>> ridge = PrototypeSettings(refinement=RefinementSettings(regression="ridge"))
            >>> PrototypeSettings.among(ridge.used()) == ridge
            True
        """
        if refinement := values.get("refinement"):
            values = {**values, "refinement": RefinementSettings.among(refinement)}
        return super().among(values)
