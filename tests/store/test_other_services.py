"""Google's and Microsoft's object stores: what their servers are sent, and what they answer.

There is no emulator of either among Python's packages, so a small server on the loopback interface
keeps the objects, and takes no request that the services would refuse: a wrong path, no
signature, no condition where an object is created.
"""

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import PurePosixPath
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

import numpy as np
import pytest

from d4m.store import mirror as module
from d4m.store.mirror import mirror
from d4m.store.open_storage import parse_root
from d4m.store.store import ArtifactStore
from tests.object_stores import serving
from tests.store.units import ARRAYS, UNIT

DATE = "Sun, 01 Nov 2026 12:00:00 GMT"


class Service(ThreadingHTTPServer):
    """The objects of one bucket, and the rules of a service."""

    daemon_threads = True

    def __init__(self, place, condition, listing) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.place, self.condition, self.listing = place, condition, listing
        self.objects: dict[str, bytes] = {}
        self.lock = threading.Lock()
        self.authorizations = set[str]()
        self.wrong = list[str]()


class Answers(BaseHTTPRequestHandler):
    """Answers to the requests of a store: put, get, head, delete and list."""

    protocol_version = "HTTP/1.1"

    def do_PUT(self) -> None:
        name = self._name()
        content = self.rfile.read(int(self.headers["Content-Length"]))
        header, value = self.server.condition
        with self.server.lock:
            create = self.headers.get(header) == value
            if create and name in self.server.objects:
                self._answer(412 if header.startswith("x-goog") else 409)
                return
            self.server.objects[name] = content
        self._answer(201, headers={"ETag": _tag(content)})

    def do_GET(self) -> None:
        query = parse_qs(urlsplit(self.path).query)
        if "prefix" in query or "list-type" in query or "comp" in query:
            self._answer(200, self.server.listing(query, dict(self.server.objects)))
            return
        content = self.server.objects.get(self._name())
        if content is None:
            self._answer(404)
            return
        headers = {"ETag": _tag(content), "Last-Modified": DATE}
        if wanted := re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", "")):
            first, last = map(int, wanted.groups())
            headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
            self._answer(206, content[first : last + 1], headers)
        else:
            self._answer(200, content, headers)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_DELETE(self) -> None:
        self._answer(202 if self.server.objects.pop(self._name(), None) is not None else 404)

    def do_POST(self) -> None:
        """Delete the objects of a batch, as Microsoft's service does."""
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self._note_key()
        found = zip(
            re.findall(r"^Content-ID: (\d+)", body, re.MULTILINE),
            re.findall(r"^DELETE (\S+) HTTP", body, re.MULTILINE),
            strict=True,
        )
        answer = ""
        for number, path in found:
            self.server.objects.pop(unquote(path).removeprefix(self.server.place))
            head = f"Content-Type: application/http\r\nContent-ID: {number}\r\n\r\n"
            answer += f"--answer\r\n{head}HTTP/1.1 202 Accepted\r\n\r\n\r\n"
        kind = {"Content-Type": "multipart/mixed; boundary=answer"}
        self._answer(202, f"{answer}--answer--\r\n".encode(), kind)

    def log_message(self, *_: object) -> None:
        pass

    def _name(self) -> str:
        path = unquote(urlsplit(self.path).path)
        self._note_key()
        if not path.startswith(self.server.place):
            self.server.wrong.append(path)
        return path.removeprefix(self.server.place)

    def _note_key(self) -> None:
        self.server.authorizations.add(self.headers.get("Authorization", "").partition(":")[0])

    def _answer(self, status: int, content: bytes = b"", headers=()) -> None:
        self.send_response(status)
        for name, value in dict(headers).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _tag(content: bytes) -> str:
    return f'"{len(content)}-{hash(content)}"'


def _list_google(query, objects) -> bytes:
    names = sorted(n for n in objects if n.startswith(query["prefix"][0]))
    found = "".join(
        f"<Contents><Key>{escape(n)}</Key><Size>{len(objects[n])}</Size>"
        f"<LastModified>2026-11-01T12:00:00.000Z</LastModified><ETag>{escape(_tag(objects[n]))}</ETag></Contents>"
        for n in names
    )
    return f"<ListBucketResult><IsTruncated>false</IsTruncated>{found}</ListBucketResult>".encode()


def _list_microsoft(query, objects) -> bytes:
    names = sorted(n for n in objects if n.startswith(query["prefix"][0]))
    found = "".join(
        f"<Blob><Name>{escape(n)}</Name><Properties><Last-Modified>{DATE}</Last-Modified>"
        f"<Etag>{_tag(objects[n])[1:-1]}</Etag><Content-Type>text/plain</Content-Type><Content-Length>{len(objects[n])}</Content-Length>"
        f"</Properties></Blob>"
        for n in names
    )
    return f"<EnumerationResults><Blobs>{found}</Blobs><NextMarker/></EnumerationResults>".encode()


@pytest.fixture
def google(tmp_path, monkeypatch):
    """A bucket at Google's, reached by the key file that the environment names."""
    service = Service("/bucket/", ("x-goog-if-generation-match", "0"), _list_google)
    with serving(service) as address:
        key = {"gcs_base_url": address, "disable_oauth": True, "client_email": "",
               "private_key": "", "private_key_id": ""}  # fmt: skip
        (tmp_path / "key.json").write_text(json.dumps(key))
        monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT", str(tmp_path / "key.json"))
        yield service, "gs://bucket/team/store", {"", "Bearer "}  # no key, as the file says


@pytest.fixture
def microsoft(monkeypatch):
    """A container at Microsoft's, with the account and key of the environment."""
    service = Service("/container/", ("If-None-Match", "*"), _list_microsoft)
    with serving(service) as address:
        monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
        monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "c2VjcmV0")
        monkeypatch.setenv("AZURE_STORAGE_ENDPOINT", address)
        yield service, "az://container/team/store", {"SharedKey account"}


@pytest.fixture(params=["google", "microsoft"])
def service(request, tmp_path, monkeypatch):
    monkeypatch.setenv("D4M_CACHE", str(tmp_path / "cache"))
    return request.getfixturevalue(request.param)


def test_a_store_is_written_found_and_read_at_the_place_that_its_address_names(service):
    server, root, authorizations = service
    assert parse_root(root) == root
    first = ArtifactStore(root).publish_arrays(UNIT, ARRAYS, {})
    other = ArtifactStore(root).publish_arrays(UNIT, {**ARRAYS, "inertia": np.array(2.0)}, {})
    assert other == first  # the second writer has been refused by the condition
    store = ArtifactStore(root)
    assert store.find_all([UNIT]) == {UNIT.name: first}
    found = store.read_arrays(UNIT.stage, UNIT.key)
    assert {n: a.tobytes() for n, a in found.items()} == {n: a.tobytes() for n, a in ARRAYS.items()}
    assert server.wrong == []
    assert server.authorizations
    assert server.authorizations <= authorizations
    names = {PurePosixPath(name).relative_to("team/store").parts[0] for name in server.objects}
    assert names == {"objects"}
    store.verify(UNIT.stage, UNIT.key)


def test_images_are_copied_from_the_place_that_their_address_names(service, monkeypatch):
    monkeypatch.setattr(module, "_PIECE_BYTES", 1000)
    server, root, authorizations = service
    contents = {"a/1 é.png": b"one", "b/2.png": b"two", "large": bytes(range(256)) * 10}
    server.objects |= {f"team/store/{name}": content for name, content in contents.items()}
    server.objects["team/store_of_others/3.png"] = b"three"
    for _ in range(2):
        folder = mirror(root).folder
        found = {path for path in folder.rglob("*") if path.is_file()}
        assert {p.relative_to(folder).as_posix(): p.read_bytes() for p in found} == contents
    assert server.wrong == []
    assert server.authorizations <= authorizations
