import pytest
import torch

from blip2_lab.models.masks import bidirectional_mask, multimodal_causal_mask, unimodal_mask

TEXT_MASK = torch.tensor([[True, True, False]])


def matrix(mask):
    assert mask.dtype == torch.bool and mask.shape[:2] == (1, 1)
    return mask[0, 0].int().tolist()


def test_unimodal_mask():
    assert matrix(unimodal_mask(2, TEXT_MASK)) == [
        [1, 1, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [0, 0, 1, 1, 0],
        [0, 0, 1, 1, 0],
        [0, 0, 1, 1, 0],
    ]


def test_multimodal_causal_mask():
    assert matrix(multimodal_causal_mask(2, TEXT_MASK)) == [
        [1, 1, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 1, 1, 1, 0],
        [1, 1, 1, 1, 0],
    ]


def test_bidirectional_mask():
    assert matrix(bidirectional_mask(2, TEXT_MASK)) == [[1, 1, 1, 1, 0]] * 5


@pytest.mark.parametrize("mask", [unimodal_mask, multimodal_causal_mask, bidirectional_mask])
def test_the_matrix_in_the_docstring_is_the_matrix(mask):
    lines = [line.split() for line in mask.__doc__.splitlines()]
    rows = [line[1:] for line in lines if len(line) == 6 and line[0] in "qtp"]
    assert [[int(entry) for entry in row] for row in rows] == matrix(mask(2, TEXT_MASK))


@pytest.mark.parametrize("mask", [unimodal_mask, multimodal_causal_mask, bidirectional_mask])
def test_every_row_has_its_own_padding_and_integers_will_do(mask):
    lengths = torch.tensor([[1, 1, 1], [1, 0, 0]])
    both = mask(1, lengths)
    assert both.shape == (2, 1, 4, 4)
    for row in range(2):
        assert torch.equal(both[row : row + 1], mask(1, lengths[row : row + 1].bool()))


def test_without_queries_they_are_the_masks_of_a_text():
    assert matrix(unimodal_mask(0, TEXT_MASK)) == matrix(bidirectional_mask(0, TEXT_MASK)) == [[1, 1, 0]] * 3
    assert matrix(multimodal_causal_mask(0, TEXT_MASK)) == [[1, 0, 0], [1, 1, 0], [1, 1, 0]]
