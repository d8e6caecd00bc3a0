//! A breaker's policy: what holds of it, and what in it is not as its author may think.

use super::Resolver;
use super::stack::Stack;
use crate::breaker::{Bulkhead, Checks, Mode, Policy, Rates, Remedy, When};
use crate::config::error::{Error, Origin, Reason};
use crate::config::raw::Layer;
use crate::config::settings::Key;
use crate::config::units::words;
use crate::config::value::Values;
use crate::config::{Backend, effective};

/// The policy of a backend whose settings are `present`, with some of them changed. Also what is suspicious about it.
///
/// # Errors
/// All that is wrong, `problems` first; at least one.
pub(in crate::config) fn change_policy(
    backend: &Backend,
    present: &Values,
    changes: &Layer,
    problems: Vec<Error>,
) -> Result<(Policy, Vec<String>), Vec<Error>> {
    let mut resolver = Resolver { problems, warnings: Vec::new() };
    let speaks = Some(effective::speaks(backend));
    let changes = resolver.read(changes, speaks);
    let stack = Stack { layers: vec![&changes], present: Some(present), speaks };
    match resolver.policy(&backend.name, &Origin::Request, &stack) {
        Some(policy) if resolver.problems.is_empty() => {
            let longest = policy.recovery_timeout_max;
            if !stack.is_written(Key::RecoveryTimeoutMax) && longest != backend.breaker.recovery_timeout_max {
                let (name, longest) = (&backend.name, words(longest));
                resolver
                    .warnings
                    .push(format!("backend '{name}': recovery_timeout_max follows, to {longest}"));
            }
            Ok((policy, resolver.warnings))
        }
        _ => Err(resolver.problems),
    }
}

impl Resolver {
    /// The breaker's policy, and what in it is not as its author may think.
    pub(super) fn policy(&mut self, name: &str, origin: &Origin, stack: &Stack<'_>) -> Option<Policy> {
        let recovery_timeout = stack.span(Key::RecoveryTimeout)??;
        let mut recovery_timeout_max = stack.span(Key::RecoveryTimeoutMax)??;
        if recovery_timeout_max < recovery_timeout {
            if stack.is_written(Key::RecoveryTimeoutMax) {
                let (value, least) = (words(recovery_timeout_max), words(recovery_timeout));
                let reason = Reason::BelowRecoveryTimeout { value, least };
                self.refuse(origin, Some(Key::RecoveryTimeoutMax.name()), reason);
            }
            recovery_timeout_max = recovery_timeout;
        }
        let policy = Policy {
            mode: stack.mode(Key::Mode)?,
            failure_threshold: stack.limit(Key::FailureThreshold)?,
            rates: Rates {
                window: stack.window(Key::Window)?,
                min_calls: stack.count(Key::MinCalls)?,
                failure_rate: stack.share(Key::FailureRate)?,
                slow_call_rate: stack.share(Key::SlowCallRate)?,
                slow_call_duration: stack.span(Key::SlowCallDuration)??,
            },
            recovery_timeout,
            recovery_backoff: stack.factor(Key::RecoveryBackoff)?,
            recovery_timeout_max,
            recovery_jitter: stack.share(Key::RecoveryJitter)??,
            success_threshold: stack.count(Key::SuccessThreshold)?,
            probes: stack.count(Key::Probes)?,
            probe_timeout: stack.span(Key::ProbeTimeout)??,
            slow_start: stack.span(Key::SlowStart)?,
            checks: Checks {
                when: stack.word(Key::Check, &When::ALL, When::label)?,
                interval: stack.span(Key::CheckInterval)??,
                may: stack.word(Key::CheckMay, &Remedy::ALL, Remedy::label)?,
            },
            bulkhead: Bulkhead {
                connections: stack.limit(Key::MaxConnections)?,
                calls: stack.limit(Key::MaxCalls)?,
                wait: stack.span(Key::BulkheadWait)??,
            },
        };
        let idle = |key: Key, rate: &str| {
            stack
                .is_written(key)
                .then(|| format!("backend '{name}': {} has no effect without {rate}", key.name()))
        };
        if !policy.rates.are_on() {
            let rates = "failure_rate or slow_call_rate";
            self.warnings.extend([Key::Window, Key::MinCalls].into_iter().filter_map(|key| idle(key, rates)));
            if policy.failure_threshold.is_none() && policy.mode != Mode::Disabled {
                self.warnings.push(format!("backend '{name}': every trip condition is off"));
            }
        }
        if policy.rates.slow_call_rate.is_none() {
            self.warnings.extend(idle(Key::SlowCallDuration, "slow_call_rate"));
        }
        if policy.checks.when == When::Off {
            let keys = [Key::CheckInterval, Key::CheckMay, Key::CheckUser];
            self.warnings.extend(keys.into_iter().filter_map(|key| idle(key, "check")));
        }
        if policy.bulkhead.connections.is_none() && policy.bulkhead.calls.is_none() {
            self.warnings.extend(idle(Key::BulkheadWait, "max_connections or max_calls"));
        }
        if policy.checks.when == When::Always && policy.failure_threshold.is_none() {
            let why = "without failure_threshold no check trips";
            self.warnings
                .push(format!("backend '{name}': check = always has the effect of while_open: {why}"));
        }
        Some(policy)
    }
}
