"""What a run on your own images has learned, from planted evaluations and words."""

import json

import pytest

from blip2_lab.doctor.own_images import outcome, overfitting, unknown_words, what_it_learned
from blip2_lab.doctor.run import diagnose_run


def lines(*evaluations: dict, every: int = 100) -> str:
    records = []
    for number, evaluation in enumerate(evaluations, 1):
        records.append({"step": number * every, "total": 4.0 / number, "grad_norm": 1.0})
        records.append({"step": number * every, "evaluation": evaluation})
    return "".join(json.dumps(record) + "\n" for record in records)


def words(share: float) -> dict:
    known = {"share": share, "most_frequent": [["harp", 12], ["emoji", 3]], "words": 100, "unknown": 100 * share}
    return {"the language model": known}


@pytest.fixture
def folder(tmp_path):
    def write(*evaluations, share=0.0, best=None):
        (tmp_path / "log.jsonl").write_text(lines(*evaluations))
        (tmp_path / "run.json").write_text("{}")
        (tmp_path / "words.json").write_text(json.dumps(words(share)))
        if best is not None:
            (tmp_path / "checkpoints" / "best").mkdir(parents=True, exist_ok=True)
            (tmp_path / "checkpoints" / "best" / "best.json").write_text(json.dumps({"step": best, "held_out": 1.0}))
        return tmp_path

    return write


def test_whether_it_looks_at_the_pictures(folder):
    found = outcome(folder({"held_out": 3.0, "shuffled": 3.9}))
    assert found.learned and found.says == (
        "it looks at the pictures: the loss on held-out pictures is 3, shuffled 3.9"
    )
    found = outcome(folder({"held_out": 3.4, "shuffled": 3.42}))
    assert found.learned is False and "nothing shows that it looks at the pictures" in found.says


@pytest.mark.parametrize(
    ("compared", "p", "shuffled", "learned"),
    [(40, 0.001, 3.9, True), (40, 0.2, 3.9, False), (40, 0.001, 3.02, False), (40, 0.001, 2.0, False)],
)
def test_a_rise_counts_if_it_is_more_than_chance_explains(folder, compared, p, shuffled, learned):
    found = outcome(folder({"held_out": 3.0, "shuffled": shuffled, "compared": compared, "p": p}))
    assert found.learned is learned and f"({compared} pictures, p = {p:.2g})" in found.says


def test_four_held_out_pictures_tell_nothing(folder):
    run = folder(*[{"held_out": 3.0, "shuffled": 3.9, "compared": 4.0, "p": 0.125}] * 4)
    found = outcome(run)
    assert found.learned is None and "too few pictures to tell whether it looks at them, at least 6" in found.says
    (finding,) = [finding for finding in diagnose_run(run) if finding.about == "pictures"]
    assert finding.state == "wait" and "too few pictures to tell" in finding.says


def test_it_is_the_evaluation_of_the_model_that_was_kept(folder):
    run = folder({"held_out": 3.0, "shuffled": 3.9}, {"held_out": 4.0, "shuffled": 4.0}, best=100)
    assert outcome(run).learned
    assert not outcome(folder({"held_out": 3.0, "shuffled": 3.9}, {"held_out": 4.0, "shuffled": 4.0}, best=200)).learned


def test_whether_it_finds_pictures(folder):
    def about(text_to_image, image_to_text, pictures=140.0):
        numbers = {"text_to_image_r1": text_to_image, "image_to_text_r1": image_to_text}
        return outcome(folder({"held_out": 3.0, "pictures": pictures, **numbers}))

    assert about(0.007, 0.014).learned is False and "by chance 0.7%" in about(0.007, 0.014).says
    assert about(1.0, 1.0, pictures=2.0).learned is None and "too few" in about(1.0, 1.0, pictures=2.0).says
    assert about(0.2, 0.1).learned and "20.0% are found first by their caption" in about(0.2, 0.1).says


def test_nothing_held_out_is_nothing_known(folder):
    assert outcome(folder()).learned is None


def test_unknown_words_are_a_finding_and_a_cause(folder):
    assert unknown_words(words(0.0)) == []
    (some,) = unknown_words(words(0.05))
    assert some.state == "wait" and not some.causes
    (many,) = unknown_words(words(0.94))
    assert many.state == "bad" and "does not know 94% of the words of the texts (harp, emoji)" in many.says
    evaluations = [{"held_out": 3.4, "shuffled": 3.41}] * 4
    findings = {finding.about: finding for finding in diagnose_run(folder(*evaluations, share=0.94))}
    assert findings["words"] == many
    assert "the language model does not know 94% of the words" in findings["pictures"].causes[0]
    assert "words" not in {finding.about for finding in diagnose_run(folder(*evaluations))}


def test_overfitting_is_a_loss_on_held_out_pictures_that_rises_again(folder):
    rising = [{"held_out": loss, "shuffled": 4.0} for loss in (3.0, 2.5, 2.6, 3.1)]
    findings = {finding.about: finding for finding in diagnose_run(folder(*rising, best=200))}
    says = findings["held-out"].says
    assert "it overfits: the loss on held-out pictures was 2.5 at step 200 and 3.1 at step 400" in says
    assert "while it trained down to" in says and "the model of step 200 is kept" in says
    assert any("fewer steps" in cause for cause in findings["held-out"].causes)
    falling = [{"held_out": loss, "shuffled": 4.0} for loss in (3.0, 2.5, 2.6, 2.52)]
    assert "held-out" not in {finding.about for finding in diagnose_run(folder(*falling))}
    assert overfitting({"evaluations": [{"step": 1, "evaluation": {"held_out": 1.0}}]}) == []


def test_a_finished_model_knows_how_it_was_trained(tmp_path):
    assert what_it_learned(tmp_path) == []
    evaluations = [{"step": s, "evaluation": {"held_out": loss, "shuffled": 3.0}} for s, loss in ((1, 2.99), (2, 3.5))]
    about = {"words": words(0.94), "best": {"step": 1, "held_out": 2.99}, "evaluations": evaluations}
    (tmp_path / "training.json").write_text(json.dumps(about))
    found = {finding.about: finding for finding in what_it_learned(tmp_path)}
    assert found["words"].state == found["pictures"].state == "bad" and found["held-out"].state == "wait"
    assert "maybe: another vocabulary" in found["words"].says and "it overfits" in found["held-out"].says
    assert "nothing shows that it looks at the pictures" in found["pictures"].says


GOOD = {"step": 1, "evaluation": {"held_out": 2.0, "shuffled": 3.0}}


@pytest.mark.parametrize(
    "partial",
    [
        {},
        {"words": {}, "best": {}},
        {"words": {}, "best": {}, "evaluations": [{"step": 1}]},
        {"words": {}, "best": {}, "evaluations": [{"step": 1, "evaluation": {"shuffled": 3.0}}]},
        {"words": {}, "best": {}, "evaluations": [{"step": 1, "evaluation": {"held_out": 2.0, "pictures": 40.0}}]},
        {"words": {}, "best": {}, "evaluations": [{"evaluation": {"held_out": 2.0}}]},
        {"words": {}, "best": {}, "evaluations": {"step": 1}},
        {"words": {"the language model": {"share": 0.5}}, "best": {}, "evaluations": [GOOD]},
        {"words": {"the language model": 0.5}, "best": {}, "evaluations": [GOOD]},
        {"words": {}, "best": [1], "evaluations": [GOOD]},
        [],
    ],
)
def test_a_partial_training_json_is_named_and_the_other_checks_go_on(tmp_path, partial):
    (tmp_path / "training.json").write_text(json.dumps(partial))
    (found,) = what_it_learned(tmp_path)
    assert found.state == "wait" and "training.json is damaged, or of another version: remove this file" in found.says


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("words.json", {"the language model": {}}),
        ("recipe.json", {"optim": "adam"}),
        ("run.json", {"chance": 3}),
        ("run.json", {"batch_size": "32"}),
        ("recipe.json", [1]),
    ],
)
def test_the_doctor_names_a_damaged_file_of_a_run(folder, file, content):
    run = folder({"held_out": 3.0, "shuffled": 3.9})
    (run / file).write_text(json.dumps(content))
    with pytest.raises(ValueError, match=f"{file} is damaged, or of another version"):
        diagnose_run(run)


def test_records_of_a_log_without_numbers_are_passed_over(folder):
    run = folder({"held_out": 3.0, "shuffled": 3.9})
    expected = diagnose_run(run)
    with (run / "log.jsonl").open("a") as log:
        for wrong in ({"total": "x"}, {"evaluation": 5}, {"evaluation": {"held_out": "x"}}, {"matched": 5}):
            log.write(json.dumps({"step": 1000} | wrong) + "\n")
    assert diagnose_run(run) == expected


def test_a_run_that_stopped_before_its_first_line(tmp_path):
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(ValueError, match="has not logged a loss yet"):
        diagnose_run(tmp_path)
