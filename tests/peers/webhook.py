"""A receiver of webhooks for the tests: a standard library server, whose signatures are
checked by another program's library (standardwebhooks).

Usage: webhook.py PORT FILE SECRET [CERTIFICATE KEY]. It appends a line of JSON for each
request to FILE. How it behaves says the file FILE.mode, for each request anew: `ok`, or
what no good receiver does.
"""

import json
import pathlib
import ssl
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from standardwebhooks.webhooks import Webhook, WebhookVerificationError

port, file, secret = int(sys.argv[1]), pathlib.Path(sys.argv[2]), sys.argv[3]
mode_file = pathlib.Path(str(file) + ".mode")


class Receiver(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        mode = mode_file.read_text().strip() if mode_file.exists() else "ok"
        headers = {name.lower(): value for name, value in self.headers.items()}
        try:
            message = Webhook(secret).verify(body, headers)
        except WebhookVerificationError as error:
            self.note(mode="forged", why=str(error))
            return self.answer(400)
        if "message" in message:
            what = {"broker": message["broker"], "message": message["message"]}
        else:
            records = [record["sequence"] for record in message["records"]]
            what = {"log": message["log"], "records": records}
        self.note(mode=mode, id=headers["webhook-id"], type=headers["content-type"],
                  path=self.path, **what)
        if mode == "ok":
            return self.answer(204)
        if mode == "busy":
            return self.answer(503, ("retry-after", "1"))
        if mode == "elsewhere":
            return self.answer(307, ("location", f"http://127.0.0.1:{port}/elsewhere"))
        if mode == "garbage":
            self.wfile.write(b"\0\xff not http at all\r\n\r\n" * 100)
            self.close_connection = True
            return None
        if mode == "hangs":
            while mode_file.read_text().strip() == "hangs":
                time.sleep(0.05)
            self.close_connection = True
            return None
        raise ValueError(mode)

    def note(self, **what):
        with file.open("a") as out:
            out.write(json.dumps(what) + "\n")

    def answer(self, status, *headers):
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        if status != 204:
            self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", port), Receiver)
if len(sys.argv) > 4:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[4], sys.argv[5])
    server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
