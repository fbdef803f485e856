"""Text to token ids, with the truncation of transformers' fast tokenizers and no state shared by threads."""

from typing import Literal, NamedTuple

from tokenizers import Tokenizer

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

    `tokenizers` keeps the truncation in the tokenizer itself, so there is one instance per direction, each
    set up once, and one without truncation that reads the full length.
    """

    def __init__(self, tokenizer_json: bytes, max_length: int) -> None:
        self.max_length = max_length
        self._whole = _parse(tokenizer_json)
        self._cut: dict[TruncationDirection, Tokenizer] = {}
        directions: tuple[TruncationDirection, ...] = ("right", "left")
        for direction in directions:
            tokenizer = _parse(tokenizer_json)
            tokenizer.enable_truncation(max_length, strategy="longest_first", direction=direction)
            self._cut[direction] = tokenizer
        self.special_tokens_of_single = self._whole.num_special_tokens_to_add(False)
        self.special_tokens_of_pair = self._whole.num_special_tokens_to_add(True)
        pad_id = self._whole.token_to_id("[PAD]")
        self.pad_id = 0 if pad_id is None else pad_id

    def upper_bound(self, value: TextInput) -> int:
        """Return a number of tokens that the input cannot exceed, without tokenising it."""
        if value.text_pair is None:
            return min(self.max_length, len(value.text.encode()) + self.special_tokens_of_single)
        size_bytes = len(value.text.encode()) + len(value.text_pair.encode())
        return min(self.max_length, size_bytes + self.special_tokens_of_pair)

    def tokenize(self, value: TextInput, direction: TruncationDirection = "right") -> Tokens:
        """Return the input's tokens, cut to the model's length; pairs lose from the longer text first."""
        encoding = self._whole.encode(value.text, value.text_pair)
        full_length = len(encoding.ids)
        if full_length > self.max_length:
            encoding = self._cut[direction].encode(value.text, value.text_pair)
        return Tokens(encoding.ids, encoding.type_ids, full_length)


def _parse(tokenizer_json: bytes) -> Tokenizer:
    try:
        tokenizer = Tokenizer.from_str(tokenizer_json.decode("utf-8"))
    except Exception as error:  # the library raises bare Exception
        raise ArtefactError(f"tokenizer.json: {error}") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer
