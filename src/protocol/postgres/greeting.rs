//! The client's first packets, up to the one that a connection to the backend is needed for.

use std::time::Instant;

use super::dial::Purpose;
use super::encryption::{self, Offer};
use super::local::Local;
use super::session::{Session, Stage};
use super::startup::{self, Packet};
use crate::metrics::Counter;
use crate::protocol::{Plan, Target};

impl Session {
    /// Reads first packets until one leads on.
    pub(super) fn greet(&mut self, now: Instant, input: &[u8], plan: &mut Plan) {
        while let Stage::Greeting { ssl, gss } = &mut self.stage {
            let asked = match startup::read(input.get(plan.consumed()..).unwrap_or_default()) {
                Packet::Partial => return,
                Packet::Ssl if !*ssl && self.settings.offer() == Offer::Tls => {
                    plan.drop(startup::REQUEST);
                    if plan.consumed() < input.len() {
                        // Whoever injects bytes behind the request must not have them taken for what comes
                        // encrypted (CVE-2021-23214); and an error before the handshake would be unencrypted, too.
                        return self.hang_up();
                    }
                    self.queue.reply(Local::Encryption);
                    self.stage = Stage::Securing { direct: false };
                    return;
                }
                Packet::Ssl if !*ssl && self.settings.offer() == Offer::Passthrough => return self.pass(now),
                Packet::Ssl => ssl,
                Packet::Gss => gss,
                Packet::DirectTls => {
                    let first = !*ssl && !*gss && plan.consumed() == 0;
                    return match (self.settings.offer(), encryption::hello(input)) {
                        (Offer::Tls, Some(_)) if first => self.stage = Stage::Securing { direct: true },
                        (Offer::Passthrough, Some(true)) if first => self.pass(now),
                        (Offer::Passthrough, Some(false)) if first => {}
                        _ => self.hang_up(),
                    };
                }
                Packet::Malformed(why) => return self.client_malformed(why),
                Packet::Cancel { len, key } => {
                    let target = self.settings.cancels.find(key).map_or(Target::Aside, Target::Exactly);
                    self.stage = Stage::Dialling(Purpose::Cancel { len, target });
                    return;
                }
                Packet::Startup { .. } if self.settings.tls_required() && !self.legs.client => {
                    return self.refuse_plain();
                }
                Packet::Startup { len, native, replication } => {
                    self.replication = replication;
                    self.server.foreign = !native;
                    return self.start(now, len);
                }
            };
            if std::mem::replace(asked, true) {
                return self.client_malformed("encryption was asked for twice");
            }
            plan.drop(startup::REQUEST);
            self.queue.reply(Local::NoEncryption);
        }
    }

    /// Closes on a client that breaks the protocol where no error can be sent.
    pub(super) fn hang_up(&mut self) {
        self.lane().add(Counter::ClientMalformed, 1);
        self.stage = Stage::Finish;
    }
}
