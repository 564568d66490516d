"""What is wrong with an option is said before anything heavy is imported."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

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


def test_a_missing_folder_and_a_stranger_at_the_door():
    assert "There is no folder 'no/such/place'" in refusal("--model", "no/such/place")
    assert "say who may come" in refusal("--host", "0.0.0.0")


@pytest.mark.parametrize("module", ["blip2_lab.chat", "blip2_lab.chat.web", "blip2_lab.checkpoints.names"])
def test_what_the_start_needs_is_light(module):
    code = f"import sys, {module}; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"
