"""Bodies of the dialects that other servers and their clients speak."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from ladabert_serve.http.schemas import Count, Natural, OneInput, Text, TextPair
from ladabert_serve.models.scores import FunctionToApply

TokenIds = Annotated[list[Natural], Field(min_length=1, fail_fast=True)]
Texts = Annotated[list[Text], Field(min_length=1, fail_fast=True)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class VllmRequest(_Body):
    """Texts for vLLM's /classify, which SGLang and Infinity share."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"input": ["a gripping film", "dull"]}]})

    input: Text | Texts | TokenIds | Annotated[list[TokenIds], Field(min_length=1, fail_fast=True)] = Field(
        description="One text or several, or their token ids, special ones included."
    )
    model: Text | None = Field(default=None, description="Name or alias of the model; unset: the default one.")
    truncate_prompt_tokens: Literal[-1] | Count | None = Field(
        default=None,
        description="Cut a text at so many tokens, special ones included; -1: at the model's length; unset: a longer "
        "text is refused.",
    )
    truncation_side: Literal["left", "right"] | None = Field(default=None, description="The side that is cut off.")
    use_activation: bool | None = Field(default=None, description="Probabilities; false: logits.")
    raw_scores: bool = Field(default=False, description="Logits, as Infinity calls them.")
    add_special_tokens: bool = Field(default=True, description="Whether a text gets them; token ids never do.")
    priority: Natural = Field(default=0, description="Ignored: every caller has a fair share.")
    user: Text | None = Field(default=None, description="Ignored.")


class VllmClass(BaseModel):
    """One text's best label, and the probabilities in the order of the model's labels."""

    index: int
    label: str
    probs: list[float]
    num_classes: int


class VllmUsage(BaseModel):
    """Tokens that the model read."""

    prompt_tokens: int
    total_tokens: int
    completion_tokens: Literal[0] = 0
    prompt_tokens_details: None = None


class VllmResponse(BaseModel):
    """Classes in the order of the texts."""

    id: str = Field(examples=["classify-5f1c…"])
    object: Literal["list"] = "list"
    created: int = Field(description="Seconds since 1970.")
    model: str
    data: list[VllmClass]
    usage: VllmUsage


class VllmErrorInfo(BaseModel):
    """What was wrong."""

    message: str
    type: str
    param: None = None
    code: int


class VllmError(BaseModel):
    """An error, as OpenAI's clients read it."""

    error: VllmErrorInfo


class OrtServerRequest(_Body):
    """One text for ort-server's /classify."""

    text: Text
    top_k: Natural = Field(default=0, description="How many labels to return, best first; 0: all.")


class ErrorLine(BaseModel):
    """An error in one line."""

    error: str


OneOrTwo = Annotated[list[Text], Field(min_length=1, max_length=2)]


class TeiRequest(_Body):
    """Texts for text-embeddings-inference's /predict: a text, a pair, or a batch of lists of one or two texts."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"inputs": "a gripping film"}, {"inputs": [["a gripping film"], ["dull"]]}]}
    )

    inputs: Text | OneOrTwo | Annotated[list[OneOrTwo], Field(min_length=1, fail_fast=True)]
    truncate: bool | None = Field(default=None, description="Cut a text over the model's length (unset: yes).")
    truncation_direction: Literal["left", "right", "Left", "Right"] = "right"
    raw_scores: bool = Field(default=False, description="Logits in the place of probabilities.")


class TeiError(BaseModel):
    """An error and its kind."""

    error: str
    error_type: Literal["Validation", "Backend", "Overloaded", "Unhealthy"]


class HubParameters(_Body):
    """Options of the Hugging Face task text-classification."""

    function_to_apply: FunctionToApply | None = None
    top_k: Count | None = Field(default=None, description="How many labels to return, best first; unset: all.")


class HubRequest(_Body):
    """Inputs of the Hugging Face Inference API's text-classification."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"inputs": "a gripping film", "parameters": {"top_k": 1}}]}
    )

    inputs: Text | TextPair | Annotated[list[OneInput], Field(min_length=1, fail_fast=True)]
    parameters: HubParameters | None = None
    options: dict[str, bool] | None = Field(default=None, description="Ignored.")
