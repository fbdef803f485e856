"""Whether a tokenizer gives a part of a text the tokens that the part has in the whole text, read off its file.

A cut changes tokens near it. It changes no others where every step looks at a bounded neighbourhood. A step that
counts, as `.{3}` and a token of 24 spaces do, carries the change through a long run of equal characters.
"""

from collections.abc import Iterable, Mapping
from typing import Any

LOCAL_NORMALIZERS = {"BertNormalizer", "ByteLevel", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "Nmt"}
LOCAL_NORMALIZERS |= {"Precompiled", "Prepend", "Strip", "StripAccents"}
LOCAL_PRE_TOKENIZERS = {"BertPreTokenizer", "ByteLevel", "CharDelimiterSplit", "Digits", "Metaspace", "Punctuation"}
LOCAL_PRE_TOKENIZERS |= {"Whitespace", "WhitespaceSplit"}
RUN_OF_SPACES = " {2,}"  # replaced by one, as converted SentencePiece tokenizers do


def reads_locally(tokenizer: Mapping[str, Any]) -> bool:
    """Return whether every step of a tokenizer, as in tokenizer.json, is known to look at a bounded neighbourhood."""
    return (
        all(map(_is_local_normalizer, _steps(tokenizer.get("normalizer"), "normalizers")))
        and all(
            step["type"] in LOCAL_PRE_TOKENIZERS for step in _steps(tokenizer.get("pre_tokenizer"), "pretokenizers")
        )
        and not _overlap([token["content"] for token in tokenizer.get("added_tokens", ())])
    )


def _steps(step: Mapping[str, Any] | None, children: str) -> Iterable[Mapping[str, Any]]:
    """Yield the steps of a sequence, of sequences in it too; of None, none."""
    if step is None:
        return
    if step["type"] != "Sequence":
        yield step
        return
    for child in step[children]:
        yield from _steps(child, children)


def _is_local_normalizer(step: Mapping[str, Any]) -> bool:
    if step["type"] != "Replace":
        return step["type"] in LOCAL_NORMALIZERS
    pattern = step["pattern"]
    return pattern.get("Regex") == RUN_OF_SPACES or ("String" in pattern and not _overlap([pattern["String"]]))


def _overlap(words: Iterable[str]) -> bool:
    """Whether two occurrences of these words can share characters, as of `aa` in `aaa`, without one holding the other.

    Where they can, which ones are found in a long run depends on where reading begins.
    """
    starts = {word[:length] for word in words for length in range(1, len(word))}
    ends = {word[-length:] for word in words for length in range(1, len(word))}
    return not starts.isdisjoint(ends)
