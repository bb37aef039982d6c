"""The rounds that mail programs do for `recorder`: each with a fresh mailbox that holds the same three messages."""

from __future__ import annotations

import email.policy
import getpass
import mailbox as maildirs
import os
import socket
import subprocess
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.message import EmailMessage
from pathlib import Path

import imapclient

from mailpod.adapters.objects import Credentials
from mailpod.contract import ListenerName, StorageConfig
from tests.support.pods import PASSWORD, Fleet, mailbox

Ports = Mapping[ListenerName, int]
Program = Callable[[Ports, Path, Path, str], str]  # ports, CA file, home, address → the program's version

_DATE = datetime(2026, 11, 24, 10, 0, tzinfo=UTC)


def message(subject: str, *, rich: bool = False, sender: str = "Alice Example <alice@example.com>") -> EmailMessage:
    """A message that is the same each time."""
    made = EmailMessage(policy=email.policy.SMTP)
    made["From"], made["To"], made["Subject"] = sender, "Bob <bob@example.com>", subject
    made["Date"] = "Tue, 24 Nov 2026 10:00:00 +0000"
    made["Message-ID"] = f"<{subject.encode('ascii', 'ignore').decode().replace(' ', '-')}@example.com>"
    made.set_content("Hello Bob,\n\n.this line begins with a dot\nAlice\n")
    if rich:
        made.add_alternative("<p>Hello Bob</p>\n", subtype="html")
        made.add_attachment(b"%PDF-1.4 not really\n", maintype="application", subtype="pdf", filename="report.pdf")
        made.set_boundary("outer-boundary")
        next(made.iter_parts()).set_boundary("inner-boundary")
    return made


def start_fleet(base: Path, storage: StorageConfig, credentials: Credentials) -> Fleet:
    """A pod with a mailbox for each program."""
    base.mkdir(parents=True, exist_ok=True)
    boxes = [mailbox(f"{name}@example.com") for name in ("alice", *PROGRAMS)]
    fleet = Fleet.create(base, storage, credentials, pods=1, mailboxes=boxes)
    try:
        return fleet.start()
    except BaseException:
        fleet.stop()
        raise


def prepare(fleet: Fleet, name: str) -> None:
    """Put the three messages into the program's mailbox."""
    with _imap(fleet.pods[0].ports, fleet.ca_file, f"{name}@example.com") as client:
        for number, rich in ((1, False), (2, True), (3, False)):
            client.append("INBOX", message(f"message {number}", rich=rich).as_bytes(), [b"\\Flagged"] if number == 2 else (), _DATE)


def names_of_this_host() -> dict[str, str]:
    """Names that a program may tell about the machine and the person, and what stands for them."""
    hosts = sorted({socket.getfqdn(), socket.gethostname()} - {"localhost"}, key=len, reverse=True)
    names = dict.fromkeys(hosts, "client.example.org")
    names[f"{getpass.getuser()}@client.example.org"] = "user@client.example.org"
    return names


def _imap(ports: Ports, ca: Path, address: str) -> imapclient.IMAPClient:
    import ssl

    context = ssl.create_default_context(cafile=str(ca))
    client = imapclient.IMAPClient("127.0.0.1", ports[ListenerName.IMAPS], ssl=True, ssl_context=context, timeout=30)
    client.login(address, PASSWORD)
    return client


def _run(home: Path, *command: str, **options: object) -> str:
    environment = {**os.environ, "HOME": str(home), "LC_ALL": "C.UTF-8", "PYTHONPATH": "", "TZ": "UTC"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, cwd=home, check=False, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return str(done.stdout + done.stderr)


def _version(home: Path, *command: str) -> str:
    return next(line for line in _run(home, *command).splitlines() if line.strip())


def _write(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o600)
    return path


def curl(ports: Ports, ca: Path, home: Path, address: str) -> str:
    """All three protocols, with TLS from the first byte and with STARTTLS."""
    (home / "mail.eml").write_bytes(message("sent by curl", sender=address).as_bytes())
    tls = ("curl", "--silent", "--show-error", "--cacert", str(ca), "--user", f"{address}:{PASSWORD}")
    imaps = f"imaps://localhost:{ports[ListenerName.IMAPS]}"
    for url in ("/", "/INBOX?SUBJECT%20%22message%202%22", "/INBOX;MAILINDEX=1", "/INBOX;UID=2;SECTION=TEXT"):
        _run(home, *tls, imaps + url)
    _run(home, *tls, "-T", "mail.eml", f"{imaps}/Archive")
    _run(home, *tls, "--ssl-reqd", "-X", "STATUS INBOX (MESSAGES UNSEEN)", f"imap://localhost:{ports[ListenerName.IMAP]}/")
    pop3s = f"pop3s://localhost:{ports[ListenerName.POP3S]}"
    _run(home, *tls, f"{pop3s}/")
    _run(home, *tls, f"{pop3s}/1")
    _run(home, *tls, "--ssl-reqd", "-X", "UIDL", f"pop3://localhost:{ports[ListenerName.POP3]}/")
    send = ("--mail-from", address, "--mail-rcpt", "alice@example.com", "-T", "mail.eml")
    _run(home, *tls, "--ssl-reqd", *send, f"smtp://localhost:{ports[ListenerName.SUBMISSION]}/client.example.org")
    _run(home, *tls, *send, f"smtps://localhost:{ports[ListenerName.SUBMISSIONS]}/client.example.org")
    return " ".join(_version(home, "curl", "--version").split()[:2])


def swaks(ports: Ports, ca: Path, home: Path, address: str) -> str:
    """Submission with two mechanisms and pipelining, and port 25."""
    common = ["swaks", "--server", "127.0.0.1", "--ehlo", "client.example.org", "--tls", "--tls-ca-path", str(ca),
              "--to", "alice@example.com",
              "--h-Date", "Tue, 24 Nov 2026 10:00:00 +0000", "--h-Message-Id", "<swaks@example.com>",
              "--h-Subject", "sent by swaks"]  # fmt: skip
    for mechanism in ("PLAIN", "LOGIN"):
        _run(home, *common, "--port", str(ports[ListenerName.SUBMISSION]), "--from", address, "--auth", mechanism, "--auth-user", address,
             "--auth-password", PASSWORD)  # fmt: skip
    _run(home, *common, "--port", str(ports[ListenerName.SMTP]), "--from", "carol@example.org", "--pipeline")
    return _version(home, "swaks", "--version")


def mbsync(ports: Ports, ca: Path, home: Path, address: str) -> str:
    """A first synchronization both ways, and one that finds nothing to do."""
    (home / "mail").mkdir()
    local = maildirs.Maildir(home / "mail" / "INBOX", create=True)
    for number in (1, 2):
        local.add(message(f"local {number}").as_bytes(policy=email.policy.default))
    _write(
        home / ".mbsyncrc",
        f"""IMAPAccount server
Host localhost
Port {ports[ListenerName.IMAPS]}
User {address}
Pass {PASSWORD}
AuthMechs SCRAM-SHA-256
SSLType IMAPS
CertificateFile {ca}

IMAPStore remote
Account server

MaildirStore local
Path {home}/mail/
Inbox {home}/mail/INBOX
SubFolders Verbatim

Channel all
Far :remote:
Near :local:
Patterns INBOX Archive
Create Both
Expunge Both
SyncState *
""",
    )
    _run(home, "mbsync", "-a")
    _run(home, "mbsync", "-a")
    return _version(home, "mbsync", "--version")


def mutt(ports: Ports, ca: Path, home: Path, address: str) -> str:
    """Open the mailbox, read, copy, save (which deletes), leave."""
    url = f"imaps://{address.replace('@', '%40')}@localhost:{ports[ListenerName.IMAPS]}"
    keys = f"<first-entry><display-message><exit><next-entry><copy-message>=Archive<enter><save-message>{home}/saved<enter><quit>"
    _write(
        home / "muttrc",
        f"""set imap_user="{address}" imap_pass="{PASSWORD}" ssl_ca_certificates_file="{ca}" certificate_file="{ca}" folder="{url}"
set confirmappend=no confirmcreate=no delete=yes quit=yes move=no imap_authenticators="login"
unset wait_key prompt_after
push "{keys}"
""",
    )
    _run(home, "script", "-qec", f"mutt -F muttrc -f '{url}/INBOX'", "/dev/null", stdin=subprocess.DEVNULL)
    assert "message 2" in (home / "saved").read_text()
    return _version(home, "mutt", "-v")


def fetchmail(ports: Ports, ca: Path, home: Path, address: str) -> str:
    """Collect by POP3 and by IMAP, keeping what is there."""
    for protocol, listener in (("POP3", ListenerName.POP3S), ("IMAP", ListenerName.IMAPS)):
        rc = _write(
            home / f"rc-{protocol}",
            f"""poll localhost protocol {protocol} port {ports[listener]} uidl
  user "{address}" password "{PASSWORD}" ssl sslcertfile "{ca}" sslcertck keep fetchall mda "cat >> {home}/{protocol}"
""".replace(" uidl\n", " uidl\n" if protocol == "POP3" else "\n"),
        )
        _run(home, "fetchmail", "-f", str(rc), "--idfile", str(home / f"ids-{protocol}"), "-N")
        assert "message 3" in (home / protocol).read_text()
    return _version(home, "fetchmail", "--version")


def mpop(ports: Ports, ca: Path, home: Path, address: str) -> str:
    """Collect, collect again (nothing is new), over STLS and deleting at last."""
    maildirs.Maildir(home / "box", create=True)
    for number, (listener, keep) in enumerate([(ListenerName.POP3S, "on"), (ListenerName.POP3S, "on"), (ListenerName.POP3, "off")]):
        rc = _write(
            home / f"rc{number}",
            f"""account a
host localhost
port {ports[listener]}
tls on
tls_starttls {"on" if listener is ListenerName.POP3 else "off"}
tls_trust_file {ca}
user {address}
password {PASSWORD}
auth plain
keep {keep}
delivery maildir {home}/box
uidls_file {home}/uidls
""",
        )
        _run(home, "mpop", "-C", str(rc), "a")
    assert len(list((home / "box" / "new").iterdir())) == 3
    return _version(home, "mpop", "--version")


def offlineimap(ports: Ports, ca: Path, home: Path, address: str) -> str:
    """Down at first, then a local message up."""
    _write(
        home / "rc",
        f"""[general]
accounts = main
metadata = {home}/meta
ui = basic
[Account main]
localrepository = near
remoterepository = far
[Repository near]
type = Maildir
localfolders = {home}/offline
[Repository far]
type = IMAP
remotehost = localhost
remoteport = {ports[ListenerName.IMAPS]}
remoteuser = {address}
remotepass = {PASSWORD}
ssl = yes
sslcacertfile = {ca}
auth_mechanisms = PLAIN
folderfilter = lambda name: name in ("INBOX", "Archive")
""",
    )
    _run(home, "offlineimap", "-c", "rc", "-o", "-1")
    maildirs.Maildir(home / "offline/Archive").add(message("from offlineimap").as_bytes(policy=email.policy.default))
    _run(home, "offlineimap", "-c", "rc", "-o", "-1")
    return _version(home, "offlineimap", "--version")


def getmail(ports: Ports, ca: Path, home: Path, address: str) -> str:
    """Retrieve everything by IMAP and by POP3."""
    kinds = (("imap", "SimpleIMAPSSLRetriever", ListenerName.IMAPS), ("pop", "SimplePOP3SSLRetriever", ListenerName.POP3S))
    for name, kind, listener in kinds:
        extra = 'mailboxes = ("INBOX",)' if name == "imap" else ""
        _write(
            home / f"rc-{name}",
            f"""[retriever]
type = {kind}
server = localhost
port = {ports[listener]}
username = {address}
password = {PASSWORD}
ca_certs = {ca}
{extra}
[destination]
type = MDA_external
path = /usr/bin/tee
arguments = ("-a", "{home}/{name}")
allow_root_commands = true
[options]
read_all = true
delete = false
""",
        )
        _run(home, "getmail", f"--getmaildir={home}", f"--rcfile=rc-{name}")
        assert "message 3" in (home / name).read_text()
    return _version(home, "getmail", "--version")


def imapclient_(ports: Ports, ca: Path, home: Path, address: str) -> str:
    """The library's way through most of IMAP."""
    with _imap(ports, ca, address) as client:
        client.capabilities()
        client.id_({"name": "imapclient", "version": imapclient.__version__})
        client.namespace()
        client.list_folders()
        client.create_folder("Work/2026")
        client.subscribe_folder("Work/2026")
        client.list_sub_folders()
        client.enable("CONDSTORE")
        client.select_folder("INBOX")
        client.search(["SUBJECT", "message", "NOT", "FLAGGED"])
        client.sort("REVERSE SUBJECT")
        client.thread("REFERENCES")
        client.fetch([1, 2, 3], ["FLAGS", "UID", "ENVELOPE", "BODYSTRUCTURE", "RFC822.SIZE", "INTERNALDATE", "MODSEQ"])
        client.fetch([2], ["BODY.PEEK[HEADER.FIELDS (SUBJECT FROM)]", "BODY.PEEK[1.1]", "BODY[]<0.64>"])
        client.add_flags([1, 3], [b"\\Seen", b"$Important"])
        client.remove_flags([3], [b"\\Seen"])
        client.copy([1, 2], "Archive")
        client.move([1], "Work/2026")
        client.append("Drafts", message("grüße aus köln").as_bytes(), [b"\\Draft"])
        client.multiappend("Drafts", [message("draft 1").as_bytes(), message("draft 2").as_bytes()])
        client.folder_status("Drafts", ["MESSAGES", "UIDNEXT", "UNSEEN"])
        client.get_quota_root("INBOX")
        client.idle()
        client.idle_done()
        client.delete_messages([3])
        client.uid_expunge([3])
        client.unselect_folder()
        client.rename_folder("Work/2026", "Work/Später")
        client.select_folder("Work/Später", readonly=True)
        client.close_folder()
        client.delete_folder("Work/Später")
    return f"imapclient {imapclient.__version__}"


PROGRAMS: dict[str, Program] = {
    "curl": curl,
    "swaks": swaks,
    "mbsync": mbsync,
    "mutt": mutt,
    "fetchmail": fetchmail,
    "mpop": mpop,
    "offlineimap": offlineimap,
    "getmail": getmail,
    "imapclient": imapclient_,
}
