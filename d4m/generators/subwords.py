"""Tokens of CLIP's kind without torch: a vocabulary for any words, and where a text is cut.

`english_merges.txt` holds byte-pair merges of English words, so that a word that no caption holds
costs one or two tokens instead of one per letter (docs/explanation/decisions/sub-words.md).
"""

import itertools
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

from d4m.settings import DenoiserSettings

START, END = "<|startoftext|>", "<|endoftext|>"
END_OF_WORD = "</w>"
MERGES = Path(__file__).with_name("english_merges.txt")
MERGES_VERSION = "english-2000"
"""Name of the merges in the file, which is in the key of every compact denoiser."""
# CLIP's own: markers, English contractions, words, single digits, runs of signs.
_WORDS = (
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
)

Pair = tuple[str, str]


@dataclass(frozen=True)
class Vocabulary:
    """The tokens of a byte-pair encoding, and the merges that lead to them.

    Attributes:
        tokens: token -> its number.
        merges: pairs of tokens that become one, the first ones first.
    """

    tokens: Mapping[str, int]
    merges: Sequence[Pair]


def caption_texts(class_names: Sequence[str], settings: DenoiserSettings) -> list[str]:
    """Return each caption with each class name: the texts whose words get a token each."""
    return [
        caption.replace("{name}", name) for name in class_names for caption in settings.captions
    ]


def fits(text: str, limit: int) -> bool:
    """Return whether a text is so short that it fits with a token for each of its bytes."""
    return len(unicodedata.normalize("NFC", text).lower().encode()) <= limit - 2


def learn_vocabulary(texts: Sequence[str], *, english: bool = True) -> Vocabulary:
    """Build a vocabulary that spells any text in bytes and knows each word of `texts` as a token.

    A new word is segmented by the merges so far. Its first two pieces get a merge until the word is
    one piece. Later merges rank lower, so a word that is one token stays one.

    Args:
        texts: captions whose words get a token each.
        english: whether sub-words of English come first.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*alphabet, *(letter + END_OF_WORD for letter in alphabet)]
    ranks = {pair: rank for rank, pair in enumerate(english_merges() if english else ())}
    words += [first + second for first, second in ranks]
    for word in _words(texts):
        while len(pieces := _segment(word, ranks)) > 1:
            ranks[pieces[0], pieces[1]] = len(ranks)
            words.append(pieces[0] + pieces[1])
    distinct = dict.fromkeys([*words, START, END])
    return Vocabulary({token: number for number, token in enumerate(distinct)}, tuple(ranks))


@lru_cache(maxsize=1)
def english_merges() -> tuple[Pair, ...]:
    """Return the merges of English words, the most frequent ones first."""
    lines = MERGES.read_text(encoding="utf-8").splitlines()
    pairs = [line.split(" ") for line in lines if not line.startswith("#")]
    return tuple((first, second) for first, second in pairs)


def splitter() -> Tokenizer:
    """Build a tokenizer that normalises and splits texts as CLIP does, without any token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    return tokenizer


def _words(texts: Sequence[str]) -> list[str]:
    """Return the distinct words of texts as CLIP splits them, in byte letters, in order."""
    tokenizer = cast(Any, splitter())
    split = [
        tokenizer.pre_tokenizer.pre_tokenize_str(tokenizer.normalizer.normalize_str(text))
        for text in texts
    ]
    return list(dict.fromkeys(word for text in split for word, _ in text))


def _segment(word: str, ranks: Mapping[Pair, int]) -> list[str]:
    pieces = [*word[:-1], word[-1] + END_OF_WORD]
    while known := [pair for pair in itertools.pairwise(pieces) if pair in ranks]:
        best = min(known, key=ranks.__getitem__)
        at = next(i for i, pair in enumerate(itertools.pairwise(pieces)) if pair == best)
        pieces[at : at + 2] = ["".join(best)]
    return pieces
