"""The doors of the app, tried from outside: real pages, really served, and raw requests to them."""

from __future__ import annotations

import http.client
import io
import json
import os
import secrets
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote, urlencode

import pytest
from PIL import Image

gr = pytest.importorskip("gradio")

from blip2_lab.chat.web import app as chat_app  # noqa: E402  after the skip
from blip2_lab.chat.web import components, guard, line, start, uploads  # noqa: E402
from blip2_lab.chat.web.search_tab import Search, build_search  # noqa: E402
from blip2_lab.chat.web.uploads import NOT_YOURS, Uploads, open_upload, read_upload  # noqa: E402
from blip2_lab.chat.web.visitors import Logins, host_and_port, is_loopback, is_own_host, is_own_origin  # noqa: E402

API = "/gradio_api"
META = {"_type": "gradio.FileData"}
CONTROLS = ("greedy", 5, 0.9, 1.0, 4, -1.0, 1.0)


class Visitor:
    """A browser without its screen: a cookie, a session, and requests written by hand."""

    def __init__(self, served, cookie: bool = True) -> None:
        self.blocks = served
        self.port, self.session, self.cookie = served.server_port, secrets.token_hex(6), ""
        if cookie:
            _, headers, _ = self.ask("GET", "/")
            self.cookie = headers.get("set-cookie", "").split(";")[0]

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str):
        """One request -> status, headers, text. A header's name is written with underscores: content_type."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        sent = {"Host": f"127.0.0.1:{self.port}", "Cookie": self.cookie}
        sent |= {name.replace("_", "-").title(): value for name, value in headers.items()}
        try:
            connection.request(method, path, body, sent)
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read().decode(errors="replace")
        finally:
            connection.close()

    def post(self, path: str, value, **headers: str):
        """A JSON request -> status, text."""
        status, _, text = self.ask("POST", path, json.dumps(value).encode(), content_type="application/json", **headers)
        return status, text

    def upload(self, content: bytes, name: str = "picture.png", field: str = "files", times: int = 1, **headers: str):
        """-> status, and the path on the server or what was said instead."""
        edge = secrets.token_hex(8)
        head = f'--{edge}\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\n\r\n'.encode()
        body = (head + content + b"\r\n") * times + f"--{edge}--\r\n".encode()
        form = f"multipart/form-data; boundary={edge}"
        status, _, text = self.ask("POST", f"{API}/upload", body, content_type=form, **headers)
        return status, json.loads(text)[0] if status == 200 else text

    def number(self, name: str) -> int:
        """gradio's number of a handler."""
        return next(i for i, fn in self.blocks.fns.items() if fn.name == name)

    def join(self, name: str | int, data: list, session: str | None = None):
        """Start a handler -> status, text."""
        number = name if isinstance(name, int) else self.number(name)
        body = {"fn_index": number, "data": data, "session_hash": session or self.session, "trigger_id": None}
        return self.post(f"{API}/queue/join", body)

    def listen(self) -> list[dict]:
        """What the server says to this session, to the end of what runs."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        said = []
        try:
            connection.request("GET", f"{API}/queue/data?session_hash={self.session}", headers={"Cookie": self.cookie})
            for line in connection.getresponse():
                if line.startswith(b"data:"):
                    said.append(json.loads(line[5:]))
        finally:
            connection.close()
        return said

    def call(self, name: str | int, data: list) -> tuple[list, list[str]]:
        """Start a handler and wait for it -> its last output, and its warnings."""
        status, text = self.join(name, data)
        assert status == 200, text
        said = self.listen()
        outputs = [message.get("output") for message in said if message["msg"].startswith("process_")]
        outputs = [output for output in outputs if output and (output.get("data") or output.get("error"))]
        return outputs[-1], [message["log"] for message in said if message["msg"] == "log"]

    def load(self) -> None:
        """What a browser starts when the page opens."""
        for number, fn in self.blocks.fns.items():
            if any(event == "load" for _, event in fn.targets):
                body = {"fn_index": number, "data": [None] * len(fn.inputs), "session_hash": self.session}
                assert self.post(f"{API}/run/predict", body)[0] == 200


def detail(sentence: str) -> str:
    """The body of a refusal."""
    return json.dumps({"detail": sentence}, separators=(",", ":"))


def png(color: str = "teal", size: int = 24) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (size, size), color).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def chat(tiny_model):
    blocks = chat_app.build(tiny_model)
    chat_app.serve(blocks, block=False)
    yield blocks
    blocks.close()


@pytest.fixture(scope="module")
def search(tiny_model):
    blocks = build_search(Search(tiny_model.stage1), name="itm")
    chat_app.serve(blocks, block=False)
    yield blocks
    blocks.close()


@pytest.fixture(params=["chat", "search"])
def served(request):
    return request.getfixturevalue(request.param)


def guard_of(blocks) -> guard.Guard:
    return blocks.app.middleware_stack


def upload_folder(blocks) -> str:
    return blocks.app.uploaded_file_dir


# -------------------------------------------------------------------------------------------------------------- files


@pytest.fixture
def forbidden(served, tmp_path):
    """Name -> a path that no handler may open."""
    outside = tmp_path / "outside.png"
    outside.write_bytes(png())
    link = tmp_path / "link.png"
    link.symlink_to(outside)
    inside = os.path.join(upload_folder(served), f"planted-{secrets.token_hex(4)}.png")
    os.makedirs(upload_folder(served), exist_ok=True)
    os.symlink(outside, inside)
    fifo, fifo_inside = str(tmp_path / "fifo.png"), f"{inside}.fifo"
    os.mkfifo(fifo)
    os.mkfifo(fifo_inside)
    yield {
        "outside": str(outside),
        "missing": str(tmp_path / "missing.png"),
        "link": str(link),
        "planted link": inside,
        "device": "/dev/zero",
        "fifo": fifo,
        "planted fifo": fifo_inside,
        "folder": str(tmp_path),
        "upload folder": upload_folder(served),
        "dots": os.path.join(
            upload_folder(served), "..", os.path.relpath(outside, os.path.dirname(upload_folder(served)))
        ),
        "address": "http://127.0.0.1:9/picture.png",
        "data": "data:image/png;base64,AAAA",
        "number": 7,
        "null": "a\0b",
        "surrogate": "\ud800",
        "empty": "",
    }
    os.unlink(inside)
    os.unlink(fifo_inside)


@pytest.mark.parametrize("meta", [True, False], ids=["meta", "bare"])
def test_no_event_opens_what_its_visitor_did_not_upload(served, forbidden, meta):
    """Every event of both pages, every forbidden path: one sentence, the same for what exists and what does not."""
    visitor, said = Visitor(served), set()
    for number, fn in served.fns.items():
        if any(event == "load" for _, event in fn.targets) or not fn.inputs:
            continue
        for path in forbidden.values():
            file = {"path": path} | ({"meta": META} if meta else {})
            data = [file] + [None] * (len(fn.inputs) - 1)
            said.add(visitor.join(number, data))
    assert said == {(403, detail(NOT_YOURS))}


@pytest.mark.parametrize("route", ["call/{}", "call/v2/{}", "run/{}", "api/{}", "queue/join"])
def test_no_route_and_no_disguise_leads_around_the_guard(chat, tmp_path, route):
    outside = tmp_path / "outside.png"
    outside.write_bytes(png())
    visitor, number = Visitor(chat), Visitor(chat).number("look")
    path = f"{API}/{route.format('look')}"
    for file in (
        {"path": str(outside)},
        {"path": str(outside), "is_stream": True},
        {"path": None, "url": f"file://{outside}"},
        {"url": "http://127.0.0.1:9/x.png"},
        {"nested": [{"image": {"path": str(outside), "meta": META}}]},
    ):
        body = {"data": [file], "fn_index": number, "session_hash": visitor.session}
        assert visitor.post(path, body)[0] == 403, file
        assert visitor.post(path, {"file": file, "picture": file, "param_0": file})[0] == 403, file
    for text in (b"[" * 100_000, b"none", b"[1]", b"\xff\xfe"):
        assert visitor.ask("POST", path, text, content_type="application/json")[0] == 400
    assert visitor.ask("POST", path, b" " * (2**20 + 1), content_type="application/json")[0] == 413


def test_an_upload_is_opened_for_its_visitor_and_for_nobody_else(served):
    name = "look" if "look" in {fn.name for fn in served.fns.values()} else "opened"
    owner, other = Visitor(served), Visitor(served)
    assert owner.cookie and owner.cookie != other.cookie
    for meta in ({}, {"meta": META}):
        status, path = owner.upload(png())
        assert status == 200 and os.path.isfile(path)
        assert other.join(name, [{"path": path} | meta])[0] == 403
        assert Visitor(served, cookie=False).join(name, [{"path": path} | meta])[0] == 403
        output, warnings = owner.call(name, [{"path": path} | meta])
        assert output.get("error") is None and warnings == []
        assert owner.join(name, [{"path": path} | meta], session="another")[0] == 403, "it belongs to one session"
        assert owner.ask("GET", f"{API}/file={quote(path)}")[0] == 200
        assert other.ask("GET", f"{API}/file={quote(path)}")[0] == 403


def test_programs_without_cookies_can_upload(chat):
    program = Visitor(chat, cookie=False)
    _, path = program.upload(png())
    output, _ = program.call("look", [{"path": path}])
    assert output.get("error") is None and output["data"][0]["path"]
    assert Visitor(chat).join("look", [{"path": path}])[0] == 403


@pytest.mark.parametrize("change", ["link", "fifo", "folder", "large", "gone"])
def test_an_upload_that_was_exchanged_is_not_opened(chat, tmp_path, change, monkeypatch):
    visitor = Visitor(chat)
    _, path = visitor.upload(png())
    outside = tmp_path / "outside.png"
    outside.write_bytes(png())
    if change == "large":
        monkeypatch.setattr(uploads, "MAX_FILE", 10)
    else:
        os.unlink(path)
        exchange = {"link": lambda: os.symlink(outside, path), "fifo": lambda: os.mkfifo(path)}
        (exchange | {"folder": lambda: os.mkdir(path), "gone": lambda: None})[change]()
    assert visitor.join("look", [{"path": path}])[0] == 403


def test_the_pages_own_pictures_are_served_and_are_no_uploads(chat):
    visitor = Visitor(chat)
    text = visitor.ask("GET", "/config")[2]
    gallery = next(c for c in json.loads(text)["components"] if c["props"].get("elem_id") == "gallery")
    path = gallery["props"]["value"][0]["image"]["path"]
    assert visitor.ask("HEAD", f"{API}/file={quote(path)}")[0] == 200
    assert visitor.join("look", [{"path": path, "meta": META}])[0] == 403
    event = {"index": 2, "value": gallery["props"]["value"][2]}  # as a click sends it
    body = {"fn_index": visitor.number("pick"), "data": [], "session_hash": visitor.session, "event_data": event}
    assert visitor.post(f"{API}/queue/join", body)[0] == 200
    assert visitor.listen()[-2]["success"]


def test_a_file_is_checked_once_more_where_it_is_opened(tmp_path, monkeypatch):
    folder = tmp_path / "uploads"
    folder.mkdir()
    (folder / "picture.png").write_bytes(png())
    (tmp_path / "outside.png").write_bytes(png())
    (folder / "link.png").symlink_to(tmp_path / "outside.png")
    os.mkfifo(folder / "fifo.png")
    assert read_upload(str(folder / "picture.png"), str(folder)) == png()
    (folder / "linked").symlink_to(tmp_path)
    bad = ["link.png", "linked/outside.png", "fifo.png", "missing.png", "../outside.png", "../uploads", "."]
    for path in (*(str(folder / name) for name in bad), "/dev/zero", "", "a\0b", None):
        with pytest.raises(ValueError, match=f"^{NOT_YOURS}$"):
            open_upload(path, str(folder))
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(folder))
    data = gr.components.image.ImageData
    assert components.uploaded_file(data(path=str(folder / "picture.png"))) == png()
    assert components.uploaded_file(None) is None
    for path in (str(folder / "link.png"), "/dev/zero", None):
        with pytest.raises(gr.Error, match=NOT_YOURS):
            components.uploaded_file(data(path=path, url="http://127.0.0.1:9/x.png"))
    monkeypatch.setattr(uploads, "MAX_FILE", 10)
    with pytest.raises(ValueError, match=NOT_YOURS):
        open_upload(str(folder / "picture.png"), str(folder))


# ------------------------------------------------------------------------------------------------------------ uploads


def test_uploads_are_limited_in_size_and_number(chat, monkeypatch):
    visitor, before = Visitor(chat), len(guard_of(chat).uploads.files)
    status, said = visitor.upload(bytes(40 * 2**20 + 1))
    assert (status, said) == (413, guard.TOO_LARGE)
    assert visitor.upload(png(), times=2) == (400, guard.ONE_FILE)
    assert visitor.upload(png(), field="other") == (400, guard.ONE_FILE)
    assert visitor.ask("POST", f"{API}/upload", b"none", content_type="multipart/form-data; boundary=x")[0] == 400
    assert visitor.ask("POST", f"{API}/upload", b"none", content_type="text/plain")[0] == 400
    # without a body: it would still be on its way when the server hangs up, and its reset could overtake the answer
    assert visitor.ask("POST", f"{API}/upload", content_length="bad")[0] == 400
    monkeypatch.setattr(guard, "UPLOADS_AT_ONCE", 0)
    assert visitor.upload(png()) == (503, guard.BUSY)
    assert len(guard_of(chat).uploads.files) == before


def test_the_quotas_also_limit_how_many_small_files_there_are(tmp_path):
    kept = Uploads(str(tmp_path), visitor_quota=4 * uploads.SMALLEST, total_quota=6 * uploads.SMALLEST)
    for number in range(20):
        for visitor in ("one", "two"):
            kept.add(visitor, kept.store(f"{number}.png", io.BytesIO(b"x")))
    assert len(kept.files) == len(os.listdir(tmp_path)) == 6


def test_a_session_has_a_name(chat):
    visitor = Visitor(chat)
    for name in ("", "x" * 201, 7, ["x"], {"x": 1}, True):
        body = {"fn_index": visitor.number("draw"), "data": SCENE, "session_hash": name}
        assert visitor.post(f"{API}/queue/join", body) == (400, detail(guard.BAD_REQUEST)), name


def test_an_upload_that_breaks_off_leaves_nothing(chat):
    visitor, before = Visitor(chat), sorted(os.listdir(upload_folder(chat)))
    connection = http.client.HTTPConnection("127.0.0.1", chat.server_port, timeout=10)
    connection.putrequest("POST", f"{API}/upload")
    connection.putheader("Content-Type", "multipart/form-data; boundary=x")
    connection.putheader("Content-Length", "9000000")
    connection.putheader("Cookie", visitor.cookie)
    connection.endheaders()
    connection.send(b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n' + bytes(3_000_000))
    connection.close()
    deadline = time.monotonic() + 10
    while guard_of(chat).uploading and time.monotonic() < deadline:
        time.sleep(0.05)
    assert guard_of(chat).uploading == 0 and sorted(os.listdir(upload_folder(chat))) == before


@pytest.mark.parametrize("name", ["../../etc/passwd", "a/b.png", "..", "x" * 300 + ".png", "été 1.png", "<b>.png"])
def test_a_file_name_stays_in_its_folder(chat, name):
    status, path = Visitor(chat).upload(png(), name)
    assert status == 200 and os.path.dirname(os.path.dirname(path)) == os.path.realpath(upload_folder(chat))
    assert "<" not in path and len(os.path.basename(path)) <= 100


def test_quotas_and_age(tmp_path, monkeypatch):
    monkeypatch.setattr("blip2_lab.chat.web.uploads.SMALLEST", 1)
    uploads = Uploads(str(tmp_path), visitor_quota=100, total_quota=250)

    def add(visitor: str, size: int) -> str:
        path = uploads.store("a.png", io.BytesIO(bytes(size)))
        uploads.add(visitor, path)
        return path

    first, second = add("ada", 60), add("ada", 60)
    assert not os.path.exists(os.path.dirname(first)) and os.path.exists(second), "the visitor's own oldest went"
    others = [add(f"visitor {i}", 90) for i in range(3)]
    assert not os.path.exists(second) and [os.path.exists(path) for path in others] == [False, True, True]
    uploads.forget(lambda upload: upload.visitor == "visitor 2")
    assert not os.path.exists(others[2]) and list(uploads.files) == [others[1]]


def test_uploads_go_when_the_session_goes(chat):
    visitor, stranger = Visitor(chat), Visitor(chat)
    (_, path), (_, kept) = visitor.upload(png()), stranger.upload(png())
    _, unused = visitor.upload(png())
    visitor.call("look", [{"path": path}])
    pages = []
    for session in (visitor.session, "second-page"):
        heart = http.client.HTTPConnection("127.0.0.1", chat.server_port, timeout=10)
        heart.request("GET", f"{API}/heartbeat/{session}", headers={"Cookie": visitor.cookie})
        heart.getresponse().fp.readline()
        pages.append(heart)

    def gone(path: str) -> bool:
        deadline = time.monotonic() + 20
        while os.path.exists(path) and time.monotonic() < deadline:
            time.sleep(0.1)
        return not os.path.exists(path)

    _close(pages[0])
    assert gone(path) and os.path.exists(unused), "the other page may still want it"
    _close(pages[1])
    assert gone(unused) and os.path.exists(kept)


def _close(connection: http.client.HTTPConnection) -> None:
    """Close for good: `close` alone waits for the answer that is being read."""
    connection.sock and connection.sock.shutdown(socket.SHUT_RDWR)
    connection.close()


def test_the_folder_of_uploads_is_private(chat):
    if "blip2-lab-" not in upload_folder(chat):
        pytest.skip("GRADIO_TEMP_DIR is given: its owner knows why")
    assert os.stat(upload_folder(chat)).st_mode & 0o077 == 0


# -------------------------------------------------------------------------------------------------- hosts and origins


def test_a_loopback_server_answers_to_loopback_names_only(served):
    visitor = Visitor(served)
    for host in ("localhost", "LOCALHOST:7860", "127.0.0.1", "127.0.0.2:1", "[::1]", "[::1]:7860"):
        assert visitor.ask("GET", "/config", host=host)[0] == 200, host
    strangers = ("evil.example", "127.0.0.1.evil.example", "localhost.evil.example:80", "192.168.0.1", "[fe80::1]")
    disguised = ("[::1].evil.example", "[::1]evil", "2130706433", "0x7f000001", "127.1", "localhost.", "127.0.0.1.")
    strangers = (*strangers, *disguised)
    for host in (*strangers, "127.0.0.1@evil.example", "", "evil.example/127.0.0.1", "127.0.0.1:x"):
        for method, path in (("GET", "/config"), ("OPTIONS", "/config"), ("POST", f"{API}/upload")):
            preflight = {"origin": f"http://{host}", "access_control_request_method": "POST"}
            status, headers, text = visitor.ask(method, path, host=host, **preflight)
            assert status == 403 and json.loads(text) == {"detail": guard.WRONG_HOST}, host
            assert headers["access-control-allow-origin"] is None


def test_no_other_website_can_post(served):
    visitor = Visitor(served)
    own = f"http://127.0.0.1:{served.server_port}"
    body = {"fn_index": 0, "data": [], "session_hash": "x"}
    strange = ["http://evil.example", "null", f"http://localhost:{served.server_port}", "http://127.0.0.1:1"]
    for origin in (*strange, "https://127.0.0.1.evil.example", "file://", "http://evil@127.0.0.1"):
        assert visitor.upload(png(), origin=origin) == (
            403,
            json.dumps({"detail": guard.WRONG_ORIGIN}).replace(": ", ":", 1),
        )
        for path in ("queue/join", "call/look", "cancel", "reset"):
            assert visitor.post(f"{API}/{path}", body, origin=origin)[0] == 403, (path, origin)
        assert visitor.post("/login", {}, origin=origin)[0] == 403
        assert visitor.ask("OPTIONS", f"{API}/upload", origin=origin, access_control_request_method="POST")[0] == 403
    assert visitor.upload(png(), sec_fetch_site="cross-site")[0] == 403
    assert visitor.upload(png(), origin=own, sec_fetch_site="same-origin")[0] == 200
    assert visitor.upload(png())[0] == 200, "a program says no origin"


def test_hosts_are_decided_as_addresses():
    for host in ("localhost", "LocalHost", "127.0.0.1", "127.9.9.9", "::1", "[::1]"):
        assert is_loopback(host), host
    for host in ("127.0.0.1.evil.com", "localhost.evil.com", "127.1", "0.0.0.0", "192.168.0.2", "::", "", "127.0.0.1 "):
        assert not is_loopback(host), host
    assert host_and_port("[::1]:80") == ("::1", 80) and host_and_port("a.b", "https") == ("a.b", 443)
    assert host_and_port("[::1].a") is host_and_port("[::1") is host_and_port("::1]") is host_and_port("a[::1]") is None
    assert host_and_port("a:x") is None and host_and_port("") is None and host_and_port("a@b") is None
    assert is_own_host("chat.example.org", ["chat.example.org"]) and not is_own_host("chat.example.org", [])
    from starlette.datastructures import Headers

    proxied = Headers({"host": "chat.example.org", "origin": "https://chat.example.org"})
    assert is_own_origin(proxied, []), "a proxy passes the host on"
    renamed = Headers({"host": "localhost:8001", "origin": "https://chat.example.org"})
    assert is_own_origin(renamed, ["chat.example.org"]) and not is_own_origin(renamed, [])


def test_other_hosts_need_a_password_however_they_are_called(capsys):
    with pytest.raises(SystemExit):
        start.parse(["--host", "127.0.0.1.evil.com"])
    assert "BLIP2_LAB_AUTH" in capsys.readouterr().err
    assert start.parse(["--host", "::1"]).auth is None


@pytest.mark.parametrize(
    "path",
    [
        "proxy=https://x.hf.space/a",
        "deep_link?session_hash=x",
        "monitoring",
        "runs",
        "run-history/buckets",
        "dev/reload",
    ],
)
def test_doors_that_a_chat_does_not_need_are_closed(chat, path):
    assert Visitor(chat).ask("GET", f"{API}/{path}")[0] == 404


def test_more_doors_are_closed(chat):
    visitor = Visitor(chat)
    for path in ("component_server", "process_recording", "vibe-edit", "stream/x", "run-history/connect", "nothing"):
        assert visitor.post(f"{API}/{path}", {})[0] == 404, path
    for path in ("https://example.org/a.png", "http:/example.org", "relative.png", "file:///etc/passwd"):
        assert visitor.ask("GET", f"{API}/file={path}")[0] == 403, path
    assert visitor.ask("GET", f"{API}/file=/a%00b")[0] in (403, 404)
    assert visitor.ask("GET", "/?deep_link=x")[0] == 404
    body = {"data": ["what is it?", None, [], 0, *CONTROLS], "session_hash": "x"}
    assert visitor.post(f"{API}/run/ask", body)[0] == 404, "the model is reached by the queue only"


# ---------------------------------------------------------------------------------------------------------- passwords


@pytest.fixture(scope="module")
def locked(tiny_model):
    blocks = build_search(Search(tiny_model.stage1), name="itm")
    chat_app.serve(blocks, block=False, auth="ada:a:secret")
    yield blocks
    blocks.close()


def log_in(visitor: Visitor, password: str):
    form = urlencode({"username": "ada", "password": password}).encode()
    return visitor.ask("POST", "/login", form, content_type="application/x-www-form-urlencoded")


def test_with_auth_nothing_is_had_without_the_password(locked):
    visitor = Visitor(locked)
    assert visitor.upload(png()) == (401, detail(guard.NOT_LOGGED_IN))
    assert visitor.ask("GET", "/config")[0] == 401 and visitor.join(0, [])[0] == 401
    assert log_in(visitor, "wrong")[0] == 400
    status, headers, _ = log_in(visitor, "a:secret")
    assert status == 200
    token = "; ".join(value.split(";")[0] for value in headers.get_all("set-cookie"))
    visitor.cookie += f"; {token}"
    assert visitor.ask("GET", "/config")[0] == 200 and visitor.upload(png())[0] == 200
    body = {"fn_index": visitor.number("logout_button"), "data": [], "session_hash": "x", "trigger_id": None}
    status, text = visitor.post(f"{API}/run/predict", body)
    assert status == 200 and json.loads(text)["data"][0]["visible"] is True
    status, headers, _ = visitor.ask("GET", "/logout?all_session=false")
    assert status == 302 and any("access-token" in value for value in headers.get_all("set-cookie"))


def test_without_the_password_no_page_is_held_open_and_nothing_is_ended(locked, chat):
    visitor = Visitor(locked)
    assert visitor.ask("GET", f"{API}/heartbeat/{visitor.session}")[0] == 401
    body = {"session_hash": "x", "fn_index": 0, "event_id": "y"}
    assert [visitor.post(f"{API}/{route}", body)[0] for route in ("cancel", "reset")] == [401, 401]
    assert [Visitor(chat).post(f"{API}/{route}", body)[0] for route in ("cancel", "reset")] == [200, 200]


def test_no_other_website_logs_a_visitor_out(locked):
    visitor = Visitor(locked)
    token = [value.split(";")[0] for value in log_in(visitor, "a:secret")[1].get_all("set-cookie")]
    visitor.cookie = "; ".join([visitor.cookie, *token])
    for strange in ({"sec_fetch_site": "cross-site"}, {"origin": "http://evil.example"}):
        assert visitor.ask("GET", "/logout", **strange)[0] == 403
    assert visitor.ask("GET", "/config")[0] == 200
    assert visitor.ask("GET", "/logout", sec_fetch_site="same-origin")[0] == 302
    assert visitor.ask("GET", "/config")[0] == 401, "and the password's token is worth nothing any more"


def test_without_auth_there_is_no_log_out(chat):
    visitor = Visitor(chat)
    body = {"fn_index": visitor.number("logout_button"), "data": [], "session_hash": "x", "trigger_id": None}
    assert json.loads(visitor.post(f"{API}/run/predict", body)[1])["data"][0]["visible"] is False


def test_wrong_passwords_wait_and_a_right_one_ends_it(locked, monkeypatch):
    monkeypatch.setattr(guard_of(locked), "logins", Logins(free=2, first=0.3, longest=1.0))
    visitor = Visitor(locked)

    def took(password: str) -> tuple[int, float]:
        start = time.monotonic()
        return log_in(visitor, password)[0], time.monotonic() - start

    quick = [took("wrong") for _ in range(2)]
    assert [status for status, _ in quick] == [400, 400]
    slow = [took("wrong") for _ in range(3)]
    assert all(status == 400 for status, _ in slow) and slow[0][1] > 0.25 and slow[1][1] > 0.5 and slow[2][1] > 0.9
    with ThreadPoolExecutor(8) as pool:  # all at once: one after the other, and no crowd
        crowd = list(pool.map(lambda _: log_in(visitor, "wrong")[0], range(8)))
    assert crowd.count(429) >= 4 and set(crowd) == {400, 429}
    status, seconds = took("a:secret")
    assert status == 200 and seconds < 20, "nobody is locked out"
    assert [tries.wrong for tries in guard_of(locked).logins.tries.values()] == [0], "and what was before is forgotten"


def test_waits_are_bounded_in_length_and_number():
    logins = Logins(free=1, first=1.0, longest=30.0, most=3)
    tries = logins.of("a")
    for _ in range(100):
        logins.judge(tries, right=False)
    assert 29 < tries.next - tries.last <= 30
    for address in "bcde":
        logins.of(address)
    assert list(logins.tries) == ["c", "d", "e"]
    tries.last -= 1000
    logins.tries["a"] = tries
    assert logins.of("a").wrong == 0, "after a quarter of an hour"


def test_the_password_may_come_from_the_environment(monkeypatch, capsys):
    monkeypatch.setenv(start.AUTH, "ada:secret")
    assert start.parse(["--host", "0.0.0.0"]).auth == "ada:secret"
    assert start.parse(["--auth", "eve:other"]).auth == "eve:other"
    monkeypatch.setenv(start.AUTH, "nobody")
    with pytest.raises(SystemExit):
        start.parse([])
    assert start.AUTH in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------------ lost sessions


def test_a_visitor_whose_picture_was_dropped_is_told_so(chat, monkeypatch):
    visitor = Visitor(chat)
    visitor.load()
    _, path = visitor.upload(png())
    visitor.call("look", [{"path": path}])
    question = ["what is it?", None, None, 0, *CONTROLS]
    output, warnings = visitor.call("ask", question)
    assert warnings == [] and output["data"][0] == ""
    monkeypatch.setattr(chat.app.state_holder, "capacity", 2)
    for _ in range(4):
        other = Visitor(chat)
        other.load()
    for name, data in (("ask", question), ("again", question[1:]), ("match", ["a red boat.", None])):
        _, warnings = visitor.call(name, data)
        assert warnings == [components.LOST_PICTURE], name
    found = [number for number, fn in chat.fns.items() if fn.name == "find"]
    assert visitor.call(found[1], [None])[1] == [components.LOST_PICTURE], "nor is another one searched for"
    _, path = visitor.upload(png())
    visitor.call("look", [{"path": path}])
    output, warnings = visitor.call("ask", question)
    assert warnings == [] and output["data"][0] == ""


def test_a_page_that_was_opened_starts_with_the_picture_it_shows(chat):
    visitor = Visitor(chat)
    question = ["what is it?", None, None, 0, *CONTROLS]
    assert visitor.call("ask", question)[1] == [components.LOST_PICTURE], "a session that nobody opened has none"
    visitor.load()
    assert visitor.call("ask", question)[1] == []


def test_a_search_page_tells_it_too(search):
    visitor = Visitor(search)
    by_picture = [number for number, fn in search.fns.items() if fn.name == "find"][1]
    assert visitor.call(by_picture, [None])[1] == [components.LOST_PICTURE]
    visitor.load()
    assert visitor.call(by_picture, [None])[1] == ["There is no picture yet to look for others like it."]


# ---------------------------------------------------------------------------------------------------------- the queue


@pytest.fixture
def held(chat, monkeypatch):
    """The model looks at nothing until it is let go -> what was begun, and what lets it go."""
    begun, let_go, encode = [], threading.Event(), chat_app.ImageCache.encode

    def waiting(image_cache, image):
        begun.append(1)
        let_go.wait(60)
        return encode(image_cache, image)

    monkeypatch.setattr(chat_app.ImageCache, "encode", waiting)
    yield begun, let_go
    let_go.set()


SCENE = ["beach", "day", *(value for row in chat_app.MENUS for value in row)]


def test_requests_that_nobody_listens_to_leave_the_queue(chat, held, monkeypatch):
    monkeypatch.setattr(guard_of(chat), "unread_time", 0.5)
    begun, let_go = held
    for _ in range(16):
        assert Visitor(chat, cookie=False).join("draw", SCENE)[0] == 200
    deadline = time.monotonic() + 20
    while len(chat._queue) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert len(chat._queue) == 0, "one is being worked on, and the others were dropped"
    let_go.set()
    output, _ = Visitor(chat).call("draw", SCENE)
    assert output["data"][0]["path"] and len(begun) == 2


def test_a_request_that_is_listened_to_stays_in_the_queue(chat, held, monkeypatch):
    monkeypatch.setattr(guard_of(chat), "unread_time", 0.5)
    visitors = [Visitor(chat) for _ in range(3)]
    for visitor in visitors:
        assert visitor.join("draw", SCENE)[0] == 200
    with ThreadPoolExecutor(3) as pool:
        answers = [pool.submit(visitor.listen) for visitor in visitors]
        time.sleep(2)
        held[1].set()
        assert all(any(message.get("success") for message in answer.result()) for answer in answers)


def test_a_session_has_few_requests_in_the_queue(chat, held, monkeypatch):
    monkeypatch.setattr(guard_of(chat), "unread_time", 60)
    visitor, other = Visitor(chat), Visitor(chat)
    said = [visitor.join("draw", SCENE) for _ in range(12)]
    statuses = [status for status, _ in said]
    assert statuses.count(200) in (8, 9) and said[-1] == (429, detail(guard.TOO_MANY))
    assert other.join("draw", SCENE)[0] == 200
    held[1].set()
    for listener in (visitor, other):
        listener.listen()


def test_so_many_are_answered_at_once_so_many_wait_and_the_next_is_told(chat, monkeypatch):
    monkeypatch.setattr(guard_of(chat), "unread_time", 600)
    begun, let_go = [], threading.Event()

    def held(image, otherwise=""):
        begun.append(1)
        let_go.wait(600)
        raise ValueError("let go")

    monkeypatch.setattr(chat_app, "chosen", held)
    asked = ["what is it?", None, None, 0, *CONTROLS]

    def join() -> tuple[int, str]:
        return Visitor(chat, cookie=False).join("ask", asked)

    try:
        for number in range(line.AT_ONCE):  # all of them at the same time, in threads of their own
            assert join()[0] == 200
            until = time.monotonic() + 120
            while len(begun) <= number and time.monotonic() < until:
                time.sleep(0.02)
        assert len(begun) == line.AT_ONCE
        assert [join()[0] for _ in range(line.WAITING)] == [200] * line.WAITING
        status, said = join()
        assert status == 503 and "full" in said and len(begun) == line.AT_ONCE
    finally:
        let_go.set()
    until = time.monotonic() + 120
    while len(begun) < line.AT_ONCE + line.WAITING and time.monotonic() < until:
        time.sleep(0.1)
    assert len(begun) == line.AT_ONCE + line.WAITING, "who waited is served"
