"""A server on this machine alone, which decodes any code for its page."""

from __future__ import annotations

import contextlib
import importlib.util
import math
import secrets
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ppl_vae.explore.content import Explored
from ppl_vae.explore.events import as_sent
from ppl_vae.explore.limits import ROWS
from ppl_vae.explore.page import page_of, shown
from ppl_vae.fitting import Fit
from ppl_vae.fitting.inputs import Given
from ppl_vae.text import as_line, from_json

if TYPE_CHECKING:
    import uvicorn
    from starlette.requests import Request
    from starlette.responses import Response

__all__ = ["Served", "serve", "server_of"]

HOST = "127.0.0.1"
MOST_BODY = 2**20  # bytes of a question
MOST_CODES = 256  # in one
MOST_CONNECTIONS = 64  # at a time; all others are told to come later
SECONDS = 10.0  # for a question to arrive
HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",  # the address has the token
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def serve(
    fit: Fit,
    data: Given | None = None,
    *,
    rows: int = ROWS,
    title: str = "",
    port: int = 0,
    announce: Callable[[str], None] = print,
) -> None:
    """Answer for the page of :func:`explore`, in which any code of any fit is then decoded by the fit itself, until Ctrl-C.

    It listens on 127.0.0.1 alone. The address has a random token, without which nothing is answered; a question under another
    Host, of more than 1 MiB or of more than 256 codes is refused, and beyond 64 connections the next are told to come later.
    Codes are decoded one question after the other.

    Args:
        fit: a fit, as :func:`explore` takes it.
        data: rows that are shown, by default those that were held out of the fit.
        rows: how many at most.
        title: of the page.
        port: where it listens, by default any that is free.
        announce: called with the address once it listens.

    Raises:
        ValueError: for the reasons of :func:`explore`, a port that is taken, or packages that are not installed.
    """
    check_installed()
    served = server_of(shown(fit, data, rows=rows), title or type(fit.model).__name__, port=port)
    announce(served.address)
    with contextlib.suppress(KeyboardInterrupt), contextlib.closing(served.listening):
        served.server.run(sockets=[served.listening])


def check_installed() -> None:
    """Raise ``ValueError`` if the packages that serve are not there."""
    if lacking := [name for name in ("starlette", "uvicorn") if importlib.util.find_spec(name) is None]:
        raise ValueError(f"serving needs {' and '.join(lacking)}: pip install 'ppl_vae[explore]', or write a page with out")


@dataclass(frozen=True, kw_only=True)
class Served:
    """A server that is ready to run.

    Args:
        server: runs with ``server.run(sockets=[listening])`` and ends once ``server.should_exit``.
        listening: its socket, which is bound already.
        address: of the page, with the token.
    """

    server: uvicorn.Server
    listening: socket.socket
    address: str


def server_of(found: Explored, title: str, *, port: int = 0) -> Served:
    """A server for a page, bound to a port and not yet running.

    Raises:
        ValueError: the port is taken or may not be had.
    """
    import uvicorn
    from starlette.applications import Starlette
    from starlette.routing import Route

    listening = _bound(port)
    port = listening.getsockname()[1]
    desk = _Desk(found, title, secrets.token_urlsafe(24))
    routes = [Route("/", desk.page), Route("/decode", desk.decode, methods=["POST"])]
    config = uvicorn.Config(
        _only_for(Starlette(routes=routes), {f"{HOST}:{port}", f"localhost:{port}"}),
        lifespan="off",
        ws="none",
        http="h11",
        loop="asyncio",
        log_level="critical",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=MOST_CONNECTIONS,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=3,
        h11_max_incomplete_event_size=2**14,
    )
    return Served(server=uvicorn.Server(config), listening=listening, address=f"http://{HOST}:{port}/?token={desk.token}")


def _bound(port: int) -> socket.socket:
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((HOST, port))
        listening.listen(128)
    except (OSError, OverflowError, TypeError) as error:
        listening.close()
        raise ValueError(
            f"expected a port of this machine that is free, got {port!r} ({as_line(error)}): give another, or 0"
        ) from None
    return listening


def _only_for(application: Any, hosts: set[str]) -> Any:
    """The application, for questions to these hosts alone: a foreign page whose name leads here asks under its own."""
    from starlette.responses import PlainTextResponse

    refusal = PlainTextResponse("another host was asked", status_code=421, headers=HEADERS)

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        asked = [value.decode("latin-1") for name, value in scope.get("headers", []) if name == b"host"]
        await (application if len(asked) == 1 and asked[0] in hosts else refusal)(scope, receive, send)

    return answer


class _Desk:
    """What answers: the page, and the data of codes."""

    def __init__(self, found: Explored, title: str, token: str) -> None:
        from anyio import CapacityLimiter

        self.found, self.token = found, token
        self.html = page_of(found, title, token=token)
        self.one = CapacityLimiter(1)

    async def page(self, request: Request) -> Response:
        """The page, for whoever has the token."""
        from starlette.responses import HTMLResponse

        if not self._knows(request.query_params.get("token", "")):
            return _refused(403, "the address lacks its token: take it from the terminal")
        return HTMLResponse(self.html, headers=HEADERS)

    async def decode(self, request: Request) -> Response:
        """``{"x": [...]}`` of ``{"codes": [[...], ...], "kept": [[...], ...]}``."""
        from anyio import fail_after, to_thread
        from starlette.responses import JSONResponse

        if not self._knows(request.headers.get("authorization", "").removeprefix("Bearer ")):
            return _refused(403, "the token is missing")
        try:
            with fail_after(SECONDS):
                body = await _body(request)
        except TimeoutError:
            return _refused(408, f"the question took more than {SECONDS:g} s")
        if body is None:
            return _refused(413, f"a question has at most {MOST_BODY} bytes")
        try:
            codes, kept = self._asked(body)
        except ValueError as error:
            return _refused(400, as_line(error))
        return JSONResponse({"x": await to_thread.run_sync(self._answer, codes, kept, limiter=self.one)}, headers=HEADERS)

    def _knows(self, token: str) -> bool:
        return secrets.compare_digest(token.encode(), self.token.encode())

    def _asked(self, body: bytes) -> tuple[Tensor, Tensor]:
        """Codes ``(B, size)`` and which levels are kept ``(B, levels)``.

        Raises:
            ValueError: something else.
        """
        asked = from_json(body.decode("utf-8", errors="strict"))
        levels = max(1, len(self.found.layout.levels))
        if not isinstance(asked, dict):
            raise ValueError("expected an object with codes and kept")
        codes = _numbers(asked.get("codes"), self.found.layout.size, "codes")
        kept = _numbers(asked.get("kept"), levels, "kept")
        if len(codes) != len(kept):
            raise ValueError(f"expected as many kept as codes, {len(codes)}, got {len(kept)}")
        return codes, kept

    def _answer(self, codes: Tensor, kept: Tensor) -> list[Any]:
        found = as_sent(self.found.fit, self.found.decode(codes, kept))
        if not isinstance(found, Tensor):
            return list(found)
        rows: list[list[float]] = found.flatten(1).double().tolist()
        return [[value if math.isfinite(value) else None for value in row] for row in rows]


async def _body(request: Request) -> bytes | None:
    """What a question holds, or ``None`` if it is too large, as soon as that is seen."""
    told = request.headers.get("content-length", "0")
    if not told.isdigit() or int(told) > MOST_BODY:
        return None
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MOST_BODY:
            return None
    return body


def _numbers(given: Any, width: int, name: str) -> Tensor:
    rows = isinstance(given, list) and 0 < len(given) <= MOST_CODES and all(isinstance(row, list) for row in given)
    numbers = rows and all(len(row) == width and all(type(value) in (int, float) for value in row) for row in given)
    found = torch.tensor(given, dtype=torch.float32) if numbers else None
    if found is None or not bool(found.isfinite().all()):
        raise ValueError(f"expected {name}: 1 to {MOST_CODES} rows of {width} finite numbers")
    return found


def _refused(status: int, why: str) -> Response:
    from starlette.responses import PlainTextResponse

    return PlainTextResponse(why, status_code=status, headers={**HEADERS, "Connection": "close"})
