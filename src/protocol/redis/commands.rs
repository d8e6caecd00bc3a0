//! The commands of Redis and Valkey by group, and how each is treated: `fusewire classify redis --commands`.
//!
//! The treatment is asked of the code that the sessions decide by; only the names stand here. A test holds them to a
//! real server's COMMAND. Absent on purpose: any effect. A command that is missing here is treated like GET.

use super::command::{Clock, Command};

/// One row of the listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Treatment {
    /// The command, `COMMAND|SUBCOMMAND` where subcommands differ, or `PREFIX*` for a module's.
    pub name: &'static str,
    /// Its group, as in COMMAND DOCS.
    pub group: &'static str,
    /// The frames that answer it.
    pub replies: &'static str,
    /// What of the connection it changes.
    pub state: &'static str,
    /// How long the backend may take.
    pub deadline: &'static str,
    /// Its part in a half-open breaker.
    pub probe: &'static str,
    /// What becomes of it while the breaker is open, on a connection that was there before.
    pub open: &'static str,
}

/// Every command that is known, in the order of the documentation. `cure` says which pass an open breaker because the
/// settings name them.
pub fn treatments(cures: &[std::sync::Arc<str>]) -> Vec<Treatment> {
    let cures = super::named::Named::new(cures);
    let rows = GROUPS.iter().flat_map(|(group, names)| names.split_whitespace().map(|name| (*group, name)));
    rows.map(|(group, name)| {
        let (main, argument) = name.split_once('|').unwrap_or((name, ""));
        let command = Command::of(main.as_bytes());
        let cure = cures.has(main.as_bytes(), argument.as_bytes());
        command.treatment(group, name, argument, cure)
    })
    .collect()
}

impl Command {
    fn treatment(self, group: &'static str, name: &'static str, argument: &str, cure: bool) -> Treatment {
        let argument = argument.as_bytes();
        Treatment {
            name,
            group,
            replies: self.replies(argument),
            state: self.state(argument),
            deadline: self.deadline(),
            probe: match () {
                () if cure || self.always_passes(argument) => "none",
                () if !self.eligible() => "by PING",
                () if self.is_conclusive(argument) => "decides",
                () => "goes along",
            },
            open: match self {
                _ if cure || self.always_passes(argument) => "passes",
                _ if self.poisons(argument) => "rejected with all that follow",
                Self::Multi => "rejected as a whole, answered OK",
                Self::Exec => "EXECABORT, DISCARD is sent",
                Self::Watch => "rejected with the next block",
                Self::Forbidden => "closed without a word",
                _ => "rejected",
            },
        }
    }

    fn replies(self, argument: &[u8]) -> &'static str {
        match self {
            Self::Subscribe(_) => "1 an argument",
            Self::Unsubscribe(_) => "1 an argument or subscription",
            Self::Stream => "a stream",
            Self::Shutdown => "the end, or 1",
            Self::Quit => "1, the end",
            Self::Forbidden => "the end",
            Self::Client if argument.eq_ignore_ascii_case(b"REPLY") => "1 to ON, else none",
            _ => "1",
        }
    }

    fn state(self, argument: &[u8]) -> &'static str {
        let is = |word: &str| argument.eq_ignore_ascii_case(word.as_bytes());
        match self {
            Self::State => "user, database or reads",
            Self::Hello => "protocol, user",
            Self::Reset => "all of it",
            Self::Multi | Self::Exec | Self::Discard => "transaction",
            Self::Watch | Self::Unwatch => "watched keys",
            Self::Subscribe(_) | Self::Unsubscribe(_) => "subscriptions",
            Self::Stream => "plain relay",
            Self::Client if is("REPLY") => "replies",
            Self::Client if is("TRACKING") || is("CACHING") => "tracking",
            Self::Client if is("PAUSE") || is("UNPAUSE") => "all deadlines",
            _ => "-",
        }
    }

    fn deadline(self) -> &'static str {
        match self {
            Self::Blocking(Clock::FirstSeconds) => "own (first, s) + response",
            Self::Blocking(Clock::LastSeconds) => "own (last, s) + response",
            Self::Blocking(Clock::LastMillis) => "own (last, ms) + response",
            Self::Blocking(Clock::FifthMillis) => "own (fifth, ms) + response",
            Self::Blocking(Clock::BlockMillis) => "own (BLOCK, ms) + response",
            Self::Eval | Self::Unbounded | Self::Debugging | Self::Shutdown | Self::Stream => "none",
            _ if self.handshake() => "handshake",
            _ => "response",
        }
    }
}

/// Group and names, as COMMAND DOCS of Redis 7.0 to 8.4 and Valkey 9 has them. Of commands with subcommands, those stand
/// here that are treated in another way than the rest; of CLIENT all, because so many change the connection.
const GROUPS: &[(&str, &str)] = &[
    (
        "connection",
        "AUTH CLIENT|CACHING CLIENT|CAPA CLIENT|GETNAME CLIENT|GETREDIR CLIENT|HELP CLIENT|ID CLIENT|IMPORT-SOURCE
         CLIENT|INFO CLIENT|KILL CLIENT|LIST CLIENT|NO-EVICT CLIENT|NO-TOUCH CLIENT|PAUSE CLIENT|REPLY CLIENT|SETINFO
         CLIENT|SETNAME CLIENT|TRACKING CLIENT|TRACKINGINFO CLIENT|UNBLOCK CLIENT|UNPAUSE ECHO HELLO PING QUIT RESET
         SELECT",
    ),
    ("transactions", "DISCARD EXEC MULTI UNWATCH WATCH"),
    (
        "pubsub",
        "PSUBSCRIBE PUBLISH PUBSUB PUNSUBSCRIBE SPUBLISH SSUBSCRIBE SUBSCRIBE SUNSUBSCRIBE UNSUBSCRIBE",
    ),
    (
        "scripting",
        "EVAL EVAL_RO EVALSHA EVALSHA_RO FCALL FCALL_RO FUNCTION FUNCTION|KILL FUNCTION|STATS SCRIPT SCRIPT|KILL",
    ),
    (
        "server",
        "ACL BGREWRITEAOF BGSAVE COMMAND COMMANDLOG CONFIG DBSIZE DEBUG FAILOVER FLUSHALL FLUSHDB HOTKEYS INFO LASTSAVE
         LATENCY LOLWUT MEMORY MODULE MONITOR PSYNC REPLCONF REPLICAOF RESTORE-ASKING ROLE SAVE SHUTDOWN SLAVEOF SLOWLOG
         SWAPDB SYNC TIME",
    ),
    ("cluster", "ASKING CLUSTER CLUSTERSCAN READONLY READWRITE SFLUSH TRIMSLOTS"),
    (
        "generic",
        "COPY DEL DUMP EXISTS EXPIRE EXPIREAT EXPIRETIME KEYS MIGRATE MOVE OBJECT PERSIST PEXPIRE PEXPIREAT PEXPIRETIME
         PTTL RANDOMKEY RENAME RENAMENX RESTORE SCAN SORT SORT_RO TOUCH TTL TYPE UNLINK WAIT WAITAOF",
    ),
    (
        "string",
        "APPEND DECR DECRBY DELEX DELIFEQ DIGEST GET GETDEL GETEX GETRANGE GETSET INCR INCRBY INCRBYFLOAT LCS MGET MSET
         MSETEX MSETNX PSETEX SET SETEX SETNX SETRANGE STRLEN SUBSTR",
    ),
    ("bitmap", "BITCOUNT BITFIELD BITFIELD_RO BITOP BITPOS GETBIT SETBIT"),
    (
        "hash",
        "HDEL HEXISTS HEXPIRE HEXPIREAT HEXPIRETIME HGET HGETALL HGETDEL HGETEX HINCRBY HINCRBYFLOAT HKEYS HLEN HMGET
         HMSET HPERSIST HPEXPIRE HPEXPIREAT HPEXPIRETIME HPTTL HRANDFIELD HSCAN HSET HSETEX HSETNX HSTRLEN HTTL HVALS",
    ),
    (
        "list",
        "BLMOVE BLMPOP BLPOP BRPOP BRPOPLPUSH LINDEX LINSERT LLEN LMOVE LMPOP LPOP LPOS LPUSH LPUSHX LRANGE LREM LSET
         LTRIM RPOP RPOPLPUSH RPUSH RPUSHX",
    ),
    (
        "set",
        "SADD SCARD SDIFF SDIFFSTORE SINTER SINTERCARD SINTERSTORE SISMEMBER SMEMBERS SMISMEMBER SMOVE SPOP SRANDMEMBER
         SREM SSCAN SUNION SUNIONSTORE",
    ),
    (
        "sorted-set",
        "BZMPOP BZPOPMAX BZPOPMIN ZADD ZCARD ZCOUNT ZDIFF ZDIFFSTORE ZINCRBY ZINTER ZINTERCARD ZINTERSTORE ZLEXCOUNT ZMPOP
         ZMSCORE ZPOPMAX ZPOPMIN ZRANDMEMBER ZRANGE ZRANGEBYLEX ZRANGEBYSCORE ZRANGESTORE ZRANK ZREM ZREMRANGEBYLEX
         ZREMRANGEBYRANK ZREMRANGEBYSCORE ZREVRANGE ZREVRANGEBYLEX ZREVRANGEBYSCORE ZREVRANK ZSCAN ZSCORE ZUNION
         ZUNIONSTORE",
    ),
    (
        "stream",
        "XACK XACKDEL XADD XAUTOCLAIM XCFGSET XCLAIM XDEL XDELEX XGROUP XINFO XLEN XPENDING XRANGE XREAD XREADGROUP
         XREVRANGE XSETID XTRIM",
    ),
    (
        "geo",
        "GEOADD GEODIST GEOHASH GEOPOS GEORADIUS GEORADIUS_RO GEORADIUSBYMEMBER GEORADIUSBYMEMBER_RO GEOSEARCH
         GEOSEARCHSTORE",
    ),
    ("hyperloglog", "PFADD PFCOUNT PFDEBUG PFMERGE PFSELFTEST"),
    ("vector-set", "VADD VCARD VDIM VEMB VGETATTR VINFO VISMEMBER VLINKS VRANDMEMBER VRANGE VREM VSETATTR VSIM"),
    ("module", "BF.* CF.* CMS.* FT.* JSON.* TDIGEST.* TOPK.* TS.*"),
    ("no command", "POST HOST:"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_that_is_special_is_listed_once() {
        let all = treatments(&[]);
        let listed = |name: &str| all.iter().filter(|row| row.name.split('|').next() == Some(name)).count();
        for name in Command::special() {
            let name = name.to_ascii_uppercase();
            assert!(listed(&name) > 0, "{name}");
        }
        for (at, row) in all.iter().enumerate() {
            assert!(all.iter().take(at).all(|other| other.name != row.name), "{} twice", row.name);
        }
    }
}
