"""A DiT generates images of the classes that prompts name, starting from prototypes."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    PNDMScheduler,
    UniPCMultistepScheduler,
)

from d4m.compute import Compute
from d4m.errors import GeneratorError
from d4m.generators.base import ImagesDescription, TrainingImages
from d4m.generators.conditions import check_prompts
from d4m.generators.dit import DiTImg2ImgPipeline
from d4m.generators.pretrained import PretrainedGenerator
from d4m.settings import PretrainedSettings, SynthesisSettings
from d4m.synthesis.samplers import use_scheduler
from d4m.synthesis.synthesize import ImageRequest, decode_latents, synthesize_images
from tests.marks import COPY_KEYWORD
from tests.tiny_pipelines import LABELS, LATENT, build_pipeline

PROTOTYPES = np.random.default_rng(0).normal(size=(6, *LATENT)).astype(np.float32)


def _pipeline(scheduler=None, labels=LABELS):
    stock = build_pipeline("dit")
    made = DiTImg2ImgPipeline(
        stock.transformer, stock.vae, scheduler or stock.scheduler, id2label=labels
    )
    made.set_progress_bar_config(disable=True)
    return made


def _synthesize(pipeline, prompts, prototypes=PROTOTYPES, negative_prompt="", **settings):
    settings = SynthesisSettings(**{"num_inference_steps": 6, "guidance_scale": 4} | settings)
    use_scheduler(pipeline, settings)
    batches = synthesize_images(
        pipeline,
        map(ImageRequest, prototypes, prompts, range(len(prompts))),
        negative_prompt=negative_prompt,
        settings=settings,
        compute=Compute("cpu", batch_size=6),
    )
    return np.concatenate(list(batches))


def test_a_prompt_is_a_label_one_of_its_synonyms_or_a_number():
    prompts = ["hen", "kite", "paper kite", "kite, paper kite", " drake ", "0", "3", "hen"]
    assert _pipeline().find_class_ids(prompts) == [2, 1, 1, 1, 4, 0, 3, 2]


def test_a_label_that_is_a_number_takes_precedence_over_the_class_number():
    pipeline = _pipeline(labels={"0": "one", "1": "0", "4": "7"})
    assert pipeline.find_class_ids(["0", "1", "7"]) == [1, 1, 4]


@pytest.mark.parametrize(
    ("prompt", "complaint"),
    [
        ("a photo of a hen", r"'a photo of a hen'"),
        ("papr kite", r"'papr kite' \(is it 'paper kite'\?\)"),
        ("5", r"'5'"),  # the number of the null class
        ("-1", r"'-1'"),
        ("²", r"'²'"),
        ("crane", r"'crane' names classes 0, 3: give a class number"),
        ("", r"''"),
    ],
)
def test_a_prompt_that_names_no_class_or_several_is_refused(prompt, complaint):
    message = rf"6 labels.*below 5.*`prompts\.per_class`.*these 1:\n  {complaint}"
    with pytest.raises(GeneratorError, match=message):
        check_prompts(_pipeline(), ["hen", prompt])


def test_all_unknown_prompts_are_counted_and_the_first_twenty_named():
    prompts = [f"unknown {number}" for number in range(23)]
    with pytest.raises(GeneratorError, match=r"instead of these 23:") as caught:
        check_prompts(_pipeline(), [*prompts, *prompts, "hen"])
    named = re.findall(r"unknown \d+", str(caught.value))
    assert named == prompts[:20]
    assert str(caught.value).endswith("and 3 more")


def test_pipelines_of_other_kinds_take_any_prompt():
    check_prompts(build_pipeline("sd"), ["anything at all"])


def test_class_and_number_are_the_same_prompt_and_another_class_is_not():
    pipeline = _pipeline()
    named, numbered, other = (
        _synthesize(pipeline, [prompt] * 6) for prompt in ("hen", "2", "drake")
    )
    assert np.array_equal(named, numbered)
    assert (np.abs(named.astype(int) - other).reshape(6, -1).max(axis=1) > 0).all()


def test_a_negative_prompt_changes_nothing():
    pipeline = _pipeline()
    without, with_negative = (
        _synthesize(pipeline, ["hen"] * 6, negative_prompt=text) for text in ("", "cartoon")
    )
    assert np.array_equal(without, with_negative)


def test_guidance_uses_the_transformers_own_null_class():
    pipeline = _pipeline()
    seen = list[list[int]]()
    hook = pipeline.transformer.register_forward_pre_hook(
        lambda _, __, named: seen.append(named["class_labels"].tolist()), with_kwargs=True
    )
    try:
        _synthesize(pipeline, ["hen"] * 6, num_inference_steps=1, strength=1.0, scheduler="ddim")
        _synthesize(pipeline, ["hen"] * 6, num_inference_steps=1, strength=1.0, guidance_scale=1)
    finally:
        hook.remove()
    assert seen[0] == [2] * 6 + [5] * 6
    assert seen[1] == [2] * 6


def test_strength_selects_the_last_steps_of_the_schedule():
    pipeline = _pipeline()
    for strength, expected in ((1.0, 10), (0.7, 7), (0.29, 2)):
        steps = list[int]()
        hook = pipeline.transformer.register_forward_pre_hook(
            lambda _, __, named, steps=steps: steps.append(int(named["timestep"][0])),
            with_kwargs=True,
        )
        try:
            _synthesize(
                pipeline, ["hen"] * 6, strength=strength, num_inference_steps=10, scheduler="ddim"
            )
        finally:
            hook.remove()
        assert steps == list(range(900, -1, -100))[-expected:]


def test_a_low_strength_keeps_the_prototype():
    pipeline = _pipeline()
    decoded = decode_latents(pipeline.vae, PROTOTYPES, compute=Compute("cpu")).astype(float)
    gaps = [
        np.abs(
            _synthesize(pipeline, ["hen"] * 6, strength=strength, num_inference_steps=50) - decoded
        ).mean()
        for strength in (0.02, 0.5, 1.0)
    ]
    assert gaps[0] < gaps[1] < gaps[2]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("pipeline", DDPMScheduler),
        ("pndm", PNDMScheduler),
        ("ddim", DDIMScheduler),
        ("dpmsolver++", DPMSolverMultistepScheduler),
        ("unipc", UniPCMultistepScheduler),
    ],
)
@COPY_KEYWORD
def test_every_sampler_works_with_a_schedule_for_learned_variances(name, kind):
    scheduler = DDPMScheduler(variance_type="learned_range", clip_sample=False)
    pipeline = _pipeline(scheduler)
    images = [_synthesize(pipeline, ["hen"] * 6, scheduler=name) for _ in range(2)]
    assert type(pipeline.scheduler) is kind
    assert np.array_equal(
        *images
    )  # even with the stochastic sampler, whose noise has a seed per image
    assert images[0].std() > 20


@COPY_KEYWORD
def test_samplers_of_the_same_equation_agree_with_many_steps():
    # DDIM, PNDM, DPM-Solver++ and UniPC solve the same differential equation.
    images = dict[str, np.ndarray]()
    for scheduler in ("ddim", "pndm", "dpmsolver++", "unipc"):
        images[scheduler] = _synthesize(
            _pipeline(), ["hen"] * 6, scheduler=scheduler, num_inference_steps=200
        ).astype(float)
    gaps = [
        np.abs(images[scheduler] - images["ddim"]).mean()
        for scheduler in ("pndm", "dpmsolver++", "unipc")
    ]
    assert max(gaps) < 1.0


def test_latents_of_another_size_are_refused_with_the_size_that_fits():
    prototypes = np.zeros((6, 4, 8, 8), np.float32)
    message = r"shape \(4, 4, 4\), found \(4, 8, 8\); set `dataset\.size_px: 8`"
    with pytest.raises(GeneratorError, match=message):
        _synthesize(_pipeline(), ["hen"] * 6, prototypes)


def test_an_images_noise_depends_on_its_seed_only():
    pipeline = _pipeline()
    together = _synthesize(pipeline, ["hen", "drake", "kite", "0", "1", "2"])
    alone = _synthesize(pipeline, ["hen"], PROTOTYPES[:1])
    assert np.array_equal(alone[0], together[0])
    assert torch.is_tensor(pipeline.scheduler.timesteps)


def test_a_dit_that_was_fine_tuned_elsewhere_is_used_from_its_folder(tmp_path):
    """It brings its weights, its number of classes and, if it has any, its labels."""
    stock = build_pipeline("dit", classes=3)
    optimizer = torch.optim.SGD(stock.transformer.requires_grad_().parameters(), lr=0.1)
    noisy = torch.from_numpy(PROTOTYPES[:3])
    steps, classes = torch.tensor([100, 500, 900]), torch.arange(3)
    stock.transformer(noisy, timestep=steps, class_labels=classes).sample.square().mean().backward()
    optimizer.step()
    stock.save_pretrained(tmp_path)
    settings, images = PretrainedSettings(model="here"), ImagesDescription(["ant"], {"size_px": 8})
    generator = PretrainedGenerator(settings, tmp_path, "cpu")
    assert generator.find_problems(images, channels=3) == []
    assert list(generator.examine_prompts(["0", "2", "3", "ant"], ["ant"])) == ["3", "ant"]
    index = tmp_path / "model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"id2label": {"2": "ant, emmet"}}))
    assert list(generator.examine_prompts(["0", "2", "3", "ant"], ["ant"])) == ["3"]
    folders = dict[str, Path]()
    for component in generator.plan_components(images, seed=0):
        write = generator.make(component.name, {}, TrainingImages(lambda: iter(()), [], "cpu"), {})
        folders[component.name] = tmp_path / f"unit-{component.name}"
        folders[component.name].mkdir()
        write(folders[component.name])
    loaded = generator.load_pipeline(folders)
    loaded.set_progress_bar_config(disable=True)
    assert loaded.find_class_ids(["emmet", "0"]) == [2, 0]
    for ours, theirs in zip(
        loaded.transformer.parameters(), stock.transformer.parameters(), strict=True
    ):
        assert torch.equal(ours, theirs)
    tuned, plain = (
        _synthesize(pipeline, ["0", "1", "2"], PROTOTYPES[:3])
        for pipeline in (loaded, _pipeline_of(build_pipeline("dit", classes=3)))
    )
    assert not np.array_equal(tuned, plain)


def _pipeline_of(stock):
    made = DiTImg2ImgPipeline(stock.transformer, stock.vae, stock.scheduler)
    made.set_progress_bar_config(disable=True)
    return made
