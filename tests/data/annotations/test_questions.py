"""Questions in the published formats: VQA v2 and OK-VQA, GQA, LLaVA."""

import json
from pathlib import Path

import pytest

from blip2_lab.data.annotations import blip, coco_captions, gqa, llava, vqa
from blip2_lab.data.examples import AskedQuestion
from tests.data.annotations.conftest import causes, picture, write


def vqa_files(folder: Path, split: str, numbers: list[int], ok_vqa: bool = False) -> tuple[Path, Path]:
    head = {"info": {}, "license": {}, "data_subtype": split, "data_type": "mscoco"}
    questions = [{"image_id": n, "question": f"What is in {n}?", "question_id": 10 * n} for n in numbers]
    given = ["net"] * 5 + ["netting"] * 3 + ["mesh", "net"]
    entries = [
        {
            "question_type": "one" if ok_vqa else "what is",
            "multiple_choice_answer": "net",
            "answers": [
                {"answer": word, "answer_confidence": "yes", "answer_id": k} | ({"raw_answer": word} if ok_vqa else {})
                for k, word in enumerate(given, 1)
            ],
            "image_id": n,
            "answer_type": "other",
            "question_id": 10 * n,
        }
        for n in numbers
    ]
    task = {"task_type": "Open-Ended"}
    return (
        write(folder / "questions.json", head | task | {"questions": questions}),
        write(folder / "annotations.json", head | {"annotations": entries}),
    )


@pytest.mark.parametrize("ok_vqa", [False, True])
def test_vqa_v2_and_ok_vqa(tmp_path, coco_pictures, ok_vqa):
    questions, answers = vqa_files(tmp_path, "train2014", [57870, 384029], ok_vqa)
    source = vqa(questions, coco_pictures, answers)
    (question,) = source[0].questions
    assert question.text == "What is in 57870?" and question.id == "578700" and question.type == "other"
    assert len(question.answers) == 10 and question.answers.count("netting") == 3 and question.answer == "net"
    assert source[0].captions == () and not source.skipped


def test_vqa_without_answers_and_with_another_splits(tmp_path):
    questions, _ = vqa_files(tmp_path / "test", "test-dev2015", [1])
    picture(tmp_path / "COCO_test2015_000000000001.jpg")
    (example,) = vqa(questions, tmp_path)
    assert example.questions[0].answers == () and example.questions[0].answer == ""
    _, answers = vqa_files(tmp_path / "val", "val2014", [2])
    with pytest.raises(ValueError, match="belong to different splits"):
        vqa(questions, tmp_path, answers)
    both, _ = vqa_files(tmp_path / "both", "val2014", [1, 2])
    assert vqa(both, tmp_path, answers).skipped == {"question without an answer": 1}
    with pytest.raises(ValueError, match="it has no list 'questions'"):
        vqa(answers, tmp_path)


def test_names_of_coco_2017(tmp_path, two_pictures):
    picture(two_pictures / "000000000042.jpg")
    questions, answers = vqa_files(tmp_path / "q", "train2017", [42])
    assert len(list(vqa(questions, two_pictures, answers))) == 1


def test_a_list_of_ones_own_questions(tmp_path, two_pictures):
    """`image_id` may be a file name: then no split of COCO is needed, and the questions may be a plain list."""
    asked = [
        {"image_id": "a.png", "question": "what?", "question_id": 1},
        {"image_id": "b.png", "question": " ", "question_id": 2},
        {"image_id": None, "question": "what?", "question_id": 3},
        {"image_id": "b.png", "question": "none?", "question_id": 4},
    ]
    answers = [
        {"question_id": "1", "answers": ["red", {"answer": "none"}, 5, None]},
        {"question_id": 1, "answers": ["blue"]},
        {"question_id": 2, "answers": "red"},
        {"question_id": 9, "answers": ["red"]},
    ]
    source = vqa(write(tmp_path / "q.json", asked), two_pictures, write(tmp_path / "a.json", answers))
    assert [record.questions[0].answers for record in source.records] == [("red", "none", "5")]
    assert sorted(causes(source)) == [
        "answer is no text",
        "answer without a question",
        "answered twice",
        "empty question",
        "incomplete entry",
        "picture without a text",
        "question without an answer",
    ]
    with pytest.raises(ValueError, match="which of COCO's splits"):
        vqa(write(tmp_path / "q.json", [{"image_id": 5, "question": "what?", "question_id": 1}]), two_pictures)


def test_a_question_that_is_listed_twice_is_named(tmp_path):
    picture(tmp_path / "a.png")
    asked = [{"image_id": "a.png", "question": text, "question_id": 1} for text in ("one?", "two?")]
    given = write(tmp_path / "a.json", {"annotations": [{"question_id": 1, "answers": ["x"]}]})
    source = vqa(write(tmp_path / "q.json", {"questions": asked}), tmp_path, given)
    assert [question.text for question in source.records[0].questions] == ["one?"]
    assert source.skipped == {"question listed twice": 1}


def test_gqa(tmp_path):
    entry = {
        "semantic": [{"operation": "select", "dependencies": [], "argument": "sky (2486325)"}],
        "entailed": ["02930160"],
        "equivalent": ["02930152"],
        "question": "Is the sky dark?",
        "imageId": "2354786",
        "isBalanced": True,
        "groups": {"global": None, "local": "06-sky_dark"},
        "answer": "yes",
        "semanticStr": "select: sky (2486325)->verify color: dark [0]",
        "annotations": {"answer": {}, "question": {"2": "2486325"}, "fullAnswer": {"2": "2486325"}},
        "types": {"detailed": "verifyAttr", "semantic": "attr", "structural": "verify"},
        "fullAnswer": "Yes, the sky is dark.",
    }
    test = {"question": "What is on the wall?", "imageId": "2354786", "isBalanced": True}
    path = write(tmp_path / "q" / "train_0.json", {"02930152": entry})
    write(tmp_path / "q" / "train_1.json", {"07333408": test})
    picture(tmp_path / "images" / "2354786.jpg")
    (example,) = gqa(path, tmp_path / "images")
    (question,) = example.questions
    assert (question.text, question.answer, question.type, question.id) == (
        "Is the sky dark?",
        "yes",
        "verify",
        "02930152",
    )
    (example,) = gqa(tmp_path / "q", tmp_path / "images")  # train_all_questions is a folder of such files
    assert [q.answer for q in example.questions] == ["yes", ""]
    with pytest.raises(ValueError, match="not a dictionary of GQA questions"):
        gqa(write(tmp_path / "no.json", [entry]), tmp_path / "images")


def test_llava_conversations_are_questions_with_answers(tmp_path):
    picture(tmp_path / "a.png")
    turns = [{"from": "human", "value": "what?\n<image>"}, {"from": "gpt", "value": "a boat"}]
    entries = [
        {"id": "7", "image": "a.png", "conversations": [*turns, *turns[1:]]},
        {"id": "8", "conversations": turns},
        {"id": "9", "image": ["a.png"], "conversations": turns},
    ]
    lines = tmp_path / "x.jsonl"
    lines.write_text("\n".join(map(json.dumps, entries)))
    for file in (write(tmp_path / "x.json", entries), lines):
        source = llava(file, tmp_path)
        assert source.records[0].questions == (AskedQuestion("what?", ("a boat",), "", "7"),)
        assert source.skipped == {"turn that is not read": 1, "incomplete entry": 2}
    with pytest.raises(ValueError, match="no 'caption' and no 'question'; format = \"llava\" reads such a file"):
        blip(tmp_path / "x.json", tmp_path)
    with pytest.raises(ValueError, match='entries of its list have no .*; format = "blip" reads such a file'):
        coco_captions(write(tmp_path / "y.json", [{"image": "a.png", "caption": "x"}]), tmp_path)


def test_answers_of_other_forms(tmp_path, coco_pictures):
    questions, answers = vqa_files(tmp_path, "train2014", [57870, 384029])
    content = json.loads(answers.read_text())
    content["annotations"][0]["answers"] = [{"text": "net"}, {"answer": None}, {"words": 3}]
    write(answers, content)
    source = vqa(questions, coco_pictures, answers)
    assert source[0].questions[0].answers == ("net",)
    assert [one.message.rpartition(": ")[2] for one in source.left_out] == [
        "an answer is empty",
        "an answer is an object with the keys 'words', and a text is wanted",
    ]


def test_numbers_of_pictures_without_a_split_have_a_remedy(tmp_path, coco_pictures):
    questions = write(tmp_path / "q.json", {"questions": [{"image_id": 3, "question": "what?", "question_id": 1}]})
    with pytest.raises(
        ValueError, match='write "data_subtype": "train2014" into it, or give each image_id as the name'
    ):
        vqa(questions, coco_pictures)


def test_an_answer_about_another_picture_is_named(tmp_path, coco_pictures):
    questions, answers = vqa_files(tmp_path, "train2014", [57870, 384029])
    content = json.loads(answers.read_text())
    content["annotations"][0]["image_id"] = 384029
    del content["annotations"][1]["image_id"]
    source = vqa(questions, coco_pictures, write(answers, content))
    assert [record.id for record in source.records] == ["384029"] and causes(source) == ["answer about another picture"]


def test_gqa_with_several_answers(tmp_path):
    picture(tmp_path / "7.jpg")
    entries = {
        str(n): {"question": "what?", "imageId": "7", "answer": one} for n, one in enumerate((["a", "b"], "c", "", 0))
    }
    source = gqa(write(tmp_path / "q.json", entries), tmp_path)
    assert [question.answers for question in source.records[0].questions] == [("a", "b"), ("c",), (), ("0",)]
    assert not source.left_out
