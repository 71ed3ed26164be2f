"""Three SMTP ports on loopback, one maildir: in the clear; STARTTLS and login; TLS from the first byte and login."""
import ssl
import sys
import threading

from aiosmtpd.controller import Controller
from aiosmtpd.handlers import Mailbox
from aiosmtpd.smtp import AuthResult, LoginPassword

maildir, certificate, key, username, password, plain, starttls, implicit = sys.argv[1:]


def login(server, session, envelope, mechanism, data):
    wanted = (username.encode(), password.encode())
    good = isinstance(data, LoginPassword) and (data.login, data.password) == wanted
    print("login", mechanism, "good" if good else "bad", flush=True)
    return AuthResult(success=good, handled=False)


context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate, key)
secure = {"authenticator": login, "auth_required": True}
controllers = [
    Controller(Mailbox(maildir), hostname="127.0.0.1", port=int(plain)),
    Controller(Mailbox(maildir), hostname="127.0.0.1", port=int(starttls), tls_context=context,
               require_starttls=True, **secure),
    Controller(Mailbox(maildir), hostname="127.0.0.1", port=int(implicit), ssl_context=context,
               auth_require_tls=False, **secure),
]
for controller in controllers:
    controller.start()
print("ready", flush=True)
threading.Event().wait()
