import pytest
import torch

from ladabert_compress.training.finetune import symmetric_divergence
from ladabert_compress.training.losses import attention_mse, masked_mse, relation_divergence, soft_cross_entropy

MASK = torch.tensor([[1, 1, 0], [1, 0, 0]])


def test_padding_does_not_change_the_hidden_loss() -> None:
    student, teacher = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    before = masked_mse(student, teacher, MASK)
    student[0, 2], teacher[1, 1:] = 100.0, -100.0
    assert torch.equal(masked_mse(student, teacher, MASK), before)


def test_padding_does_not_change_the_attention_loss() -> None:
    student, teacher = torch.rand(2, 4, 3, 3), torch.rand(2, 4, 3, 3)
    before = attention_mse(student, teacher, MASK)
    student[0, :, 2, :], student[0, :, :, 2] = 9.0, 9.0
    assert torch.equal(attention_mse(student, teacher, MASK), before)


def test_the_hidden_loss_is_the_mean_over_real_tokens() -> None:
    assert masked_mse(torch.full((2, 3, 4), 3.0), torch.ones(2, 3, 4), MASK).item() == 4.0


def test_the_prediction_loss_is_smallest_at_the_teachers_logits() -> None:
    teacher = torch.tensor([[2.0, -1.0]])
    best = soft_cross_entropy(teacher, teacher, 1.0)
    assert soft_cross_entropy(teacher + 0.5, teacher, 1.0).item() == best.item()  # a shift changes nothing
    assert soft_cross_entropy(torch.tensor([[2.5, -1.0]]), teacher, 1.0) > best


def test_a_temperature_softens_both_sides() -> None:
    student, teacher = torch.tensor([[1.0, 0.0]]), torch.tensor([[4.0, 0.0]])
    assert torch.equal(soft_cross_entropy(student, teacher, 2.0), soft_cross_entropy(student / 2, teacher / 2, 1.0))


def test_relations_are_those_of_real_tokens_whatever_the_width_and_the_padding() -> None:
    student, teacher = torch.randn(2, 2, 3, 4), torch.randn(2, 2, 3, 8)
    before = relation_divergence(student, teacher, MASK)
    assert before > 0
    student[0, :, 2], teacher[1, :, 1:] = 9.0, -9.0
    assert torch.equal(relation_divergence(student, teacher, MASK), before)
    turned = teacher @ torch.linalg.qr(torch.randn(8, 8)).Q  # which changes no dot product
    assert relation_divergence(turned, teacher, MASK).item() < 1e-6


def test_two_answers_are_as_far_apart_as_kl_says_both_ways() -> None:
    first, second = torch.tensor([[1.0, 0.0]]), torch.tensor([[-1.0, 0.0]])
    high = torch.tensor(1.0).sigmoid().item()
    expected = (2 * high - 1) * 2 / 2  # of scores h and 1 - h, whose log odds are 1 and -1
    assert symmetric_divergence(first, second, "single_label").item() == pytest.approx(expected, rel=1e-5)
    one_label = first[:, :1], second[:, :1]
    assert symmetric_divergence(*one_label, "multi_label").item() == pytest.approx(expected, rel=1e-5)
    assert symmetric_divergence(first, first + 3.0, "single_label").item() == pytest.approx(0, abs=1e-6)
