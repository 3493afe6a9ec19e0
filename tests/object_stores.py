"""Servers of object stores for tests, on the loopback interface only."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import HTTPServer
from pathlib import Path
from typing import Any

import pytest

ACCESS = {
    "AWS_ACCESS_KEY_ID": "tests",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_REGION": "us-east-1",
}
BUCKET = "tests"
_CLIENT = {
    "aws_access_key_id": ACCESS["AWS_ACCESS_KEY_ID"],
    "aws_secret_access_key": ACCESS["AWS_SECRET_ACCESS_KEY"],
    "region_name": ACCESS["AWS_REGION"],
}
_PATIENCE_S = 60
_WEED = Path(sys.executable).with_name("weed")


@contextmanager
def moto(change: Callable[[dict[str, Any]], str | None] = lambda _: None) -> Iterator[str]:
    """Run moto's S3 in this process; yield its address.

    Args:
        change: is called with the environment (WSGI) of every request, and may return the status
            with which to refuse it.
    """
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Quiet(WSGIRequestHandler):
        def log_request(self, *_: object) -> None:
            pass

    served = DomainDispatcherApplication(create_backend_app)

    def application(environ, start_response):
        if refusal := change(environ):
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            start_response(refusal, [("Content-Length", "0")])
            return [b""]
        return served(environ, start_response)

    server = make_server("127.0.0.1", 0, application, threaded=True, request_handler=Quiet)
    with serving(server) as address:
        yield address


@contextmanager
def careless_moto() -> Iterator[str]:
    """Run an S3 that lets two writers create the same object; it has the bucket of the tests."""

    def forget(environ: dict[str, Any]) -> None:
        environ.pop("HTTP_IF_NONE_MATCH", None)

    with moto(forget) as address:
        make_bucket(address)
        yield address


@contextmanager
def serving(server: HTTPServer) -> Iterator[str]:
    """Answer requests in a thread; yield the address."""
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class SeaweedFS:
    """A SeaweedFS server, which keeps its data in a folder and can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "data").mkdir(parents=True)
        self._ports = _free_ports()
        self.address = f"http://127.0.0.1:{self._ports['s3.port']}"
        keys = {
            "accessKey": ACCESS["AWS_ACCESS_KEY_ID"],
            "secretKey": ACCESS["AWS_SECRET_ACCESS_KEY"],
        }
        actions = ["Admin", "Read", "Write", "List"]
        identity = {"name": "tests", "credentials": [keys], "actions": actions}
        (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))

    def start(self) -> None:
        ports = [f"-{name}={port}" for name, port in self._ports.items()]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *(_WEED, "server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3"),
                    *("-s3.ip.bind=127.0.0.1", "-s3.port.iceberg=0", "-s3.port.lance=0"),
                    *(f"-s3.config={self.folder / 's3.json'}", f"-dir={self.folder / 'data'}"),
                    *("-master.volumeSizeLimitMB=64", "-volume.max=20"),
                    *("-master.telemetry=false", *ports),
                ],
                stdout=log,
                stderr=log,
                cwd=self.folder,
            )
        deadline = time.monotonic() + _PATIENCE_S
        while not self._is_up():
            assert self._process.poll() is None, (self.folder / "log").read_text()[-2000:]
            assert time.monotonic() < deadline, (self.folder / "log").read_text()[-2000:]
            time.sleep(0.1)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def _is_up(self) -> bool:
        """Return whether an object can be written, which needs all parts of the server."""
        import boto3
        from botocore.exceptions import BotoCoreError, ClientError

        client = boto3.client("s3", endpoint_url=self.address, **_CLIENT)
        try:
            with suppress(
                client.exceptions.BucketAlreadyOwnedByYou, client.exceptions.BucketAlreadyExists
            ):
                client.create_bucket(Bucket=BUCKET)
            client.put_object(Bucket=BUCKET, Key="up", Body=b"up")
        except (BotoCoreError, ClientError):
            return False
        finally:
            client.close()
        return True


def make_bucket(address: str) -> None:
    """Make the bucket of the tests."""
    import boto3

    client = boto3.client("s3", endpoint_url=address, **_CLIENT)
    client.create_bucket(Bucket=BUCKET)
    client.close()


class Files:
    """The objects of the tests' bucket below a prefix, written and removed like files."""

    def __init__(self, address: str, prefix: str) -> None:
        import boto3

        self.server = address
        self.address = f"s3://{BUCKET}/{prefix}"
        self._prefix = prefix
        self._client = boto3.client("s3", endpoint_url=address, **_CLIENT)

    def put(self, name: str, content: bytes = b"") -> None:
        self._client.put_object(Bucket=BUCKET, Key=f"{self._prefix}/{name}", Body=content)

    def remove(self, name: str) -> None:
        self._client.delete_object(Bucket=BUCKET, Key=f"{self._prefix}/{name}")

    def upload(self, folder: Path) -> None:
        for file in folder.rglob("*"):
            if file.is_file():
                self.put(file.relative_to(folder).as_posix(), file.read_bytes())

    def close(self) -> None:
        self._client.close()


@contextmanager
def environment(address: str, cache: Path) -> Iterator[None]:
    """Let this process and those that it starts use a server."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        for name, value in (ACCESS | {"AWS_ENDPOINT_URL": address}).items():
            patch.setenv(name, value)
        patch.setenv("D4M_CACHE", str(cache))
        yield


def _free_ports() -> dict[str, int]:
    names = (
        *("master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port"),
        *("filer.port.grpc", "s3.port", "s3.port.grpc"),
    )
    sockets = [socket.socket() for _ in names]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = {name: each.getsockname()[1] for name, each in zip(names, sockets, strict=True)}
    for each in sockets:
        each.close()
    return ports
