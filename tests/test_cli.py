"""The command line: quick, truthful JSON, and one sentence for every mistake."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

import blip2_lab
from blip2_lab import cli
from blip2_lab.chat import out_of_distribution
from blip2_lab.models.decoding import Token
from blip2_lab.picturebook.draw import draw
from blip2_lab.picturebook.scene import sample_scene
from blip2_lab.training.recipes.registry import RECIPES

ROOT = Path(__file__).parents[1]
HEAVY = {"torch", "numpy", "PIL", "transformers"}


def run(capsys, *argv: str) -> tuple[int, str, str]:
    """Exit code, stdout, stderr of one command, in this process."""
    try:
        code = cli.main(list(argv))
    except SystemExit as exit:  # argparse
        code = exit.code
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def complaint(capsys, *argv: str) -> str:
    """What a wrong command says: one line on stderr, nothing on stdout, exit code 2."""
    code, out, err = run(capsys, *argv)
    assert code == 2 and out == "" and err.startswith("blip2-lab") and err.count("\n") == 1, err
    assert "Traceback" not in err
    return err


class FakeModel:
    """Answers every prompt with two tokens and remembers how it was asked."""

    language_model = SimpleNamespace(tokenizer=None)

    def stream(self, image, prompt, **decoding):
        self.asked = image, prompt, decoding
        return iter([Token("a red", 0.91234), Token(" boat", 0.5)])


@pytest.fixture
def model(monkeypatch):
    fake = FakeModel()
    monkeypatch.setattr(blip2_lab, "load", lambda name, *, device, quantize, dtype: fake)
    monkeypatch.setattr(out_of_distribution, "load", lambda name: None)
    return fake


@pytest.fixture
def no_model(monkeypatch):
    """A mistake that is told only after a model was loaded fails."""

    def load(*_, **__):
        raise AssertionError("the model was loaded in vain")

    monkeypatch.setattr(blip2_lab, "load", load)


# ----------------------------------------------------------------------------------------------------------------- help


def test_help_is_quick_and_imports_no_torch():
    code = "import sys; from blip2_lab import cli\n"
    code += "try: cli.main(['--help'])\n"
    code += f"except SystemExit: print(sorted({HEAVY} & set(sys.modules)))"
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]" and "ask" in done.stdout
    assert time.perf_counter() - start < 5  # 0.1 s on a machine that is not busy


@pytest.mark.parametrize("command", ["recipes", "models"])
def test_tables_import_no_torch(command):
    code = f"import sys; from blip2_lab import cli; cli.main([{command!r}]); print(sorted({HEAVY} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    *table, loaded = done.stdout.splitlines()
    assert loaded == "[]" and len(table) > 10


def test_python_dash_m_is_the_same_command():
    done = subprocess.run([sys.executable, "-m", "blip2_lab", "nothing"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and "invalid choice: 'nothing'" in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize("command", ["ask", "draw", "recipes", "train", "data", "evaluate", "push", "compare"])
def test_every_command_has_help(capsys, command):
    code, out, _ = run(capsys, command, "--help")
    assert code == 0 and f"usage: blip2-lab {command}" in out


def test_the_app_has_its_own_help(capsys, monkeypatch):
    pytest.importorskip("gradio")
    monkeypatch.setattr(sys, "argv", ["pytest"])
    code, out, _ = run(capsys, "app", "--help")
    assert code == 0 and all(option in out for option in ("--model", "--port", "--auth", "--gallery"))


# ----------------------------------------------------------------------------------------------------------------- draw


def test_draw_writes_the_scene_and_prints_its_truth(capsys, tmp_path):
    out = tmp_path / "scene.png"
    code, printed, _ = run(capsys, "draw", "--seed", "7", "--index", "3", "--out", str(out), "--json", "--size", "96")
    truth, scene = json.loads(printed), sample_scene(7, 3)
    assert code == 0
    assert Image.open(out).tobytes() == draw(scene, 96).tobytes()
    assert (truth["seed"], truth["index"], truth["split"]) == (7, 3, "train")
    assert truth["things"] == json.loads(json.dumps(scene.to_dict()))["things"] and truth["place"] == scene.place
    assert len(truth["captions"]) == 3 and {"type", "question", "answer"} == set(truth["questions"][0])


def test_draw_without_options_writes_scene_png(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(capsys, "draw", "--json")[0] == 0 and not list(tmp_path.iterdir())
    code, printed, _ = run(capsys, "draw")
    assert code == 0 and printed.startswith("scene.png: ") and Image.open("scene.png").size == (384, 384)


def test_draw_mistakes(capsys, tmp_path):
    assert "unknown split 'test'" in complaint(capsys, "draw", "--split", "test")
    assert "does not end in" in complaint(capsys, "draw", "--out", "scene.tiff")
    assert "No such file or directory" in complaint(capsys, "draw", "--out", str(tmp_path / "no" / "scene.png"))
    assert "--seed: invalid int value: 'x'" in complaint(capsys, "draw", "--seed", "x")


# ------------------------------------------------------------------------------------------------------------------ ask


@pytest.fixture
def picture(tmp_path) -> str:
    draw(sample_scene(0, 0), 96).save(tmp_path / "picture.png")
    return str(tmp_path / "picture.png")


def test_ask_prints_the_answer(capsys, model, picture):
    assert run(capsys, "ask", picture, "what is it?") == (0, "a red boat\n", "")
    image, prompt, decoding = model.asked
    assert image.size == (96, 96) and prompt == "what is it?"
    assert decoding == {"num_beams": 5, "max_new_tokens": 30, "length_penalty": -1.0}


def test_ask_as_json_with_probabilities(capsys, model, picture):
    code, out, _ = run(capsys, "ask", picture, "what?", "--json", "--sample", "--temperature", "0.5", "--beams", "3")
    assert code == 0
    answer = json.loads(out)
    assert answer["answer"] == "a red boat" and answer["model"] == "micro" and answer["prompt"] == "what?"
    assert answer["warnings"] == []
    assert answer["tokens"] == [{"text": "a red", "probability": 0.9123}, {"text": " boat", "probability": 0.5}]
    assert model.asked[2] | {"num_beams": 1, "do_sample": True, "temperature": 0.5, "top_p": 0.9} == model.asked[2]


def test_ask_mistakes(capsys, model, picture, tmp_path):
    assert "no file" in complaint(capsys, "ask", "nothing.png", "what?")
    for prompt in ("  ", "???", "\u200f"):
        assert "the prompt has no word" in complaint(capsys, "ask", picture, prompt)
    (tmp_path / "text.png").write_text("not a picture")
    assert "is not a PNG, JPEG, WebP or GIF" in complaint(capsys, "ask", str(tmp_path / "text.png"), "what?")
    assert "required: PROMPT" in complaint(capsys, "ask", picture)


@pytest.mark.parametrize(
    "wrong, sentence",
    [
        (("--sample", "--temperature", "1e-45"), "temperature is 1e-45"),
        (("--sample", "--temperature", "nan"), "temperature is nan; it must be a finite number"),
        (("--sample", "--temperature", "inf"), "temperature is inf"),
        (("--sample", "--top-p", "nan"), "top_p is nan"),
        (("--length-penalty", "nan"), "length_penalty is nan"),
        (("--beams", "0"), "num_beams is 0"),
        (("--seed", str(2**64)), f"seed is {2**64}"),
        (("--seed", str(-(2**63) - 1)), f"seed is {-(2**63) - 1}"),
    ],
)
def test_ask_reports_a_wrong_option_before_the_model_is_loaded(capsys, no_model, picture, wrong, sentence):
    assert sentence in complaint(capsys, "ask", picture, "what?", *wrong)


def test_a_full_gpu_is_a_sentence_and_a_bug_is_a_traceback(capsys, model, picture, monkeypatch):
    def failing(error):
        def stream(*_, **__):
            raise error

        return stream

    monkeypatch.setattr(model, "stream", failing(torch.OutOfMemoryError("CUDA out of memory. Tried 2 GiB.\nGPU 0")))
    assert "the GPU's memory is full" in complaint(capsys, "ask", picture, "what?")
    monkeypatch.setattr(model, "stream", failing(RuntimeError("shapes do not fit")))
    with pytest.raises(RuntimeError, match="shapes"):
        cli.main(["ask", picture, "what?"])


def test_a_photograph_and_an_unknown_word_are_noted_and_the_answer_comes(capsys, tmp_path):
    from blip2_lab.checkpoints.load import MICRO

    photographs = [parts[0] for parts in out_of_distribution.photographs(crops=1).values()]
    if not (MICRO / out_of_distribution.FILE).is_file() or not photographs:
        pytest.skip("this needs the shipped model and a sample photograph (matplotlib or scikit-image has some)")
    photograph = str(tmp_path / "photograph.png")
    photographs[0].save(photograph)
    scene = str(tmp_path / "scene.png")
    draw(sample_scene(7, 3), 200).save(scene)

    code, out, err = run(capsys, "ask", scene, "Question: what is in the picture? Short answer:", "--beams", "1")
    assert code == 0 and out.strip() and err == "", "nothing is strange here"
    code, out, err = run(
        capsys, "ask", photograph, "Question: is there a quorx? Short answer:", "--beams", "1", "--json"
    )
    answer = json.loads(out)
    assert code == 0 and answer["answer"], "it answers all the same"
    strange, unknown = answer["warnings"]
    assert "outside the drawn world" in strange and '"quorx"' in unknown
    assert err == f"note: {strange}\nnote: {unknown}\n"


def test_ask_an_unknown_model(capsys, picture, tmp_path):
    assert "nowhere" in complaint(capsys, "ask", picture, "what?", "--model", str(tmp_path / "nowhere"))


def test_traceback_on_request(capsys):
    with pytest.raises(ValueError):
        cli.main(["--traceback", "ask", "nothing.png", "what?"])


def test_ctrl_c_is_a_sentence(capsys, model, picture, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(model, "stream", interrupted)
    code, out, err = run(capsys, "ask", picture, "what?")
    assert (code, out, err) == (130, "", "\nblip2-lab: stopped\n")


# ---------------------------------------------------------------------------------------------------- recipes and train


def test_recipes_lists_them_all(capsys):
    code, out, _ = run(capsys, "recipes")
    assert code == 0 and all(name in out for name in RECIPES)


def test_train_mistakes(capsys, tmp_path):
    assert "did you mean 'micro-vit'" in complaint(capsys, "train", "micro-vi")
    assert "did you mean 'optim.lr'" in complaint(capsys, "train", "micro-vit", "--set", "optim.lrr=1")
    assert "not allowed with" in complaint(capsys, "train", "micro-vit", "--resume", "--restart")
    runs = str(tmp_path)
    said = complaint(capsys, "train", "micro-stage1", "--quiet", "--runs", runs)
    assert (
        "needs micro-vit and micro-bert" in said and "--set model.image_encoder=RUN|FOLDER|NAME --set model.b" in said
    )
    assert not list(tmp_path.iterdir())


def test_train_passes_its_options_on(capsys, monkeypatch, tmp_path):
    from blip2_lab.training import run as run_module

    calls = []
    monkeypatch.setattr(run_module, "run", lambda recipe, runs, **options: calls.append((recipe, runs, options)))
    settings = ["--set", "optim.lr=5e-5", "--set", "optim.steps=3"]
    assert run(capsys, "train", "micro-vit", "--runs", str(tmp_path), "--restart", *settings)[0] == 0
    ((recipe, runs, options),) = calls
    assert (recipe.optim.lr, recipe.optim.steps, runs) == (5e-5, 3, tmp_path)
    assert options == {"resume": False, "progress": True}


def test_train_all_is_the_sequence_and_an_export(capsys, monkeypatch, tmp_path):
    from blip2_lab import export
    from blip2_lab.training import run as run_module

    calls = []
    monkeypatch.setattr(run_module, "run", lambda recipe, runs, **options: calls.append(recipe.name))
    monkeypatch.setattr(export, "export", lambda runs, stage2: runs / stage2.removesuffix("-stage2"))
    command = ("train", "micro-all", "--jobs", "1", "--runs", str(tmp_path), "--set", "micro-vit/optim.steps=3")
    code, out, _ = run(capsys, *command)
    assert code == 0 and calls == list(RECIPES["micro-all"].sequence)
    assert f"the finished model is in {tmp_path / 'micro'}" in out


def test_interrupted_training_says_how_to_resume(capsys, monkeypatch):
    from blip2_lab.training import run as run_module

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(run_module, "run", interrupted)
    code, _, err = run(capsys, "train", "micro-vit", "--quiet")
    assert code == 130 and "the same command resumes from the last checkpoint" in err


def test_divergence_is_a_sentence(capsys, monkeypatch):
    from blip2_lab.training import run as run_module
    from blip2_lab.training.divergence import Diverged

    def diverged(*_, **__):
        raise Diverged("the loss became nan at step 8; try a lower learning rate")

    monkeypatch.setattr(run_module, "run", diverged)
    assert "nan at step 8" in complaint(capsys, "train", "micro-vit", "--quiet")


def test_a_missing_package_is_named(capsys, monkeypatch):
    from blip2_lab.training import run as run_module

    def missing(name):
        def run(*_, **__):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

        return run

    monkeypatch.setattr(run_module, "run", missing("accelerate"))
    assert "needs accelerate, which is not installed" in complaint(capsys, "train", "micro-vit", "--quiet")
    monkeypatch.setattr(run_module, "run", missing("blip2_lab.nothing"))
    with pytest.raises(ModuleNotFoundError):  # ours: a bug, not the user's mistake
        cli.main(["train", "micro-vit", "--quiet"])


# ------------------------------------------------------------------------------------------------- evaluate and the app


def test_evaluate_prints_and_writes_the_numbers(capsys, model, monkeypatch, tmp_path):
    from blip2_lab.chat import conversation
    from blip2_lab.evaluation import calibration, scenes

    def measure(asked, **options):
        options.pop("say")("asking")
        asker = options.pop("asker")
        assert (asker.prompt, asker.decoding) == (conversation.first_prompt, conversation.ANSWERING), "as the app asks"
        assert options.pop("calibration") == calibration.load("micro")
        return {"is it the model": asked is model, **options}

    monkeypatch.setattr(scenes, "evaluate", measure)
    monkeypatch.setattr(scenes, "scores_table", lambda report: f"a table of {report['scenes']} scenes")
    out = tmp_path / "numbers.json"
    code, printed, err = run(capsys, "evaluate", "--scenes", "7", "--split", "near", "--book", "5", "--out", str(out))
    assert code == 0 and err == "asking\n"
    assert printed == "a table of 7 scenes\n"
    expected = {"is it the model": True, "scenes": 7, "split": "near", "seed": 5, "num_beams": 1}
    assert json.loads(out.read_text()) == expected


def test_evaluate_on_own_pictures_draws_them_before_the_model_and_writes_the_numbers(
    capsys, model, monkeypatch, own, tmp_path
):
    from blip2_lab.evaluation import own_pictures

    left_out = [{"sample": "a.png", "cause": "damaged picture", "message": "'a.png' is cut off: copy it again"}]

    def measure(asked, drawn, *, num_beams, say):
        numbers = {"drawn": len(drawn.rows), "of": drawn.count, "num_beams": num_beams, "left_out": left_out}
        return numbers | {"is it the model": asked is model}

    monkeypatch.setattr(own_pictures, "evaluate_on", measure)
    monkeypatch.setattr(own_pictures, "own_table", lambda report: f"a table of {report['drawn']}")
    out = tmp_path / "numbers.json"
    argv = ["evaluate", "--on", str(own), "--pictures", "3", "--beams", "2", "--out", str(out)]
    code, printed, told = run(capsys, *argv)
    assert (code, printed) == (0, "a table of 3\n") and "damaged picture: 'a.png' is cut off" in told
    numbers = {"is it the model": True, "drawn": 3, "of": 4, "num_beams": 2}
    assert json.loads(out.read_text()) == numbers | {"left_out": left_out}


def test_evaluate_on_a_wrong_place_is_told_before_a_model_is_loaded(capsys, no_model, own, tmp_path):
    assert "nothing" in complaint(capsys, "evaluate", "--on", str(tmp_path / "nowhere"))
    assert "at least 2 are needed" in complaint(capsys, "evaluate", "--on", str(own), "--pictures", "1")
    assert "grounding needs scenes" in complaint(capsys, "evaluate", "grounding", "--on", str(own))


def test_grounding_uses_the_given_book(capsys, model, monkeypatch, tmp_path):
    from blip2_lab.interpret import grounding, query_probes
    from blip2_lab.interpret import report as findings
    from blip2_lab.models.bridges import QFormerBridge

    model.bridge = QFormerBridge.__new__(QFormerBridge)  # has queries to probe
    seen = []
    for module, name in ((grounding, "evaluate_grounding"), (query_probes, "evaluate_queries")):
        monkeypatch.setattr(module, name, lambda model, **options: (seen.append(options), {})[1])
    monkeypatch.setattr(grounding, "grounding_table", lambda report: "a table")
    monkeypatch.setattr(findings, "write", lambda *_: "a page")
    code, *_ = run(capsys, "evaluate", "grounding", "--book", "5", "--split", "near", "--out", str(tmp_path))
    assert code == 0 and [(options["seed"], options["split"]) for options in seen] == [(5, "near")] * 2


def test_evaluate_checks_its_output_path_first(capsys, no_model, tmp_path):
    wrong = tmp_path / "none" / "numbers.json"
    assert f"{wrong}: No such file or directory" in complaint(capsys, "evaluate", "--out", str(wrong))
    assert "Is a directory" in complaint(capsys, "evaluate", "--out", str(tmp_path))
    assert not list(tmp_path.iterdir())


def test_checking_an_output_path_keeps_the_file(tmp_path):
    from blip2_lab.common.console import check_writable

    (tmp_path / "numbers.json").write_text("{}")
    check_writable(tmp_path / "numbers.json")
    check_writable(tmp_path / "new.json")
    assert (tmp_path / "numbers.json").read_text() == "{}" and not (tmp_path / "new.json").exists()


def test_index_checks_its_output_path_first(capsys, no_model, own):
    from blip2_lab.chat.image_search import FILE

    (own / FILE).mkdir()
    assert "Is a directory" in complaint(capsys, "index", str(own))


def test_a_model_for_retrieval_cannot_answer(capsys, picture, monkeypatch):
    monkeypatch.setattr(blip2_lab, "load", lambda name, *, device, quantize, dtype: object())
    assert "made for retrieval" in complaint(capsys, "ask", picture, "what?")


def test_app_passes_its_options_on(capsys, monkeypatch):
    from blip2_lab.chat.web import start

    monkeypatch.setattr(start, "main", lambda arguments: print(*arguments))
    code, out, _ = run(capsys, "app", "--port", "7860", "--model", "folder")
    assert code == 0 and out == "--port 7860 --model folder\n"
    assert "unrecognized arguments: --port" in complaint(capsys, "recipes", "--port", "7860")


def test_arguments_in_another_order_or_without_quotes_are_told(capsys, tmp_path, no_model):
    picture, folder = tmp_path / "a.png", str(tmp_path)
    Image.new("RGB", (8, 8)).save(picture)
    assert "put a text of several words in quotes" in complaint(capsys, "ask", str(picture), "what", "is", "it?")
    assert "the picture comes first" in complaint(capsys, "ask", "what is it?", str(picture))
    assert f"the folder is given as --folder {folder}" in complaint(capsys, "search", "a boat", folder)
    assert f"the folder is given as --folder {folder}" in complaint(capsys, "search", folder, "a boat")
    assert f"to train on the pictures in it, --on {folder}" in complaint(capsys, "train", folder)
    assert "in quotes" not in complaint(capsys, "draw", "a boat")


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (("ask", "a.png", "what?", "--top-p", "0.5"), "--top-p is for drawing an answer: give --sample, too"),
        (("ask", "a.png", "what?", "--temperature", "2"), "--temperature is for drawing an answer"),
        (
            ("evaluate", "--on", ".", "--scenes", "5"),
            "--scenes does not .* --on`: leave it out; --pictures is their number",
        ),
        (("evaluate", "--on", ".", "--book", "5"), "--book does not belong to `evaluate --on`: leave it out"),
        (("evaluate", "--pictures", "5"), "--pictures does not belong to `evaluate scenes`"),
        (("evaluate", "referring", "--method", "raw"), "--method does not belong to `evaluate referring`"),
    ],
)
def test_an_option_that_would_change_nothing_is_refused(capsys, no_model, command, says):
    assert re.search(says, complaint(capsys, *command))


def test_the_version(capsys):
    assert run(capsys, "--version")[:2] == (0, f"blip2-lab {blip2_lab.__version__}\n")


# --------------------------------------------------------------------------------------------------------- own pictures


@pytest.fixture
def own(tmp_path) -> Path:
    folder = tmp_path / "my pictures"
    folder.mkdir()
    for number in range(3):
        draw(sample_scene(0, number), 32).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"scene {number}")
    (folder / "broken.png").write_bytes(b"no picture")
    (folder / "broken.txt").write_text("never seen")
    return folder


def test_train_on_a_folder_has_its_own_recipe_and_run(capsys, monkeypatch, own, tmp_path):
    from blip2_lab.training import run as run_module

    calls = []
    monkeypatch.setattr(run_module, "run", lambda recipe, runs, **options: calls.append(recipe))
    base = ("--on", str(own), "--runs", str(tmp_path))
    code, out, _ = run(capsys, "train", *base, "--set", "data.cached_views=2")
    assert code == 0 and f"--model {tmp_path / 'micro-captions-my-pictures' / 'model'}" in out
    run(capsys, "train", "micro-stage2", *base, "--name", "mine", "--set", "data.held_out=5")
    assert [recipe.name for recipe in calls] == ["micro-captions-my-pictures", "mine"]
    assert [recipe.data.path for recipe in calls] == [str(own)] * 2
    assert calls[0].data.cached_views == 2 and calls[1].data.held_out == 5 and calls[1].task == "stage2"
    run(capsys, "train", "micro-stage2", "--runs", str(tmp_path), "--name", "mine")
    assert (calls[2].name, calls[2].curve) == ("mine", "micro-stage2")  # the same data: compared with the same log
    assert not calls[1].curve


@pytest.mark.parametrize(
    ("recipe", "learned", "says", "not_says"),
    [
        ("micro-captions", True, "blip2-lab ask PICTURE PROMPT --model", "did not learn"),
        ("micro-captions", False, "did not learn from the pictures: blip2-lab doctor", "ask"),
        ("micro-retrieval", True, "blip2-lab index", "ask"),
        ("micro-retrieval", False, "did not learn from the pictures", "blip2-lab index"),
        ("micro-stage1", None, "blip2-lab search SENTENCE", "ask"),
    ],
)
def test_train_ends_with_what_it_learned_and_proposes_what_the_model_can_do(
    capsys, monkeypatch, own, tmp_path, recipe, learned, says, not_says
):
    from blip2_lab.doctor import own_images
    from blip2_lab.training import run as run_module

    monkeypatch.setattr(run_module, "run", lambda *_, **__: None)
    monkeypatch.setattr(own_images, "outcome", lambda folder: own_images.Outcome(learned, f"found in {folder.name}"))
    code, out, _ = run(capsys, "train", recipe, "--on", str(own), "--runs", str(tmp_path))
    assert code == 0 and says in out and not_says not in out
    assert f"what it learned: found in {recipe}-my-pictures" in out
    if "index" in says:  # the folder's name has a space
        assert f"blip2-lab index '{own}' --model" in out


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("save_every=0", "save_every is 0; it must be at least 1"),
        ("save_every=" + "9" * 400, f"save_every is {'9' * 40}; it must be at least 1 and at most 9.0072e+15"),
        ("optim.lr=inf", "lr is inf; it must be above 0 and at most"),
        ("eval_every=-1", "eval_every is -1; it must be at least 0"),
        ("optim.lr=nan", "lr is nan; it must be above 0 and at most"),
        ("optim.lr=-1", "lr is -1.0; it must be above 0"),
        ("optim.betas=0.9,1.5", "betas is 1.5; it must be at least 0 and at most 0.9999"),
        ("optim.steps=0", "steps is 0; it must be at least 1"),
        ("optim.warmup_steps=-2", "warmup_steps is -2"),
        ("optim.grad_clip=0", "grad_clip is 0.0; it must be above 0"),
        ("data.held_out=-1", "held_out is -1; it must be at least 0"),
        ("data.threads=0", "threads is 0"),
        ("data.crop_scale=1.0,0.5", "the smaller share of the area comes first"),
        ("data.unknown_words=2", "unknown_words is 2.0; it must be at least 0 and at most 1"),
        ("model.layer_decay=0", "layer_decay is 0.0; it must be above 0 and at most 1"),
        ("model.max_text_tokens=1", "max_text_tokens is 1"),
        ("seed=-1", "seed is -1"),
    ],
)
def test_a_setting_out_of_its_range_is_a_sentence(capsys, own, tmp_path, setting, sentence):
    said = complaint(capsys, "train", "--on", str(own), "--runs", str(tmp_path / "runs"), "--set", setting)
    assert sentence in said and not (tmp_path / "runs").exists()


@pytest.mark.parametrize("name", ["", " ", ".", "..", "../zoo", "/zoo", "a\nb"])
def test_the_name_of_a_run_is_a_folder_below_that_of_all_runs(capsys, own, tmp_path, name):
    said = complaint(capsys, "train", "--on", str(own), "--runs", str(tmp_path / "runs"), "--name", name)
    assert "is no name of a run's folder in --runs: give a name such as zoo" in said


def test_help_of_train_lists_every_setting_with_its_meaning(capsys):
    from blip2_lab.training.recipes.schema import settings

    with pytest.raises(SystemExit):
        cli.main(["train", "--help"])
    listed = dict(re.findall(r"^  ([a-z0-9_.]+)  (\S.*)$", capsys.readouterr().out, re.MULTILINE))
    known = {key for recipe in RECIPES.values() for key in settings(recipe)}
    assert known <= listed.keys(), known - listed.keys()
    assert listed["optim.steps"] == "number of updates (given by the recipe)"


@pytest.mark.parametrize("order", [("micro-vqa", "--help"), ("--help", "micro-vqa")])
def test_help_of_train_with_a_recipe_lists_its_settings_with_their_values(capsys, order):
    code, out, _ = run(capsys, "train", *order)
    listed = dict(re.findall(r"^([a-z0-9_.]+) = (\S.*)$", out, re.MULTILINE))
    from blip2_lab.training.recipes.schema import settings

    assert code == 0 and listed.keys() == settings(RECIPES["micro-vqa"]).keys() and "usage: blip2-lab train" in out
    assert listed["data.text"].split("  ")[0] == "questions" and listed["lora.rank"].endswith("0: no LoRA")
    assert "data.seed" not in out  # of drawn scenes


def test_help_of_a_sequence_lists_the_settings_of_its_parts(capsys):
    code, out, _ = run(capsys, "train", "micro-all", "--help")
    assert code == 0 and all(f"\n{name}:\n" in out for name in RECIPES["micro-all"].sequence)
    code, _, says = run(capsys, "train", "micro-vqq", "--help")
    assert code == 2 and "did you mean 'micro-vqa'?" in says and says.count("\n") == 1


def test_train_on_mistakes(capsys, own, tmp_path):
    assert "say what to train" in complaint(capsys, "train")
    assert "does not train on pictures" in complaint(capsys, "train", "micro-t5", "--on", str(own))
    assert "does not train on pictures" in complaint(capsys, "train", "micro-all", "--on", str(own))
    assert "--runs instead of --name" in complaint(capsys, "train", "micro-all", "--name", "x")
    assert "--jobs is 0; it must be 1 or more" in complaint(capsys, "train", "micro-all", "--jobs", "0")


def test_data_shards_packs_and_data_check_reports(capsys, own, tmp_path):
    code, out, _ = run(capsys, "data", "check", str(own))
    assert code == 0 and out.splitlines()[0].startswith("not a picture: ") and "3 pictures; skipped 1" in out
    code, out, _ = run(capsys, "data", "shards", str(own), str(tmp_path / "out"), "--per-shard", "2")
    assert code == 0 and "3 pictures; skipped 1: 1 not a picture; 2 shards in" in out
    code, out, _ = run(capsys, "data", "check", str(tmp_path / "out"))
    assert code == 0 and "3 pictures, nothing skipped" in out
    assert "is not empty" in complaint(capsys, "data", "shards", str(own), str(tmp_path / "out"))
    assert "nothing to train on" in complaint(capsys, "data", "check", str(tmp_path / "none"))


def test_data_check_and_data_shards_write_what_is_left_out(capsys, own, tmp_path):
    code, *_ = run(capsys, "data", "check", str(own), "--out", str(tmp_path / "a.jsonl"))
    (line,) = (tmp_path / "a.jsonl").read_text().splitlines()
    assert code == 0 and json.loads(line)["cause"] == "not a picture" and json.loads(line)["source"] == str(own)
    places = str(tmp_path / "out"), "--left-out", str(tmp_path / "b.jsonl")
    code, _, notes = run(capsys, "data", "shards", str(own), *places)
    assert code == 0 and (tmp_path / "b.jsonl").read_text() == line + "\n" and notes.startswith("not a picture: ")
    assert "No such file" in complaint(capsys, "data", "check", str(own), "--out", str(tmp_path / "no" / "a.jsonl"))
    assert "is a file" in complaint(capsys, "data", "shards", str(own), str(tmp_path / "a.jsonl"))


def test_data_check_fails_where_nothing_can_be_used_and_names_all(capsys, own):
    (own / "captions.csv").write_text("file,caption\nx.png,a\ny.png,b\n")
    code, out, complaints = run(capsys, "data", "check", str(own))
    assert code == 2 and out.count("missing file: ") == 2 and "no picture with a text that can be used" in complaints
