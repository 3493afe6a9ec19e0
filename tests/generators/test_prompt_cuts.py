"""Where a prompt is cut: the same place as the text encoder's own tokenizer cuts it."""

import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import CLIPTokenizer

from d4m.errors import GeneratorError
from d4m.generators.compact import CompactGenerator
from d4m.generators.conditions import check_prompts
from d4m.generators.pretrained import PretrainedGenerator
from d4m.generators.prompt_cuts import TextReader, find_cuts
from d4m.generators.subwords import MERGES, MERGES_VERSION, caption_texts, fits, learn_vocabulary
from d4m.generators.vocabulary import build_tokenizer, tokenize
from d4m.settings import CompactSettings, DenoiserSettings, PretrainedSettings
from tests.tiny_pipelines import image_to_image, save_pipeline

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SCAN = "a black and white scan of a handwritten three"
PROMPTS = Path(__file__).parents[2] / "benchmarks" / "prompt_sentences.txt"
CAPTIONS = caption_texts(DIGITS, DenoiserSettings())


@pytest.fixture(scope="module")
def reader():
    return TextReader.of(learn_vocabulary(CAPTIONS), limit=77)


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer(CAPTIONS, max_length=77)


@pytest.mark.parity
@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(st.characters(codec="utf-8"), max_size=60))
def test_tokens_are_counted_as_transformers_counts_them(reader, tokenizer, text):
    assert reader.count(text) == len(tokenizer(text, add_special_tokens=False).input_ids)


@pytest.mark.parity
def test_transformers_reads_the_part_before_the_cut_and_not_more(reader, tokenizer):
    text = " ".join(PROMPTS.read_text(encoding="utf-8").splitlines()[:9])
    read = reader.cut(text)
    assert read is not None
    tokens = tokenizer(text, truncation=True).input_ids
    assert len(tokens) == 77
    decoded = tokenizer.decode(tokens, skip_special_tokens=True)
    assert decoded.replace(" ", "") == text[:read].replace(" ", "")


def test_a_long_prompt_of_ordinary_words_is_read_to_its_class_name(reader):
    assert reader.count(SCAN) == 12
    assert reader.cut(SCAN) is None
    alone = TextReader.of(learn_vocabulary(CAPTIONS, english=False), limit=32)
    assert alone.count(SCAN) == 31
    assert SCAN[: alone.cut(SCAN)] == "a black and white scan of a handwritten"


def test_two_hundred_prompts_cost_less_than_two_tokens_per_word(reader):
    prompts = PROMPTS.read_text(encoding="utf-8").splitlines()
    words = sum(len(prompt.split()) for prompt in prompts)
    tokens = sum(map(reader.count, prompts))
    assert len(prompts) == 200
    assert tokens / words == pytest.approx(1.67, abs=0.01)
    assert max(map(reader.count, prompts)) == 31


def test_the_shipped_merges_have_the_content_that_keys_know_by_name():
    digest = hashlib.sha256(MERGES.read_bytes()).hexdigest()
    assert (MERGES_VERSION, digest[:12]) == ("english-2000", "ac488425dc44")


def test_short_texts_fit_without_a_tokenizer(reader):
    assert fits("ab", 4)
    assert not fits("abc", 4)
    assert not fits("äb", 4)  # three bytes
    assert fits("x" * 75, 77)
    assert reader.cut("x" * 75) is None
    assert reader.cut("x " * 76) == 149


def test_a_prompt_is_described_up_to_its_cut_and_after_it():
    reader = TextReader.of(learn_vocabulary(["a photo of zero"]), limit=5)
    found = find_cuts([reader], ["a photo of zero", "zero"])
    assert {prompt: (cut.reason, cut.read) for prompt, cut in found.items()} == {
        "a photo of zero": ("3 tokens are read: 'a photo of'; cut off is ' zero'", 10)
    }


def test_of_two_text_encoders_the_one_that_reads_less_decides():
    vocabulary = learn_vocabulary(["a photo of zero"])
    readers = [TextReader.of(vocabulary, limit=limit) for limit in (6, 4, 5)]
    assert find_cuts(readers, ["a photo of zero"])["a photo of zero"].read == len("a photo")


def test_a_compact_generator_examines_prompts_by_its_length():
    compact = CompactGenerator(CompactSettings(denoiser=DenoiserSettings(text_length=12)))
    found = compact.examine_prompts([SCAN, "a three"], DIGITS)
    assert {prompt: SCAN[: cut.read] for prompt, cut in found.items()} == {
        SCAN: "a black and white scan of a handwrit"
    }
    assert CompactGenerator(CompactSettings()).examine_prompts([SCAN], DIGITS) == {}


@pytest.mark.parametrize("kind", ["sd", "sdxl"])
def test_a_pipeline_on_this_machine_is_examined_without_loading_it(tmp_path, kind):
    folder = save_pipeline(kind, tmp_path / kind)
    generator = PretrainedGenerator(PretrainedSettings(model=kind), folder, "cpu")
    long = "a photo of a hen " * 3 + "kite"
    found = generator.examine_prompts([long, "a kite"], ["kite", "hen"])
    assert list(found) == [long]
    assert long[: found[long].read] == "a photo of a hen a photo of a hen"


def test_of_sdxl_the_shorter_tokenizer_decides(tmp_path):
    folder = save_pipeline("sdxl", tmp_path / "sdxl")
    settings_ = folder / "tokenizer_2" / "tokenizer_config.json"
    known = json.loads(settings_.read_text())
    settings_.write_text(json.dumps(known | {"model_max_length": 5}))
    generator = PretrainedGenerator(PretrainedSettings(model="sdxl"), folder, "cpu")
    (found,) = generator.examine_prompts(["a photo of a hen"], ["kite", "hen"]).values()
    assert found.reason == "3 tokens are read: 'a photo of'; cut off is ' a hen'"


def test_a_folder_with_the_older_two_files_is_read_too(tmp_path, reader):
    found = learn_vocabulary(CAPTIONS)
    (tmp_path / "vocab.json").write_text(json.dumps(dict(found.tokens)))
    lines = ["#version: 0.2", *(" ".join(pair) for pair in found.merges)]
    (tmp_path / "merges.txt").write_text("\n".join(lines))
    opened = TextReader.open(tmp_path, most=77)
    assert opened is not None
    assert opened.limit == 77
    assert opened.cut("a photo of zero " * 30) == reader.cut("a photo of zero " * 30)
    assert TextReader.open(tmp_path / "nothing", most=77) is None


def test_a_model_that_is_not_here_yet_cuts_nothing_that_is_known():
    settings_ = PretrainedSettings(model="nobody/no-such-model")
    generator = PretrainedGenerator(settings_, Path("/nowhere"), "cpu")
    assert generator.examine_prompts(["a " * 99], ["kite", "hen"]) == {}


@pytest.mark.parametrize("kind", ["sd", "sdxl"])
def test_a_pipeline_is_checked_again_when_it_is_loaded(kind):
    pipeline = image_to_image(kind)
    long = "a photo of a hen " * 3
    check_prompts(pipeline, [long + "kite", "a kite"], {long + "kite": 16}.__getitem__)
    ends = {long + "kite": len(long) + 4}
    message = r"^prompts are cut before the end of their class name \(1\), such as this: 10 tokens "
    with pytest.raises(GeneratorError, match=message):
        check_prompts(pipeline, [long + "kite", "a kite"], ends.__getitem__)


def test_a_saved_tokenizer_of_the_compact_generator_is_an_ordinary_one(tmp_path, tokenizer, reader):
    tokenizer.save_pretrained(tmp_path)
    opened = TextReader.open(tmp_path, most=77)
    assert opened is not None
    assert opened.limit == CLIPTokenizer.from_pretrained(tmp_path).model_max_length == 77
    assert opened.count(SCAN) == reader.count(SCAN)


def test_a_tokenizer_that_pads_and_cuts_texts_is_read_without_that(tmp_path):
    tokenizer = build_tokenizer(CAPTIONS, max_length=16)
    tokenize(tokenizer, ["zero"])  # from here on it pads and cuts, and is stored so
    tokenizer.save_pretrained(tmp_path)
    loaded = TextReader.loaded(tokenizer.backend_tokenizer, limit=16)
    for reader in (loaded, TextReader.open(tmp_path, most=77)):
        assert (reader.limit, reader.count("a photo of zero")) == (16, 4)
        assert not fits("a photo of the zero", 16)
        assert reader.cut("a photo of the zero") is None
        assert reader.count("zero " * 20) == 20
        assert reader.cut("zero " * 20) == 14 * len("zero ") - 1
    assert tokenizer.backend_tokenizer.padding["length"] == 16
