"""Pictures a second of a real server (its port, its API) that one client draws with, and that many draw with at once.

    python -m tests.benchmarks.bench_server                     tiny, of openmoji.yaml's size, wide; random weights
    python -m tests.benchmarks.bench_server wide --clients 16 --rounds 5
    python -m tests.benchmarks.bench_server wide --mixed        every client with sampling settings of its own

Both sides are measured in turn, in one process with the clients; what is printed are medians over the rounds. Processor
seconds of a picture say the same of a machine that others use too; a lone client also waits for company. The number of
threads is torch's: OMP_NUM_THREADS=1 for one core.
"""

from __future__ import annotations

import argparse
import http.client
import json
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from tests.untrained import build_model, text_tokenizer, tiny_config
from vargpt_lightning.checkpoints.hub import VARGPT
from vargpt_lightning.data.text.text_tokenizer import TextTokenizer
from vargpt_lightning.inference.assistant import Assistant
from vargpt_lightning.models.core.config import (
    DecoderConfig,
    LanguageConfig,
    TokenizerConfig,
    VARGPTConfig,
    VisionConfig,
)
from vargpt_lightning.serving.limits import Limits
from vargpt_lightning.serving.server import Service, http_server, listen

OPENMOJI = TokenizerConfig(
    scales=(1, 2, 3, 5, 8),
    channels=8,
    channel_multipliers=(1, 2, 4, 8),
    residual_blocks=1,
    code_size=16,
    vocabulary=512,
)
PARTS = {
    "openmoji": {
        "language": LanguageConfig(width=192, layers=2, heads=3, mlp=512, vocabulary=1500, max_positions=512),
        "tokenizer": OPENMOJI,
        "decoder": DecoderConfig(depth=4, width=256, heads=4, classes=1, shared_adaln=True),
    },
    "wide": {
        "language": LanguageConfig(width=512, layers=4, heads=8, vocabulary=1500, max_positions=512),
        "tokenizer": OPENMOJI,
        "decoder": DecoderConfig(depth=8, width=512, heads=8, classes=1, shared_adaln=True),
    },
}
SIZES = ("tiny", *PARTS)


def config_of(size: str, tokens: TextTokenizer) -> VARGPTConfig:
    """A model's configuration; none of them sees pictures."""
    config = replace(tiny_config(tokens), vision=VisionConfig(kind="none"))
    return replace(config, **PARTS.get(size, {}))


@contextmanager
def serving(model: VARGPT, tokens: TextTokenizer, batch: int | None) -> Iterator[int]:
    """Serve a model at a free port."""
    limits = Limits(requests_a_minute=10**9, **({"batch": batch} if batch else {}))
    service = Service(Assistant(model, tokens), "bench", limits, page=False)
    with listen("127.0.0.1", 0, None) as place:
        server = http_server(service)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [place]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield place.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join(20)


def body(client: int, mixed: bool) -> bytes:
    """A request to draw; with settings that no other client has, and a prompt of another length, where wanted."""
    asked: dict[str, object] = {"prompt": "Please draw a shamrock.", "seed": client}
    if mixed:
        asked["prompt"] = "Please draw a shamrock." + " Please." * (client % 5)
        asked |= {"image_top_k": 5 + client, "image_top_p": 0.99 - client / 100}
        asked |= {"image_temperature": 0.8 + client / 50, "cfg": 1 + client / 10}
    return json.dumps(asked).encode()


def rate(port: int, clients: int, pictures: int, mixed: bool) -> tuple[float, float, float]:
    """Clients ask for one picture after the other: pictures a second, processor seconds a picture, median latency."""
    took: list[float] = []

    def draw(client: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        for _ in range(pictures):
            begun = time.perf_counter()
            connection.request(
                "POST", "/v1/images/generations", body(client, mixed), {"Content-Type": "application/json"}
            )
            response = connection.getresponse()
            content = response.read()
            assert response.status == 200, content
            took.append(time.perf_counter() - begun)
        connection.close()

    threads = [threading.Thread(target=draw, args=(client,)) for client in range(clients)]
    begun, worked = time.perf_counter(), time.process_time()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    worked = time.process_time() - worked
    count = clients * pictures
    return count / (time.perf_counter() - begun), worked / count, statistics.median(took)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sizes", nargs="*", help=f"of {', '.join(SIZES)}; all by default")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pictures", type=int, default=3, help="of each client in a round")
    parser.add_argument("--mixed", action="store_true", help="every client with sampling settings of its own")
    parser.add_argument("--batch", type=int, help="--max-batch of the server")
    options = parser.parse_args()
    print(f"{'':<20}{'pictures a second':^30}{'processor s a picture':^30}{'latency':^20}")
    titles = f"{'1 client':>10}{f'{options.clients} clients':>12}{'ratio':>8}"
    print(f"{'model':<10}{'weights':>10}{titles}{titles}{'1':>10}{options.clients:>10}")
    for size in options.sizes or SIZES:
        tokens = text_tokenizer()
        model = build_model(config_of(size, tokens)).eval()
        weights = sum(each.numel() for each in model.parameters())
        one, many = [], []
        with serving(model, tokens, options.batch) as port:
            rate(port, options.clients, 1, options.mixed)
            for _ in range(options.rounds):
                one.append(rate(port, 1, 4 * options.pictures, options.mixed))
                many.append(rate(port, options.clients, options.pictures, options.mixed))
        alone, together = ([statistics.median(each) for each in zip(*side, strict=True)] for side in (one, many))
        rates = f"{alone[0]:>10.1f}{together[0]:>12.1f}{together[0] / alone[0]:>8.2f}"
        work = f"{alone[1]:>10.4f}{together[1]:>12.4f}{alone[1] / together[1]:>8.2f}"
        print(f"{size:<10}{weights / 1e6:>8.2f} M{rates}{work}{alone[2]:>10.3f}{together[2]:>10.3f}", flush=True)


if __name__ == "__main__":
    main()
