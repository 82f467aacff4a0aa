#!/usr/bin/env bash
# ms-vlmeval 0.0.20: its OpenAI client enlarges pictures with a side below 100 pixels, and sends every picture as JPEG.
#
# A digit of 28 x 28 pixels arrives as 100 x 100, a line of text of 600 x 20 as 3000 x 100: 25 times the pixels, and as
# many times the visual tokens of a model that takes pictures as they are. PNG files arrive as JPEG at Pillow's quality
# of 75, with a quarter of the colour samples. A model in VLMEvalKit's own process is given the file itself, so the same
# model answers about other pictures behind a server. Nothing is said, and no argument of the client changes it: only
# the environment variable VLMEVAL_MIN_IMAGE_EDGE moves the 100 pixels.
#
# Output seen:
#   28 x 28 PNG   arrives as 100 x 100 JPEG, colour 4:2:0
#   600 x 20 PNG  arrives as 3000 x 100 JPEG, colour 4:2:0
#   100 x 100 PNG arrives as 100 x 100 JPEG, colour 4:2:0
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
pip() { "$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check "$@" >&2; }
pip pillow==12.3.0 numpy==2.4.6 pandas==3.1.1 requests==2.34.2 filelock==4.3.1 sty==1.0.6 validators==0.36.0 \
    huggingface-hub==2.4.0
pip --no-deps ms-vlmeval==0.0.20 # what it needs for data sets and models has no part in this
cat >"$work/show.py" <<'PYTHON'
import base64
import importlib.util
import io
import json
import sys
import threading
import types
from http.server import BaseHTTPRequestHandler, HTTPServer

from PIL import Image, JpegImagePlugin

# The packages import all models and clients there are when they are opened; the client alone needs none of them.
folder = importlib.util.find_spec("vlmeval").submodule_search_locations[0]
for name, path in (("vlmeval", folder), ("vlmeval.api", f"{folder}/api")):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [path]
from vlmeval.api.gpt import GPT4V  # noqa: E402

SAMPLING = {0: "4:4:4", 1: "4:2:2", 2: "4:2:0"}
asked = []


class Endpoint(BaseHTTPRequestHandler):
    def do_POST(self):
        asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        answer = json.dumps({"choices": [{"index": 0, "message": {"content": "yes"}}]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


def sent(size, client):
    path = f"{sys.argv[1]}/picture.png"
    Image.new("RGB", size, "red").save(path)
    question = [{"type": "image", "value": path}, {"type": "text", "value": "What is this?"}]
    assert client.generate(question) == "yes"
    url = asked.pop()["messages"][0]["content"][0]["image_url"]["url"]
    return Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))


server = HTTPServer(("127.0.0.1", 0), Endpoint)
threading.Thread(target=server.serve_forever, daemon=True).start()
client = GPT4V("any", key="unused", api_base=f"http://127.0.0.1:{server.server_port}/v1/chat/completions", retry=1)
found = []
for size in ((28, 28), (600, 20), (100, 100)):
    picture = sent(size, client)
    sampling = SAMPLING[JpegImagePlugin.get_sampling(picture)]
    found.append((picture.size, picture.format, sampling))
    name = "{} x {} PNG".format(*size)
    print(f"{name:13} arrives as {picture.width} x {picture.height} {picture.format}, colour {sampling}")
server.shutdown()
expected = [(size, "JPEG", "4:2:0") for size in ((100, 100), (3000, 100), (100, 100))]
sys.exit(0 if found == expected else "the behaviour has changed")
PYTHON
"$work/venv/bin/python" "$work/show.py" "$work"
