"""What stands between the network and the app's pages: who may ask, for which files, how often, and how much.

Begin with `Guard`. `lifespan` puts it around gradio's whole application, so a request reaches gradio only after it.

Notes:

* A handler opens only what its own visitor uploaded. Uploads are stored here, not by gradio, and each has one owner: a
  browser by its cookie, a program without cookies by its address, and from the first use on one gradio session. Gradio
  6.31 knows no owner: it accepts every path inside its upload folder, and, when the payload has no `meta`, every path
  at all (docs/upstream-gradio.md, 1).
* On a loopback address only loopback names are served (DNS rebinding), and no other website may post (`Origin`).
* Only the routes that a chat needs are open.
* Nothing here grows without a limit: uploads, wrong passwords and waiting requests are all bounded.
* It imports no gradio: it sees requests, not components.

Notebook: 12.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Any
from urllib.parse import parse_qs

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders, UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from blip2_lab.chat.web.uploads import MAX_FILE, MB, NOT_YOURS, Uploads, files_in
from blip2_lab.chat.web.visitors import Logins, address_of, is_own_host, is_own_origin

Scope = dict[str, Any]
Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

MAX_BODY = MB  #: any request but an upload
UPLOAD_AGE = 3600  #: seconds; for visitors who leave no sign when they go
UPLOAD_TIME = 300  #: seconds one upload may take
UPLOADS_AT_ONCE = 64
LONGEST_SESSION = 200  #: characters of a session's name; gradio's have 11, its client's 36
WAITING = 8  #: requests of one session in gradio's queue
UNREAD_TIME = 15.0  #: seconds a request waits for a client that reads its answer; long, for busy machines

API = "/gradio_api"
EVENTS = tuple(f"{API}/{name}" for name in ("queue/join", "call/", "run/", "api/"))  #: what starts a handler
#: Gradio (6.31) asks no password here: who has none could keep pages open, and end what others asked.
ASKED = (f"{API}/heartbeat/", f"{API}/cancel", f"{API}/reset")
POSTS = ("/login", *(f"{API}/{name}" for name in ("upload", "queue/join", "cancel", "reset")))
CLOSED = (  #: routes of gradio that a chat does not need: other servers' files, recordings, histories, monitors
    "/monitoring",
    *(f"{API}/{name}" for name in ("proxy=", "deep_link", "monitoring", "runs", "run-history", "stream/", "dev/")),
    *(f"{API}/{name}" for name in ("upload_progress", "custom_component/", "vibe-", "profiling/")),
)

TOO_LARGE = f"This file is larger than {MAX_FILE // MB} MB: please choose a smaller one."
ONE_FILE = "This upload is not one file: please choose one picture."
TOO_SLOW = "This upload took too long: please try again."
BUSY = "Too many uploads are under way: please try again in a moment."
WRONG_HOST = "This page is served to this computer only: please open it by the address that was printed at its start."
WRONG_ORIGIN = "Another website tried to use this page: please open it in a tab of its own."
NOT_HERE = "There is nothing here."
BAD_REQUEST = "This request cannot be read."
TOO_LONG = "This request is too long."
TOO_MANY = "You have many requests waiting: please wait for their answers."
NOT_LOGGED_IN = "Please log in first."
TOO_MANY_TRIES = "Too many wrong passwords came from your address: please try again in a minute."


class TooLarge(Exception):
    """A request has more bytes than it may have."""


async def read_body(receive: Receive, most: int) -> bytes:
    """A whole request. Raises TooLarge, or ClientDisconnect."""
    body = bytearray()
    async for part in parts(receive, most):
        body += part
    return bytes(body)


async def parts(receive: Receive, most: int) -> AsyncIterator[bytes]:
    """The parts of a request's body, one by one. Raises TooLarge, or ClientDisconnect."""
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        size += len(message.get("body", b""))
        if size > most:
            raise TooLarge
        yield message.get("body", b"")
        more = message.get("more_body", False)


def replayed(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives this body once more, then whatever comes after it."""
    given = []

    async def again() -> Message:
        if given:
            return await receive()
        given.append(True)
        return {"type": "http.request", "body": body, "more_body": False}

    return again


class Guard:
    """The ASGI application around gradio's. See the module's text for what it lets through.

    app      gradio's application
    blocks   gradio's page, whose queue is watched
    folder   gradio's upload folder
    local    is the server on a loopback address? then only loopback hosts and `names` are served
    names    the names under which a proxy serves this page
    """

    def __init__(self, app: App, blocks: Any, folder: str, *, local: bool, names: Iterable[str] = ()) -> None:
        self.app, self.blocks, self.local = app, blocks, local
        self.names = frozenset(name.lower() for name in names)
        self.uploads, self.logins = Uploads(folder), Logins()
        self.cookie = f"blip2-visitor-{secrets.token_hex(4)}"  # cookies are shared by all ports of a host
        self.open_pages: Counter[str] = Counter()  # of a visitor
        self.readers: Counter[str] = Counter()  # of a session, or of an event
        self.uploading = 0
        self.unread_time = UNREAD_TIME
        self.tasks: set[asyncio.Task] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request: refused in one sentence, answered here, or passed on to gradio."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        headers, path, get = Headers(scope=scope), scope["path"], scope["method"] in ("GET", "HEAD")
        try:
            refusal = self.refusal(scope, headers)
            if refusal is not None:
                await refusal(scope, receive, send)
            elif path.startswith(ASKED) and not await self.is_logged_in(scope):
                await refused(401, NOT_LOGGED_IN)(scope, receive, send)
            elif get and path.startswith(f"{API}/heartbeat/"):
                await self.heartbeat(scope, receive, send)
            elif get and path.startswith((f"{API}/queue/data", f"{API}/call/")):
                await self.answer(scope, receive, send)
            elif get or scope["method"] != "POST":
                await self.app(scope, receive, self.with_cookie(scope, send) if path == "/" else send)
            elif path.rstrip("/") == f"{API}/upload":
                await (await self.upload(scope, receive))(scope, receive, send)
            else:
                body = await read_body(receive, MAX_BODY)
                if path.rstrip("/") == "/login":
                    await self.login(scope, body, receive, send)
                elif is_event(path):
                    await self.event(scope, body, receive, send)
                else:
                    await self.app(scope, replayed(body, receive), send)
        except TooLarge:
            await refused(413, TOO_LONG)(scope, receive, send)
        except ClientDisconnect:
            pass

    def refusal(self, scope: Scope, headers: Headers) -> Response | None:
        """What is said to a request that may not even be read; None for the others."""
        path, get = scope["path"], scope["method"] in ("GET", "HEAD")
        if self.local and not is_own_host(headers.get("host", ""), self.names):
            return refused(403, WRONG_HOST)
        # a picture whose address is /logout, on any website, would log out who looks at it
        if (not get or path.rstrip("/") == "/logout") and not is_own_origin(headers, self.names):
            return refused(403, WRONG_ORIGIN)
        if get:
            closed = path.startswith(CLOSED) or "deep_link" in parse_qs(scope["query_string"].decode("latin-1"))
        else:
            closed = scope["method"] == "POST" and path.rstrip("/") not in POSTS and not is_event(path)
        if closed:
            return refused(404, NOT_HERE)
        for prefix in (f"{API}/file=", f"{API}/file/"):
            file = path.removeprefix(prefix)
            # an address instead of a path makes gradio fetch it from the network: its server as anybody's proxy
            if file != path and (not os.path.isabs(file) or self.uploads.is_hidden(file, self.visitor(scope))):
                return refused(403, NOT_YOURS)
        return None

    def visitor(self, scope: Scope) -> str:
        """Who asks: the browser by its cookie; a program without one, by its address."""
        known = Request(scope).cookies.get(self.cookie, "")
        return f"cookie {known}" if re.fullmatch(r"[\w-]{43}", known) else f"address {address_of(scope)}"

    def with_cookie(self, scope: Scope, send: Send) -> Send:
        """A `send` that gives a browser its cookie, once."""
        if self.visitor(scope).startswith("cookie"):
            return send

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                value = f"{self.cookie}={secrets.token_urlsafe(32)}; Path=/; HttpOnly; SameSite=Lax"
                MutableHeaders(scope=message).append("set-cookie", value)
            await send(message)

        return sending

    # ------------------------------------------------------------------------------------------------------- uploads

    async def upload(self, scope: Scope, receive: Receive) -> Response:
        """Keep a file for its visitor -> its path, as gradio's own route answers.

        Gradio's route (6.31) takes a thousand files in a request and leaves a temporary file behind whenever a client
        goes away in the middle (docs/upstream-gradio.md, 3), so it is not used.
        """
        if not await self.is_logged_in(scope):
            return refused(401, NOT_LOGGED_IN)
        if self.uploading >= UPLOADS_AT_ONCE:
            return refused(503, BUSY, plain=True)
        self.uploading += 1
        try:
            async with asyncio.timeout(UPLOAD_TIME):
                if int(Headers(scope=scope).get("content-length", 0)) > MAX_FILE + MAX_BODY:
                    raise TooLarge
                return await self._keep(scope, receive)
        except TooLarge:
            return refused(413, TOO_LARGE, plain=True)
        except TimeoutError:
            return refused(408, TOO_SLOW, plain=True)
        except (MultiPartException, HTTPException, ValueError):
            return refused(400, ONE_FILE, plain=True)
        finally:
            self.uploading -= 1

    async def _keep(self, scope: Scope, receive: Receive) -> Response:
        body = parts(receive, MAX_FILE + MAX_BODY)

        async def limited() -> Message:
            part = await anext(body, None)
            return {"type": "http.request", "body": part or b"", "more_body": part is not None}

        async with Request(scope, limited).form(max_files=1, max_fields=0) as form:
            file = form.get("files")
            if not isinstance(file, UploadFile):
                return refused(400, ONE_FILE, plain=True)
            if (file.size or 0) > MAX_FILE:
                raise TooLarge
            path = await run_in_threadpool(self.uploads.store, file.filename or "", file.file)
        self.uploads.add(self.visitor(scope), path)
        return JSONResponse([path])

    async def is_logged_in(self, scope: Scope) -> bool:
        """Would gradio let this visitor in? Its own route is asked."""
        found: list[int] = []

        async def receive() -> Message:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                found.append(message["status"])

        path = f"{API}/login_check"
        question = {"method": "GET", "path": path, "raw_path": path.encode(), "query_string": b""}
        await self.app({**scope, **question}, receive, send)
        return found == [200]

    async def heartbeat(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A page is open as long as this request lasts. Its uploads go with it, the visitor's with his last page."""
        visitor, session = self.visitor(scope), scope["path"].rsplit("/", 1)[1]
        self.open_pages[visitor] += 1
        try:
            await self.app(scope, receive, send)
        finally:
            self.open_pages[visitor] -= 1
            last = self.open_pages[visitor] <= 0
            if last:
                del self.open_pages[visitor]
            self.uploads.forget(lambda upload: upload.visitor == visitor and (last or upload.session == session))

    async def tidy(self, every: float = 60.0) -> None:
        """Delete uploads of visitors who never opened a page, for ever."""
        while True:
            await asyncio.sleep(every)
            self.uploads.forget(lambda upload: time.monotonic() - upload.time > UPLOAD_AGE)

    # -------------------------------------------------------------------------------------------------------- events

    async def event(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        """What starts a handler: its files are looked at before gradio sees them, and it has to be listened to."""
        try:
            request = json.loads(body)
            session = request.get("session_hash")
            # what a click brings with it (`event_data`) names the gallery's own files; gradio opens none of them
            data = {name: value for name, value in request.items() if name != "event_data"}
        except (ValueError, RecursionError, AttributeError):
            return await refused(400, BAD_REQUEST)(scope, receive, send)
        if session is not None and not (isinstance(session, str) and 0 < len(session) <= LONGEST_SESSION):
            return await refused(400, BAD_REQUEST)(scope, receive, send)  # gradio (6.31) breaks at an empty one
        visitor = self.visitor(scope)
        if not all([self.uploads.claim(path, visitor, session) for path in files_in(data)]):
            return await refused(403, NOT_YOURS)(scope, receive, send)
        if session is not None and self.waiting(session) >= WAITING:
            return await refused(429, TOO_MANY)(scope, receive, send)
        answer = bytearray()

        async def listening(message: Message) -> None:
            if message["type"] == "http.response.body" and len(answer) < MAX_BODY:
                answer.extend(message.get("body", b""))
            await send(message)

        await self.app(uncompressed(scope), replayed(body, receive), listening)
        with suppress(ValueError, AttributeError, TypeError):
            if event := json.loads(bytes(answer)).get("event_id"):
                task = asyncio.create_task(self.drop_unread(session or event, event))
                self.tasks.add(task)
                task.add_done_callback(self.tasks.discard)

    def waiting(self, session: str) -> int:
        """How many requests of a session stand in gradio's queue."""
        queues = self.blocks._queue.event_queue_per_concurrency_id.values()
        return sum(event.session_hash == session for queue in queues for event in list(queue.queue))

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Somebody listens for the answers of a session, or of one event, as long as this request lasts."""
        query = parse_qs(scope["query_string"].decode("latin-1"))
        who = (query.get("session_hash") or [scope["path"].rstrip("/").rsplit("/", 1)[1]])[0]
        self.readers[who] += 1
        try:
            await self.app(scope, receive, send)
        finally:
            self.readers[who] -= 1
            if self.readers[who] <= 0:
                del self.readers[who]

    async def drop_unread(self, session: str, event: str) -> None:
        """Take a request out of the queue when nobody listens for its answer.

        Gradio (6.31) takes it out only when a listener goes away; without one it is worked on in its turn
        (docs/upstream-gradio.md, 4).
        """
        await asyncio.sleep(self.unread_time)
        if not self.readers[session] and not self.readers[event]:
            await self.blocks._queue.clean_events(event_id=event)

    # --------------------------------------------------------------------------------------------------------- login

    async def login(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        """One password. After some wrong ones the next waits, one at a time for each address."""
        tries = self.logins.of(address_of(scope))
        if tries.waiting >= 3:
            return await refused(429, TOO_MANY_TRIES)(scope, receive, send)

        async def judging(message: Message) -> None:
            if message["type"] == "http.response.start":  # before it is sent: its reader may try again at once
                self.logins.judge(tries, right=message["status"] == 200)
            await send(message)

        tries.waiting += 1
        try:
            async with tries.turn:
                await asyncio.sleep(max(0.0, tries.next - time.monotonic()))
                await self.app(scope, replayed(body, receive), judging)
        finally:
            tries.waiting -= 1


def is_event(path: str) -> bool:
    """Does a POST to this path start a handler?"""
    return path.startswith(EVENTS)


def uncompressed(scope: Scope) -> Scope:
    """The same request, to be answered without compression: the answer is read here."""
    return {**scope, "headers": [(name, value) for name, value in scope["headers"] if name != b"accept-encoding"]}


def refused(status: int, sentence: str, plain: bool = False) -> Response:
    """One sentence, as gradio's page shows it: of an upload as text, of everything else as `detail`."""
    return PlainTextResponse(sentence, status) if plain else JSONResponse({"detail": sentence}, status)


def lifespan(*, local: bool, names: Iterable[str] = ()) -> Callable[[Any], Any]:
    """For gradio's `app_kwargs`: while the server runs, a `Guard` stands around the application.

    A middleware that is given to gradio (6.31) comes behind its CORS, which would answer a stranger first; the stack is
    built when the server starts, just before this.
    """

    @asynccontextmanager
    async def guarded(app: Any):
        guard = Guard(app.middleware_stack, app.get_blocks(), app.uploaded_file_dir, local=local, names=names)
        app.middleware_stack = guard
        tidying = asyncio.create_task(guard.tidy())
        try:
            yield
        finally:
            tidying.cancel()
            guard.uploads.forget(lambda upload: True)

    return guarded
