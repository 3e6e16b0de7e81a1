"""The server of the page: for this machine and whoever has the token, bounded in what it takes."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
import torch

import ppl_vae as pv
from tests.test_explore import SHORT, SMALL, images

pytest.importorskip("starlette", reason="the extra explore is not installed")
pytest.importorskip("uvicorn", reason="the extra explore is not installed")

from ppl_vae.explore.page import shown
from ppl_vae.explore.serving import MOST_BODY, MOST_CODES, Served, server_of


@pytest.fixture(scope="module")
def fit() -> pv.Fit:
    return pv.fit(pv.VAE(latent_dim=3, decoder=SMALL), images(), method=SHORT)


@pytest.fixture(scope="module")
def served(fit: pv.Fit) -> Iterator[Served]:
    found = server_of(shown(fit), "a run")
    thread = threading.Thread(target=found.server.run, kwargs={"sockets": [found.listening]}, daemon=True)
    thread.start()
    yield found
    found.server.should_exit = True
    thread.join(10)
    assert not thread.is_alive()


class Asking:
    """Asks a server, as whoever has its address would, unless told otherwise."""

    def __init__(self, served: Served) -> None:
        self.address = urlsplit(served.address)
        self.token = self.address.query.removeprefix("token=")

    def __call__(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(self.address.hostname or "", self.address.port, timeout=60)
        try:
            connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def decode(self, body: bytes, **headers: str) -> tuple[int, bytes]:
        return self("POST", "/decode", body, **{"Authorization": f"Bearer {self.token}"} | headers)


@pytest.fixture
def ask(served: Served) -> Asking:
    return Asking(served)


def question(codes: torch.Tensor) -> bytes:
    return json.dumps({"codes": codes.tolist(), "kept": [[1]] * len(codes)}).encode()


def test_it_decodes_as_the_fit_does(ask: Asking, fit: pv.Fit) -> None:
    codes = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    status, body = ask.decode(question(codes))
    assert status == 200
    torch.testing.assert_close(torch.tensor(json.loads(body)["x"]), fit.decode(codes).flatten(1))


def test_the_page_is_for_who_has_the_token(ask: Asking, served: Served) -> None:
    status, page = ask("GET", f"/?{ask.address.query}")
    assert status == 200
    assert b"connect-src &#x27;self&#x27;" in page
    assert b'"kind": "live"' in page
    assert served.listening.getsockname()[0] == "127.0.0.1"
    for path in ("/", "/?token=x", f"/?token={ask.token[:-1]}"):
        assert ask("GET", path)[0] == 403
    assert ask("POST", "/decode", question(torch.zeros(1, 3)))[0] == 403
    assert ask.decode(question(torch.zeros(1, 3)), Authorization="Bearer \xe9")[0] == 403
    for method, path, status in (("GET", "/other", 404), ("GET", "/decode", 405), ("POST", "/", 405)):
        assert ask(method, path)[0] == status


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "127.0.0.1:1", "localhost.evil.example:80", ""])
def test_another_host_is_refused(ask: Asking, host: str) -> None:
    assert ask("GET", f"/?{ask.address.query}", Host=host)[0] == 421
    assert ask.decode(question(torch.zeros(1, 3)), Host=host)[0] == 421


def test_a_large_question_is_refused_before_it_is_read(ask: Asking, served: Served) -> None:
    assert ask.decode(b" " * MOST_BODY)[0] == 400
    head = f"POST /decode HTTP/1.1\r\nHost: {ask.address.netloc}\r\nAuthorization: Bearer {ask.token}\r\n"
    with socket.create_connection(served.listening.getsockname(), timeout=30) as one:
        one.sendall(f"{head}Content-Length: {100 * 2**20}\r\n\r\n".encode())  # of 100 MB none is sent
        assert one.recv(100).startswith(b"HTTP/1.1 413")
    with socket.create_connection(served.listening.getsockname(), timeout=30) as one:
        one.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
        part = b"10000\r\n" + b" " * 2**16 + b"\r\n"
        try:
            for _ in range(MOST_BODY // 2**16 + 2):
                one.sendall(part)
        except OSError:
            pass  # it did not wait for all of it
        assert one.recv(100)[:12] in (b"HTTP/1.1 413", b"")


BAD = [
    b"",
    b"{",
    b"\xff",
    b"[]",
    b'{"codes": 1}',
    b'{"codes": [], "kept": []}',
    b'{"codes": [[1, 2]], "kept": [[1]]}',
    b'{"codes": [[1, 2, "3"]], "kept": [[1]]}',
    b'{"codes": [[1, 2, true]], "kept": [[1]]}',
    b'{"codes": [[1, 2, NaN]], "kept": [[1]]}',
    b'{"codes": [[1, 2, 1e99]], "kept": [[1]]}',
    b'{"codes": [[1, 2, 3]], "kept": []}',
    b'{"codes": ' + b"[" * 5000 + b"}",
]


def test_what_is_no_question_is_told(ask: Asking) -> None:
    for body in (*BAD, question(torch.zeros(MOST_CODES + 1, 3))):
        status, why = ask.decode(body)
        assert status == 400, body[:40]
        assert b"\n" not in why
    assert ask.decode(question(torch.zeros(1, 3)))[0] == 200


def test_many_questions_at_once_are_answered_or_told_to_come_later(ask: Asking) -> None:
    body = question(torch.zeros(2, 3))

    def one(_: int) -> int:
        try:
            return ask.decode(body)[0]
        except OSError:
            return 0  # not taken on

    with ThreadPoolExecutor(200) as threads:
        found = list(threads.map(one, range(1000)))
    assert set(found) <= {200, 503, 0}
    assert found.count(200) > 10
    assert ask.decode(body)[0] == 200


def test_a_taken_port_is_told(fit: pv.Fit, served: Served) -> None:
    for port in (served.listening.getsockname()[1], -1, 2**17):
        with pytest.raises(ValueError, match="expected a port of this machine that is free"):
            server_of(shown(fit), "a run", port=port)


@pytest.mark.slow
def test_ctrl_c_ends_it(fit: pv.Fit, tmp_path: Path) -> None:
    data = images()
    run = pv.save_run(fit, data, tmp_path / "run")
    np.save(tmp_path / "rows.npy", data.test.raw.numpy())  # the run's own were in memory
    others = ["--data", str(tmp_path / "rows.npy"), "--label", "none", "--split", "all"]
    words = [sys.executable, "-m", "ppl_vae", "explore", str(run), *others, "--serve", "--json"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=dict(os.environ)) as process:
        assert process.stdout is not None
        address = urlsplit(json.loads(process.stdout.readline())["url"])
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((address.hostname or "", address.port or 0), timeout=5).close()
