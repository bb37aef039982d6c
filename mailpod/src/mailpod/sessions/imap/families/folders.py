"""CREATE, DELETE, RENAME, SUBSCRIBE, UNSUBSCRIBE (RFC 9051 §6.3.4–§6.3.8, RFC 6154 §3)."""

from __future__ import annotations

from mailpod.errors import Reason, Refused
from mailpod.protocol.imap import commands, responses
from mailpod.sessions.imap import answers
from mailpod.sessions.imap.answers import Answer, ok
from mailpod.sessions.imap.capabilities import Capability
from mailpod.sessions.imap.folder_names import INBOX, canonical, problem_with
from mailpod.sessions.imap.ids import mailbox_id
from mailpod.sessions.imap.state import ImapState, Spec
from mailpod.store.types import DEFAULT_FOLDERS, SEPARATOR

SPECIAL_USES = frozenset(use for _, use in DEFAULT_FOLDERS if use)  # RFC 6154; \All and \Flagged would be views, not folders
# RFC 6154 §3: the folder can't be made with this use.
USE_ATTRIBUTE = Reason("special-use-unsupported", 550, "5.1.3", "NO", "USEATTR", "", "This special use can't be given to a new folder")
INBOX_STAYS = Reason("inbox", 550, "5.1.3", "NO", "CANNOT", "", "INBOX can't be deleted")
INTO_ITSELF = Reason("folder-into-itself", 550, "5.1.3", "NO", "CANNOT", "", "A folder can't be moved below itself")
ALREADY_EXISTS = Reason("folder-exists", 550, "5.1.3", "NO", "ALREADYEXISTS", "", "There is a folder of this name")


def _new_name(name: str) -> str:
    """The canonical form of a name for a new folder. Raises `Refused`. A separator at the end only says "may have children" (§6.3.4)."""
    name = canonical(name[:-1] if name.endswith(SEPARATOR) else name)
    if (problem := problem_with(name)) is not None:
        raise Refused(problem)
    return name


async def create(state: ImapState, command: commands.Create) -> Answer:
    """RFC 9051 §6.3.4; the identity of the new folder in the answer (RFC 8474 §4.1)."""
    if len(command.special_use) > 1 or not SPECIAL_USES.issuperset(command.special_use):
        raise Refused(USE_ATTRIBUTE)
    name = _new_name(command.mailbox)
    if name == INBOX:
        raise Refused(ALREADY_EXISTS)
    folder = await state.opened().create_folder(name, *command.special_use)
    return ok("Folder created", responses.code_mailboxid(mailbox_id(folder)))


async def delete(state: ImapState, command: commands.Delete) -> Answer:
    """RFC 9051 §6.3.5."""
    folder = await state.folder(command.mailbox)
    if folder.name == INBOX:
        raise Refused(INBOX_STAYS)
    await state.opened().delete_folder(folder.id)
    if state.selected is not None and state.selected.folder_id == folder.id:
        state.deselect()
        state.write(responses.untagged("OK", "The selected folder is deleted", "CLOSED"))
    return ok("Folder deleted")


async def rename(state: ImapState, command: commands.Rename) -> Answer:
    """RFC 9051 §6.3.6. Sessions that have the folder open notice nothing: they hold its id."""
    folder = await state.folder(command.mailbox)
    name = _new_name(command.new_name)
    if name == INBOX:
        raise Refused(ALREADY_EXISTS)
    if folder.name != INBOX and name.startswith(folder.name + SEPARATOR):
        raise Refused(INTO_ITSELF)
    await state.opened().rename_folder(folder.id, name)
    return ok("Folder renamed")


async def subscribe(state: ImapState, command: commands.Subscribe) -> Answer:
    """RFC 9051 §6.3.7: names that do not exist may be subscribed as well (servers SHOULD NOT check)."""
    await state.opened().set_subscribed(_new_name(command.mailbox), True)
    return ok("Subscribed")


async def unsubscribe(state: ImapState, command: commands.Unsubscribe) -> Answer:
    """RFC 9051 §6.3.8."""
    name = canonical(command.mailbox)
    account = state.opened()
    if name not in account.view.subscriptions and name not in (await account.refresh(0.0)).subscriptions:
        return answers.ok("It was not subscribed")
    await account.set_subscribed(name, False)
    return ok("Unsubscribed")


COMMANDS = {
    commands.Create: Spec(create),
    commands.Delete: Spec(delete),
    commands.Rename: Spec(rename),
    commands.Subscribe: Spec(subscribe),
    commands.Unsubscribe: Spec(unsubscribe),
}
CAPABILITIES = (Capability("CREATE-SPECIAL-USE"),)
