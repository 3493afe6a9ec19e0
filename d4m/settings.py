"""Every knob of a distillation: one frozen model per recipe section.

Settings say *what* is computed and are part of the cache keys; where it is computed (store, device)
is never among them. A section's defaults are the paper's where the paper's make sense at any image
size; what was tuned for small images says so.
"""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

Share = Annotated[float, Field(ge=0.0, le=1.0)]
PositiveInt = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """A frozen group of settings that refuses keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class DigitsSettings(Section):
    """scikit-learn's 1,797 handwritten digits of 8 x 8 grey pixels (Alpaydin & Kaynak, 1998)."""

    source: Literal["digits"] = Field(description="The source of the images.")
    test_images: int = Field(
        default=360, ge=10, le=1000, description="Images held out for the final scores, stratified."
    )


class ImageFolderSettings(Section):
    """A folder with one sub-folder of image files per class."""

    source: Literal["image_folder"] = Field(description="The source of the images.")
    path: Path = Field(
        description="Folder of class folders, or of train/ and test/; relative to the recipe file."
    )
    classes: dict[str, str] | None = Field(
        default=None,
        min_length=2,
        description="Class table: folder name -> class name, in class order; else sorted folders.",
    )
    size_px: int = Field(default=512, ge=8, le=4096, description="Images are resized to a square.")
    channels: Literal[1, 3] = Field(default=3, description="1: grey, 3: RGB.")
    resize: Literal["squash", "crop"] = Field(
        default="squash", description="Squash to a square as the paper does, or crop the centre."
    )
    test_share: float = Field(
        default=0.2, gt=0.0, lt=1.0, description="Share held out where there is no test/ folder."
    )
    unreadable_share: Share = Field(
        default=0.01, description="The asset check fails above this share of unreadable files."
    )


DatasetSettings = Annotated[DigitsSettings | ImageFolderSettings, Field(discriminator="source")]


class PromptSettings(Section):
    """What the text encoder reads for each class (D4M, section 3.3)."""

    template: str = Field(default="{name}", description="The prompt; {name} is the class's name.")
    negative: str = Field(
        default="cartoon, anime, painting", description="Negative prompt of every image."
    )
    per_class: dict[str, str] = Field(
        default_factory=dict, description="Class name -> the whole prompt of that class."
    )

    @field_validator("template")
    @classmethod
    def _template_names_the_class(cls, template: str) -> str:
        if "{name}" not in template or template.replace("{name}", "").count("{"):
            msg = "must contain {name} and no other placeholder"
            raise ValueError(msg)
        return template


Width = Annotated[int, Field(ge=8, multiple_of=8)]


class AutoencoderSettings(Section):
    """The compact VAE and its training. Defaults tuned on 8 px digits."""

    channels: tuple[Width, ...] = Field(
        default=(24, 48), min_length=1, description="Width per level; each further level halves."
    )
    layers_per_block: int = Field(default=1, ge=1, le=4, description="Residual blocks a level.")
    steps: int = Field(default=400, ge=1, description="Optimiser steps.")
    batch_size: int = Field(default=64, ge=1, description="Images a step.")
    learning_rate: float = Field(default=2e-3, gt=0, description="Peak rate of AdamW.")
    l1_weight: float = Field(default=0.1, ge=0, description="Weight of the absolute error.")
    kl_weight: float = Field(default=1e-3, ge=0, description="Weight of the KL term to N(0, 1).")


class DenoiserSettings(Section):
    """The compact U-Net with its text encoder, and their training. Defaults tuned on digits."""

    channels: tuple[Width, ...] = Field(
        default=(48, 64), min_length=1, description="Width per level; each further level halves."
    )
    layers_per_block: int = Field(default=1, ge=1, le=4, description="Residual blocks a level.")
    attention_from: int = Field(
        default=1, ge=0, description="First level that attends to the text; the middle always does."
    )
    text_width: int = Field(default=64, ge=16, multiple_of=8, description="Text embedding width.")
    text_layers: int = Field(default=2, ge=1, le=12, description="Transformer layers of the text.")
    text_length: int = Field(
        default=32, ge=8, le=77, description="Tokens per prompt; longer prompts are cut."
    )
    captions: tuple[str, ...] = Field(
        default=(
            "{name}",
            "a {name}",
            "a photo of {name}",
            "a photo of the {name}",
            "an image of the {name}",
        ),
        min_length=1,
        description="Training captions; {name} is the class's name. They are the generator's own: "
        "changing a prompt of the recipe does not train it anew.",
    )
    made_up_words: Share = Field(
        default=0.5, description="Share of captions with made-up words among the real ones."
    )
    prompt_dropout: Share = Field(default=0.12, description="Share trained without a prompt.")
    steps: int = Field(default=700, ge=1, description="Optimiser steps.")
    batch_size: int = Field(default=64, ge=1, description="Latents a step.")
    learning_rate: float = Field(default=2e-3, gt=0, description="Peak rate of AdamW.")
    ema_decay: float = Field(default=0.995, ge=0, lt=1, description="Decay of the kept weights.")


class CompactSettings(Section):
    """A small latent diffusion model trained on the recipe's own training images."""

    autoencoder: AutoencoderSettings = Field(
        default_factory=AutoencoderSettings, description="The VAE."
    )
    denoiser: DenoiserSettings = Field(
        default_factory=DenoiserSettings, description="The U-Net and its text encoder."
    )


class PretrainedSettings(Section):
    """An existing latent diffusion pipeline."""

    model: str = Field(
        min_length=1, description="Hub id, or a pipeline folder relative to the recipe file."
    )
    revision: str | None = Field(default=None, description="Commit, tag or branch of the hub id.")
    precision: Literal["float32", "float16", "bfloat16"] = Field(
        default="float32", description="Number format of the weights."
    )


class GeneratorSettings(Section):
    """The latent diffusion model: a compact one trained here, unless `pretrained` names another."""

    compact: CompactSettings = Field(
        default_factory=CompactSettings, description="A small one, trained on the recipe's images."
    )
    pretrained: PretrainedSettings | None = Field(default=None, description="An existing one.")
    latents: Literal["mean", "sample"] = Field(
        default="mean",
        description="The encoder's mean, or one draw from its posterior as the paper does.",
    )

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if self.pretrained is not None and "compact" in self.model_fields_set:
            msg = "give `compact` or `pretrained`, not both"
            raise ValueError(msg)
        return self


class PrototypeSettings(Section):
    """Clustering of each class's latents (D4M, section 3.2)."""

    ipc: int = Field(default=10, ge=1, le=5000, description="Images per class: prototypes.")
    method: Literal["kmeans", "minibatch_kmeans"] = Field(
        default="kmeans", description="Exact Lloyd iterations, or the paper's mini-batches."
    )
    batch_size: int = Field(
        default=1024, ge=1, description="Latents a mini-batch (minibatch_kmeans only)."
    )
    starts: int = Field(default=4, ge=1, le=100, description="k-means++ starts; the best is kept.")


class SynthesisSettings(Section):
    """From prototypes to images (D4M, section 3.3; defaults are the published code's)."""

    strength: float = Field(
        default=0.7, gt=0, le=1, description="Share of the noise schedule that is run."
    )
    guidance_scale: float = Field(default=8.0, ge=1, description="Classifier-free guidance.")
    num_inference_steps: int = Field(
        default=50, ge=1, le=1000, description="Length of the schedule; strength of it is run."
    )
    scheduler: Literal["pipeline", "pndm", "ddim", "dpmsolver++"] = Field(
        default="pndm", description="Sampler; `pipeline` keeps the generator's own."
    )


class AugmentationSettings(Section):
    """Random views of an image, drawn anew for every epoch (FKD, Shen & Xing 2022)."""

    crop_scale: tuple[Share, Share] = Field(
        default=(0.08, 1.0), description="Area of a random resized crop, lowest and highest."
    )
    flip: Share = Field(default=0.5, description="Probability of a horizontal flip.")
    rotation_degrees: float = Field(
        default=0.0, ge=0, le=180, description="Largest rotation to either side."
    )
    cutmix: Share = Field(default=1.0, description="Probability of CutMix with another image.")

    @model_validator(mode="after")
    def _crop_scale_ascends(self) -> Self:
        if not 0 < self.crop_scale[0] <= self.crop_scale[1]:
            msg = "crop_scale must be [lowest, highest] with 0 < lowest <= highest"
            raise ValueError(msg)
        return self


class OptimizerSettings(Section):
    """AdamW with a cosine schedule (the published student training)."""

    batch_size: int = Field(default=1024, ge=1, description="Images a step.")
    learning_rate: float = Field(default=1e-3, gt=0, description="Peak rate of AdamW.")
    weight_decay: float = Field(default=0.01, ge=0, description="Decoupled weight decay.")


Option = bool | int | float | str | tuple[int, ...]


class ClassifierSettings(Section):
    """A network: the field's 3-layer ConvNet, or one of timm's."""

    architecture: str = Field(
        default="convnet3", description="`convnet3`, or any timm architecture by its name."
    )
    options: dict[str, Option] = Field(
        default_factory=dict, description="timm's own arguments, such as layers or channels."
    )


class StudentSettings(ClassifierSettings):
    """A network to train, and what the score table calls it."""

    name: str = Field(
        default="", pattern=r"^[A-Za-z0-9_.]*$", description="Its name; else its architecture's."
    )

    @property
    def label(self) -> str:
        """What the score table calls it."""
        return self.name or self.architecture


def _named_student(value: object) -> object:
    return {"architecture": value} if isinstance(value, str) else value


Student = Annotated[StudentSettings, BeforeValidator(_named_student)]


class TeacherSettings(ClassifierSettings):
    """The classifier whose verdicts become soft labels. Training defaults tuned on digits."""

    weights: str | None = Field(
        default=None,
        description="None: trained here. `timm`: timm's own. Else a .safetensors file, relative "
        "to the recipe file.",
    )
    epochs: int = Field(default=40, ge=1, description="Passes over the training images.")
    augmentation: AugmentationSettings = Field(
        default_factory=AugmentationSettings, description="Views of the training images."
    )
    optimizer: OptimizerSettings = Field(
        default_factory=lambda: OptimizerSettings(batch_size=64, learning_rate=2e-3),
        description="How its weights are fitted.",
    )


class SoftLabelSettings(Section):
    """The teacher's verdicts on every epoch's views (D4M, section 3.4)."""

    epochs: int = Field(default=300, ge=1, le=100_000, description="Epochs labelled and trained.")
    epochs_per_block: int = Field(default=50, ge=1, description="Epochs in one stored unit.")
    augmentation: AugmentationSettings = Field(
        default_factory=AugmentationSettings, description="Views of the synthetic images."
    )


TrainingSet = Literal["random_real", "nearest_real", "full_data"]


class EvaluationSettings(Section):
    """Students trained and scored on the test images (D4M, section 4)."""

    students: tuple[Student, ...] = Field(
        default=(StudentSettings(),),
        min_length=1,
        description="Architectures, by name or with options; the first is trained on every set.",
    )
    seeds: int = Field(default=3, ge=1, le=100, description="Students per row of the table.")
    baselines: tuple[TrainingSet, ...] = Field(
        default=("random_real", "nearest_real", "full_data"),
        description="Training sets scored beside the synthetic one, by the first student.",
    )
    temperature: float = Field(default=20.0, gt=0, description="Softens both sides of the KL.")
    optimizer: OptimizerSettings = Field(
        default_factory=OptimizerSettings, description="How a student's weights are fitted."
    )
    full_data_epochs: int = Field(
        default=30, ge=1, description="Passes over the real images in the full_data row."
    )

    @field_validator("students")
    @classmethod
    def _students_differ(cls, students: tuple[Student, ...]) -> tuple[Student, ...]:
        labels = [student.label for student in students]
        if len(set(labels)) != len(labels):
            msg = "students must differ in `name` or, without one, in `architecture`"
            raise ValueError(msg)
        return students

    @field_validator("baselines")
    @classmethod
    def _baselines_differ(cls, baselines: tuple[TrainingSet, ...]) -> tuple[TrainingSet, ...]:
        if len(set(baselines)) != len(baselines):
            msg = "names must not repeat"
            raise ValueError(msg)
        return baselines


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


SECTIONS = tuple(RecipeSettings.model_fields)
