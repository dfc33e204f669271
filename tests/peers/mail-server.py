"""A mail server for the tests: aiosmtpd, which speaks SMTP, STARTTLS and AUTH as Mailman has it.

Usage: mail-server.py PORT FILE HOW [CERTIFICATE KEY]. HOW is `starttls`, `wrapped` or `clear`; in
the first two whoever sends has to log in, as `tmpcred` with the password `s3cret`. It appends a
line of JSON for each mail to FILE. What it answers to a mail says the file FILE.mode: nothing, or
a code; `hangs` is no answer at all.
"""

import asyncio
import email
import email.policy
import json
import pathlib
import ssl
import sys

from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword

port, file, how = int(sys.argv[1]), pathlib.Path(sys.argv[2]), sys.argv[3]
mode_file = pathlib.Path(str(file) + ".mode")


def authenticate(server, session, envelope, mechanism, data):
    good = isinstance(data, LoginPassword) and (data.login, data.password) == (b"tmpcred", b"s3cret")
    return AuthResult(success=good, handled=False, auth_data=b"tmpcred" if good else None)


class Handler:
    async def handle_RCPT(self, server, session, envelope, address, options):
        if address.startswith("nobody@"):
            return "550 5.1.1 no such mailbox"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        mode = mode_file.read_text().strip() if mode_file.exists() else ""
        while mode == "hangs":
            await asyncio.sleep(0.05)
            mode = mode_file.read_text().strip()
        if mode:
            return f"{mode} not now"
        mail = email.message_from_bytes(envelope.content, policy=email.policy.default)
        note = {
            "from": envelope.mail_from,
            "to": envelope.rcpt_tos,
            "tls": session.ssl is not None or how == "wrapped",
            "user": session.auth_data and session.auth_data.decode(),
            "headers": [[name, str(value)] for name, value in mail.items()],
            "text": mail.get_content(),
        }
        with file.open("a") as out:
            out.write(json.dumps(note) + "\n")
        return "250 taken"


async def main():
    tls = None
    if len(sys.argv) > 4:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(sys.argv[4], sys.argv[5])
    options = {"hostname": "mail.example.com", "enable_SMTPUTF8": True}
    if how == "starttls":
        options |= {"tls_context": tls, "require_starttls": True}
    if how != "clear":
        options |= {"authenticator": authenticate, "auth_required": True,
                    "auth_require_tls": how == "starttls"}
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: SMTP(Handler(), **options),
        "127.0.0.1", port, ssl=tls if how == "wrapped" else None,
    )
    await server.serve_forever()


asyncio.run(main())
