"""Where the text encoders of a generator cut a prompt; read without torch."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, models

from d4m.generators.base import PromptFinding
from d4m.generators.subwords import END, END_OF_WORD, Vocabulary, fits, splitter

_SHOWN = 60
_CLIP_MARKERS = 2


@dataclass(frozen=True)
class TextReader:
    """A tokenizer that reads the first tokens of a text and cuts off the rest.

    Attributes:
        limit: tokens of a text, markers included.
        tokenizer: splits a text into tokens, without markers.
        markers: tokens that every text gets: CLIP's start and end, or T5's end.
    """

    limit: int
    tokenizer: Tokenizer
    markers: int = _CLIP_MARKERS

    @classmethod
    def of(cls, vocabulary: Vocabulary, *, limit: int) -> "TextReader":
        """Return the reader with this vocabulary."""
        tokenizer = splitter()
        tokenizer.model = models.BPE(
            vocab=dict(vocabulary.tokens),
            merges=list(vocabulary.merges),
            unk_token=END,
            continuing_subword_prefix="",
            end_of_word_suffix=END_OF_WORD,
        )
        return cls(limit, tokenizer)

    @classmethod
    def loaded(cls, tokenizer: Tokenizer, *, limit: int) -> "TextReader":
        """Return the reader of a tokenizer that may pad and cut texts, and leave it as it is."""
        own = Tokenizer.from_str(tokenizer.to_str())
        own.no_padding()
        own.no_truncation()
        return cls(limit, own, own.num_special_tokens_to_add(False) or _CLIP_MARKERS)

    def count(self, text: str) -> int:
        """Return the number of a text's tokens, without markers."""
        return len(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def cut(self, text: str) -> int | None:
        """Return how many characters of a text are read; None: all of them.

        Example:
            >>> from d4m.generators.subwords import learn_vocabulary
            >>> reader = TextReader.of(learn_vocabulary(["a photo of zero"]), limit=4)
            >>> reader.cut("a photo"), reader.cut("a photo of zero")
            (None, 7)
        """
        if self.markers == _CLIP_MARKERS and fits(text, self.limit):
            return None
        offsets = self.tokenizer.encode(text, add_special_tokens=False).offsets
        read = self.limit - self.markers
        return offsets[read - 1][1] if len(offsets) > read else None

    @classmethod
    def open(cls, folder: Path, *, most: int) -> "TextReader | None":
        """Return the reader of a tokenizer's folder; None: it holds no file that is known.

        A T5 tokenizer that is kept in SentencePiece's own format is such a one.

        Args:
            folder: of the tokenizer.
            most: tokens that the text encoder reads, markers included.
        """
        if (whole := folder / "tokenizer.json").is_file():
            tokenizer = Tokenizer.from_file(str(whole))
        elif (merges := folder / "merges.txt").is_file():
            tokenizer = splitter()
            tokenizer.model = models.BPE.from_file(
                str(folder / "vocab.json"),
                str(merges),
                unk_token=END,
                continuing_subword_prefix="",
                end_of_word_suffix=END_OF_WORD,
            )
        else:
            return None
        settings = folder / "tokenizer_config.json"
        known: dict[str, Any] = (
            json.loads(settings.read_text(encoding="utf-8")) if settings.is_file() else {}
        )
        limit = min(known.get("model_max_length", most), most)
        return cls.loaded(tokenizer, limit=limit)


def find_cuts(readers: Sequence[TextReader], prompts: Iterable[str]) -> dict[str, PromptFinding]:
    """Return the prompts that a reader cuts, and where the first cut is.

    Args:
        readers: the tokenizer of each text encoder.
        prompts: distinct texts.
    """
    found = dict[str, PromptFinding]()
    for prompt in prompts:
        cuts = [
            (cut, reader.limit - reader.markers)
            for reader in readers
            if (cut := reader.cut(prompt)) is not None
        ]
        if cuts:
            read, tokens = min(cuts)
            found[prompt] = PromptFinding(_describe(prompt, read, tokens), read)
    return found


def _describe(prompt: str, read: int, tokens: int) -> str:
    start = "..." if read > _SHOWN else ""
    end = "..." if len(prompt) > read + _SHOWN else ""
    return (
        f"{tokens} tokens are read: '{start}{prompt[max(0, read - _SHOWN) : read]}'; cut off is "
        f"'{prompt[read : read + _SHOWN]}{end}'"
    )
