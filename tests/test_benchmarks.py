"""The benchmarks count what they say, compare equal things, and their scripts run (at a small size)."""

import asyncio
import math
import os
import time
from dataclasses import replace
from random import Random

import pytest
import torch

from benchmarks import codebook, data_speed, forms, load, retrieval, stage1_step, stage2_step, wait_policy
from benchmarks.measure import flops, kept_bytes, largest, own_clock, peak_memory, ratio, spread, take_turns
from benchmarks.stage1_step import SIZES, counts, disagreement
from blip2_lab.models.retrieval import read_gallery, search
from blip2_lab.picturebook.scene import sample_scene


def test_flops_are_counted_without_computing():
    weight = torch.empty(4, 5, device="meta", requires_grad=True)
    x, mask = torch.empty(3, 4, device="meta"), torch.tensor([True, False, True])
    assert flops(lambda: x @ weight) == 2 * 3 * 4 * 5
    assert flops(lambda: x[mask] @ weight) == 2 * 2 * 4 * 5  # the mask is real: two rows are left
    assert flops(lambda: (x @ weight).sum().backward()) == 2 * 2 * 3 * 4 * 5  # x needs no gradient


def test_kept_bytes_are_counted_once():
    model = torch.nn.Linear(4, 5, device="meta")
    x = torch.empty(3, 4, device="meta")
    assert kept_bytes(lambda: model(x), model) == 4 * 3 * 4
    assert kept_bytes(lambda: (model(x), model(x)), model) == 4 * 3 * 4
    assert kept_bytes(lambda: model(x).exp(), model) == 4 * 3 * (4 + 5)


def test_an_answer_to_a_form_is_right_by_its_word():
    assert forms.is_right("a red boat", ("boat",)) and forms.is_right("yes", ("yes", "red"))
    assert forms.is_right("a cat and two boats", (("boats", "cat"),))
    assert not forms.is_right("two boats", (("boats", "cat"),))
    assert forms.is_right("red", ("yes", "red")) and not forms.is_right("no, but yes", ("yes",))
    assert not forms.is_right("there is no boat", ("no", "cat"))


def test_every_form_is_asked_of_some_scene_and_the_true_words_are_of_that_scene():
    book = [sample_scene(82, number, "in") for number in range(20)]
    for name, form in forms.FORMS.items():
        asked = [(scene, made) for scene in book if (made := form(scene, Random(0)))]
        assert asked, name
    text, right = forms.FORMS["is it a cat or a boat?"](book[0], Random(0))
    assert right[0] in text and right[0] in {thing.kind for thing in book[0].things}


def test_a_step_costs_half_of_lavis():
    """Two layers of the real width: the proportions of the real model."""
    (plain_flops, plain_kept), (our_flops, our_kept) = counts(SIZES["two-layers"]).values()
    assert plain_flops / our_flops > 1.95
    assert our_kept / plain_kept < 0.7


@pytest.mark.slow
def test_a_step_at_real_size_costs_what_the_design_says():
    (plain_flops, _), (our_flops, _) = counts(SIZES["real"]).values()
    assert our_flops <= 2.05e12
    assert plain_flops == pytest.approx(3.85e12, rel=0.005)


def test_a_step_is_lavis_step():
    losses, gradients = disagreement(SIZES["small"])
    assert losses < 1e-5 and gradients < 1e-5


@pytest.mark.parametrize("language", ["opt", "t5"])
def test_a_stage2_step_is_transformers_step(language):
    size = replace(stage2_step.SIZES["small"], language=language)
    models = stage2_step.both(size)
    losses, gradients = stage2_step.disagreement(models, size)
    assert losses < 1e-5 and gradients < 1e-4
    alone = stage2_step.ours_alone(size)  # whose memory is measured: tied weights are there once
    assert sum(p.numel() for p in alone.parameters()) == sum(p.numel() for p in models["blip2_lab"].parameters())


def test_searching_costs_half_of_lavis():
    """Real shapes; as many texts for each picture as in Flickr30k's and COCO's test sets."""
    counted = retrieval.counts(pictures=1000, texts=5000, k=128, words_each=16)
    assert counted["LAVIS's way"] >= 2 * counted["ours"]


def test_a_search_is_lavis_search(tiny_model):
    stage1 = tiny_model.stage1
    torch.manual_seed(0)
    features = torch.randn(5, tiny_model.image_encoder.num_features, 64)
    ids, mask = stage1.tokenize(["a red boat.", "two small cats on the beach."])
    plain = retrieval.plain_search(stage1, features, *retrieval.padded(ids, mask, 20), 3)
    with torch.no_grad():
        ours = search(stage1, read_gallery(stage1, [features]), ids, mask, shortlist=3, rank_by="lavis")
    torch.testing.assert_close(ours, plain, atol=1e-4, rtol=1e-4)


def test_a_difference_is_not_hidden_by_nan():
    """Python's `max` drops a NaN that is not the first; the -inf of pairs that were not re-ranked make one."""
    assert largest([1.0, 3.0, 2.0]) == 3 and math.isnan(largest([1.0, float("nan"), 2.0]))
    with pytest.raises(ValueError, match="nothing"):
        largest([])
    one, none = torch.tensor([[1.0, -torch.inf], [-torch.inf, 2.0]]), torch.full((2, 2), -torch.inf)
    assert retrieval.apart(one, one) == 0 and retrieval.apart(one + 0.5, one) == 0.5
    assert retrieval.apart(one.flip(1), one) == retrieval.apart(none, none) == torch.inf
    assert math.isnan(retrieval.apart(one.where(one != 2, torch.nan), one))


def test_steps_take_turns():
    calls = []
    steps = {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}
    seconds = take_turns(steps, rounds=2, synchronize=lambda: None)
    assert calls == ["a", "b"] * 3 and seconds.keys() == steps.keys()
    assert all(len(took) == 2 for took in seconds.values())


def test_a_ratio_is_the_median_of_the_rounds_with_its_range():
    assert spread([3.0, 1.0, 2.0], ".1f", " s") == "2.0 s (1.0 to 3.0)"
    slow, fast = [2.0, 20.0, 3.0], [1.0, 10.0, 1.0]  # the machine was busy in the second round
    assert ratio(slow, fast) == "2.00 (2.00 to 3.00)"
    with pytest.raises(ValueError):
        ratio(slow, fast[:2])


def test_one_thread_is_timed_by_what_it_did_itself():
    """Neither another program on the core nor waiting counts."""
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        assert take_turns({"wait": lambda: time.sleep(0.2)}, 1, lambda: None, own_clock())["wait"][0] < 0.1
        assert take_turns({"wait": lambda: time.sleep(0.2)}, 1, lambda: None, own_clock("cuda"))["wait"][0] > 0.1
        torch.set_num_threads(2)
        assert take_turns({"wait": lambda: time.sleep(0.2)}, 1, lambda: None, own_clock())["wait"][0] > 0.1
    finally:
        torch.set_num_threads(threads)


def fill(megabytes: int) -> None:
    torch.ones(megabytes * 2**20, dtype=torch.uint8)


@pytest.mark.slow
def test_peak_memory_is_that_of_another_process():
    assert peak_memory(fill, 300) - peak_memory(fill, 1) == pytest.approx(299 * 2**20, rel=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("script", [stage1_step, stage2_step])
def test_scripts_print_ratios(script, capsys):
    script.main(["--size", "small", "--rounds", "1"])
    shown = capsys.readouterr().out
    assert shown.count("ratio") == (3 if script is stage1_step else 2) and "losses differ by" in shown


def cells_of_the_last_line(capsys) -> list:
    """The name, and the median of each cell behind it."""
    name, *cells = capsys.readouterr().out.splitlines()[-1].split(" | ")
    return [name, *(float(cell.split()[0]) for cell in cells)]


@pytest.mark.parametrize(
    "name", ["micro-bert", *(pytest.param(name, marks=pytest.mark.slow) for name in data_speed.NAMES[:3])]
)
def test_made_and_eaten_batches_are_timed(name, capsys):
    data_speed.main(["--only", name, "--rounds", "1"])
    shown, made, eaten, ratio = cells_of_the_last_line(capsys)
    assert shown == name and eaten / made == pytest.approx(ratio, rel=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["micro-stage1", "micro-stage2"])
def test_drawing_is_added_to_made_batches_of_a_stage(name, capsys):
    data_speed.main(["--only", name, "--rounds", "1"])
    shown, made, eaten, _, drawn, ratio = cells_of_the_last_line(capsys)
    assert shown == name and drawn > made
    assert eaten / drawn == pytest.approx(ratio, rel=0.05)


@pytest.mark.slow
def test_loading_is_timed_in_new_processes(capsys):
    load.main(["--rounds", "1"])
    shown = capsys.readouterr().out
    assert shown.count("of ours") == 5 and shown.count("1.00 (1.00 to 1.00) of ours") >= 2


def test_the_policies_take_turns_and_their_ratio_is_printed(monkeypatch, capsys):
    asked = []

    def in_a_process(policy: dict, threads: int) -> dict[str, float]:
        asked.append((policy, threads))
        return {"training step": 0.5 if policy else 4.0, "answer": 1.0}

    monkeypatch.setattr(wait_policy, "in_a_process", in_a_process)
    wait_policy.main(["--rounds", "2", "--threads", "2"])
    assert asked == [(policy, 2) for policy in wait_policy.POLICIES.values()] * 2
    out = capsys.readouterr().out
    assert "training step: the default takes 8.00 (8.00 to 8.00) times as long as PASSIVE" in out
    assert "answer: the default takes 1.00 (1.00 to 1.00) times as long as SPIN 1000" in out


def test_readers_of_codes_and_of_features_by_hand():
    labels = torch.tensor([0, 0, 1, 2])
    assert codebook.read_codes(torch.tensor([0, 0, 0, 2]), labels, torch.tensor([0, 1, 2]), 3).tolist() == [0, 0, 2]
    features = torch.tensor([[1.0, 0], [1.1, 0], [0, 1.0], [-1.0, -1.0]])
    assert codebook.read_linearly(features, labels, features).tolist() == labels.tolist()
    centers = torch.tensor([[1.05, 0], [0, 1.0], [-1.0, -1.0]])
    spread = (features - features.mean(dim=0)).square().sum()
    assert codebook.lost_variance(features, centers) == pytest.approx(float(0.005 / spread), rel=1e-4)


def test_more_codes_lose_less_than_few(tmp_path):
    from tests.tiny import build_tiny_model

    rows = codebook.measure(build_tiny_model("t5").image_encoder, 12, 6, [2, 40])
    assert [row["what"] for row in rows[1:]] == ["2 codes", "40 codes", "continuous features"]
    assert rows[1]["lost"] > rows[2]["lost"] > 0 and rows[2]["bits"] == pytest.approx(5.32, abs=0.01)
    assert all(0 <= row[name] <= 1 for row in rows for name in ("kind", "color", "size"))


@pytest.mark.slow
def test_a_soak_sees_right_crossed_and_refused_answers(tiny_model):
    pytest.importorskip("gradio")
    from benchmarks import soak
    from blip2_lab.chat.web import app as chat_app
    from tests.tiny import build_bridged_model

    model = build_bridged_model("linear", tiny_model)  # its answers depend on the picture
    visitors = soak.visitors_for(model, 3)
    page = chat_app.build(model)
    try:
        address = chat_app.serve(page, block=False)[1]
        page.app.middleware_stack.unread_time = 300
        line = asyncio.run(soak.soak(address, visitors, 3, 0.15, None))
        numbers = [int(cell) for cell in line.split(" | ")[1:6]]
        assert numbers[0] >= 3 and numbers[1:] == [0, 0, 0, 0], line
        mixed = [soak.Visitor(a.scene, b.answers) for a, b in zip(visitors, visitors[1:] + visitors[:1], strict=True)]
        crossed = asyncio.run(soak.soak(address, mixed, 3, 0.1, None))
        answers, errors, wrong, crosses, told = (int(cell) for cell in crossed.split(" | ")[1:6])
        assert crosses > 0 and wrong == errors == told == 0, crossed
        broken = [soak.Visitor(dict(things=[], place="beach", time="day"), one.answers) for one in visitors]
        assert "x Give a list of one to four things" in asyncio.run(soak.soak(address, broken, 1, 0.02, None))
    finally:
        page.close()


def test_memory_is_read_where_the_system_tells_it():
    from benchmarks import soak

    used = soak.memory_of(os.getpid())
    assert used is None or 20 < used < 100_000
    assert soak.memory_of(2**30) is None
