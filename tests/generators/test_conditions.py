"""Each text is encoded once, in a batch of its own, as the stock pipeline encodes it."""

import gc
import weakref

import pytest
import torch

from d4m.generators.conditions import Conditions
from tests.tiny_pipelines import build_pipeline, image_to_image

NEGATIVE = "painting"


def _calls(pipeline, kind):
    """Record how many texts each encoder gets per call."""
    calls = {"sd": ["text_encoder"], "sdxl": ["text_encoder", "text_encoder_2"]}[kind]
    counts = {name: list[int]() for name in calls}
    for name in calls:
        getattr(pipeline, name).register_forward_pre_hook(
            lambda _, arguments, name=name: counts[name].append(len(arguments[0]))
        )
    return counts


@pytest.mark.parametrize("kind", ["sd", "sdxl"])
def test_every_distinct_text_and_the_negative_prompt_are_encoded_once_and_alone(kind):
    pipeline = image_to_image(kind)
    counts = _calls(pipeline, kind)
    conditions = Conditions(pipeline, NEGATIVE, device="cpu")
    for batch in (["crane", "crane", "kite"], ["kite", "hen", "crane"], ["hen", "hen"]):
        conditions.arguments(batch)
    assert all(sizes == [1] * (3 + 1) for sizes in counts.values())


def test_nothing_keeps_the_conditions_when_their_stage_is_over():
    """They hold the pipeline, whose weights would stay on the device."""
    conditions = Conditions(image_to_image("sd"), NEGATIVE, device="cpu")
    conditions.arguments(["hen", "crane"])
    held = weakref.ref(conditions)
    gc.disable()  # which would find a cycle some time later
    try:
        del conditions
        assert held() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("kind", ["sd", "sdxl"])
def test_without_guidance_there_is_no_negative_prompt(kind):
    pipeline = image_to_image(kind)
    counts = _calls(pipeline, kind)
    arguments = Conditions(pipeline, NEGATIVE, device="cpu", guided=False).arguments(["hen"])
    assert not any(name.startswith("negative") for name in arguments)
    assert all(sizes == [1] for sizes in counts.values())


@pytest.mark.parity
@pytest.mark.parametrize("negative", [NEGATIVE, ""])
@pytest.mark.parametrize("kind", ["sd", "sdxl"])
def test_arguments_equal_the_stock_pipelines_encoding_of_each_text(kind, negative):
    arguments = Conditions(image_to_image(kind), negative, device="cpu").arguments(["kite", "hen"])
    for row, prompt in enumerate(["kite", "hen"]):
        with torch.inference_mode():
            expected = build_pipeline(kind).encode_prompt(
                prompt=prompt,
                device=torch.device("cpu"),
                num_images_per_prompt=1,
                do_classifier_free_guidance=True,
                negative_prompt=negative or None,
            )
        names = ["prompt_embeds", "negative_prompt_embeds"]
        names += ["pooled_prompt_embeds", "negative_pooled_prompt_embeds"] * (kind == "sdxl")
        assert arguments.keys() == set(names)
        for name, tensor in zip(names, expected, strict=True):
            assert torch.equal(arguments[name][row : row + 1], tensor)


def test_an_xl_pipeline_zeroes_an_empty_negative_prompt_only_if_configured_to():
    pipeline = image_to_image("sdxl")
    for zeros in (True, False):
        pipeline.register_to_config(force_zeros_for_empty_prompt=zeros)
        arguments = Conditions(pipeline, "", device="cpu").arguments(["hen"])
        for name in ("negative_prompt_embeds", "negative_pooled_prompt_embeds"):
            assert bool((arguments[name] == 0).all()) is zeros


def test_a_class_conditional_pipeline_takes_classes():
    conditions = Conditions(image_to_image("dit"), NEGATIVE, device="cpu")
    assert conditions.arguments(["hen", "4", "hen"]) == {"class_labels": [2, 4, 2]}
