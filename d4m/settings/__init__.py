"""Every knob of a distillation: one frozen model per recipe section.

Settings say *what* is computed and are part of the cache keys; where it is computed (store, device)
is never among them. A section's defaults are the paper's where the paper's make sense at any image
size; what was tuned for small images says so.
"""

from typing import Self

from pydantic import Field, model_validator

from d4m.settings.augmentation import AugmentationSettings as AugmentationSettings
from d4m.settings.classifier import ClassifierSettings as ClassifierSettings
from d4m.settings.classifier import StudentSettings as StudentSettings
from d4m.settings.dataset import CifarSettings as CifarSettings
from d4m.settings.dataset import DatasetSettings as DatasetSettings
from d4m.settings.dataset import DigitsSettings as DigitsSettings
from d4m.settings.dataset import FileImageSettings as FileImageSettings
from d4m.settings.dataset import HuggingFaceSettings as HuggingFaceSettings
from d4m.settings.dataset import ImageFolderSettings as ImageFolderSettings
from d4m.settings.dataset import MnistSettings as MnistSettings
from d4m.settings.evaluation import Baseline as Baseline
from d4m.settings.evaluation import EvaluationSettings as EvaluationSettings
from d4m.settings.evaluation import HardLabelSettings as HardLabelSettings
from d4m.settings.evaluation import Labels as Labels
from d4m.settings.evaluation import MatchingSettings as MatchingSettings
from d4m.settings.generator import AutoencoderSettings as AutoencoderSettings
from d4m.settings.generator import CompactSettings as CompactSettings
from d4m.settings.generator import DenoiserSettings as DenoiserSettings
from d4m.settings.generator import GeneratorSettings as GeneratorSettings
from d4m.settings.generator import PretrainedSettings as PretrainedSettings
from d4m.settings.optimizer import OptimizerSettings as OptimizerSettings
from d4m.settings.optimizer import Precision as Precision
from d4m.settings.prompts import PLACEHOLDER as PLACEHOLDER
from d4m.settings.prompts import PromptSettings as PromptSettings
from d4m.settings.prototypes import PrototypeSettings as PrototypeSettings
from d4m.settings.section import Section as Section
from d4m.settings.soft_labels import SoftLabelSettings as SoftLabelSettings
from d4m.settings.synthesis import SynthesisSettings as SynthesisSettings
from d4m.settings.teacher import LabellerSettings as LabellerSettings
from d4m.settings.teacher import TeacherSettings as TeacherSettings


class RecipeSettings(Section):
    """A whole distillation: one field per section of the recipe file."""

    dataset: DatasetSettings = Field(description="The images to distil.")
    prompts: PromptSettings = Field(default_factory=PromptSettings, description="Class prompts.")
    generator: GeneratorSettings = Field(
        default_factory=GeneratorSettings, description="The latent diffusion model."
    )
    prototypes: PrototypeSettings = Field(
        default_factory=PrototypeSettings, description="Clusters of latents."
    )
    synthesis: SynthesisSettings = Field(
        default_factory=SynthesisSettings, description="Images from prototypes."
    )
    teacher: TeacherSettings = Field(default_factory=TeacherSettings, description="The labeller.")
    soft_labels: SoftLabelSettings = Field(
        default_factory=SoftLabelSettings, description="Labels of every epoch's views."
    )
    evaluation: EvaluationSettings = Field(
        default_factory=EvaluationSettings, description="Students and their scores."
    )
    seed: int = Field(
        default=0, ge=0, lt=2**63, description="Root of every random stream of the recipe."
    )

    @model_validator(mode="after")
    def _scored_images_exist(self) -> Self:
        if self.evaluation.split == "validation" and self.dataset.validation_share == 0:
            msg = (
                "evaluation.split: `validation` wants validation images; set "
                "`dataset.validation_share`, such as to 0.1"
            )
            raise ValueError(msg)
        return self


SECTIONS = tuple(RecipeSettings.model_fields)
