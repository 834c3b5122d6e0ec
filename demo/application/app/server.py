#!/usr/bin/env python3
"""A small web application: a page, and an API that says which revision is running."""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

HERE = Path(__file__).resolve().parent


class Application(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/api/revision":
            self.answer("application/json", json.dumps({"revision": REVISION}).encode())
        elif self.path == "/":
            self.answer("text/html; charset=utf-8", (HERE / "index.html").read_bytes())
        else:
            self.send_error(404)

    def answer(self, kind, body):
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


REVISION = (HERE / "revision.txt").read_text().strip()
ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Application).serve_forever()
