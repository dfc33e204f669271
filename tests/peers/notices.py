"""Stand-ins for Slack, for workflows of Microsoft Teams and for PagerDuty, none of which can run
here. What Slack would say of a message says Slack's own library (slack_sdk), which knows the
limits of each block; that of an event says what is written of the Events API v2, by hand. A
message for Teams is taken as it is: another program looks at it.

Usage: notices.py PORT FILE. It appends a line of JSON for each request to FILE, and answers as the
services do. Where FILE.mode says `busy`, it asks to be left alone for a while.
"""

import json
import pathlib
import re
import sys
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from slack_sdk.models.blocks import Block

port, file = int(sys.argv[1]), pathlib.Path(sys.argv[2])
mode_file = pathlib.Path(str(file) + ".mode")


def slack(body):
    """What is wrong with a message for an incoming webhook."""
    if set(body) != {"text", "blocks"} or not body["text"]:
        return "it needs a text"
    if len(body["blocks"]) > 50:
        return "too many blocks"
    for block in body["blocks"]:
        parsed = Block.parse(block)
        if parsed is None:
            return f"no such block: {block}"
        parsed.validate_json()
        # Whatever the library does not know is not in what it writes.
        if parsed.to_dict() != block:
            return f"{block} is read as {parsed.to_dict()}"
    return None


def pagerduty(event):
    """What is wrong with an event, by the documentation of the Events API v2."""
    known = {"routing_key", "event_action", "dedup_key"}
    if event["event_action"] == "trigger":
        known |= {"client", "client_url", "payload", "links", "images"}
    elif event["event_action"] not in ("acknowledge", "resolve"):
        return "no such action"
    if not set(event) <= known:
        return f"unknown keys: {set(event) - known}"
    if not re.fullmatch("[0-9a-zA-Z]{32}", event["routing_key"]):
        return "no integration key"
    if not 0 < len(event["dedup_key"]) <= 255:
        return "the key is too long"
    if event["event_action"] != "trigger":
        return None
    payload = event["payload"]
    known = {"summary", "source", "severity", "timestamp", "component", "group", "class", "custom_details"}
    if not set(payload) <= known or not {"summary", "source", "severity"} <= set(payload):
        return f"unknown or missing keys: {set(payload)}"
    if len(payload["summary"]) > 1024 or payload["severity"] not in ("critical", "error", "warning", "info"):
        return "summary or severity"
    datetime.fromisoformat(payload["timestamp"].replace("Z", "+00:00"))
    for link in event["links"]:
        if not set(link) <= {"href", "text"} or not link["href"].startswith("https://"):
            return "a link"
    return None


class Receiver(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        service = self.path.strip("/").split("/")[0]
        if mode_file.exists() and mode_file.read_text().strip() == "busy":
            return self.answer(429, b"", ("retry-after", "1"))
        wrong = None
        try:
            wrong = {"slack": slack, "pagerduty": pagerduty}.get(service, lambda _: None)(body)
        except Exception as error:  # of the library, or of a key that is missing
            wrong = repr(error)
        with file.open("a") as out:
            out.write(json.dumps({"service": service, "wrong": wrong, "body": body}) + "\n")
        if wrong:
            return self.answer(400, b"invalid_payload")
        if service == "slack":
            return self.answer(200, b"ok")
        return self.answer(202, json.dumps({"status": "success"}).encode())

    def answer(self, status, body, *headers):
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


ThreadingHTTPServer(("127.0.0.1", port), Receiver).serve_forever()
