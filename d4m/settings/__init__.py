"""Every setting of a distillation: one frozen model per recipe section.

Settings say *what* is computed, and they are part of the cache keys. Where it is computed (store,
device) is never a setting. Defaults are the paper's if these make sense at any image size; defaults
that were tuned on small images say so.
"""

from collections.abc import Mapping
from typing import Any, Self, cast

from pydantic import Field, model_validator

from d4m.settings.augmentation import AugmentationSettings as AugmentationSettings
from d4m.settings.augmentation import BatchChange as BatchChange
from d4m.settings.baselines import MADE as MADE
from d4m.settings.baselines import Baseline as Baseline
from d4m.settings.baselines import CoresetSettings as CoresetSettings
from d4m.settings.baselines import DistributionMatchingSettings as DistributionMatchingSettings
from d4m.settings.baselines import Sre2lSettings as Sre2lSettings
from d4m.settings.classifier import ClassifierSettings as ClassifierSettings
from d4m.settings.classifier import StudentSettings as StudentSettings
from d4m.settings.dataset import CifarSettings as CifarSettings
from d4m.settings.dataset import DatasetSettings as DatasetSettings
from d4m.settings.dataset import DigitsSettings as DigitsSettings
from d4m.settings.dataset import FileImageSettings as FileImageSettings
from d4m.settings.dataset import HuggingFaceSettings as HuggingFaceSettings
from d4m.settings.dataset import ImageFolderSettings as ImageFolderSettings
from d4m.settings.dataset import MnistSettings as MnistSettings
from d4m.settings.dataset import SplitFolderSettings as SplitFolderSettings
from d4m.settings.evaluation import EvaluationSettings as EvaluationSettings
from d4m.settings.evaluation import FullDataSettings as FullDataSettings
from d4m.settings.evaluation import HardLabelSettings as HardLabelSettings
from d4m.settings.evaluation import Labels as Labels
from d4m.settings.evaluation import MatchingSettings as MatchingSettings
from d4m.settings.generator import AutoencoderSettings as AutoencoderSettings
from d4m.settings.generator import CompactSettings as CompactSettings
from d4m.settings.generator import DenoiserSettings as DenoiserSettings
from d4m.settings.generator import FinetuneSettings as FinetuneSettings
from d4m.settings.generator import GeneratorSettings as GeneratorSettings
from d4m.settings.generator import PretrainedSettings as PretrainedSettings
from d4m.settings.optimizer import OptimizerSettings as OptimizerSettings
from d4m.settings.optimizer import Precision as Precision
from d4m.settings.pixels import CentreCropSettings as CentreCropSettings
from d4m.settings.pixels import PixelSettings as PixelSettings
from d4m.settings.prompts import PLACEHOLDER as PLACEHOLDER
from d4m.settings.prompts import PromptSettings as PromptSettings
from d4m.settings.prototypes import PrototypeSettings as PrototypeSettings
from d4m.settings.prototypes import RefinementSettings as RefinementSettings
from d4m.settings.section import ClassBalance as ClassBalance
from d4m.settings.section import Resampling as Resampling
from d4m.settings.section import Section as Section
from d4m.settings.set_guidance import CgsSettings as CgsSettings
from d4m.settings.set_guidance import DapSettings as DapSettings
from d4m.settings.set_guidance import OtSettings as OtSettings
from d4m.settings.set_guidance import SetGuidanceSettings as SetGuidanceSettings
from d4m.settings.soft_labels import EPOCHS_PER_BLOCK as EPOCHS_PER_BLOCK
from d4m.settings.soft_labels import SoftLabelSettings as SoftLabelSettings
from d4m.settings.synthesis import RecipeSynthesisSettings as RecipeSynthesisSettings
from d4m.settings.synthesis import SynthesisCandidates as SynthesisCandidates
from d4m.settings.synthesis import SynthesisSettings as SynthesisSettings
from d4m.settings.teacher import InputSettings as InputSettings
from d4m.settings.teacher import LabellerSettings as LabellerSettings
from d4m.settings.teacher import OtherTeacherSettings as OtherTeacherSettings
from d4m.settings.teacher import TeacherSettings as TeacherSettings


class RecipeSettings(Section):
    """A whole distillation: one field per section of the recipe file."""

    dataset: DatasetSettings = Field(description="The images to distil.")
    prompts: PromptSettings = Field(
        default_factory=PromptSettings,
        description="The texts that describe the classes to the generator.",
    )
    generator: GeneratorSettings = Field(
        default_factory=GeneratorSettings, description="The latent diffusion model."
    )
    prototypes: PrototypeSettings = Field(
        default_factory=PrototypeSettings, description="How each class's latents are clustered."
    )
    synthesis: RecipeSynthesisSettings = Field(
        default_factory=RecipeSynthesisSettings, description="How prototypes become images."
    )
    teacher: TeacherSettings = Field(
        default_factory=TeacherSettings,
        description="The network that labels views of the synthetic images.",
    )
    soft_labels: SoftLabelSettings = Field(
        default_factory=SoftLabelSettings,
        description="The teacher's labels for every epoch's views.",
    )
    evaluation: EvaluationSettings = Field(
        default_factory=EvaluationSettings,
        description="The students, and the images they are scored on.",
    )
    seed: int = Field(
        default=0,
        ge=0,
        lt=2**63,
        description="Every random number of the recipe follows from this number.",
    )

    precision: Precision = Field(
        default="float32",
        exclude_if=lambda value: value == "float32",
        description=(
            "Number format of the networks that are trained here, where their own `precision` is "
            "not named: the compact VAE, teachers, students, and those that a refinement asks. "
            "A step in `bfloat16` takes half to two thirds of the time on a CPU that has it, and "
            "many times as long on another; GPUs of today have it."
        ),
    )

    @classmethod
    def from_dump(cls, dump: Mapping[str, Any]) -> Self:
        """Return the settings that `model_dump` was called on.

        Args:
            dump: every section; its `generator` names both kinds, where a recipe may name one.

        Raises:
            ValidationError: the settings are of another version of d4m.
        """
        return cls.model_validate(as_written(dump))

    @model_validator(mode="after")
    def _hand_down_precision(self) -> Self:
        vars(self).update(_computing_in(self, self.precision))
        return self

    def in_its_precision(self) -> Self:
        """Return these settings with `precision` in every network that does not name its own."""
        return _computing_in(self, self.precision)

    @model_validator(mode="after")
    def _scored_images_exist(self) -> Self:
        may_exist = self.dataset.validation_share > 0 or isinstance(
            self.dataset, ImageFolderSettings
        )  # a folder of validation images is looked for when the images are listed
        if self.evaluation.split == "validation" and not may_exist:
            msg = (
                "evaluation.split: `validation` wants validation images; set "
                "`dataset.validation_share`, such as to 0.1"
            )
            raise ValueError(msg)
        return self


def as_written(dump: Mapping[str, Any]) -> dict[str, Any]:
    """Return dumped settings as a recipe has them: with one kind of generator."""
    generator = dump["generator"]
    unused = "compact" if generator["pretrained"] else "pretrained"
    used = {key: value for key, value in generator.items() if key != unused}
    return {**dump, "generator": used}


def _computing_in(value: Any, precision: Precision) -> Any:
    """Return settings whose open precisions are this one; what is named stays what is named."""
    if isinstance(value, tuple):
        return tuple(_computing_in(each, precision) for each in cast("tuple[Any, ...]", value))
    if not isinstance(value, Section):
        return value
    own = {name: _computing_in(each, precision) for name, each in value}
    if own.get("precision") == "float32" and "precision" not in value.model_fields_set:
        own["precision"] = precision
    return value.model_construct(_fields_set=value.model_fields_set, **own)


SECTIONS = tuple(name for name in RecipeSettings.model_fields if name != "precision")
"""The sections of a recipe. Its `precision` is that of networks, each in a section."""
