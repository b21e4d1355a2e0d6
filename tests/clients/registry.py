"""Debian's docker-registry on loopback, and models in it as Ollama's own registry has them."""

import hashlib
import http.client
import json
import os
import pathlib
import shutil
import socket
import subprocess
import time
import urllib.parse

ROOT = pathlib.Path(__file__).resolve().parents[2]
TOOLS = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "tools" / "usr" / "bin"
MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
START_LIMIT_S = 30


class Registry:
    """A registry that runs until `stop`."""

    def __init__(self, directory):
        program = shutil.which("docker-registry") or TOOLS / "docker-registry"
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.address = f"127.0.0.1:{probe.getsockname()[1]}"
        config = directory / "registry.json"
        # YAML is a superset of JSON.
        config.write_text(
            json.dumps(
                {
                    "version": 0.1,
                    "log": {"level": "error", "accesslog": {"disabled": True}},
                    "storage": {"filesystem": {"rootdirectory": str(directory / "registry")}},
                    "http": {"addr": self.address},
                }
            )
        )
        self.process = subprocess.Popen([program, "serve", config], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.monotonic() + START_LIMIT_S
        while not self.answers():
            assert self.process.poll() is None, "the registry ended before it listened"
            assert time.monotonic() < end, "the registry did not listen in time"
            time.sleep(0.02)

    def answers(self):
        try:
            return self.request("GET", "/v2/")[0] == 200
        except OSError:
            return False

    def stop(self):
        self.process.terminate()
        self.process.wait(timeout=30)

    def request(self, method, path, body=None, headers=None):
        connection = http.client.HTTPConnection(self.address, timeout=60)
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            response.read()
            return response.status, response.headers
        finally:
            connection.close()

    def push(self, repository, tag, layers):
        """Puts a model there: `layers` are kinds (`model`, `params`, ...) with their bytes. Gives its full name."""
        config = self.push_blob(repository, b'{"model_format":"gguf"}', "application/vnd.docker.container.image.v1+json")
        described = [
            self.push_blob(repository, content, f"application/vnd.ollama.image.{kind}") for kind, content in layers
        ]
        manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": described}
        path = f"/v2/{repository}/manifests/{tag}"
        status, _ = self.request("PUT", path, json.dumps(manifest), {"content-type": MANIFEST})
        assert status == 201, f"the manifest was answered with {status}"
        return f"{self.address}/{repository}:{tag}"

    def push_blob(self, repository, content, media_type):
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        status, headers = self.request("POST", f"/v2/{repository}/blobs/uploads/")
        assert status == 202, f"an upload was answered with {status}"
        place = urllib.parse.urlsplit(headers["location"])
        query = urllib.parse.urlencode([*urllib.parse.parse_qsl(place.query), ("digest", digest)])
        headers = {"content-type": "application/octet-stream", "content-length": str(len(content))}
        status, _ = self.request("PUT", f"{place.path}?{query}", content, headers)
        assert status == 201, f"a blob was answered with {status}"
        return {"mediaType": media_type, "digest": digest, "size": len(content)}
