"""Mail programs that others wrote, as Debian and PyPI ship them, against two running pods. What they cannot do, people cannot do."""

from __future__ import annotations

import imaplib
import mailbox as maildirs
import os
import poplib
import shutil
import smtplib
import subprocess
import time
from email.message import EmailMessage
from pathlib import Path

import imapclient
import pytest

from mailpod.contract import ListenerName
from tests.support.pods import PASSWORD, Fleet

pytestmark = pytest.mark.timeout(240)

ALICE, BOB = "alice@example.com", "bob@example.com"


def _run(command: list[str], *, home: Path, accept: tuple[int, ...] = (0,), **options: object) -> str:
    """Run a client with a home of its own; its output is the failure's text."""
    environment = {**os.environ, "HOME": str(home), "LC_ALL": "C.UTF-8", "PYTHONPATH": ""}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment, cwd=home, check=False, **options)  # type: ignore[call-overload]
    assert done.returncode in accept, f"{command}: {done.returncode}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return str(done.stdout + done.stderr)


def _needs(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"{program} is not installed (make integration installs it)")


def _message(subject: str, body: str = "Hello Bob,\n\nthis is Alice.\n", *, to: str = BOB) -> EmailMessage:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = f"Alice Example <{ALICE}>", to, subject
    message.set_content(body)
    return message


def _submit(fleet: Fleet, message: EmailMessage, *, pod: int = 0) -> None:
    with smtplib.SMTP("127.0.0.1", fleet.pods[pod].ports[ListenerName.SUBMISSION], timeout=30) as smtp:
        smtp.starttls(context=fleet.tls_context())
        smtp.login(ALICE, PASSWORD)
        smtp.send_message(message)


def _imap(fleet: Fleet, user: str, *, pod: int = 1) -> imapclient.IMAPClient:
    client = imapclient.IMAPClient(
        "127.0.0.1", fleet.pods[pod].ports[ListenerName.IMAPS], ssl=True, ssl_context=fleet.tls_context(), timeout=60
    )
    client.login(user, PASSWORD)
    return client


def _find(fleet: Fleet, subject: str, user: str = BOB, *, folder: str = "INBOX", pod: int = 1) -> bytes:
    """The one message of that subject, read by IMAP from another pod than the one that took it."""
    with _imap(fleet, user, pod=pod) as client:
        client.select_folder(folder, readonly=True)
        found = client.search(["SUBJECT", subject])
        assert len(found) == 1, f"{len(found)} messages with subject {subject!r}"
        return bytes(client.fetch(found, ["BODY.PEEK[]"])[found[0]][b"BODY[]"])


# ---- sending ---------------------------------------------------------------------------------------------------------------


@_needs("swaks")
@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
def test_swaks_submits_with_starttls_and_auth(fleet: Fleet, tmp_path: Path, mechanism: str):
    """The tool that every administrator tries first would say that mail is broken."""
    subject = f"swaks {mechanism}"
    output = _run(
        ["swaks", "--server", "127.0.0.1", "--port", str(fleet.pods[0].ports[ListenerName.SUBMISSION]), "--tls",
         "--tls-ca-path", str(fleet.ca_file), "--auth", mechanism, "--auth-user", ALICE, "--auth-password", PASSWORD,
         "--from", ALICE, "--to", BOB, "--h-Subject", subject, "--pipeline"],
        home=tmp_path,
    )  # fmt: skip
    assert "<~  250 2." in output
    body = _find(fleet, subject)
    assert b"This is a test mailing" in body
    assert b"\r\nReceived: " in b"\r\n" + body


@_needs("swaks")
def test_swaks_delivers_from_outside_on_port_25(fleet: Fleet, tmp_path: Path):
    """Other servers could not bring mail; or a stranger could pretend to be local."""
    port = str(fleet.pods[1].ports[ListenerName.SMTP])
    common = ["swaks", "--server", "127.0.0.1", "--port", port, "--from", "carol@example.org", "--h-Subject", "swaks outside"]
    _run([*common, "--to", BOB, "--tls", "--tls-ca-path", str(fleet.ca_file)], home=tmp_path)
    assert _find(fleet, "swaks outside", pod=0).startswith(b"Return-Path: <carol@example.org>\r\n")
    refused = _run([*common, "--to", "nobody@example.com"], home=tmp_path, accept=(24,))
    assert "550 5.1.1" in refused
    relayed = _run([*common, "--to", "somebody@example.net"], home=tmp_path, accept=(24,))
    assert "550 5.7.1" in relayed


@_needs("curl")
def test_curl_sends_lists_and_fetches(fleet: Fleet, tmp_path: Path):
    """curl's smtp, imap and pop3 are what scripts use."""
    pod = fleet.pods[0]
    (tmp_path / "mail.eml").write_text(f"From: {ALICE}\r\nTo: {BOB}\r\nSubject: curl upload\r\n\r\nSent by curl.\r\n")
    tls = ["--silent", "--show-error", "--cacert", str(fleet.ca_file)]
    _run(
        ["curl", *tls, "--ssl-reqd", f"smtp://localhost:{pod.ports[ListenerName.SUBMISSION]}", "--mail-from", ALICE, "--mail-rcpt", BOB,
         "--user", f"{ALICE}:{PASSWORD}", "--upload-file", "mail.eml"],
        home=tmp_path,
    )  # fmt: skip
    _run(
        ["curl", *tls, f"smtps://localhost:{pod.ports[ListenerName.SUBMISSIONS]}", "--mail-from", ALICE, "--mail-rcpt", BOB,
         "--user", f"{ALICE}:{PASSWORD}", "--upload-file", "mail.eml"],
        home=tmp_path,
    )  # fmt: skip
    imaps = f"imaps://localhost:{fleet.pods[1].ports[ListenerName.IMAPS]}"
    user = ["--user", f"{BOB}:{PASSWORD}"]
    folders = _run(["curl", *tls, *user, f"{imaps}/"], home=tmp_path)
    assert all(name in folders for name in ("INBOX", "Drafts", "Sent", "Junk", "Trash", "Archive"))
    found = _run(["curl", *tls, *user, f"{imaps}/INBOX?SUBJECT%20%22curl%20upload%22"], home=tmp_path)
    numbers = found.replace("* SEARCH", "").split()
    assert len(numbers) == 2
    fetched = _run(["curl", *tls, *user, f"{imaps}/INBOX;MAILINDEX={numbers[0]}"], home=tmp_path)
    assert "Sent by curl." in fetched
    _run(["curl", *tls, *user, "-T", "mail.eml", f"{imaps}/Archive"], home=tmp_path)
    assert b"Sent by curl." in _find(fleet, "curl upload", folder="Archive", pod=0)
    pop3s = f"pop3s://localhost:{fleet.pods[1].ports[ListenerName.POP3S]}"
    listing = _run(["curl", *tls, *user, f"{pop3s}/"], home=tmp_path)
    first = listing.split()[0]
    assert "\n" in _run(["curl", *tls, *user, f"{pop3s}/{first}"], home=tmp_path)
    _run(["curl", *tls, *user, "--ssl-reqd", f"pop3://localhost:{fleet.pods[1].ports[ListenerName.POP3]}/"], home=tmp_path)


def test_smtplib_with_utf8_addresses_and_eight_bit(fleet: Fleet):
    """A message in a language with accents would be refused or damaged."""
    message = _message("Grüße aus Köln", "Schöne Grüße\n")
    _submit(fleet, message)
    with _imap(fleet, BOB) as client:
        client.select_folder("INBOX")
        [uid] = client.search(["SUBJECT", "Grüße aus Köln"], charset="UTF-8")
        envelope = client.fetch([uid], ["ENVELOPE"])[uid][b"ENVELOPE"]
    assert envelope.subject.startswith(b"=?utf-8?")


# ---- reading by IMAP ---------------------------------------------------------------------------------------------------------


def test_imaplib_and_imapclient_see_each_other_across_pods(fleet: Fleet):
    """A phone on one pod would not see what the laptop did on the other."""
    _submit(fleet, _message("across pods"))
    laptop = imaplib.IMAP4_SSL("127.0.0.1", fleet.pods[0].ports[ListenerName.IMAPS], ssl_context=fleet.tls_context(), timeout=60)
    with laptop, _imap(fleet, BOB, pod=1) as phone:
        laptop.login(BOB, PASSWORD)
        laptop.select("INBOX")
        phone.select_folder("INBOX")
        phone.idle()
        number = laptop.search(None, "SUBJECT", '"across pods"')[1][0].split()[0].decode()
        laptop.store(number, "+FLAGS", r"(\Flagged $Important)")
        seen: list[object] = []
        deadline = time.monotonic() + 10
        while not any(b"\\Flagged" in str(line).encode() for line in seen) and time.monotonic() < deadline:
            seen += phone.idle_check(timeout=5)
        phone.idle_done()
        [uid] = phone.search(["SUBJECT", "across pods", "KEYWORD", "$Important"])
        assert b"\\Flagged" in phone.get_flags([uid])[uid]
        phone.move([uid], "Trash")
        # NOOP asks the bucket when the view is older than a second, or when the other pod's wake-up has come.
        deadline = time.monotonic() + 5
        while (found := laptop.search(None, "SUBJECT", '"across pods"')[1]) != [b""] and time.monotonic() < deadline:
            laptop.noop()
        assert found == [b""]


_MBSYNC = """\
IMAPAccount server
Host localhost
Port {port}
User {user}
Pass {password}
AuthMechs SCRAM-SHA-256
SSLType IMAPS
CertificateFile {ca}
PipelineDepth 20

IMAPStore remote
Account server

MaildirStore local
Path {home}/mail/
Inbox {home}/mail/INBOX
SubFolders Verbatim

Channel all
Far :remote:
Near :local:
Patterns INBOX Archive Sent
Create Both
Expunge Both
SyncState *
"""


@_needs("mbsync")
def test_mbsync_two_ways_a_thousand_messages_twice(fleet: Fleet, tmp_path: Path):
    """A person's offline copy would lose or double mail. The second run must change nothing at all."""
    home = tmp_path
    (home / "mail").mkdir()
    local = maildirs.Maildir(home / "mail" / "INBOX", create=True)
    for number in range(500):
        local.add(_message(f"local {number}", f"number {number}\n" * 20))
    with _imap(fleet, ALICE, pod=0) as client:
        client.multiappend("INBOX", [_message(f"remote {number}").as_bytes().replace(b"\n", b"\r\n") for number in range(500)])
    (home / ".mbsyncrc").write_text(
        _MBSYNC.format(port=fleet.pods[0].ports[ListenerName.IMAPS], user=ALICE, password=PASSWORD, ca=fleet.ca_file, home=home)
    )
    _run(["mbsync", "-a", "-V"], home=home)

    def picture() -> tuple[set[str], dict[int, tuple[bytes, ...]]]:
        files = {
            str(path.relative_to(home)) for path in (home / "mail").rglob("*") if path.is_file() and path.parent.name in ("cur", "new")
        }
        with _imap(fleet, ALICE, pod=1) as client:
            client.select_folder("INBOX", readonly=True)
            return files, {uid: tuple(sorted(data[b"FLAGS"])) for uid, data in client.fetch(client.search(), ["FLAGS"]).items()}

    first = picture()
    assert len(first[1]) == 1000
    assert len(first[0]) == 1000
    state = {path: path.read_bytes() for path in (home / "mail").rglob(".mbsyncstate*") if path.suffix != ".lock"}
    output = _run(["mbsync", "-a", "-V"], home=home)
    assert picture() == first
    assert {path: path.read_bytes() for path in state} == state, output
    # A flag changed here and a message deleted there arrive on the other side.
    flagged = next(path for path in (home / "mail/INBOX/new").iterdir() if b"Subject: remote 499" not in path.read_bytes())
    flagged.rename(home / "mail/INBOX/cur" / (flagged.name.partition(":")[0] + ":2,FS"))
    with _imap(fleet, ALICE, pod=1) as client:
        client.select_folder("INBOX")
        [victim] = client.search(["SUBJECT", "remote 499"])
        client.delete_messages([victim])
        client.expunge()
    _run(["mbsync", "-a"], home=home)
    files, flags = picture()
    assert len(files) == len(flags) == 999
    assert sum(b"\\Flagged" in names for names in flags.values()) == 1


_OFFLINEIMAP = """\
[general]
accounts = main
metadata = {home}/meta
ui = basic
socktimeout = 60

[Account main]
localrepository = near
remoterepository = far

[Repository near]
type = Maildir
localfolders = {home}/offline

[Repository far]
type = IMAP
remotehost = localhost
remoteport = {port}
remoteuser = {user}
remotepass = {password}
ssl = yes
sslcacertfile = {ca}
folderfilter = lambda name: name in ("INBOX", "Archive")
"""


@_needs("offlineimap")
def test_offlineimap_syncs_both_ways(fleet: Fleet, tmp_path: Path):
    """The other wide-spread offline client would fail at the first login."""
    _submit(fleet, _message("for offlineimap"))
    (tmp_path / "rc").write_text(
        _OFFLINEIMAP.format(home=tmp_path, port=fleet.pods[1].ports[ListenerName.IMAPS], user=BOB, password=PASSWORD, ca=fleet.ca_file)
    )
    _run(["offlineimap", "-c", "rc", "-o"], home=tmp_path)
    files = [path for path in (tmp_path / "offline/INBOX").rglob("*") if path.is_file() and path.parent.name in ("cur", "new")]
    assert any(b"for offlineimap" in path.read_bytes() for path in files)
    maildirs.Maildir(tmp_path / "offline/Archive").add(_message("from offlineimap"))
    _run(["offlineimap", "-c", "rc", "-o"], home=tmp_path)
    assert b"this is Alice" in _find(fleet, "from offlineimap", folder="Archive", pod=0)


_MUTT = """\
set imap_user="{user}"
set imap_pass="{password}"
set ssl_ca_certificates_file="{ca}"
set certificate_file="{ca}"
set ssl_verify_host=yes
set folder="{url}"
set header_cache="{home}/cache"
set sort=date
set confirmappend=no
set confirmcreate=no
set delete=yes
set quit=yes
set move=no
unset wait_key
push "<limit>~s \\"for mutt\\"<enter><copy-message>=Archive<enter><save-message>{home}/saved<enter><quit>"
"""


@_needs("mutt")
def test_mutt_reads_a_mailbox_and_saves_a_message(fleet: Fleet, tmp_path: Path):
    """Mutt's own IMAP code, the strictest of the interactive clients, would hang or complain."""
    _submit(fleet, _message("for mutt", "read me with mutt\n"))
    url = f"imaps://bob%40example.com@localhost:{fleet.pods[1].ports[ListenerName.IMAPS]}"
    (tmp_path / "muttrc").write_text(_MUTT.format(user=BOB, password=PASSWORD, ca=fleet.ca_file, url=url, home=tmp_path))
    _run(["script", "-qec", f"mutt -F muttrc -f '{url}/INBOX'", "/dev/null"], home=tmp_path, stdin=subprocess.DEVNULL)
    assert "read me with mutt" in (tmp_path / "saved").read_text()
    assert b"read me with mutt" in _find(fleet, "for mutt", folder="Archive", pod=0)


# ---- reading by POP3 ---------------------------------------------------------------------------------------------------------


def test_poplib_sees_a_stable_maildrop(fleet: Fleet):
    """A POP3 client would delete the wrong message when something else changes the mailbox meanwhile."""
    _submit(fleet, _message("for poplib", ".leading dot\n..two\n"))
    first = poplib.POP3_SSL("127.0.0.1", fleet.pods[0].ports[ListenerName.POP3S], context=fleet.tls_context(), timeout=60)
    first.user(BOB)
    first.pass_(PASSWORD)
    count, _ = first.stat()
    uids = first.uidl()[1]
    _submit(fleet, _message("arrives meanwhile"), pod=1)
    assert first.stat()[0] == count
    assert first.uidl()[1] == uids
    body = b"\r\n".join(first.retr(count)[1])
    assert b"\r\n.leading dot\r\n..two" in body
    assert len(first.top(count, 0)[1]) < len(first.retr(count)[1])
    first.dele(count)
    first.quit()
    second = poplib.POP3("127.0.0.1", fleet.pods[1].ports[ListenerName.POP3], timeout=60)
    second.stls(fleet.tls_context())
    second.user(BOB)
    second.pass_(PASSWORD)
    assert second.stat()[0] == count
    assert uids[-1].split()[1] not in b" ".join(second.uidl()[1])
    second.quit()


_FETCHMAIL = """\
poll localhost protocol {protocol} port {port}
  user "{user}" password "{password}" ssl sslcertfile "{ca}" sslcertck
  keep fetchall mda "cat >> {sink}-{protocol}"
"""


@_needs("fetchmail")
def test_fetchmail_collects_everything_once(fleet: Fleet, tmp_path: Path):
    """A person's old set-up that collects by POP3 and by IMAP would stop."""
    _submit(fleet, _message("for fetchmail"))
    sink = tmp_path / "collected"
    for protocol, listener in (("POP3", ListenerName.POP3S), ("IMAP", ListenerName.IMAPS)):
        rc = tmp_path / f"rc-{protocol}"
        rc.write_text(
            _FETCHMAIL.format(
                protocol=protocol, port=fleet.pods[1].ports[listener], user=BOB, password=PASSWORD, ca=fleet.ca_file, sink=sink
            )
        )
        rc.chmod(0o600)
        _run(["fetchmail", "-f", str(rc), "--idfile", str(tmp_path / f"ids-{protocol}"), "-N", "-v"], home=tmp_path)
        assert "for fetchmail" in Path(f"{sink}-{protocol}").read_text()


_MPOP = """\
account a
host localhost
port {port}
tls on
tls_starttls off
tls_trust_file {ca}
user {user}
password {password}
auth plain
keep on
delivery maildir {home}
uidls_file {home}/uidls
"""


@_needs("mpop")
def test_mpop_keeps_and_knows_what_it_has(fleet: Fleet, tmp_path: Path):
    """Unstable UIDLs would make every POP3 client download everything again, every time."""
    _submit(fleet, _message("for mpop"))
    (tmp_path / "cur").mkdir()
    (tmp_path / "new").mkdir()
    (tmp_path / "tmp").mkdir()
    rc = tmp_path / "mpoprc"
    rc.write_text(_MPOP.format(port=fleet.pods[0].ports[ListenerName.POP3S], ca=fleet.ca_file, user=BOB, password=PASSWORD, home=tmp_path))
    rc.chmod(0o600)
    _run(["mpop", "-C", str(rc), "a"], home=tmp_path)
    collected = list((tmp_path / "new").iterdir())
    assert any(b"for mpop" in path.read_bytes() for path in collected)
    _run(["mpop", "-C", str(rc), "a"], home=tmp_path)
    assert len(list((tmp_path / "new").iterdir())) == len(collected)


_GETMAIL = """\
[retriever]
type = {kind}
server = localhost
port = {port}
username = {user}
password = {password}
ca_certs = {ca}
{extra}
[destination]
type = MDA_external
path = /usr/bin/tee
arguments = ("-a", "{target}")
allow_root_commands = true
[options]
read_all = true
delete = false
"""


@_needs("getmail")
def test_getmail_retrieves_by_imap_idle_less_and_pop3(fleet: Fleet, tmp_path: Path):
    """Another collector, on Python's own imaplib, with SSL and a Maildir of its own."""
    _submit(fleet, _message("for getmail"))
    for name, kind, listener in (
        ("imap", "SimpleIMAPSSLRetriever", ListenerName.IMAPS),
        ("pop", "SimplePOP3SSLRetriever", ListenerName.POP3S),
    ):
        target = tmp_path / name
        extra = 'mailboxes = ("INBOX",)\n' if name == "imap" else ""
        (tmp_path / f"rc-{name}").write_text(
            _GETMAIL.format(
                kind=kind, port=fleet.pods[1].ports[listener], user=BOB, password=PASSWORD, ca=fleet.ca_file, extra=extra, target=target
            )
        )
        _run(["getmail", f"--getmaildir={tmp_path}", f"--rcfile=rc-{name}"], home=tmp_path)
        assert "for getmail" in target.read_text()
