"""The peer: Debian's Postfix and Dovecot, with configurations, queues and mail of their own under one directory, on free ports.

Postfix takes mail for example.com by SMTP and hands it to Dovecot's LMTP, which files it into Maildir, as Dovecot's documentation
recommends. Logs are off on both sides of the comparison where that can be said; queue files are not synced to disk any more carefully than
their defaults do.
"""

from __future__ import annotations

import grp
import pwd
import shutil
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from bench.process import Tree
from tests.support.seaweed import free_ports

USER = "vmail-bench"
PASSWORD = "bench-password"

_MASTER = """\
{smtp} inet n - n - 100 smtpd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
lmtp unix - - n - - lmtp
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
"""

_MAIN = """\
compatibility_level = 3.6
queue_directory = {base}/spool
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
data_directory = {base}/data
mail_owner = postfix
myhostname = mail.example.com
mydestination =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
virtual_mailbox_domains = example.com
virtual_transport = lmtp:unix:{base}/run/lmtp
virtual_mailbox_maps = static:ok
lmtp_destination_concurrency_limit = 20
lmtp_destination_recipient_limit = 1
smtpd_client_connection_count_limit = 0
smtpd_client_connection_rate_limit = 0
smtpd_peername_lookup = no
message_size_limit = 104857600
mailbox_size_limit = 0
maillog_file = {base}/postfix.log
maillog_file_prefixes = {base}
alias_maps =
alias_database =
local_recipient_maps =
"""

_DOVECOT = """\
base_dir = {base}/run
state_dir = {base}/state
log_path = {base}/dovecot.log
protocols = imap pop3 lmtp
ssl = {ssl}
ssl_cert = <{base}/cert.pem
ssl_key = <{base}/key.pem
disable_plaintext_auth = no
mail_location = maildir:{base}/mail/%n
mail_uid = {user}
mail_gid = {user}
first_valid_uid = 1
mail_max_userip_connections = 5000
default_internal_user = dovecot
default_login_user = dovenull
default_client_limit = 5000
default_process_limit = 3000
passdb {{
  driver = static
  args = password={password}
}}
userdb {{
  driver = static
  args = uid={user} gid={user} home={base}/mail/%n
}}
auth_cache_size = 10M
service imap-login {{
  inet_listener imap {{
    address = 127.0.0.1
    port = {imap}
  }}
  inet_listener imaps {{
    address = 127.0.0.1
    port = {imaps}
    ssl = yes
  }}
  service_count = 0
  process_min_avail = 2
}}
service pop3-login {{
  inet_listener pop3 {{
    address = 127.0.0.1
    port = {pop3}
  }}
  inet_listener pop3s {{
    port = 0
  }}
}}
service imap {{
  service_count = 1000
}}
service auth {{
  client_limit = 20000
}}
service anvil {{
  client_limit = 20000
}}
service lmtp {{
  process_min_avail = 5
  unix_listener lmtp {{
    mode = 0666
  }}
}}
namespace inbox {{
  inbox = yes
}}
"""


@dataclass
class Peers:
    """A running pair. `smtp`, `imap`, `imaps`, `pop3` are ports on 127.0.0.1; any user may log in with PASSWORD."""

    base: Path
    smtp: int
    imap: int
    imaps: int
    pop3: int
    dovecot: subprocess.Popen[bytes]

    @classmethod
    def start(cls, base: Path, cert: Path, key: Path) -> Self:
        """Start both with everything under `base` (deleted first). Needs root, as Postfix does."""
        shutil.rmtree(base, ignore_errors=True)
        _make_user()
        for name in ("spool", "data", "run", "state", "mail", "etc"):
            (base / name).mkdir(parents=True)
        for parent in (base, *base.parents):
            if parent != Path(parent.anchor) and not parent.stat().st_mode & 0o005:
                parent.chmod(parent.stat().st_mode | 0o055)
        shutil.copy(cert, base / "cert.pem")
        shutil.copy(key, base / "key.pem")
        smtp, imap, imaps, pop3 = free_ports(4)
        values = {
            "base": base, "smtp": f"127.0.0.1:{smtp}", "imap": imap, "imaps": imaps, "pop3": pop3, "user": USER, "password": PASSWORD,
            "ssl": "yes",
        }  # fmt: skip
        shutil.chown(base / "data", "postfix", "postfix")
        shutil.chown(base / "mail", USER, USER)
        (base / "etc/main.cf").write_text(_MAIN.format(**values))
        (base / "etc/master.cf").write_text(_MASTER.format(**values))
        (base / "dovecot.conf").write_text(_DOVECOT.format(**values))
        shutil.copy("/etc/postfix/dynamicmaps.cf", base / "etc/dynamicmaps.cf")
        subprocess.run(["postfix", "-c", str(base / "etc"), "start"], check=True, capture_output=True)
        dovecot = subprocess.Popen(["dovecot", "-F", "-c", str(base / "dovecot.conf")])
        peers = cls(base, smtp, imap, imaps, pop3, dovecot)
        for port in (smtp, imap, imaps, pop3):
            _wait(port)
        return peers

    def tree(self) -> Tree:
        """All processes of both."""
        master = int((self.base / "spool/pid/master.pid").read_text())
        return Tree((master, self.dovecot.pid))

    def dovecot_tree(self) -> Tree:
        """Dovecot's alone, for the IMAP rows."""
        return Tree((self.dovecot.pid,))

    def maildir(self, user: str) -> Path:
        """A user's Maildir."""
        return self.base / "mail" / user

    def own(self, path: Path) -> None:
        """Give a tree that the bench wrote to the user that Dovecot reads it as."""
        subprocess.run(["chown", "-R", f"{USER}:{USER}", str(path)], check=True)

    def stop(self) -> None:
        """End both."""
        subprocess.run(["postfix", "-c", str(self.base / "etc"), "stop"], check=False, capture_output=True)
        self.dovecot.send_signal(signal.SIGTERM)
        try:
            self.dovecot.wait(20)
        except subprocess.TimeoutExpired:
            self.dovecot.kill()
            self.dovecot.wait()


def _make_user() -> None:
    try:
        pwd.getpwnam(USER)
        grp.getgrnam(USER)
    except KeyError:
        subprocess.run(["useradd", "--system", "--no-create-home", "--user-group", USER], check=True)


def _wait(port: int, timeout_s: float = 20) -> None:
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            return
