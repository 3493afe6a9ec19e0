"""The words of a compact generator: its tokenizer, and the captions it is trained on."""

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
    """A CLIP tokenizer that spells any text in bytes and knows every word of `texts` as one token.

    Each new word is segmented by the merges so far, and its first two pieces get a merge, until it
    is one piece. Later merges rank lower, so a word that is one token stays one.

    Args:
        texts: captions whose words get a token each.
        max_length: tokens per prompt, both markers included.
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
    """Captions of one class: a template each, some with made-up words among the template's own.

    The made-up words teach the text encoder to pass over words it does not know, so that a recipe
    may word its prompts freely.
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
    """Token numbers of texts, padded or cut to the tokenizer's length."""
    encoded = tokenizer(list(texts), padding="max_length", truncation=True, return_tensors="pt")
    return encoded.input_ids


def _words(texts: Sequence[str]) -> list[str]:
    """The distinct words of texts as CLIP splits them, in byte letters, in order."""
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
