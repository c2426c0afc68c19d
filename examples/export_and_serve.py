"""Save a net, write it as C, and serve it over HTTP, with the standard library alone.

Shows: save and load, fold, to_c, many threads that predict on one net.
"""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.request import urlopen

import numpy as np

import fastnn as fn
from fastnn.datasets import load_digits
from fastnn.export import to_c

(x, y), (x_test, y_test) = load_digits()
net = fn.Sequential([fn.Scale(1 / 16), fn.Dense(64), fn.BatchNorm(), fn.ReLU(), fn.Dense(10)], input_size=64, seed=0)
fn.Trainer(net, optimizer=fn.Adam(3e-3)).fit(x, y, epochs=10, verbose=0)

with TemporaryDirectory() as folder:
    net.save(Path(folder) / "digits.safetensors")
    for path in to_c(net, Path(folder) / "digits.c"):
        print(f"{path.name}: {path.stat().st_size:,} bytes")
    served = fn.load(Path(folder) / "digits.safetensors").fold()


class Handler(BaseHTTPRequestHandler):
    """POST a list of rows, get a list of rows of probabilities."""

    def do_POST(self):
        try:
            rows = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status, answer = 200, served.predict_proba(rows, n_threads=1).tolist()
        except (TypeError, ValueError) as error:  # not JSON, or not rows of 64 numbers: the message says which
            status, answer = 400, {"error": str(error)}
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def ask(rows):
    with urlopen(address, json.dumps(rows.tolist()).encode()) as reply:
        return json.load(reply)


with ThreadingHTTPServer(("localhost", 0), Handler) as server:
    address = f"http://localhost:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever).start()
    with ThreadPoolExecutor(4) as clients:
        answers = np.concatenate(list(clients.map(ask, np.array_split(x_test, 20))))
    server.shutdown()

assert np.allclose(answers, net.predict_proba(x_test), atol=1e-5)
print(f"served {len(answers)} rows, {np.mean(answers.argmax(axis=1) == y_test):.1%} right")
