"""Build a compact generator's tokenizer, and draw the captions it is trained on."""

from collections.abc import Sequence
from typing import Any, cast

import torch
from jaxtyping import Int64
from torch import Tensor
from transformers import CLIPTokenizer

from d4m.generators.subwords import END_OF_WORD, english_merges, learn_vocabulary
from d4m.settings import DenoiserSettings

_CAPTIONS_PER_CLASS = 64
_MOST_OTHER_WORDS = 8
_ALPHABET = "abcdefghijklmnopqrstuvwxyz"


def build_tokenizer(texts: Sequence[str], *, max_length: int) -> CLIPTokenizer:
    """Build a CLIP tokenizer of English sub-words that knows every word of `texts` as one token.

    Args:
        texts: captions; each of their words gets one token.
        max_length: tokens per prompt, including the start and end markers.
    """
    found = learn_vocabulary(texts)
    return CLIPTokenizer(
        vocab=dict(found.tokens), merges=cast(Any, list(found.merges)), model_max_length=max_length
    )


def draw_captions(name: str, settings: DenoiserSettings, generator: torch.Generator) -> list[str]:
    """Draw captions of one class from the templates, and insert made-up words into some of them.

    A made-up word is one or two sub-words of English. It teaches the text encoder to ignore words
    that say nothing about the class, so that a recipe's prompts may contain other words.
    """

    def draw(high: int) -> int:
        return int(torch.randint(high, (), generator=generator))

    pieces = _pieces()
    captions = list[str]()
    for _ in range(_CAPTIONS_PER_CLASS):
        words = settings.captions[draw(len(settings.captions))].split()
        if float(torch.rand((), generator=generator)) < settings.made_up_words:
            for _ in range(1 + draw(_MOST_OTHER_WORDS)):
                made_up = "".join(pieces[draw(len(pieces))] for _ in range(1 + draw(2)))
                words.insert(draw(len(words) + 1), made_up)
        captions.append(" ".join(words).replace("{name}", name))
    return captions


def tokenize(tokenizer: CLIPTokenizer, texts: Sequence[str]) -> Int64[Tensor, "text token"]:
    """Convert texts to token numbers, padded or cut to the tokenizer's length."""
    encoded = tokenizer(list(texts), padding="max_length", truncation=True, return_tensors="pt")
    return encoded.input_ids


def _pieces() -> list[str]:
    """Return letters and sub-words of English, as text."""
    return [*_ALPHABET, *((a + b).removesuffix(END_OF_WORD) for a, b in english_merges())]
