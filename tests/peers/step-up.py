"""A front on loopback that wants a fresh login for whatever is behind it (RFC 9470).

    step-up.py PORT BEHIND MAX_AGE

Each request goes on to the server at the port BEHIND, and its answer back; but where the
bearer token does not say that the login was at most MAX_AGE seconds ago (`auth_time`), the
answer is a challenge. Nothing is verified: that is for whoever is behind it.
"""

import base64
import json
import sys
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PORT, BEHIND, MAX_AGE = (int(argument) for argument in sys.argv[1:4])


def login_at(header):
    payload = header.split(" ")[-1].split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return claims.get("auth_time", 0)


class Front(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, status, headers, body):
        self.send_response(status)
        for name, value in headers:
            if name.lower() not in ("content-length", "connection", "date", "server"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def pass_on(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        # With one second for what is on its way.
        if time.time() - login_at(self.headers["Authorization"]) > MAX_AGE + 1:
            code = "insufficient_user_authentication"
            challenge = f'Bearer realm="front", error="{code}", max_age="{MAX_AGE}"'
            refusal = json.dumps({"error": code, "error_description": "the login is too old"})
            headers = [("WWW-Authenticate", challenge), ("Content-Type", "application/json")]
            return self.answer(401, headers, refusal.encode())
        headers = {name: value for name, value in self.headers.items() if name.lower() not in ("connection", "content-length")}
        request = urllib.request.Request(
            f"http://127.0.0.1:{BEHIND}{self.path}", body or None, headers, method=self.command
        )
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                self.answer(response.status, response.headers.items(), response.read())
        except urllib.error.HTTPError as refused:
            self.answer(refused.code, refused.headers.items(), refused.read())

    do_GET = do_POST = pass_on


ThreadingHTTPServer(("127.0.0.1", PORT), Front).serve_forever()
