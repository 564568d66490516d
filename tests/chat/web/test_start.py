"""What is wrong with an option is said before anything heavy is imported."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from blip2_lab.chat.web import start

ROOT = Path(__file__).parents[3]
HEAVY = ("torch", "transformers", "gradio", "PIL", "numpy")


def refusal(*arguments: str) -> str:
    """What `app.py` says of its options; fails where something heavy was imported to say it."""
    code = (
        "import sys\nfrom blip2_lab.chat.web.start import main\n"
        f"try: main({list(arguments)})\n"
        f"except SystemExit as end: print(end.code, [name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.stdout.splitlines()[-1] == "2 []", done.stdout + done.stderr
    return done.stderr


def test_a_port_that_is_none_or_taken():
    assert "127.0.0.1:-1 (ports are 1 to 65535); give another --port" in refusal("--port", "-1")
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert f"127.0.0.1:{port} (" in refusal("--port", str(port))


def test_a_gallery_without_pictures_is_refused_before_the_model_is_loaded(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "blip2_lab.chat.web.app", None)  # to import it is to load torch
    (tmp_path / "notes.txt").write_text("none")
    for folder, said in (("no/such", "no folder no/such"), ("notes.txt", "no folder"), (".", "holds no picture")):
        with pytest.raises(SystemExit):
            start.main(["--gallery", folder if folder == "no/such" else str(tmp_path / folder)])
        assert said in capsys.readouterr().err


def test_a_file_or_a_folder_that_is_no_model(tmp_path):
    (tmp_path / "notes.txt").write_text("none")
    assert "notes.txt is not a checkpoint" in refusal("--model", str(tmp_path / "notes.txt"))
    assert "holds no model: it has no config.json" in refusal("--model", str(tmp_path))
    assert "holds no model" in refusal("--beside", str(tmp_path))
    assert "A model has a name" in refusal("--model", "")


@pytest.mark.parametrize("options", [["--port", "abc"], ["--at-once", "0"], ["--nothing"], ["--quantize", "int9"]])
def test_a_wrong_option_is_one_line(options):
    said = refusal(*options)
    assert said.startswith("app.py: ") and said.count("\n") == 1 and said.endswith("(see app.py --help)\n")


@pytest.mark.parametrize("auth", ["", "ada", ":secret", "ada:"])
def test_a_password_without_its_user_is_refused(auth):
    assert "want USER:PASSWORD" in refusal("--auth", auth)


@pytest.mark.parametrize("name", ["", "http://chat.example.org", "chat.example.org:443", "chat.example.org/page"])
def test_a_public_name_is_a_name_alone(name):
    assert f"--public-name is {name!r}" in refusal("--public-name", name)
    assert start.parse(["--public-name", "Chat.example.org"]).public_name == ["Chat.example.org"]


def test_ctrl_c_while_the_model_is_loaded_ends_in_one_line(monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(start, "check_available", interrupted)
    with pytest.raises(SystemExit) as end:
        start.main([])
    assert end.value.code == 130 and capsys.readouterr().err == "\napp.py: stopped\n"


def test_a_missing_folder_and_a_stranger_at_the_door():
    assert "There is no folder or file 'no/such/place'" in refusal("--model", "no/such/place")
    assert "say who may come" in refusal("--host", "0.0.0.0")


@pytest.mark.parametrize("module", ["blip2_lab.chat", "blip2_lab.chat.web", "blip2_lab.checkpoints.names"])
def test_what_the_start_needs_is_light(module):
    code = f"import sys, {module}; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"
