"""Drawings, read back: the numbers, tokens, masks and labels that they show are the library's."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

pytest.importorskip("matplotlib", reason="no matplotlib: pip install 'blip2-lab[teach]'")

from blip2_lab.models.attention import MASKED
from blip2_lab.models.language_model import pad
from blip2_lab.plots import drawings
from blip2_lab.teaching import checks

QUERY = torch.tensor([1.0, 0.0])
KEYS = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
VALUES = torch.tensor([[10.0], [20.0], [30.0]])


def texts(axis) -> list[str]:
    return [text.get_text() for text in axis.texts]


def cells(axis) -> list[tuple[float, float, str, object]]:
    """(row, column, text, rectangle) of every cell, by position."""
    found = []
    for patch in axis.patches:
        if type(patch).__name__ == "Rectangle":
            x, y, w, h = *patch.get_xy(), patch.get_width(), patch.get_height()
            inside = [t for t in axis.texts if x <= t.get_position()[0] <= x + w and y <= t.get_position()[1] <= y + h]
            found += [(round(y, 2), round(x, 2), text.get_text(), patch) for text in inside]
    return found


def test_attention_by_hand_is_attention():
    figure = drawings.attention_by_hand(QUERY, KEYS, VALUES)
    weights = checks.attention_weights.solution(QUERY[None], KEYS)[0]
    said = texts(figure.axes[0])
    assert [f"{share:.3f}" for share in weights.tolist()] == [
        text for text in said if text[:2] == "0." and len(text) == 5 and text != "0.707"
    ]
    assert "sum 20" in said and "÷ √2" in said and said.count("0.707") == 2
    assert "Query (1, 0)." in figure.alt and "share 0.198, value 20" in figure.alt and figure.alt.endswith("Output 20.")


def test_a_hidden_key_has_no_share_and_is_hatched():
    figure = drawings.attention_by_hand(QUERY, KEYS, VALUES, mask=torch.tensor([True, False, True]))
    hidden = [patch for *_, text, patch in cells(figure.axes[0]) if text == "hidden"]
    assert hidden and all(patch.get_hatch() for patch in hidden)
    assert texts(figure.axes[0]).count("0.500") == 2 and "hidden by the mask, share 0.000" in figure.alt
    assert drawings.MASKED == MASKED, "the library's number"
    two = drawings.attention_by_hand(QUERY, KEYS, torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]))
    assert two.alt.endswith("Output (0.802, 0.198).")
    with pytest.raises(ValueError, match=r"these are \[2\], \[3, 2\] and \[2, 1\]"):
        drawings.attention_by_hand(QUERY, KEYS, VALUES[:2])


def test_only_layers_with_cross_attention_read_the_picture():
    figure = drawings.qformer_layers([True, False])
    first, second = (texts(axis) for axis in figure.axes)
    assert "cross-attention" in first and "image\nfeatures" in first
    assert "cross-attention" not in second and "image\nfeatures" not in second
    for said in (first, second):
        assert {"query_ffn", "text_ffn"} <= set(said) and said.count(
            "self-attention\nshared by queries and text, under a mask"
        ) == 1
    assert (first.count("⊕"), second.count("⊕")) == (5, 4), "one sum for each step that a stream goes through"
    assert [axis.get_title() for axis in figure.axes] == [
        "layer 0: reads the picture",
        "layer 1: does not read the picture",
    ]
    assert "Layer 1:" in figure.alt and "do not read the picture" in figure.alt
    with pytest.raises(ValueError, match="at least one layer"):
        drawings.qformer_layers([])


def test_the_pairs_are_those_of_the_exercise():
    colors = [(200, 0, 0), (0, 200, 0)]
    images, captions = [Image.new("RGB", (8, 8), color) for color in colors], ["a red boat", "a green cat"]
    pairs = checks.itm_pairs.solution(torch.tensor([1, 0]), torch.tensor([1, 0]))
    figure = drawings.matching_pairs(images, captions, *pairs)
    for axis, image, text, label in zip(figure.axes, *(row.tolist() for row in pairs), strict=True):
        assert tuple(axis.images[0].get_array()[0, 0]) == colors[image]
        assert captions[text] in axis.get_xlabel() and axis.get_title(loc="left") == f"image {image}, text {text}"
        assert ("✓ match, label 1" in axis.get_xlabel()) == bool(label) == ("✗" not in axis.get_xlabel())
        assert axis.spines["left"].get_linestyle() == ("-" if label else "--"), "not by color alone"
    assert "Image 1 with text 0, “a red boat”: no match" in figure.alt
    with pytest.raises(ValueError, match="Give 3B images"):
        drawings.matching_pairs(images, captions, *(row[:4] for row in pairs))


PROMPTS = [["what", "is", "it"], ["where"]]
ANSWERS = [["a", "boat", "end"], ["here", "end"]]


def rows_of(figure) -> list[list[str]]:
    """The rows of cells from top to bottom, as texts."""
    rows: dict[float, list] = {}
    for y, x, text, _ in cells(figure.axes[0]):
        rows.setdefault(y, []).append((x, text))
    return [[text for _, text in sorted(rows[y])] for y in sorted(rows)]


def padded(rows, left):
    numbers = {word: i + 1 for i, word in enumerate(sorted({word for row in rows for word in row}))}
    text = pad([[numbers[word] for word in row] for row in rows], 0, left=left)
    ids, mask = text.ids.tolist(), text.mask.tolist()
    names = {i: word for word, i in numbers.items()} | {0: "pad"}
    return [[names[i] for i in row] for row in ids], mask


def test_a_decoders_rows_are_padded_as_the_library_pads():
    figure = drawings.decoder_sequence(PROMPTS, ANSWERS, num_queries=2, step="padding")
    prompts, prompt_mask = padded(PROMPTS, left=True)
    answers, answer_mask = padded(ANSWERS, left=False)
    expected = []
    for row in range(2):
        expected += [["v0", "v1", *prompts[row], *answers[row]]]
        expected += [["1", "1", *(str(int(x)) for x in prompt_mask[row] + answer_mask[row])]]
    assert rows_of(figure) == expected
    hatched = {text for *_, text, patch in cells(figure.axes[0]) if patch.get_hatch()}
    assert hatched == {"pad", "0"}


def test_a_decoder_predicts_one_position_early_and_learns_the_answer_only():
    reads, predicts, short, goals = rows_of(drawings.decoder_sequence(PROMPTS, ANSWERS, num_queries=2, step="shift"))
    for read, goal in ((reads, predicts), (short, goals)):
        for i, token in enumerate(goal):
            assert token == "·" or token == read[i + 1]
        assert goal[4] in {"a", "here"}, "2 + 3 - 1: the prompt's last token predicts the answer's first"
    assert [t for t in predicts if t != "·"] == ANSWERS[0] and [t for t in goals if t != "·"] == ANSWERS[1]
    labels = rows_of(drawings.decoder_sequence(PROMPTS, ANSWERS, num_queries=2, step="loss"))
    assert [[t for t in row if t != "–"] for row in labels] == ANSWERS and labels[1][-1] == "–"
    bare = rows_of(drawings.decoder_sequence(PROMPTS, ANSWERS, num_queries=2, step="rows"))
    assert bare == [["v0", "v1", *p, *a] for p, a in zip(PROMPTS, ANSWERS, strict=True)]


def test_an_encoder_decoder_reads_one_token_late():
    read, goal, short, end = rows_of(drawings.encoder_decoder_sequence(PROMPTS, ANSWERS, 2, step="predictions"))
    assert read == ["start", *ANSWERS[0][:-1]] and goal == ANSWERS[0]
    assert short == ["start", "here", "end"] and end == ["here", "end", "·"]
    encoder = rows_of(drawings.encoder_decoder_sequence(PROMPTS, ANSWERS, 2, step="encoder"))
    assert encoder[2:] == [["v0", "v1", "where", "pad", "pad"], ["1", "1", "1", "0", "0"]]
    assert not any(
        "what" in row for row in rows_of(drawings.encoder_decoder_sequence(PROMPTS, ANSWERS, 2, step="loss"))
    )


@pytest.mark.parametrize("draw", [drawings.decoder_sequence, drawings.encoder_decoder_sequence])
def test_all_steps_stand_below_one_another(draw):
    figure = draw(PROMPTS, ANSWERS)
    heads = [text[:2] for text in texts(figure.axes[0]) if text[1:2] == "."]
    assert heads == ["1.", "2.", "3.", "4."] and "boat" in figure.alt
    with pytest.raises(ValueError, match="'shuft' is no step; choose all, "):
        draw(PROMPTS, ANSWERS, step="shuft")


def test_the_cache_computes_a_row_for_each_step():
    tokens = ["[DEC]", "a", "red", "boat"]
    figure = drawings.cache_steps(tokens, num_queries=2)
    with_cache, without = ([text for *_, text, _ in cells(axis)] for axis in figure.axes)
    assert (with_cache.count("new"), without.count("new")) == (4, 10)
    assert with_cache.count("kept") == 4 * 2 + 6 and without.count("kept") == 4 * 2
    assert "sum 4" in texts(figure.axes[0]) and "sum 10" in texts(figure.axes[1])
    assert "4 rows in 4 steps" in figure.alt and "10 rows" in figure.alt
    half = drawings.cache_steps(tokens, num_queries=2, step=2)
    assert "sum 3" in texts(half.axes[1]) and "Writing [DEC] a step" in half.alt
    with pytest.raises(ValueError, match="Step 5 does not exist: there are 4"):
        drawings.cache_steps(tokens, step=5)
