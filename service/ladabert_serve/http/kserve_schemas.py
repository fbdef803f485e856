"""Bodies of KServe's first protocol."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from ladabert_serve.http.schemas import OneInput


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class PredictParameters(_Body):
    """What a prediction holds; names as the options of KServe's Hugging Face server."""

    return_probabilities: bool = Field(default=False, description="The score of each label, by its index.")
    return_raw_logits: bool = Field(default=False, description="The logit of each label, by its index.")


class PredictRequest(_Body):
    """Texts, or pairs of texts."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"instances": ["a gripping film", "dull"]}]})

    instances: Annotated[list[OneInput], Field(min_length=1, fail_fast=True)] = Field(description="What to classify.")
    parameters: PredictParameters = PredictParameters()


class PredictResponse(BaseModel):
    """The index of each text's best label, or a number for the index of each label."""

    predictions: list[int] | list[dict[str, float]]
