import torch

from compression.batches import EncodedTexts
from compression.ladabert import replace_tokens

KEPT = torch.tensor([0, 1, 2, 3])


def test_replaced_tokens_come_from_the_batch_and_special_tokens_stay(encoded: EncodedTexts) -> None:
    torch.manual_seed(0)
    batch = encoded.batch(range(30))
    changed = replace_tokens(batch, 0.5, KEPT)
    special = torch.isin(batch.input_ids, KEPT)
    assert torch.equal(changed.input_ids[special], batch.input_ids[special])
    assert torch.isin(changed.input_ids[~special], batch.input_ids[~special]).all()
    assert torch.equal(changed.attention_mask, batch.attention_mask)
    share = (changed.input_ids != batch.input_ids)[~special].float().mean()
    assert 0.3 < share < 0.5  # half were drawn, and some drew what stood there


def test_a_batch_without_words_is_left_as_it_is() -> None:
    batch = EncodedTexts([[2, 3], [2, 3]], [[0, 0], [0, 0]], [0, 1], 0).batch([0, 1])
    assert torch.equal(replace_tokens(batch, 0.9, KEPT).input_ids, batch.input_ids)
