"""Compare few-step samplers with PNDM, in time and closeness, on the digits' own generator.

Every sampler starts from the same prototypes and the same noise. Closeness is the mean difference,
in grey levels of 255, to DDIM with 500 steps. Run it with `make bench-samplers`.
"""

import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from d4m.compute import Compute
from d4m.environment import find_recipe
from d4m.images.pixels import to_pixels
from d4m.pipeline import STAGES, Pipeline
from d4m.scores.accuracy import score_classifier
from d4m.seeds import stream_seed
from d4m.settings import SynthesisSettings
from d4m.stages.context import StageContext
from d4m.stages.generator import load_pipeline
from d4m.stages.teacher import load_teacher
from d4m.synthesis.samplers import use_scheduler
from d4m.synthesis.synthesize import ImageRequest, synthesize_images

REFERENCE = ("ddim", 500)
SAMPLERS = (
    ("pndm", 50),
    ("ddim", 50),
    ("ddim", 20),
    ("dpmsolver++", 20),
    ("dpmsolver++", 15),
    ("dpmsolver++", 10),
    ("unipc", 20),
    ("unipc", 10),
)


def main() -> None:
    """Train the digits' generator and teacher, draw the images with each sampler, print a table."""
    with tempfile.TemporaryDirectory() as folder:
        pipeline = Pipeline(find_recipe("digits"), Path(folder), Compute("cpu"))
        for stage in STAGES:
            if stage.name in {"real_images", "generator", "latents", "prototypes", "teacher"}:
                pipeline.run_stage(stage.name)
        context = pipeline.open_context()
        reference, _ = draw(context, *REFERENCE)
        _, slowest = draw(context, *SAMPLERS[0])
        print(
            "| sampler | steps | time, as a share of PNDM's | difference, grey levels "
            "| teacher agrees |"
        )
        print("|---|---|---|---|---|")
        for scheduler, steps in SAMPLERS:
            images, seconds = draw(context, scheduler, steps)
            difference = np.abs(images.astype(float) - reference.astype(float)).mean()
            print(
                f"| {scheduler} | {steps} | {seconds / slowest:.2f} | {difference:.2f} "
                f"| {100 * agreement(context, images):.0f} % |"
            )


def draw(context: StageContext, scheduler: str, steps: int) -> tuple[np.ndarray, float]:
    """Draw the recipe's images with another sampler; also return the seconds that it took."""
    settings = SynthesisSettings(
        **context.recipe.settings.synthesis.model_dump()
        | {"scheduler": scheduler, "num_inference_steps": steps}
    )
    table, prompts = context.source.class_table, context.recipe.settings.prompts
    requests = [
        ImageRequest(prototype.astype(np.float32), table.prompt(class_id, prompts), seed)
        for class_id in context.class_ids
        for seed, prototype in enumerate(
            context.read("prototypes", f"class-{class_id:05d}")["prototypes"],
            start=stream_seed(0, class_id) % 2**32,
        )
    ]
    pipeline = load_pipeline(context)
    use_scheduler(pipeline, settings)
    start = time.perf_counter()
    batches = synthesize_images(
        pipeline,
        requests,
        negative_prompt=prompts.negative,
        settings=settings,
        compute=context.compute,
    )
    images = np.concatenate(list(batches))
    return images, time.perf_counter() - start


def agreement(context: StageContext, images: np.ndarray) -> float:
    """Return the share of images that the teacher takes for their class."""
    per_class = len(images) // len(context.class_ids)
    class_ids = torch.arange(len(images)) // per_class
    return score_classifier(load_teacher(context, ["teacher"]), to_pixels(images), class_ids).top1


if __name__ == "__main__":
    main()
