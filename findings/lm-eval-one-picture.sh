#!/usr/bin/env bash
# lm-eval 0.4.13: over a chat endpoint a question about two pictures is sent with one, and with both <image> in its words.
#
# `local-chat-completions` sends `max_images` pictures of a question, 1 unless given; for `hf-multimodal` it is 999. The
# others are dropped: a line of the log names the number, none says that pictures are missing. What is sent comes before
# all words, and the <image> that mark the pictures' places stay in the words, where `hf-multimodal` puts the model's own
# token. So the same task asks the same model another question once it is behind a server.
#
# Output seen:
#   max_images not given: red picture | 'Is the shape in <image> larger than the one in <image>?'
#   max_images=2:         red picture | blue picture | 'Is the shape in <image> larger than the one in <image>?'
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
pip() { "$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check "$@" >&2; }
pip jinja2==3.1.6 pyyaml==6.0.4 numpy==2.4.6 tqdm==4.70.1 requests==2.34.2 aiohttp==3.14.5 tenacity==9.2.1 \
    typing-extensions==4.16.0 pillow==12.3.0
pip --no-deps lm-eval==0.4.13 # what it needs to score tasks has no part in this
cat >"$work/show.py" <<'PYTHON'
import base64
import io
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import lm_eval.models  # noqa: F401  names the clients
from lm_eval.api.instance import Instance
from lm_eval.api.registry import get_model
from PIL import Image

NAMES = {(255, 0, 0): "red picture", (0, 0, 255): "blue picture"}
asked = []


class Endpoint(BaseHTTPRequestHandler):
    def do_POST(self):
        asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        answer = json.dumps({"choices": [{"index": 0, "message": {"content": "yes"}}]}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


def named(part) -> str:
    if part["type"] == "text":
        return repr(part["text"])
    picture = Image.open(io.BytesIO(base64.b64decode(part["image_url"]["url"].partition(",")[2])))
    return NAMES[picture.getpixel((0, 0))]


server = HTTPServer(("127.0.0.1", 0), Endpoint)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{server.server_port}/v1/chat/completions"
words = "Is the shape in <image> larger than the one in <image>?"
pictures = [Image.new("RGB", (32, 32), colour) for colour in ("red", "blue")]
found = []
for name, settings in (("max_images not given:", {}), ("max_images=2:", {"max_images": 2})):
    client = get_model("local-chat-completions")(base_url=url, model="any", eos_string="<end>", **settings)
    prompt = client.apply_chat_template([{"role": "user", "content": words}])
    arguments = (prompt, {"until": ["\n"]}, {"visual": pictures})
    client.generate_until([Instance("generate_until", {}, arguments, 0)], disable_tqdm=True)
    found.append([named(part) for part in asked.pop()["messages"][0]["content"]])
    print(f"{name:21} {' | '.join(found[-1])}")
server.shutdown()
expected = [["red picture", repr(words)], ["red picture", "blue picture", repr(words)]]
sys.exit(0 if found == expected else "the behaviour has changed")
PYTHON
"$work/venv/bin/python" "$work/show.py"
