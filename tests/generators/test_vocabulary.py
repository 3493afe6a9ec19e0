"""The compact generator's tokenizer loses nothing, and has one token per known word."""

import unicodedata

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import CLIPTokenizer

from d4m.generators.vocabulary import build_tokenizer, draw_captions, tokenize
from d4m.settings import DenoiserSettings

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
LENGTH = 12


@pytest.fixture(scope="module")
def tokenizer():
    captions = DenoiserSettings().captions
    texts = [caption.replace("{name}", name) for name in DIGITS for caption in captions]
    return build_tokenizer(texts, max_length=LENGTH)


def _pieces(tokenizer, text):
    """Return the tokens of a text, without the start and end markers."""
    return tokenizer.convert_ids_to_tokens(tokenizer(text).input_ids)[1:-1]


def _letters(text):
    """Return a text as CLIP normalises it (composed, lower case), without white space."""
    normal = CLIPTokenizer().backend_tokenizer.normalizer.normalize_str(text)
    return "".join(normal.split())


def test_every_word_of_the_captions_is_one_token(tokenizer):
    for name in DIGITS:
        assert _pieces(tokenizer, name) == [f"{name}</w>"]
    assert _pieces(tokenizer, "a photo of the three") == [
        "a</w>",
        "photo</w>",
        "of</w>",
        "the</w>",
        "three</w>",
    ]


def test_unknown_words_are_spelled(tokenizer):
    assert "".join(_pieces(tokenizer, "zeppelin")) == "zeppelin</w>"
    assert 1 < len(_pieces(tokenizer, "zeppelin")) < len("zeppelin")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.text("abc", min_size=1, max_size=6), min_size=1, max_size=25))
def test_any_list_of_words_gets_one_token_each(words):
    tokenizer = build_tokenizer([" ".join(words)], max_length=LENGTH)
    assert [_pieces(tokenizer, word) for word in words] == [[f"{word}</w>"] for word in words]


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(text=st.text(st.characters(codec="utf-8"), max_size=30))
def test_any_text_decodes_to_itself_up_to_case_and_spaces(tokenizer, text):
    decoded = tokenizer.decode(tokenizer(text).input_ids, skip_special_tokens=True)
    assert "".join(decoded.split()) == _letters(text)


@pytest.mark.parametrize(
    "text", ["Żółw", "数字七", "crème brûlée №5", "don't", "🦓 zebra", "a\tb\nc"]
)
def test_scripts_signs_and_emoji_survive(tokenizer, text):
    decoded = tokenizer.decode(tokenizer(text).input_ids, skip_special_tokens=True)
    expected = "".join(unicodedata.normalize("NFC", text).lower().split())
    assert "".join(decoded.split()) == expected


def test_a_saved_tokenizer_gives_the_same_numbers(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    loaded = CLIPTokenizer.from_pretrained(tmp_path)
    texts = ["zero", "a photo of the nine", "Zeppelin 7, 数字", "", "x " * 40]
    assert torch.equal(tokenize(loaded, texts), tokenize(tokenizer, texts))
    assert loaded.model_max_length == LENGTH
    assert len(loaded) == len(tokenizer)
    for marker in ("bos_token_id", "eos_token_id", "pad_token_id"):
        assert getattr(loaded, marker) == getattr(tokenizer, marker)


def test_prompts_are_padded_or_cut_to_one_length_between_markers(tokenizer):
    tokens = tokenize(tokenizer, ["", "zero", "one two " * 20])
    assert tokens.shape == (3, LENGTH)
    assert (tokens[:, 0] == tokenizer.bos_token_id).all()
    assert tokens[0, 1:].tolist() == [tokenizer.eos_token_id] * (LENGTH - 1)
    assert tokens[1, 2:].tolist() == [tokenizer.eos_token_id] * (LENGTH - 2)
    assert tokens[2, -1] == tokenizer.eos_token_id
    assert (tokens[2, 1:-1] != tokenizer.eos_token_id).all()


def test_the_same_texts_give_the_same_numbers_whatever_came_before():
    texts = ["a photo of a crane", "a photo of a kite"]
    first = build_tokenizer(texts, max_length=8).get_vocab()
    build_tokenizer(["something else"], max_length=8)
    assert build_tokenizer(texts, max_length=8).get_vocab() == first


def test_captions_hold_the_name_and_made_up_words_only_as_often_as_asked():
    def draw(share, seed=0):
        settings_ = DenoiserSettings(made_up_words=share)
        return draw_captions("zebra finch", settings_, torch.Generator().manual_seed(seed))

    known = {caption.replace("{name}", "zebra finch") for caption in DenoiserSettings().captions}
    assert set(draw(0.0)) == known
    assert all("zebra finch" in caption for caption in draw(1.0))
    assert not set(draw(1.0)) & known
    mixed = sum(caption not in known for caption in draw(0.5))
    assert 20 <= mixed <= 44  # half of 64, plus or minus 3 standard deviations
    assert draw(0.5) == draw(0.5)
    assert draw(0.5) != draw(0.5, seed=1)
