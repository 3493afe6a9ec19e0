"""Build a compact generator's tokenizer, and draw the captions it is trained on."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from jaxtyping import Int64
from tokenizers import pre_tokenizers
from torch import Tensor
from transformers import CLIPTokenizer

from d4m.settings import DenoiserSettings

_START, _END = "<|startoftext|>", "<|endoftext|>"
_CAPTIONS_PER_CLASS = 64
_ALPHABET = "abcdefghijklmnopqrstuvwxyz"


def build_tokenizer(texts: Sequence[str], *, max_length: int) -> CLIPTokenizer:
    """Build a CLIP tokenizer that has one token for each word of `texts`, and bytes for the rest.

    Each new word is split into pieces by the merges so far. Then a merge of its first two pieces is
    added until the word is one piece. Later merges have lower priority, so a word that is one token
    stays one token.

    Args:
        texts: captions; each of their words gets one token.
        max_length: tokens per prompt, including the start and end markers.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = [*alphabet, *(letter + "</w>" for letter in alphabet)]
    ranks = dict[tuple[str, str], int]()
    for word in _words(texts):
        while len(pieces := _segment(word, ranks)) > 1:
            ranks[pieces[0], pieces[1]] = len(ranks)
            vocabulary.append(pieces[0] + pieces[1])
    words = dict.fromkeys([*vocabulary, _START, _END])
    tokens = {token: number for number, token in enumerate(words)}
    return CLIPTokenizer(vocab=tokens, merges=cast(Any, list(ranks)), model_max_length=max_length)


def draw_captions(name: str, settings: DenoiserSettings, generator: torch.Generator) -> list[str]:
    """Draw captions of one class from the templates, and insert made-up words into some of them.

    The made-up words teach the text encoder to ignore unknown words, so that a recipe's prompts may
    contain other words than the templates.
    """

    def draw(high: int) -> int:
        return int(torch.randint(high, (), generator=generator))

    captions = list[str]()
    for _ in range(_CAPTIONS_PER_CLASS):
        words = settings.captions[draw(len(settings.captions))].split()
        if float(torch.rand((), generator=generator)) < settings.made_up_words:
            for _ in range(1 + draw(3)):
                made_up = "".join(_ALPHABET[draw(26)] for _ in range(2 + draw(5)))
                words.insert(draw(len(words) + 1), made_up)
        captions.append(" ".join(words).replace("{name}", name))
    return captions


def tokenize(tokenizer: CLIPTokenizer, texts: Sequence[str]) -> Int64[Tensor, "text token"]:
    """Convert texts to token numbers, padded or cut to the tokenizer's length."""
    encoded = tokenizer(list(texts), padding="max_length", truncation=True, return_tensors="pt")
    return encoded.input_ids


def _words(texts: Sequence[str]) -> list[str]:
    """Return the distinct words of texts in order, split and spelled in byte letters as in CLIP."""
    backend = CLIPTokenizer().backend_tokenizer
    split = [
        backend.pre_tokenizer.pre_tokenize_str(backend.normalizer.normalize_str(text))
        for text in texts
    ]
    return list(dict.fromkeys(word for text in split for word, _ in text))


def _segment(word: str, ranks: Mapping[tuple[str, str], int]) -> list[str]:
    pieces = [*word[:-1], word[-1] + "</w>"]
    while known := [pair for pair in itertools.pairwise(pieces) if pair in ranks]:
        best = min(known, key=ranks.__getitem__)
        at = next(i for i, pair in enumerate(itertools.pairwise(pieces)) if pair == best)
        pieces[at : at + 2] = ["".join(best)]
    return pieces
