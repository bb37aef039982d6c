"""The reader as a whole, fed with what no client should send."""

from hypothesis import given, settings
from hypothesis import strategies as st

from mailpod.protocol.imap.events import Command, Fatal, Rejected
from mailpod.protocol.imap.grammar.registry import VERBS
from mailpod.protocol.imap.states import State

WORDS = [
    *VERBS,
    "INBOX",
    "(",
    ")",
    "()",
    '"',
    '"a b"',
    '"\\"',
    "{3}",
    "{3+}",
    "~{3+}",
    "{0}",
    "{99999999999+}",
    "abc",
    "1:*",
    "$",
    "*",
    "%",
    "NIL",
    "\\Seen",
    "FLAGS",
    "+FLAGS",
    "BODY[",
    "BODY[]",
    "BODY[1.MIME]<0.5>",
    "BINARY.SIZE[1]",
    "RETURN",
    "CHARSET",
    "UTF-8",
    "OR",
    "NOT",
    "ALL",
    "UNSEEN",
    "SUBJECT",
    "1-Feb-2024",
    '" 1-Feb-2024 00:00:00 +0000"',
    "UTF8",
    "(~{3+}",
    "&AOk-",
    "&",
    "QRESYNC",
    "CONDSTORE",
    "(CHANGEDSINCE 5)",
    "STATUS",
    "AGE=",
    "DONE",
    "\0",
    "é",
]

streams = st.one_of(
    st.binary(max_size=200),
    st.lists(
        st.tuples(
            st.sampled_from(["a ", "b ", "", " "]),
            st.lists(st.sampled_from(WORDS), max_size=8),
            st.sampled_from([" ", " ", " ", "", "\r\n"]),
        ).map(lambda line: line[0] + line[2].join(line[1]) + "\r\n"),
        max_size=6,
    ).map(lambda lines: "".join(lines).encode()),
)


@settings(max_examples=200, deadline=None)
@given(
    streams,
    st.sampled_from([State.NOT_AUTHENTICATED, State.AUTHENTICATED, State.SELECTED]),
    st.booleans(),
    st.booleans(),
    st.integers(1, 9),
)
def test_any_stream(harness, data, state, utf8, accept, step):
    """Whatever comes: no exception, the same events however it is cut, every rejection tellable, and the connection usable after it."""
    players = []
    seen = []
    for size in (None, step):
        player = harness.Player()
        player.reader.state = state
        player.reader.utf8 = utf8
        player.policy = ["accept"] if accept else ["refuse", "NO", "TOOBIG", "Too big"]
        seen.append([harness.show_event(event) for event in player.play(data, size)])
        players.append(player)
    assert seen[0] == seen[1]
    for text in seen[0]:
        assert "\n" not in text
    player = players[0]
    if not player.reader.in_command:
        assert [type(event) for event in player.play(b"zz NOOP\r\n")] == [Command]


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(sorted(VERBS)), st.lists(st.sampled_from(WORDS), max_size=10), st.booleans())
def test_any_arguments(harness, verb, words, utf8):
    """Each command with any arguments is either understood or refused, once."""
    player = harness.Player()
    player.reader.state = (
        next(iter(VERBS[verb].states - {State.AUTHENTICATED})) if len(VERBS[verb].states) > 1 else next(iter(VERBS[verb].states))
    )
    player.reader.utf8 = utf8
    player.policy = ["refuse", "NO", "TOOBIG", "Too big"]
    arguments = [word for word in words if not word.rstrip("+}").endswith(tuple("0123456789")) or "{" not in word]
    events = player.play(f"a {verb} {' '.join(arguments)}".encode() + b"\r\n")
    assert len(events) == 1
    assert isinstance(events[0], Command | Rejected | Fatal)
    assert events[0].tag == "a"
