"""A model of the hub that cannot be had is refused at once, in one sentence; what the cache holds needs no network."""

import http.server
import json
import os
import subprocess
import sys
import threading

import pytest

from blip2_lab.chat.web import start
from blip2_lab.checkpoints import hub
from blip2_lab.checkpoints.hub import check_available, why_unreachable
from blip2_lab.cli import main

NOWHERE = "http://127.0.0.1:9"  #: nothing listens there, so a connection is refused at once

LOAD = """
try:
    blip2_lab.load('owner/nothing')
except ValueError as error:
    print(error, file=sys.stderr)
"""


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", NOWHERE)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("time.sleep", lambda _: pytest.fail("it waits before it tries again"))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


class Answers(http.server.BaseHTTPRequestHandler):
    """Answers every request with an error, and notes it."""

    asked: list[str] = []

    def do_HEAD(self):
        self.asked.append(f"{self.command} {self.path}")
        self.send_error(503)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    Answers.asked = []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_without_a_network_a_name_is_refused_in_one_sentence_and_without_a_second_try(no_network):
    with pytest.raises(ValueError) as refused:
        check_available("owner/nothing")
    said = str(refused.value)
    assert said.startswith(
        "owner/nothing is not a folder here and could not be fetched from the Hugging Face hub (Conn"
    )
    assert "`hf download owner/nothing --include" in said and "\n" not in said


@pytest.mark.parametrize(
    "command",
    [
        ["ask", "x.png", "what?", "--model", "owner/nothing"],
        ["evaluate", "--model", "owner/nothing"],
        ["evaluate", "grounding", "--model", "owner/nothing"],
        ["search", "a boat", "--model", "owner/nothing"],
        ["index", ".", "--model", "owner/nothing"],
        ["doctor", "owner/nothing"],
    ],
)
def test_every_command_refuses_it(no_network, command, capsys):
    assert main(command) == 2
    assert "owner/nothing is not a folder here and could not be fetched" in capsys.readouterr().err


@pytest.mark.parametrize("options", [["--model", "owner/nothing"], ["--beside", "owner/nothing"]])
def test_the_app_refuses_it(no_network, options, capsys):
    with pytest.raises(SystemExit):
        start.main(options)
    assert "owner/nothing is not a folder here and could not be fetched" in capsys.readouterr().err


@pytest.mark.parametrize(
    "call",
    ["cli.main(['ask', 'x.png', 'q', '--model', 'owner/nothing'])", "cli.main(['doctor', 'owner/nothing'])", LOAD],
)
def test_it_is_refused_before_torch_is_imported(call):
    code = f"import sys, blip2_lab; from blip2_lab import cli\n{call}\nprint('torch' in sys.modules)"
    environment = {**os.environ, "HF_ENDPOINT": NOWHERE, "NO_PROXY": "127.0.0.1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=200, env=environment)
    assert done.stdout == "False\n" and "could not be fetched" in done.stderr


def test_what_is_here_or_in_the_cache_needs_no_network(no_network, tmp_path):
    snapshot = tmp_path / "models--owner--model" / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text(json.dumps({}))
    (tmp_path / "models--owner--model" / "refs").mkdir()
    (tmp_path / "models--owner--model" / "refs" / "main").write_text("0" * 40)
    check_available("owner/model")
    check_available("micro")
    check_available(str(tmp_path))
    with pytest.raises(ValueError, match="There is no folder or file 'nothing"):
        check_available("nothing")
    with pytest.raises(ValueError, match="A model has a name"):
        check_available("")
    with pytest.raises(ValueError, match="could not be fetched"):
        check_available("owner/a-name--that.the-hub_refuses")
    for no_name in ("owner/my model", "owner/", "owner/a\0b", "a/b/c", "owner/mod\ud800el", "owner\\model"):
        with pytest.raises(ValueError, match="There is no folder .* or a hub name such as"):
            check_available(no_name)


def test_any_answer_shows_that_the_hub_is_there(server):
    assert why_unreachable(server) is None and Answers.asked == ["HEAD /"]


def test_a_proxy_is_asked_instead_of_the_hub(server, monkeypatch):
    from huggingface_hub import close_session

    monkeypatch.setenv("http_proxy", server)
    close_session()
    try:
        assert why_unreachable("http://hub.invalid") is None
    finally:
        close_session()
    assert Answers.asked == ["HEAD http://hub.invalid/"] or Answers.asked == ["HEAD http://hub.invalid"]


def test_a_hub_that_lets_wait_is_refused_with_the_way_to_wait_longer(monkeypatch):
    class ConnectTimeout(Exception):
        pass

    class Session:
        def head(self, url, timeout, follow_redirects):
            raise ConnectTimeout(f"timed out after {timeout[0]}")

    monkeypatch.setattr("huggingface_hub.get_session", Session)
    assert why_unreachable() == "ConnectTimeout: timed out after 1.0 in 1.0 s; HF_HUB_ETAG_TIMEOUT=10 waits longer"
    monkeypatch.setenv("HF_HUB_ETAG_TIMEOUT", "10")
    assert why_unreachable().startswith("ConnectTimeout: timed out after 10")


def test_offline_mode_asks_nobody(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.get_session", lambda: pytest.fail("asked"))
    assert "HF_HUB_OFFLINE is set" in hub.why_unreachable()
