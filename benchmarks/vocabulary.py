"""The sub-words of the compact generator: learn them again, and count tokens per word.

    python benchmarks/vocabulary.py          # tokens per word of 200 prompts
    python benchmarks/vocabulary.py --learn  # writes d4m/generators/english_merges.txt

The sub-words are those of WordNet's names and definitions of ImageNet-21K's classes, a copy of
which is part of timm. The 200 prompts of `prompt_sentences.txt` take no part in the learning.
"""

import json
import re
import sys
from pathlib import Path

import timm.data
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from d4m.generators.prompt_cuts import TextReader
from d4m.generators.subwords import END_OF_WORD, MERGES, caption_texts, learn_vocabulary
from d4m.settings import DenoiserSettings

_MERGES = 2000
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_TEXTS = ("imagenet_synset_to_definition.txt", "imagenet_synset_to_lemma.txt")
_HEADER = f"""\
# {_MERGES} byte-pair merges of English words, most frequent first: benchmarks/vocabulary.py.
# Learnt from WordNet 3.0; its licence is in d4m/sources/class_tables/WORDNET_LICENSE.txt.
"""


def main() -> None:
    """Count tokens, or write the merges."""
    if "--learn" in sys.argv:
        merges = [" ".join(pair) for pair in _learn()]
        MERGES.write_text(_HEADER + "\n".join(merges) + "\n", encoding="utf-8")
    sentences = Path(__file__).with_name("prompt_sentences.txt").read_text("utf-8").splitlines()
    names = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    captions = caption_texts(names, DenoiserSettings())
    words = sum(len(sentence.split()) for sentence in sentences)
    for label, vocabulary, limit in (
        ("words of the captions alone", learn_vocabulary(captions, english=False), 32),
        (
            "English sub-words and those words",
            learn_vocabulary(captions),
            DenoiserSettings().text_length,
        ),
    ):
        reader = TextReader.of(vocabulary, limit=limit)
        counts = [reader.count(sentence) for sentence in sentences]
        cut = sum(reader.cut(sentence) is not None for sentence in sentences)
        print(
            f"{label}: {len(vocabulary.tokens)} tokens; {sum(counts) / words:.2f} tokens per word, "
            f"{max(counts)} in the longest prompt; {cut} of {len(sentences)} prompts are cut at "
            f"{limit} tokens"
        )


def _learn() -> list[tuple[str, str]]:
    folder = Path(timm.data.__file__).parent / "_info"
    lines = [
        line.partition("\t")[2].lower()
        for name in _TEXTS
        for line in (folder / name).read_text(encoding="utf-8").splitlines()
    ]
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix=END_OF_WORD))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(
        vocab_size=2 * len(_LETTERS) + _MERGES,
        end_of_word_suffix=END_OF_WORD,
        initial_alphabet=list(_LETTERS),
        show_progress=False,
    )
    tokenizer.train_from_iterator([" ".join(re.findall("[a-z]+", line)) for line in lines], trainer)
    return [tuple(pair) for pair in json.loads(tokenizer.to_str())["model"]["merges"]]


if __name__ == "__main__":
    main()
