import pytest
import torch

pytest.importorskip("matplotlib")

from blip2_lab.plots import decoding
from blip2_lab.plots.figures import png

STEPS = [
    [("a", 0, -0.1), ("the", 0, -2.3)],
    [("red", 0, -0.4), ("blue", 0, -1.0)],
    [("boat", 1, -1.1), ("key", 0, -1.4)],
]


def texts(axis) -> list[str]:
    return [text.get_text().strip() for text in axis.texts]


def test_next_token_orders_by_the_first_setting_and_says_what_cannot_be_drawn():
    settings = {"all": torch.tensor([0.2, 0.5, 0.3]), "nucleus": torch.tensor([0.0, 0.6, 0.4])}
    figure = decoding.next_token(["a", "b", "c"], settings, top=3)
    left, right = figure.axes
    assert [label.get_text() for label in left.get_yticklabels()] == ["b", "c", "a"]
    assert [bar.get_width() for bar in left.patches] == pytest.approx([0.5, 0.3, 0.2])
    assert texts(right) == ["0.60", "0.40", "cannot be drawn"]
    assert left.yaxis_inverted(), "the likeliest on top"
    assert png(figure).startswith(b"\x89PNG")


def test_next_token_wants_a_name_for_each_probability():
    with pytest.raises(ValueError, match="2 names and 3 probabilities"):
        decoding.next_token(["a", "b"], {"all": torch.ones(3) / 3})


def test_beam_tree_draws_every_beam_and_the_way_of_the_best():
    figure = decoding.beam_tree(STEPS, best=[0, 1, 0])
    (axis,) = figure.axes
    assert texts(axis) == ["a\n-0.10", "the\n-2.30", "red\n-0.40", "blue\n-1.00", "boat\n-1.10", "key\n-1.40"]
    thick = [line for line in axis.lines if line.get_linewidth() > 2]
    assert [tuple(line.get_ydata()) for line in thick] == [(0, 1), (1, 0)]
    dashed = [text.get_text().split("\n")[0] for text in axis.texts if text.get_bbox_patch().get_linestyle() == "--"]
    assert dashed == ["the"], "the beam that has no children"
    assert png(figure).startswith(b"\x89PNG")


def test_beam_tree_wants_a_best_beam_for_every_step():
    with pytest.raises(ValueError, match="3 steps"):
        decoding.beam_tree(STEPS, best=[0])
