"""A stand-in for AWS IAM Identity Center, which cannot run here, and for the sign-in
page of the AWS console.

Written from the published APIs:
  https://docs.aws.amazon.com/singlesignon/latest/OIDCAPIReference/
  https://docs.aws.amazon.com/singlesignon/latest/PortalAPIReference/
  https://docs.aws.amazon.com/IAM/latest/UserGuide/id_roles_providers_enable-console-custom-url.html
and judged by the AWS CLI, which logs in here as it does at AWS. Each request is held
against the models of those APIs that botocore has.

    identity-center.py '{"port": 1234, "accounts": {"111122223333": ["Prod", ["Admin"]]}}'

It speaks plain HTTP. As a proxy (CONNECT) it is the hosts of `tls` for clients that know
no other address: {"oidc.us-east-1.amazonaws.com": ["cert.pem", "key.pem"]}.

With `sts`, the address of a moto server, the credentials are those of a real session there.

GET /_log: what was asked. GET /_secrets: all that must not show. POST /_set: new values for the options below. POST /_end: forgets
"clients", "tokens" or "refresh_tokens".
"""

import base64
import hashlib
import html
import json
import secrets
import ssl
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

import boto3
import botocore.session

OPTIONS = {
    "port": 0,
    "accounts": {},
    "sts": None,
    "tls": {},
    "token_seconds": 28800,
    "client_seconds": 90 * 86400,
    "role_seconds": 3600,
    "interval": 1,
    "page": 2,  # how much a page of a list has at most
    "slow_down": 0,  # how many polls are told to slow down
    "status": {},  # {"/token": 503}: answers so instead
    "retry_after": None,  # and asks to be left alone for so many seconds
    "throttled": 0,  # how many requests to the portal are too many
    "start_url": "https://example.awsapps.com/start",
    "hold": None,  # a text: the next request with it waits for "release" to be set
    "say_type": "header",  # where a refusal names its kind: "header" or "body"
}
OPTIONS.update(json.loads(sys.argv[1]))
RELEASED = threading.Event()
GRANTS = {
    "code": "authorization_code",
    "device": "urn:ietf:params:oauth:grant-type:device_code",
    "refresh": "refresh_token",
}
STATUS = {
    "InvalidClientException": 401,
    "UnauthorizedException": 401,
    "ForbiddenException": 403,
    "ResourceNotFoundException": 404,
    "TooManyRequestsException": 429,
}
LOCK = threading.RLock()
LOG, CLIENTS, DEVICES, CODES, TOKENS, REFRESH, SIGNIN = [], {}, {}, {}, {}, {}, {}
MODELS = {}
for service in ["sso", "sso-oidc"]:
    model = botocore.session.get_session().get_service_model(service)
    for name in model.operation_names:
        operation = model.operation_model(name)
        MODELS[operation.http["method"], operation.http["requestUri"]] = operation


class Refused(Exception):
    def __init__(self, kind, words):
        self.kind, self.words = kind, words


def fits(shape, value):
    """Whether a value is of a shape."""
    types = {"string": str, "integer": int, "long": int, "list": list, "boolean": bool}
    if not isinstance(value, types[shape.type_name]):
        return False
    return shape.type_name != "list" or all(fits(shape.member, one) for one in value)


def check(operation, headers, query, body):
    """What the model of the API says of a request; its members by name."""
    shape = operation.input_shape
    asked, known = {}, set()
    for name, member in shape.members.items():
        where, wire = member.serialization.get("location"), member.serialization.get("name", name)
        known.add((where, wire))
        value = {"header": headers.get(wire), "querystring": query.get(wire)}.get(where, body.get(wire))
        if value is not None and where == "querystring" and member.type_name == "integer":
            value = int(value)
        if value is not None:
            if not fits(member, value):
                raise Refused("InvalidRequestException", f"{name} is no {member.type_name}")
            asked[name] = value
    for name in shape.required_members:
        if not asked.get(name):
            raise Refused("InvalidRequestException", f"{name} is missing")
    for where, given in [(None, body), ("querystring", query)]:
        for wire in given:
            if (where, wire) not in known:
                raise Refused("InvalidRequestException", f"{wire} is no member of {operation.name}")
    return asked


def client(asked):
    known = CLIENTS.get(asked["clientId"])
    if not known or known["secret"] != asked["clientSecret"] or known["until"] < time.time():
        raise Refused("InvalidClientException", "the client is not registered")
    return known


def tokens(client_id):
    access, refresh = "aoa" + secrets.token_urlsafe(40), "aor" + secrets.token_urlsafe(40)
    TOKENS[access] = time.time() + OPTIONS["token_seconds"]
    answer = {"accessToken": access, "tokenType": "Bearer", "expiresIn": OPTIONS["token_seconds"]}
    if "sso:account:access" in CLIENTS[client_id]["scopes"]:
        REFRESH[refresh] = client_id
        answer["refreshToken"] = refresh
    return answer


def register_client(asked):
    if asked["clientType"] != "public":
        raise Refused("InvalidClientMetadataException", "only public clients register")
    grants = asked.get("grantTypes", [GRANTS["device"], GRANTS["refresh"]])
    if not set(grants) <= set(GRANTS.values()):
        raise Refused("UnsupportedGrantTypeException", "there is no such grant type")
    if GRANTS["code"] in grants:
        if not asked.get("issuerUrl") or not asked.get("redirectUris"):
            raise Refused("InvalidRequestException", "issuerUrl and redirectUris are missing")
        if asked["issuerUrl"] != OPTIONS["start_url"]:
            raise Refused("InvalidRequestException", "there is no such instance")
    name, until = secrets.token_urlsafe(16), int(time.time()) + OPTIONS["client_seconds"]
    CLIENTS[name] = {
        "secret": "secret-" + secrets.token_urlsafe(24),
        "until": until,
        "grants": grants,
        "scopes": asked.get("scopes", []),
        "redirects": asked.get("redirectUris", []),
    }
    return {
        "clientId": name,
        "clientSecret": CLIENTS[name]["secret"],
        "clientIdIssuedAt": int(time.time()),
        "clientSecretExpiresAt": until,
    }


def start_device_authorization(asked):
    if GRANTS["device"] not in client(asked)["grants"]:
        raise Refused("UnauthorizedClientException", "the client may not use this grant")
    if asked["startUrl"] != OPTIONS["start_url"]:
        raise Refused("InvalidRequestException", "there is no such start URL")
    code = "".join(secrets.choice("BCDFGHJKLMNPQRSTVWXZ") for _ in range(8))
    user_code, device_code = f"{code[:4]}-{code[4:]}", secrets.token_urlsafe(32)
    DEVICES[device_code] = {"user_code": user_code, "client": asked["clientId"], "state": "pending", "polled": 0}
    page = f"http://127.0.0.1:{OPTIONS['port']}/device"
    return {
        "deviceCode": device_code,
        "userCode": user_code,
        "verificationUri": page,
        "verificationUriComplete": f"{page}?{urlencode({'user_code': user_code})}",
        "expiresIn": 600,
        "interval": OPTIONS["interval"],
    }


def create_token(asked):
    known, grant = client(asked), asked["grantType"]
    if grant not in known["grants"]:
        raise Refused("UnauthorizedClientException", "the client may not use this grant")
    if grant == GRANTS["device"]:
        device = DEVICES.get(asked.get("deviceCode"))
        if not device or device["client"] != asked["clientId"]:
            raise Refused("InvalidGrantException", "there is no such device code")
        if OPTIONS["slow_down"] > 0:
            OPTIONS["slow_down"] -= 1
            raise Refused("SlowDownException", "too often")
        if device["state"] == "pending":
            raise Refused("AuthorizationPendingException", "the person has not logged in yet")
        del DEVICES[asked["deviceCode"]]
        if device["state"] == "denied":
            raise Refused("AccessDeniedException", "the person said no")
    elif grant == GRANTS["code"]:
        code = CODES.pop(asked.get("code"), None)
        verifier = asked.get("codeVerifier", "")
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        if not code or code["client"] != asked["clientId"] or code["redirect"] != asked.get("redirectUri"):
            raise Refused("InvalidGrantException", "there is no such code")
        if not 43 <= len(verifier) <= 128 or challenge != code["challenge"]:
            raise Refused("InvalidGrantException", "the code verifier does not match")
    else:
        # Each is good once.
        if REFRESH.pop(asked.get("refreshToken"), None) != asked["clientId"]:
            raise Refused("InvalidGrantException", "the refresh token is not valid")
    return tokens(asked["clientId"])


def session(asked):
    if TOKENS.get(asked["accessToken"], 0) < time.time():
        raise Refused("UnauthorizedException", "Session token not found or invalid")


def page(asked, items):
    start = int(asked.get("nextToken", "0"))
    end = start + min(asked.get("maxResults", 100), OPTIONS["page"])
    return items[start:end], ({"nextToken": str(end)} if end < len(items) else {})


def list_accounts(asked):
    session(asked)
    accounts = [
        {"accountId": number, "accountName": name, "emailAddress": f"{number}@example.com"}
        for number, (name, _) in sorted(OPTIONS["accounts"].items())
    ]
    accounts, more = page(asked, accounts)
    return {"accountList": accounts, **more}


def roles(number):
    return OPTIONS["accounts"].get(number, ["", []])[1]


def list_account_roles(asked):
    session(asked)
    if asked["accountId"] not in OPTIONS["accounts"]:
        raise Refused("ForbiddenException", "No access")
    listed, more = page(asked, roles(asked["accountId"]))
    return {"roleList": [{"roleName": name, "accountId": asked["accountId"]} for name in listed], **more}


def get_role_credentials(asked):
    session(asked)
    number, role = asked["accountId"], asked["roleName"]
    if role not in roles(number):
        raise Refused("ForbiddenException", "No access")
    if OPTIONS["sts"]:
        sts = boto3.client(
            "sts", endpoint_url=OPTIONS["sts"], region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="y"
        )
        name = f"AWSReservedSSO_{role}_{hashlib.sha256(number.encode()).hexdigest()[:16]}"
        arn = f"arn:aws:iam::{number}:role/aws-reserved/sso.amazonaws.com/{name}"
        given = sts.assume_role(RoleArn=arn, RoleSessionName="alice@example.com")["Credentials"]
        keys = [given[part] for part in ("AccessKeyId", "SecretAccessKey", "SessionToken")]
    else:
        keys = ["ASIA" + secrets.token_hex(8).upper(), secrets.token_urlsafe(30), secrets.token_urlsafe(200)]
    until = int((time.time() + OPTIONS["role_seconds"]) * 1000)
    return {
        "roleCredentials": dict(zip(("accessKeyId", "secretAccessKey", "sessionToken"), keys), expiration=until)
    }


def logout(asked):
    session(asked)
    del TOKENS[asked["accessToken"]]
    REFRESH.clear()


OPERATIONS = {
    "RegisterClient": register_client,
    "StartDeviceAuthorization": start_device_authorization,
    "CreateToken": create_token,
    "ListAccounts": list_accounts,
    "ListAccountRoles": list_account_roles,
    "GetRoleCredentials": get_role_credentials,
    "Logout": logout,
}


def signin_token(form):
    if "SessionDuration" in form and not 900 <= int(form["SessionDuration"]) <= 43200:
        raise Refused("InvalidRequestException", "SessionDuration")
    keys = json.loads(form["Session"])
    if set(keys) != {"sessionId", "sessionKey", "sessionToken"}:
        raise Refused("InvalidRequestException", "Session")
    arn = "nobody"
    if OPTIONS["sts"]:
        sts = boto3.client(
            "sts",
            endpoint_url=OPTIONS["sts"],
            region_name="us-east-1",
            aws_access_key_id=keys["sessionId"],
            aws_secret_access_key=keys["sessionKey"],
            aws_session_token=keys["sessionToken"],
        )
        arn = sts.get_caller_identity()["Arn"]
    token = "VCQ" + secrets.token_urlsafe(300)
    SIGNIN[token] = arn
    return {"SigninToken": token}


FORM = """<!doctype html><title>{title}</title><form method="post" action="{action}">{fields}
<button name="answer" value="allow">Allow access</button><button name="answer" value="deny">Deny</button></form>"""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "stand-in", ""

    def log_message(self, *args):
        pass

    def do_CONNECT(self):
        name = self.path.rpartition(":")[0]
        if name not in OPTIONS["tls"]:
            return self.answer(502, "text/plain", f"no {name} here")
        self.send_response(200)
        self.end_headers()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*OPTIONS["tls"][name])
        self.connection = context.wrap_socket(self.connection, server_side=True)
        self.rfile = self.connection.makefile("rb", self.rbufsize)
        self.wfile = self.connection.makefile("wb", 0)
        self.close_connection = False

    def do_GET(self):
        self.serve()

    def do_POST(self):
        self.serve()

    def serve(self):
        url = urlsplit(self.path)
        query = dict(parse_qsl(url.query, keep_blank_values=True))
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        self.hold(url.path, body)
        with LOCK:
            try:
                self.route(url.path, query, body)
            except Refused as refused:
                self.refuse(refused, oidc=(self.command, url.path) in MODELS and url.path in OIDC)

    def hold(self, path, body):
        if path.startswith("/_"):
            return
        with LOCK:
            held = OPTIONS["hold"] and OPTIONS["hold"].encode() in body
            if held:
                OPTIONS["hold"] = None
                LOG.append({"held": path})
        if held:
            RELEASED.wait()

    def route(self, path, query, body):
        if path.startswith("/_"):
            return self.control(path, body)
        operation = MODELS.get((self.command, path))
        data = json.loads(body) if operation and body else {}
        entry = {"method": self.command, "path": path, "grant": data.get("grantType"), "query": sorted(query)}
        LOG.append(entry)
        if path in OPTIONS["status"]:
            wish = {"Retry-After": str(OPTIONS["retry_after"])} if OPTIONS["retry_after"] else {}
            return self.answer(OPTIONS["status"][path], "application/json", "{}", wish)
        if operation and self.command == "GET" and OPTIONS["throttled"] > 0:
            OPTIONS["throttled"] -= 1
            raise Refused("TooManyRequestsException", "Too many requests")
        if operation:
            asked = check(operation, self.headers, query, data)
            return self.json(200, OPERATIONS[operation.name](asked) or {})
        form = {key: value[0] for key, value in parse_qs(body.decode()).items()}
        pages = {
            ("GET", "/authorize"): self.authorize,
            ("POST", "/authorize"): self.authorized,
            ("GET", "/device"): self.device,
            ("POST", "/device"): self.entered,
            ("POST", "/federation"): self.federation,
            ("GET", "/federation"): self.console,
        }
        handler = pages.get((self.command, path))
        if not handler:
            return self.answer(404, "text/plain", "there is nothing here")
        handler(query if self.command == "GET" else form)

    def control(self, path, body):
        if path == "/_log":
            return self.json(200, LOG)
        if path == "/_secrets":
            return self.json(200, [*TOKENS, *REFRESH, *(one["secret"] for one in CLIENTS.values())])
        if path == "/_set":
            OPTIONS.update(json.loads(body))
            if OPTIONS.pop("release", False):
                RELEASED.set()
        if path == "/_end":
            {"clients": CLIENTS, "tokens": TOKENS, "refresh_tokens": REFRESH}[json.loads(body)].clear()
        self.json(200, {})

    def form(self, title, action, fields):
        hidden = "".join(
            f'<input name="{html.escape(name)}" value="{html.escape(value)}">' for name, value in fields.items()
        )
        self.answer(200, "text/html", FORM.format(title=title, action=action, fields=hidden))

    def authorize(self, query):
        known = CLIENTS.get(query.get("client_id"))
        redirect = urlsplit(query.get("redirect_uri", ""))
        # RFC 8252 section 7.3: any port.
        without_port = f"{redirect.scheme}://{redirect.hostname}{redirect.path}"
        if not known or without_port not in known["redirects"]:
            return self.answer(400, "text/html", "no such client, or no such redirect address")
        good = query.get("response_type") == "code" and query.get("code_challenge_method") == "S256"
        if not good or len(query.get("code_challenge", "")) != 43 or not query.get("scopes"):
            return self.answer(400, "text/html", "this is no request for a code with PKCE")
        self.form("Allow tmpcred to access your data?", "/authorize", query)

    def authorized(self, form):
        back = {"state": form["state"]}
        if form.get("answer") == "allow":
            back["code"] = secrets.token_urlsafe(32)
            CODES[back["code"]] = {
                "client": form["client_id"],
                "redirect": form["redirect_uri"],
                "challenge": form["code_challenge"],
            }
        else:
            back.update(error="access_denied", error_description="the person said no")
        self.redirect(f"{form['redirect_uri']}?{urlencode(back)}")

    def device(self, query):
        self.form("Authorization requested", "/device", {"user_code": query.get("user_code", "")})

    def entered(self, form):
        found = [one for one in DEVICES.values() if one["user_code"] == form.get("user_code")]
        if not found:
            return self.answer(400, "text/html", "no such code")
        found[0]["state"] = "granted" if form.get("answer") == "allow" else "denied"
        self.answer(200, "text/html", "<p>Request approved</p>")

    def federation(self, form):
        if form.get("Action") != "getSigninToken":
            raise Refused("InvalidRequestException", "Action")
        LOG[-1]["duration"] = form.get("SessionDuration")
        self.json(200, signin_token(form))

    def console(self, query):
        if query.get("Action") == "getSigninToken":
            # It works at AWS, and leaves the credentials in logs.
            raise Refused("InvalidRequestException", "credentials are in the address")
        arn = SIGNIN.pop(query.get("SigninToken"), None)
        if query.get("Action") != "login" or not arn:
            return self.answer(400, "text/html", "the sign-in token is not valid")
        self.answer(200, "text/html", f"<p>signed in as {arn} for {html.escape(query['Destination'])}</p>")

    def refuse(self, refused, oidc):
        headers, body = {}, {}
        if oidc:
            name = refused.kind.removesuffix("Exception")
            code = "".join(f"_{c.lower()}" if c.isupper() else c for c in name).lstrip("_")
            body = {"error": code, "error_description": refused.words}
        else:
            body = {"message": refused.words}
        if OPTIONS["say_type"] == "header":
            headers["x-amzn-ErrorType"] = f"{refused.kind}:http://internal.amazon.com/coral/com.amazonaws/"
        elif not oidc:
            body["__type"] = f"com.amazonaws.switchboard.portal#{refused.kind}"
        self.json(STATUS.get(refused.kind, 400), body, headers)

    def json(self, status, value, headers=None):
        self.answer(status, "application/json", json.dumps(value), headers)

    def redirect(self, location):
        self.answer(302, "text/html", "", {"Location": location})

    def answer(self, status, kind, text, headers=None):
        body = text.encode()
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


OIDC = {"/client/register", "/device_authorization", "/token"}

if __name__ == "__main__":
    ThreadingHTTPServer.daemon_threads = True
    # Many processes come at once.
    ThreadingHTTPServer.request_queue_size = 128
    ThreadingHTTPServer(("127.0.0.1", OPTIONS["port"]), Handler).serve_forever()
