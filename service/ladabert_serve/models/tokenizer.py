"""Text to token ids, truncated like transformers' fast tokenizers, at a cost that the model's length bounds."""

import contextlib
import itertools
import json
import os
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from tokenizers import Encoding, Tokenizer

from ladabert_serve.errors import ArtefactError
from ladabert_serve.models.locality import reads_locally

TruncationDirection = Literal["right", "left"]

CHARACTERS_PER_TOKEN = 8  # tokenised of a long text at first; English has about five
GROWTH = 4  # of the part that is tokenised, while it does not fill the model
TEXT_OVERHEAD_BYTES = 256  # that could be tokenised in the time that any text takes
UNSURE_WORDS = 8  # next to a cut: their tokens may differ from those in the whole text
SHORT_CHARACTERS = 512  # tokenised in a tenth of a millisecond


class TextInput(NamedTuple):
    """The input of one prediction: a text, and a second one for a pair task."""

    text: str
    text_pair: str | None = None

    @property
    def size_bytes(self) -> int:
        """Size in UTF-8, both texts together."""
        text = self.text if self.text_pair is None else self.text + self.text_pair
        return len(text) if text.isascii() else len(text.encode())


class TokenInput(NamedTuple):
    """The input of one prediction whose caller has tokenised it, special tokens included."""

    ids: Sequence[int]
    text_pair: None = None


class Tokens(NamedTuple):
    """One tokenised input: `ids` and `type_ids` of equal length, at least one and at most the model's length."""

    ids: list[int]
    type_ids: list[int]
    truncated: bool  # whether tokens were cut off


class _Template(NamedTuple):
    """Special tokens before, between and after the texts of an input, one entry more than there are texts."""

    ids: list[list[int]]
    type_ids: list[list[int]]
    text_type_ids: list[int]  # of each text's own tokens
    size: int  # special tokens in all


NOTHING_ADDED = _Template([[], []], [[], []], [0], 0)


class TextTokenizer:
    """Tokenises for one model; safe to call from several threads at once.

    Truncation and special tokens are done here, because the library's truncation is a state that threads share, and
    keeps the overflow: gigabytes for a pair of long texts. Only the library's batch methods release the interpreter
    lock; a short text keeps it, since handing it over and back takes longer than tokenising.

    `pad_id` fills the shorter texts of a batch; by default it is that of `[PAD]`, or 0.
    """

    def __init__(self, tokenizer_json: bytes, max_length: int, pad_id: int | None = None) -> None:
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # a batch is one text here: threads are no help
        self.max_length = max_length
        self._tokenizer = _parse(tokenizer_json)
        self._single = _read_template(self._tokenizer, "a")
        self._pair = _read_template(self._tokenizer, "a", "b")
        for template, needed in ((self._single, 1), (self._pair, 0)):
            if max_length < template.size + needed:
                raise ArtefactError(
                    f"tokenizer.json: adds {template.size} special tokens, which leave no room within max_length "
                    f"({max_length})"
                )
        self.pad_id = (self._tokenizer.token_to_id("[PAD]") or 0) if pad_id is None else pad_id
        self._may_cut = reads_locally(json.loads(tokenizer_json))

    def largest_id(self) -> int:
        """Return the largest token id that a text can have."""
        return max(self._tokenizer.get_vocab(with_added_tokens=True).values())

    @property
    def vocabulary(self) -> int:
        """How many tokens there are; each id is below it."""
        return self._tokenizer.get_vocab_size()

    def special_tokens(self, pair: bool) -> int:
        """Return how many tokens are added to one text, or to two."""
        return (self._pair if pair else self._single).size

    def upper_bounds(self, value: TextInput | TokenInput) -> tuple[int, int]:
        """Return the most tokens that the input can have and the most bytes of work that tokenising it can take.

        A tokenizer may put one more before each text, a space. Normal forms that make one character many (NFKC) are
        not reckoned with.
        """
        if isinstance(value, TokenInput):
            return min(self.max_length, len(value.ids)), TEXT_OVERHEAD_BYTES
        template, texts = (self._single, 1) if value.text_pair is None else (self._pair, 2)
        size_bytes = value.size_bytes
        return min(self.max_length, size_bytes + texts + template.size), size_bytes + TEXT_OVERHEAD_BYTES

    def tokenize(
        self,
        value: TextInput | TokenInput,
        direction: TruncationDirection = "right",
        max_tokens: int | None = None,
        add_special_tokens: bool = True,
    ) -> Tokens:
        """Return the input's tokens, cut to `max_tokens` and the model's length; pairs lose from the longer text first.

        An input without any token is read as one padding token. When both texts of a pair are too long to be
        tokenised in full, the longer one is the one with more characters. `max_tokens` exceeds the special tokens.
        """
        limit = self.max_length if max_tokens is None else min(max_tokens, self.max_length)
        if isinstance(value, TokenInput):
            ids = list(value.ids[:limit] if direction == "right" else value.ids[-limit:])
            return Tokens(ids, [0] * len(ids), len(value.ids) > limit)
        if value.text_pair is None:
            template = self._single if add_special_tokens else NOTHING_ADDED
            room = limit - template.size
            text, _ = self._encode(value.text, room, direction)
            texts, kept = [text], [min(len(text), room)]
        else:
            template = self._pair
            room = limit - template.size
            first, first_is_whole = self._encode(value.text, room, direction)
            second, second_is_whole = self._encode(value.text_pair, room, direction)
            lengths = len(first), len(second)
            if min(lengths) > room and not (first_is_whole and second_is_whole):
                lengths = room + 1 + (len(value.text) > len(value.text_pair)), room + 1
            texts, kept = [first, second], list(longest_first(*lengths, room))
        ids, type_ids = template.ids[0][:], template.type_ids[0][:]
        for index, (text, count) in enumerate(zip(texts, kept, strict=True)):
            ids += text[:count] if direction == "right" else text[len(text) - count :]
            ids += template.ids[index + 1]
            type_ids += [template.text_type_ids[index]] * count
            type_ids += template.type_ids[index + 1]
        truncated = any(len(text) > count for text, count in zip(texts, kept, strict=True))
        return Tokens(ids, type_ids, truncated) if ids else Tokens([self.pad_id], [0], truncated)

    def full_length(self, value: TextInput | TokenInput) -> int:
        """Return how many tokens the input has without truncation, special ones included; reads all of it."""
        if isinstance(value, TokenInput):
            return len(value.ids)
        if value.text_pair is None:
            return self._single.size + len(self._encode_whole(value.text))
        return self._pair.size + len(self._encode_whole(value.text)) + len(self._encode_whole(value.text_pair))

    def _encode(self, text: str, room: int, direction: TruncationDirection) -> tuple[list[int], bool]:
        """Return a text's tokens and True, or more than `room` tokens of its start (or end) and False.

        The first (or last) `room` of these are the same as in the whole text: a part is read only where the tokenizer
        is known to read locally.
        """
        characters = CHARACTERS_PER_TOKEN * (room + UNSURE_WORDS)
        while self._may_cut and characters < len(text):
            part = text[:characters] if direction == "right" else text[-characters:]
            encoding = self._tokenizer.encode_batch([part], add_special_tokens=False)[0]
            if _is_filled(encoding, room, direction):
                return encoding.ids, False
            characters = GROWTH * len(part)
        return self._encode_whole(text).ids, True

    def _encode_whole(self, text: str) -> Encoding:
        if len(text) <= SHORT_CHARACTERS:
            return self._tokenizer.encode(text, add_special_tokens=False)
        return self._tokenizer.encode_batch_fast([text], add_special_tokens=False)[0]


def longest_first(first: int, second: int, room: int) -> tuple[int, int]:
    """Return how many tokens to keep of each text of a pair, so that both fit into `room`.

    Tokens are taken from the longer text, one by one. When both lose some, the text that was shorter keeps the
    smaller half.
    """
    if first + second <= room:
        return first, second
    short, long = min(first, second), max(first, second)
    short, long = (short, room - short) if 2 * short <= room else (room // 2, room - room // 2)
    return (short, long) if first <= second else (long, short)


def _is_filled(encoding: Encoding, room: int, direction: TruncationDirection) -> bool:
    """Whether a part of a text has over `room` tokens, and those that are kept lie far enough from the cut."""
    count = len(encoding)
    if count <= room:
        return False
    if direction == "right":
        kept, cut = encoding.token_to_word(max(room - 1, 0)), encoding.token_to_word(count - 1)
    else:
        kept, cut = encoding.token_to_word(0), encoding.token_to_word(min(count - room, count - 1))
    return kept is not None and cut is not None and cut - kept >= UNSURE_WORDS


@contextlib.contextmanager
def _refusing_what_the_library_refuses() -> Iterator[None]:
    """Raise ArtefactError for what the library raises: bare Exception, or for a panic not even that."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        raise ArtefactError(f"tokenizer.json: tokenizers cannot load it: {error}") from error


def _parse(tokenizer_json: bytes) -> Tokenizer:
    with _refusing_what_the_library_refuses():
        tokenizer = Tokenizer.from_str(tokenizer_json.decode("utf-8"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _read_template(tokenizer: Tokenizer, text: str, pair: str | None = None) -> _Template:
    """Return the special tokens that the tokenizer adds to such an input; raises ArtefactError."""
    with _refusing_what_the_library_refuses():
        encoding = tokenizer.encode(text, pair)
    ids: list[list[int]] = [[]]
    type_ids: list[list[int]] = [[]]
    text_type_ids: list[int] = []
    sequences = []
    tokens = zip(encoding.sequence_ids, encoding.ids, encoding.type_ids, strict=True)
    for sequence, run in itertools.groupby(tokens, key=lambda token: token[0]):
        _, run_ids, run_type_ids = zip(*run, strict=True)
        if sequence is None:
            ids[-1], type_ids[-1] = list(run_ids), list(run_type_ids)
        else:
            sequences.append(sequence)
            text_type_ids.append(run_type_ids[0])
            ids.append([])
            type_ids.append([])
    if sequences != ([0] if pair is None else [0, 1]):
        raise ArtefactError(f"tokenizer.json: gives no tokens for {text!r} or {pair!r}, or not in this order")
    return _Template(ids, type_ids, text_type_ids, sum(map(len, ids)))
