//! What the proxy must know of a command: little, and nothing at all of most of them.
//!
//! Absent on purpose: arities, keys, permissions. An unknown command is an ordinary one: one reply, which says
//! something about the backend.

use std::time::Duration;

/// A command, as far as the proxy treats it differently from `GET`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Command {
    /// One reply, and a conclusive one.
    Ordinary,
    /// Answered even while the backend is loading or cut off from its master, so a success shows nothing.
    Inconclusive,
    /// `AUTH`, `SELECT`, `READWRITE`: rejected, they leave a connection that must never be used again.
    State,
    /// `HELLO`: as above, and the replies' protocol may change.
    Hello,
    /// `RESET`.
    Reset,
    /// `QUIT`: the connection ends after its reply.
    Quit,
    /// `SHUTDOWN`: the connection ends instead of a reply.
    Shutdown,
    /// `MULTI`.
    Multi,
    /// `EXEC`: its reply holds the replies of the whole block.
    Exec,
    /// `DISCARD`.
    Discard,
    /// `WATCH`.
    Watch,
    /// `UNWATCH`.
    Unwatch,
    /// A confirmation for each argument instead of a reply.
    Subscribe(Topic),
    /// The same; without arguments one for each subscription.
    Unsubscribe(Topic),
    /// `CLIENT`: its subcommand decides.
    Client,
    /// `SCRIPT`, `FUNCTION`: a busy backend answers `KILL`, whose success shows nothing.
    Script,
    /// `EVAL`, `FCALL` and their like: may rightly run for any time, and can return any error.
    Eval,
    /// `MONITOR`, `SYNC`, `PSYNC`: what follows is no request and reply.
    Stream,
    /// May wait for something other than the backend, for as long as its own argument says.
    Blocking(Clock),
    /// `DEBUG`: may rightly run for any time too, and is answered even while the backend is loading.
    Debugging,
    /// May rightly run for any time: `SAVE`, and what the configuration names.
    Unbounded,
    /// `POST` and `Host:`: a browser was talked into speaking to Redis, which hangs up without a word.
    Forbidden,
}

/// The three kinds of subscriptions. Channels and patterns share a count on the wire, shard channels have their
/// own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Topic {
    /// `SUBSCRIBE`.
    Channels,
    /// `PSUBSCRIBE`.
    Patterns,
    /// `SSUBSCRIBE`.
    Shards,
}

/// Where a blocking command keeps its timeout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Clock {
    /// First argument, seconds with a fraction.
    FirstSeconds,
    /// Last argument, seconds with a fraction.
    LastSeconds,
    /// Last argument, milliseconds.
    LastMillis,
    /// Fifth argument, milliseconds; without one, Redis takes a second.
    FifthMillis,
    /// `BLOCK` and milliseconds before `STREAMS`; without it the command does not block.
    BlockMillis,
}

use Command::{
    Blocking, Client, Debugging, Discard, Eval, Exec, Forbidden, Hello, Inconclusive, Multi, Ordinary, Quit,
    Reset, Script, Shutdown, State, Stream, Subscribe, Unbounded, Unsubscribe, Unwatch, Watch,
};

/// The commands that are not ordinary, by the length of their names. Those that COMMAND flags `loading` and
/// `stale` (7.0) are inconclusive; container commands are when nearly all their subcommands are.
const BY_LENGTH: [&[(&str, Command)]; 13] = [
    &[],
    &[],
    &[],
    &[("acl", Inconclusive)],
    &[
        ("auth", State),
        ("quit", Quit),
        ("exec", Exec),
        ("info", Inconclusive),
        ("echo", Inconclusive),
        ("time", Inconclusive),
        ("role", Inconclusive),
        ("eval", Eval),
        ("wait", Blocking(Clock::LastMillis)),
        ("save", Unbounded),
        ("sync", Stream),
        ("post", Forbidden),
    ],
    &[
        ("multi", Multi),
        ("watch", Watch),
        ("hello", Hello),
        ("reset", Reset),
        ("xread", Blocking(Clock::BlockMillis)),
        ("blpop", Blocking(Clock::LastSeconds)),
        ("brpop", Blocking(Clock::LastSeconds)),
        ("fcall", Eval),
        ("debug", Debugging),
        ("psync", Stream),
        ("host:", Forbidden),
    ],
    &[
        ("select", State),
        ("client", Client),
        ("config", Inconclusive),
        ("pubsub", Inconclusive),
        ("script", Script),
        ("blmove", Blocking(Clock::LastSeconds)),
        ("blmpop", Blocking(Clock::FirstSeconds)),
        ("bzmpop", Blocking(Clock::FirstSeconds)),
    ],
    &[
        ("evalsha", Eval),
        ("publish", Inconclusive),
        ("command", Inconclusive),
        ("unwatch", Unwatch),
        ("discard", Discard),
        ("slowlog", Inconclusive),
        ("latency", Inconclusive),
        ("monitor", Stream),
        ("migrate", Blocking(Clock::FifthMillis)),
        ("waitaof", Blocking(Clock::LastMillis)),
        ("eval_ro", Eval),
    ],
    &[
        ("readonly", Inconclusive),
        ("spublish", Inconclusive),
        ("lastsave", Inconclusive),
        ("replconf", Inconclusive),
        ("function", Script),
        ("bzpopmin", Blocking(Clock::LastSeconds)),
        ("bzpopmax", Blocking(Clock::LastSeconds)),
        ("fcall_ro", Eval),
        ("shutdown", Shutdown),
    ],
    &[("subscribe", Subscribe(Topic::Channels)), ("readwrite", State)],
    &[
        ("brpoplpush", Blocking(Clock::LastSeconds)),
        ("xreadgroup", Blocking(Clock::BlockMillis)),
        ("psubscribe", Subscribe(Topic::Patterns)),
        ("ssubscribe", Subscribe(Topic::Shards)),
        ("evalsha_ro", Eval),
    ],
    &[("unsubscribe", Unsubscribe(Topic::Channels))],
    &[("punsubscribe", Unsubscribe(Topic::Patterns)), ("sunsubscribe", Unsubscribe(Topic::Shards))],
];

impl Command {
    /// The command of this name, whatever its case.
    #[inline]
    pub(super) fn of(name: &[u8]) -> Self {
        BY_LENGTH.get(name.len()).map_or(Ordinary, |candidates| {
            candidates
                .iter()
                .find(|(known, _)| known.as_bytes().eq_ignore_ascii_case(name))
                .map_or(Ordinary, |(_, command)| *command)
        })
    }

    /// Whether a success shows that the backend works, given the first argument if it is one that
    /// [`Command::needs_arguments`]. `SELECT` and its like succeed while the backend is loading, `SCRIPT KILL` while it
    /// is busy.
    pub(super) fn is_conclusive(self, argument: &[u8]) -> bool {
        match self {
            Script => !["KILL", "STATS"].iter().any(|word| argument.eq_ignore_ascii_case(word.as_bytes())),
            _ => matches!(self, Ordinary | Exec | Eval | Blocking(_) | Unbounded),
        }
    }

    /// Passes whatever the breaker says: it takes nothing from the backend, and to reject it would leave the
    /// client with a state that it has asked to be rid of.
    pub(super) fn always_passes(self, argument: &[u8]) -> bool {
        matches!(self, Quit | Reset | Unwatch | Discard | Unsubscribe(_))
            || self == Client && argument.eq_ignore_ascii_case(b"REPLY")
    }

    /// Rejected, it leaves a connection in a state that the client believes to be another.
    pub(super) fn poisons(self, argument: &[u8]) -> bool {
        matches!(self, State | Hello | Reset)
            || self == Client
                && ["TRACKING", "CACHING"].iter().any(|word| argument.eq_ignore_ascii_case(word.as_bytes()))
    }

    /// The names of those that are not ordinary.
    #[cfg(test)]
    pub(super) fn special() -> impl Iterator<Item = &'static str> {
        BY_LENGTH.iter().flat_map(|names| names.iter().map(|(name, _)| *name))
    }

    /// Whether it may be a probe: not if it may rightly take long, or ends the connection. A script may: while it
    /// runs, the backend serves nobody else.
    pub(super) fn eligible(self) -> bool {
        !matches!(self, Blocking(_) | Unbounded | Debugging | Subscribe(_) | Stream | Shutdown)
    }

    /// The same command where the configuration says that it may take any time. What changes the connection's state
    /// stays what it is.
    pub(super) fn unbounded(self) -> Self {
        if matches!(self, Ordinary | Inconclusive | Eval | Blocking(_)) { Unbounded } else { self }
    }

    /// Whether its reply is a step of the handshake, which has a deadline of its own.
    pub(super) fn handshake(self) -> bool {
        matches!(self, State | Hello | Client)
    }

    /// Whether its first arguments must be known before it can be decided upon.
    pub(super) fn needs_arguments(self) -> bool {
        matches!(self, Client | Script)
    }
}

/// How long the backend may take over a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Patience {
    /// The response timeout.
    Response,
    /// A step of the handshake.
    Handshake,
    /// The command's own timeout, then the response timeout.
    Own(Duration),
    /// As long as it likes: it blocks without a timeout.
    Forever,
    /// As long as it likes: it is at work.
    Unbounded,
}

/// A timeout above this is as good as none, and cannot overflow an [`std::time::Instant`].
const OWN_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

/// Looks for a blocking command's timeout among its arguments as they stream by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TimeoutWatch {
    clock: Clock,
    index: u64,
    options: Options,
    found: Option<Patience>,
}

/// How far the options of `XREAD` have been read: stream keys, groups and consumers may be named "block" too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Options {
    /// At an option.
    Word,
    /// At the name of a group, then at that of a consumer.
    Group,
    Consumer,
    /// At the argument of BLOCK.
    Block,
    /// Behind STREAMS.
    Over,
}

impl TimeoutWatch {
    /// A watch over the arguments of a request.
    pub(super) fn new(clock: Clock) -> Self {
        Self { clock, index: 0, options: Options::Word, found: None }
    }

    /// The next argument; none for one that is too long to matter.
    pub(super) fn argument(&mut self, word: Option<&[u8]>) {
        let index = self.index;
        self.index += 1;
        let word = word.unwrap_or_default();
        match self.clock {
            Clock::FirstSeconds if index == 0 => self.found = seconds(word),
            // The last one stands.
            Clock::LastSeconds => self.found = seconds(word),
            Clock::LastMillis => self.found = millis(word),
            Clock::FifthMillis if index == 4 => {
                self.found = match millis(word) {
                    Some(Patience::Forever) => Some(Patience::Own(Duration::from_secs(1))),
                    other => other,
                };
            }
            Clock::BlockMillis => self.option(word),
            _ => {}
        }
    }

    fn option(&mut self, word: &[u8]) {
        self.options = match self.options {
            Options::Over => Options::Over,
            Options::Group => Options::Consumer,
            Options::Block => {
                self.found = millis(word);
                Options::Word
            }
            Options::Word if word.eq_ignore_ascii_case(b"streams") => Options::Over,
            Options::Word if word.eq_ignore_ascii_case(b"block") => Options::Block,
            Options::Word if word.eq_ignore_ascii_case(b"group") => Options::Group,
            // COUNT as well, for what is behind it is a number.
            Options::Word | Options::Consumer => Options::Word,
        };
    }

    /// What was found: how long the command may block, none if it does not (or is malformed, in which case the
    /// backend answers at once).
    pub(super) fn found(&self) -> Option<Patience> {
        self.found
    }
}

fn seconds(word: &[u8]) -> Option<Patience> {
    let value: f64 = std::str::from_utf8(word).ok()?.parse().ok()?;
    patience(Duration::try_from_secs_f64(value).ok()?)
}

/// Milliseconds, strictly decimal.
pub(super) fn millis(word: &[u8]) -> Option<Patience> {
    let value: u64 = std::str::from_utf8(word).ok()?.parse().ok()?;
    patience(Duration::from_millis(value))
}

fn patience(own: Duration) -> Option<Patience> {
    Some(if own.is_zero() || own > OWN_MAX { Patience::Forever } else { Patience::Own(own) })
}
