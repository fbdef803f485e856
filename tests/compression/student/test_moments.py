from dataclasses import replace

import numpy as np
import torch
from transformers import BertForSequenceClassification

from ladabert_compress.data.batches import EncodedTexts
from ladabert_compress.student.moments import count_embedding_rows, input_moments, squared_output_gradients


def test_moments_are_those_of_the_real_tokens_however_they_are_batched(
    tiny_bert: BertForSequenceClassification, encoded: EncodedTexts
) -> None:
    alone = input_moments(tiny_bert, [encoded.batch([row]) for row in range(8)])
    together = input_moments(tiny_bert, [encoded.batch(range(8), pad_to=20)])
    assert alone.keys() == together.keys()
    for name, expected in alone.items():
        assert torch.allclose(together[name].mean, expected.mean, atol=1e-4)
        assert torch.allclose(together[name].second, expected.second, atol=1e-3)


def test_every_linear_layer_has_moments_and_those_that_read_the_same_tensor_share_them(
    tiny_bert: BertForSequenceClassification, encoded: EncodedTexts
) -> None:
    moments = input_moments(tiny_bert, [encoded.batch(range(8))])
    attention = "bert.encoder.layer.1.attention"
    assert moments[f"{attention}.self.query"] is moments[f"{attention}.self.value"]
    assert moments[f"{attention}.self.query"] is not moments[f"{attention}.output.dense"]
    linear = {name for name, module in tiny_bert.named_modules() if isinstance(module, torch.nn.Linear)}
    assert moments.keys() == linear


def test_rows_of_the_embeddings_are_counted_once_for_each_time_they_are_read(
    tiny_bert: BertForSequenceClassification, encoded: EncodedTexts
) -> None:
    counts = count_embedding_rows(tiny_bert, encoded)
    words, positions = counts["bert.embeddings.word_embeddings"], counts["bert.embeddings.position_embeddings"]
    assert len(words) == 64
    assert int(words.sum()) == int(positions.sum()) == len(encoded.token_ids)
    assert int(words[2]) == int(positions[0]) == len(encoded)  # [CLS] begins every row


def test_gradients_are_large_where_the_loss_depends_on_the_output_and_leave_nothing_behind(
    tiny_bert: BertForSequenceClassification, encoded: EncodedTexts
) -> None:
    batches = [encoded.batch(range(8)), encoded.batch(range(8, 16))]
    gradients = squared_output_gradients(tiny_bert, batches, seed=1)
    linear = {name: module for name, module in tiny_bert.named_modules() if isinstance(module, torch.nn.Linear)}
    assert gradients.keys() == linear.keys()
    assert all(gradients[name].shape == (module.out_features,) for name, module in linear.items())
    assert (gradients["bert.pooler.dense"] > 0).all()
    assert all(parameter.grad is None for parameter in tiny_bert.parameters())
    again = squared_output_gradients(tiny_bert, batches, seed=1)
    assert all(torch.equal(again[name], value) for name, value in gradients.items())


def test_labels_that_do_not_exclude_each_other_are_drawn_each_for_itself(
    tiny_bert: BertForSequenceClassification, encoded: EncodedTexts
) -> None:
    with torch.no_grad():  # sure of both labels, which a softmax would call undecided
        tiny_bert.classifier.weight.zero_()
        tiny_bert.classifier.bias.fill_(4.0)
    multi_label = replace(encoded, labels=np.ones((len(encoded), 2), dtype=np.int64))
    one, each = (
        squared_output_gradients(tiny_bert, [data.batch(range(len(data)))] * 20, seed=1)["classifier"]
        for data in (encoded, multi_label)
    )
    rows = 20 * len(encoded)
    sure = torch.tensor(4.0).sigmoid().item()
    assert torch.allclose(one / rows, torch.tensor([0.25, 0.25], dtype=torch.float64), rtol=0.2)
    assert torch.allclose(each / rows, torch.full((2,), sure * (1 - sure), dtype=torch.float64), rtol=0.5)
