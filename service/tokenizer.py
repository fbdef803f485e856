"""Text to token ids, with the truncation of transformers' fast tokenizers and no state shared by threads."""

from typing import Literal, NamedTuple

from tokenizers import Encoding, Tokenizer

from service.errors import ArtefactError

TruncationDirection = Literal["right", "left"]


class TextInput(NamedTuple):
    """What one prediction is about: a text, and a second one where the task is a pair."""

    text: str
    text_pair: str | None = None


class Tokens(NamedTuple):
    """One tokenised input: `ids` and `type_ids` of equal length, at most the model's length."""

    ids: list[int]
    type_ids: list[int]
    full_length: int  # tokens before truncation, special ones included

    @property
    def truncated(self) -> bool:
        """Whether tokens were cut off."""
        return self.full_length > len(self.ids)


class TextTokenizer:
    """Tokenises for one model; safe to call from several threads at once.

    `tokenizers` keeps truncation in the tokenizer itself, where threads would share it; so it is done here, after
    the text became tokens and before the special ones are added. One tokenizer holds 12 MB, one per direction is
    three times that.
    """

    def __init__(self, tokenizer_json: bytes, max_length: int) -> None:
        self.max_length = max_length
        self._tokenizer = _parse(tokenizer_json)
        self.special_tokens_of_single = self._tokenizer.num_special_tokens_to_add(False)
        self.special_tokens_of_pair = self._tokenizer.num_special_tokens_to_add(True)
        pad_id = self._tokenizer.token_to_id("[PAD]")
        self.pad_id = 0 if pad_id is None else pad_id

    def upper_bound(self, value: TextInput) -> int:
        """Return a number of tokens that the input cannot exceed, without tokenising it."""
        if value.text_pair is None:
            return min(self.max_length, len(value.text.encode()) + self.special_tokens_of_single)
        size_bytes = len(value.text.encode()) + len(value.text_pair.encode())
        return min(self.max_length, size_bytes + self.special_tokens_of_pair)

    def tokenize(self, value: TextInput, direction: TruncationDirection = "right") -> Tokens:
        """Return the input's tokens, cut to the model's length; pairs lose from the longer text first."""
        encoding = self._tokenizer.encode(value.text, value.text_pair)
        full_length = len(encoding)
        if full_length > self.max_length:
            encoding = self._cut(value, direction)
        return Tokens(encoding.ids, encoding.type_ids, full_length)

    def _cut(self, value: TextInput, direction: TruncationDirection) -> Encoding:
        """Return the encoding of a text or pair that is too long, at most `max_length` with the special tokens."""
        first = self._tokenizer.encode(value.text, add_special_tokens=False)
        if value.text_pair is None:
            first.truncate(self.max_length - self.special_tokens_of_single, direction=direction)
            return self._tokenizer.post_process(first)
        second = self._tokenizer.encode(value.text_pair, add_special_tokens=False)
        room = self.max_length - self.special_tokens_of_pair
        kept = longest_first(len(first.ids), len(second.ids), room)
        first.truncate(kept[0], direction=direction)
        second.truncate(kept[1], direction=direction)
        return self._tokenizer.post_process(first, second)


def longest_first(first: int, second: int, room: int) -> tuple[int, int]:
    """Return how many tokens of each text of a pair fit into `room`, one after the other taken from the longer one.

    Of two that end up equally long the shorter one before has the smaller half.
    """
    if first + second <= room:
        return first, second
    short, long = min(first, second), max(first, second)
    short, long = (short, room - short) if 2 * short <= room else (room // 2, room - room // 2)
    return (short, long) if first <= second else (long, short)


def _parse(tokenizer_json: bytes) -> Tokenizer:
    try:
        tokenizer = Tokenizer.from_str(tokenizer_json.decode("utf-8"))
    except Exception as error:  # the library raises bare Exception
        raise ArtefactError(f"tokenizer.json: {error}") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer
