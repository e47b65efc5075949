"""Hostile visitors of a running app: every request gets words, and after each test the app is as before.

What the app does from its start on is logged by an audit hook in its process: which hosts it looks up or
connects to, which files it opens to write. After each test it must have done neither outside its temporary
folder, have sent no 5xx and no stack trace, be below 1 GB, and answer an honest visitor correctly.
"""

from __future__ import annotations

import io
import json
import os
import re
import struct
import subprocess
import sys
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dicoms
import pytest
import requests
import test_fuzz
from running import ROOT, running_app
from warm_python import Program

from xray_hf.demo.uploads import MAX_FILES
from xray_hf.inference import Engine, Prediction
from xray_hf.task import PAPER_CLASSES

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
pytestmark = [pytest.mark.slow, on_linux]
MAX_KB = 10**9 // 1024
SECRET = "root-password-of-the-server"
SCRIPT = b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'><script>alert(1)</script></svg>"
PAGE = b"<!doctype html><html><body onload=alert(1)><script>alert(1)</script></body></html>"
# Python runs this before the app. Without uvloop, which connects in C and tells no hook.
AUDIT = """
import os, sys
sys.modules["uvloop"] = None
log = os.open(os.environ["AUDIT_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
def written(path):
    text = str(path) if isinstance(path, int) else os.fsdecode(path)
    os.write(log, b"write " + text.encode("unicode_escape") + b"\\n")
def hook(event, args):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto", "subprocess.Popen", "os.system"):
        os.write(log, f"{event} {args!r}\\n".encode())
    elif event == "open" and isinstance(args[2], int) and args[2] & WRITES:
        written(args[0])
    elif event in ("os.mkdir", "os.rename", "os.symlink", "os.link", "shutil.move"):
        written(args[1 if event == "os.rename" else 0])
sys.addaudithook(hook)
"""


@dataclass
class Site:
    """A running app. replies: all that it sent since the test began."""

    url: str
    process: Program | subprocess.Popen[bytes]
    folder: Path
    http: requests.Session = field(default_factory=requests.Session)
    replies: list[tuple[str, int, str]] = field(default_factory=list)

    def ask(self, method: str, path: str, **options: Any) -> requests.Response:
        """Send a request; its reply is kept."""
        reply = self.http.request(method, self.url + path, timeout=60, **options)
        text = reply.text if len(reply.content) < 2**20 else ""
        self.replies.append((f"{method} {path}", reply.status_code, text))
        return reply

    def upload(self, content: bytes, name: bytes = b"scan.png") -> requests.Response:
        """Upload one file; its name goes into the request as it is."""
        head = b'--b\r\nContent-Disposition: form-data; name="files"; filename="' + name + b'"\r\n\r\n'
        form = {"Content-Type": "multipart/form-data; boundary=b"}
        return self.ask("POST", "/gradio_api/upload", data=head + content + b"\r\n--b--\r\n", headers=form)

    def call(self, *data: object, name: str = "read") -> requests.Response:
        """Ask for an answer."""
        return self.ask("POST", f"/gradio_api/call/{name}", json={"data": data})

    def answer(self, call: requests.Response, name: str = "read") -> Any:
        """What a call that was taken gives; fails if it is none."""
        found = self.ask("GET", f"/gradio_api/call/{name}/{call.json()['event_id']}").text
        assert "event: complete" in found, found
        (output,) = json.loads(found.partition("event: complete\ndata: ")[2].partition("\n")[0])
        return output

    def read(self, content: bytes, name: bytes = b"scan.png") -> Any:
        """Upload a file and have it answered."""
        (path,) = self.upload(content, name).json()
        return self.answer(self.call(as_file(path)))

    def read_many(self, content: bytes) -> Any:
        """Upload an archive and have its members answered."""
        (path,) = self.upload(content, b"scans.zip").json()
        return self.answer(self.call([as_file(path)], name="read_many"), "read_many")

    def log(self) -> list[str]:
        """What the app did, line by line, since it started."""
        return (self.folder / "audit.log").read_text(encoding="utf-8", errors="replace").splitlines()


def as_file(path: str, **more: object) -> dict[str, object]:
    """A file as calls name it."""
    return {"path": path, "meta": {"_type": "gradio.FileData"}, **more}


@pytest.fixture(scope="module")
def running(cnn_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The app in a folder of its own, with a secret beside it and its audit log."""
    folder = tmp_path_factory.mktemp("hostile")
    for name in ("cwd", "hook"):
        (folder / name).mkdir()
    (folder / "secret.txt").write_text(SECRET, encoding="ascii")
    (folder / "hook" / "sitecustomize.py").write_text(AUDIT, encoding="ascii")
    environment = {
        "AUDIT_LOG": str(folder / "audit.log"),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": os.pathsep.join([str(folder / "hook"), str(ROOT)]),
    }
    options = ["--rate", "0", "--max-file-mb", "8"]
    start = running_app(
        [cnn_bundle], folder, *options, cwd=folder / "cwd", python=sys.executable, **environment
    )
    with start as app:
        yield Site(app.url, app.process, folder)


@pytest.fixture
def site(running: Site, xray: Path, expected: Prediction) -> Iterator[Site]:
    """The app; after the test it must be unharmed."""
    before = sorted(running.folder.iterdir())
    running.replies.clear()
    yield running
    assert [reply for reply in running.replies if reply[1] >= 500] == []
    traces = re.compile(r"Traceback|site-packages|File \"")
    assert [reply for reply in running.replies if traces.search(reply[2])] == []
    # A number is a file that is open already.
    allowed = re.compile(rf"write (\d+$|{re.escape(str(running.folder / 'temporary'))}/|/dev/)")
    port = running.url.rpartition(":")[2]
    did = [line for line in running.log() if not allowed.match(line)]
    assert did == [f"socket.getaddrinfo ('127.0.0.1', {port}, 0, 1, 0)"]  # where it is to listen
    assert sorted(running.folder.iterdir()) == before
    assert list((running.folder / "cwd").iterdir()) == []
    assert [path.name[:13] for path in (running.folder / "temporary").iterdir()] == ["xray_hf-demo-"]
    peak = re.search(
        r"VmHWM:\s+(\d+)", Path(f"/proc/{running.process.pid}/status").read_text(encoding="ascii")
    )
    assert peak
    assert int(peak[1]) < MAX_KB
    assert_honest(running.read(xray.read_bytes()), expected)


@pytest.fixture(scope="module")
def expected(engine: Engine, xray: Path) -> Prediction:
    """What the honest visitor must be told."""
    return engine.predict(xray)


def assert_honest(answer: Any, expected: Prediction) -> None:
    assert answer["error"] is None
    said = answer["models"]["xray-cnn"]
    assert said["label"] == expected.label
    assert said["probabilities"] == pytest.approx(expected.probabilities, abs=1e-3)


def assert_words(answer: Any) -> None:
    """An answer is an error of one sentence, or probabilities."""
    if answer["error"] is None:
        assert answer["models"]["xray-cnn"]["probabilities"].keys() == set(PAPER_CLASSES)
    else:
        assert 0 < len(answer["error"]) < 600
        assert "\n" not in answer["error"]
        assert "/tmp" not in answer["error"]


def png(width: int, height: int, data: bytes = zlib.compress(bytes(10**6), 9)) -> bytes:
    """A grey PNG that claims this size."""
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)),
        (b"IDAT", data),
        (b"IEND", b""),
    )
    parts = (
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def packed(*members: tuple[str, bytes], change: Callable[[zipfile.ZipInfo], None] | None = None) -> bytes:
    """A ZIP archive; `change` may falsify what it says of each member."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            info = zipfile.ZipInfo("x")
            info.filename, info.compress_type = name, zipfile.ZIP_DEFLATED
            archive.writestr(info, content)
        for info in archive.infolist() if change else ():
            change(info)
    return stream.getvalue()


def link(info: zipfile.ZipInfo) -> None:
    info.external_attr = 0o120777 << 16


def encrypted(info: zipfile.ZipInfo) -> None:
    info.flag_bits |= 1


def huge(info: zipfile.ZipInfo) -> None:
    info.file_size = 2**32 - 2


def small(info: zipfile.ZipInfo) -> None:
    info.file_size = 100


def archives(honest: bytes) -> dict[str, bytes]:
    zeros = bytes(10**8)
    inner = packed(("bomb", zeros))
    nested = packed(*((f"{number}.zip", inner) for number in range(16)))
    names = ("../../slipped.png", "/tmp/slipped.png", "C:\\slipped.png", "..\\..\\slipped.png", "a\0.png")
    names += (
        "\u202egnp.exe",
        "a\r\nSet-Cookie: x",
        "<img src=x onerror=alert(1)>.png",
        "x/" * 5000 + "a.png",
    )
    return {
        **{f"named {name[:20]!r}": packed((name, honest)) for name in names},
        "flat bomb": inner,
        "nested bomb": nested,
        "nested twice": packed(("inner.zip", nested)),
        "many bombs": packed(*((f"{number}.png", png(60_000, 60_000)) for number in range(150))),
        "link": packed(("link.png", b"/etc/passwd"), change=link),
        "encrypted": packed(("a.png", honest), change=encrypted),
        "declared huge": packed(("a.png", honest), change=huge),
        "declared small": packed(("a.png", honest), change=small),
        "10,001 members": packed(*((f"{number}.png", b"x") for number in range(10_001))),
        "empty": packed(),
        "a folder": packed(("folder/", b"")),
        "truncated": packed(("a.png", honest))[:-30],
        "head alone": b"PK\x03\x04",
    }


def strangers(honest: bytes) -> dict[str, bytes]:
    elf = b"\x7fELF" + bytes(60)
    return {
        "nothing": b"",
        "a byte": b"\0",
        "text": b"hello",
        "page": PAGE,
        "drawing": SCRIPT,
        "program": elf,
        "script": b"#!/bin/sh\nrm -rf /\n",
        "pdf": b"%PDF-1.7\n" + PAGE,
        "gif": b"GIF89a" + bytes(50),
        "gzip": b"\x1f\x8b\x08" + bytes(50),
        "tar": b"x" * 257 + b"ustar" + bytes(250),
        "json": b"[" * 100_000,
        "xml bomb": b"<?xml version='1.0'?><!DOCTYPE x [<!ENTITY a 'a'><!ENTITY b '&a;&a;'>]><x>&b;</x>",
        "pickle": b"\x80\x04cos\nsystem\n(S'id'\ntR.",
        "nifti": bytes(344) + b"n+1\0" + bytes(100),
        "video": b"\0\0\0\x18ftypmp42" + bytes(50),
        "page in a picture": honest[:-12] + PAGE,
        "picture with a tail": honest + PAGE,
        "noise": os.urandom(5000),
        "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n(/etc/passwd) (r) file",
    }


def bombs() -> dict[str, bytes]:
    tiff = b"II*\0\x08\0\0\0\x03\0" + b"".join(
        struct.pack("<HHII", tag, 4, 1, value) for tag, value in ((256, 2**31), (257, 2**31), (273, 8))
    )
    return {
        **{f"PNG {side}²": png(side, side) for side in (6001, 10_000, 30_000, 65_535, 2**31 - 1)},
        "PNG line": png(36_000_000, 1),
        "PNG of nothing": png(0, 0),
        "PNG full": png(10_000, 10_000, zlib.compress(bytes(10**8), 9)),
        "PNG text bomb": png(64, 64)[:33]
        + struct.pack(">I", 10**5 + 6)
        + b"zTXt"
        + b"a\0\0"
        + zlib.compress(bytes(10**8), 9)[: 10**5 + 3]
        + bytes(4),
        "TIFF": tiff + bytes(4),
        "BMP": b"BM" + struct.pack("<IHHIIiiHHIIiiII", 100, 0, 0, 54, 40, 2**30, 2**30, 1, 24, *[0] * 6),
        "DICOM rows": dicoms.native(Rows=65_535, Columns=65_535),
        "DICOM frames": dicoms.native(NumberOfFrames="100000"),
        "DICOM nested": dicoms.native() + b"\xfe\xff\x00\xe0\xff\xff\xff\xff" * 5000,
    }


NAMES = (
    *(b"../../etc/passwd", b"..\\..\\boot.ini", b"/etc/passwd", b"C:\\x.png", b"....//....//x.png", b"."),
    *(b"..", b"", b"a\0.png", b"\xff\xfe.png", b"a" * 255, b"a" * 5000 + b".png", "\u202egnp.exe".encode()),
    *("ü" * 200).encode().join([b"", b".png"]).split(b"\1"),
    *(b"CON", b"NUL.png", b"a\\r\\nSet-Cookie: x", b"<script>alert(1)</script>.png", b"x.html", b"x.svg"),
    *(b"%2e%2e%2fpasswd", b"~root", b"$(id).png", b"`id`.png", b"|id", b"-rf", b"a;b", b"a'b", b".htaccess"),
    *(b"x.png.exe", b"x.png/", b" ", b"\t", "\U0001f480.png".encode(), b"file:///etc/passwd"),
)


@pytest.mark.parametrize("mutated", [50, pytest.param(410, marks=pytest.mark.exhaustive)])
def test_every_hostile_file_is_answered_in_words(site: Site, xray: Path, mutated: int) -> None:
    """Damaged, foreign, renamed, huge or packed: in the end at least 500 of them."""
    honest, originals = xray.read_bytes(), test_fuzz.originals()
    files = {
        **{f"mutated {number}": test_fuzz.damaged(number, originals)[1] for number in range(mutated)},
        **{
            f"{name} {end}": data
            for name, data in strangers(honest).items()
            for end in (".dcm", ".jpg", ".zip")
        },
        **bombs(),
        **archives(honest),
    }
    assert len(files) >= 90 + mutated
    for name, data in files.items():
        end = re.search(r"\.\w+$", name)
        assert_words(site.read(data, b"scan" + (end[0].encode() if end else b".png")))


def test_every_member_of_a_hostile_archive_is_a_row(site: Site, xray: Path) -> None:
    # A visitor gets 200 rows; one more says so.
    several = {"nested bomb": 16, "many bombs": 150, "10,001 members": MAX_FILES + 1}
    for name, data in archives(xray.read_bytes()).items():
        rows = site.read_many(data)
        assert len(rows) == several.get(name, 1), name
        for row in rows:
            assert bool(row["error"]) != name.startswith("named"), (name, row)
            assert len(row["error"]) < 600
            assert "\n" not in row["error"]
            assert "/tmp" not in row["error"]


def test_a_name_changes_nothing_but_the_name(site: Site, xray: Path, expected: Prediction) -> None:
    honest = xray.read_bytes()
    for name in NAMES:
        uploaded = site.upload(honest, name)
        assert "set-cookie" not in uploaded.headers
        if uploaded.status_code == 200:
            for path in uploaded.json():
                assert Path(path).resolve().is_relative_to(site.folder / "temporary")
                assert_honest(site.answer(site.call(as_file(path))), expected)


def test_an_archive_of_thousands_keeps_nobody_waiting(site: Site, xray: Path) -> None:
    (path,) = site.upload(archives(xray.read_bytes())["10,001 members"], b"many.zip").json()
    functions = site.ask("GET", "/config").json()["dependencies"]
    show = next(each["id"] for each in functions if each["api_name"] == "show")
    call = {"fn_index": show, "session_hash": "s", "data": [[as_file(path)], None]}
    begun = time.monotonic()
    assert site.ask("POST", "/gradio_api/queue/join", json=call).status_code == 200
    found = site.ask("GET", "/gradio_api/queue/data?session_hash=s").text
    assert "only the first 8 files are shown here" in found
    assert time.monotonic() - begun < 30


def test_a_file_larger_than_the_limit_is_refused(site: Site) -> None:
    assert site.upload(bytes(9 * 2**20)).status_code in (400, 413)


@pytest.mark.parametrize("page", [PAGE, SCRIPT, b"GIF89a;alert(1)", b"alert(1)"])
def test_what_is_uploaded_never_runs_in_a_browser(site: Site, page: bytes) -> None:
    for name in (b"x.html", b"x.htm", b"x.svg", b"x.xhtml", b"x.xml", b"x.js", b"x.png", b"x.pdf", b"x"):
        (path,) = site.upload(page, name).json()
        reply = site.ask("GET", f"/gradio_api/file={path}")
        kind = reply.headers["content-type"]
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert "default-src" in reply.headers["content-security-policy"]
        is_saved = reply.headers["content-disposition"].startswith("attachment")
        assert is_saved or re.match(r"image/(png|jpeg|gif|webp)", kind), (name, kind)


def test_files_of_the_server_are_not_read(site: Site) -> None:
    (mine,) = site.upload(b"mine").json()
    secrets = ["/etc/passwd", "/proc/self/environ", str(ROOT / "app.py"), str(site.folder / "secret.txt")]
    secrets += [
        f"{mine}/../../../../secret.txt",
        "../secret.txt",
        "secret.txt",
        "",
        ".",
        "~/.ssh/id_rsa",
        "/",
    ]
    secrets += ["file:///etc/passwd", f"file://{site.folder}/secret.txt", "/etc/passwd\0.png", "a" * 10_000]
    for path in secrets:
        assert site.call(as_file(path)).status_code == 400
        assert site.call(as_file(mine, url=path, nested=as_file(path))).status_code == 400
        reply = site.ask("GET", f"/gradio_api/file={path}")
        assert reply.status_code in (403, 404, 414)
    assert not any(SECRET in text or "root:" in text for _, _, text in site.replies)


def test_no_request_is_made_to_other_hosts(site: Site) -> None:
    (mine,) = site.upload(b"mine").json()
    urls = [
        "http://169.254.169.254/latest/meta-data/",
        "http://example.com/x.png",
        "https://8.8.8.8/",
        "ftp://h/x",
    ]
    urls += [
        "http://127.0.0.1:22/",
        "http://[::1]/",
        "//example.com/x",
        "data:image/png;base64,AAAA",
        "HTTP://h/",
    ]
    for url in urls:
        assert site.call(as_file(url)).status_code == 400
        assert site.answer(site.call(as_file(mine, url=url)))["error"]
        for place in ("file=", "file/", "proxy="):
            assert site.ask("GET", f"/gradio_api/{place}{url}").status_code in (400, 403, 404)


def malformed() -> Iterator[object]:
    """Calls that no page sends."""
    yield from (None, [], "x", 1, {}, {"data": None}, {"data": {}}, {"data": []}, {"data": [1, 2, 3]})
    for value in (1, "x", [], {}, [[]], True, {"path": 1}, {"path": None}, {"path": "x"}, {"meta": 1}):
        yield {"data": [value]}
    for meta in (None, {}, {"_type": 1}, {"_type": "gradio.Other"}):
        yield {"data": [{"path": "/etc/passwd", "meta": meta}]}
    deep: object = "x"
    for _ in range(200):
        deep = [{"path": deep}]
    yield {"data": [deep]}


def test_malformed_calls_are_refused(site: Site) -> None:
    for call in malformed():
        for place in ("call/read", "call/v2/read", "queue/join"):
            assert 400 <= site.ask("POST", f"/gradio_api/{place}", json=call).status_code < 500
    for body in (b"", b"{", b"\xff", b"[" * 100_000, b'{"data": [' * 50_000, b"1" * 10_000, b"NaN"):
        head = {"Content-Type": "application/json"}
        for place in ("call/read", "call/v2/read", "queue/join"):
            assert 400 <= site.ask("POST", f"/gradio_api/{place}", data=body, headers=head).status_code < 500
    for index in (-1, 99, 10**30, "0", None, 1.5, True, [], {}):
        call = {"data": [None], "fn_index": index, "session_hash": "s"}
        assert 400 <= site.ask("POST", "/gradio_api/queue/join", json=call).status_code < 500
    for name in ("other", "show", "", "read/../show", "%00", "a" * 5000):
        assert 400 <= site.ask("POST", f"/gradio_api/call/{name}", json={"data": [None]}).status_code < 500


CLOSED = (
    *(
        "run/read",
        "api/read",
        "component_server",
        "deep_link?session_hash=s",
        "stream/x",
        "vibe-edit",
        "runs",
    ),
    *("vibe-code", "process_recording", "custom_component/1/client/component/x", "profiling/traces"),
)


@pytest.mark.parametrize("place", CLOSED)
def test_the_rest_of_gradio_is_closed(site: Site, place: str) -> None:
    for method in ("GET", "POST", "PUT", "DELETE"):
        assert site.ask(method, f"/gradio_api/{place}", json={"data": [None]}).status_code == 404


def test_malformed_uploads_are_refused(site: Site) -> None:
    def send(body: bytes, kind: str) -> int:
        return site.ask("POST", "/gradio_api/upload", data=body, headers={"Content-Type": kind}).status_code

    form = "multipart/form-data"
    head = b'--b\r\nContent-Disposition: form-data; name="files"'
    assert send(b"x", "text/plain") == 400
    assert send(b"x", form) == 400
    assert send(b"x", f"{form}; boundary=b") == 400
    assert send(head + b"\r\n\r\nno file name\r\n--b--\r\n", f"{form}; boundary=b") == 400
    assert send(head + b'; filename="x"\r\n' + b"a: b\r\n" * 20_000, f"{form}; boundary=b") in (400, 413)
    assert send(head + b'; filename="x"\r\n\r\ncut off', f"{form}; boundary=b") < 500


def test_one_visitors_bad_call_does_not_spoil_anothers(site: Site, xray: Path, expected: Prediction) -> None:
    """Calls that come together are answered together, the deleted file and the empty call with the others."""
    (path,) = site.upload(xray.read_bytes()).json()
    gone = f"{Path(path).parent}/gone.png"
    calls = [site.call(as_file(each) if each else None) for each in (path, gone, None, path, gone, path)]
    answers = [site.answer(call) for call in calls]
    for number in (0, 3, 5):
        assert_honest(answers[number], expected)
    assert all("upload it again" in answers[number]["error"] for number in (1, 4))


# Loopback is down in a network of one's own; the call sets its flag IFF_UP by SIOCSIFFLAGS.
ALONE = """
import errno, fcntl, socket, struct, sys
from pathlib import Path
import requests
from running import running_app
bundle, folder, xray = map(Path, sys.argv[1:])
with socket.socket() as any_socket:
    fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh14x", b"lo", 1))
    assert any_socket.connect_ex(("192.0.2.1", 80)) == errno.ENETUNREACH
with running_app([bundle], folder, python=sys.executable) as app:
    sent = requests.post(app.url + "/gradio_api/upload", files={"files": ("a.png", xray.read_bytes())})
    call = {"data": [{"path": sent.json()[0], "meta": {"_type": "gradio.FileData"}}]}
    number = requests.post(app.url + "/gradio_api/call/read", json=call).json()["event_id"]
    print(requests.get(f"{app.url}/gradio_api/call/read/{number}").text)
"""


def test_it_starts_and_answers_without_a_network(cnn_bundle: Path, xray: Path, tmp_path: Path) -> None:
    alone = ["unshare", "--map-root-user", "--net"]
    may = subprocess.run([*alone, "true"], capture_output=True, text=True, check=False)
    if may.returncode:
        pytest.skip(f"no network of one's own: {may.stderr.strip()}")
    environment = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(Path(__file__).parent)])
    command = [*alone, sys.executable, "-c", ALONE, str(cnn_bundle), str(tmp_path), str(xray)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    assert '"error": null' in done.stdout
