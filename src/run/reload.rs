//! Reading the configuration again, and going over to it without a client noticing.
//!
//! All or nothing: everything that can fail (the text, the files it names, the addresses it wants) is tried before
//! anything is changed. Absent on purpose: watching the file. An editor saves half-done work; a signal says that it is
//! meant.

use std::time::Instant;

use super::{Process, service_manager};
use crate::admin::{Access, Reloaded};
use crate::config::args::Inputs;
use crate::config::{self, Config, Env, Loaded, Log};

/// What the configuration is read from.
pub(super) struct Source {
    pub(super) inputs: Inputs,
    pub(super) env: Env,
}

impl Process {
    /// Goes over to the configuration as it is now written. Asked for by `peer`.
    ///
    /// # Errors
    /// All that is wrong, a line each; nothing has changed then.
    pub(super) async fn reload(&mut self, peer: &str) -> Result<Reloaded, Vec<String>> {
        tracing::info!(action = "reload", %peer, "Reading the configuration again, asked for by {peer}");
        service_manager::reloading();
        let result = self.try_reload().await;
        // Also after a refusal: it serves as before.
        service_manager::ready();
        self.state.note_reload(result.is_ok());
        match &result {
            Ok(done) => {
                done.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
                if !done.needs_restart.is_empty() {
                    let settings = done.needs_restart.join(", ");
                    tracing::warn!(settings, "Changed settings that take a restart: {settings}");
                }
                tracing::info!(
                    added = done.added.join(","),
                    removed = done.removed.join(","),
                    changed = done.changed.join(","),
                    settings = done.settings.join(","),
                    "Configuration reloaded"
                );
            }
            Err(problems) => {
                problems.iter().for_each(|problem| tracing::error!("{problem}"));
                tracing::error!(problems = problems.len(), "Configuration not reloaded: nothing has changed");
            }
        }
        result
    }

    async fn try_reload(&mut self) -> Result<Reloaded, Vec<String>> {
        let line = |error: &dyn std::fmt::Display| vec![error.to_string()];
        let Loaded { config, log, warnings } = config::load_all(&self.source.inputs, &self.source.env)
            .map_err(|problems| problems.iter().map(config::Error::to_string).collect::<Vec<_>>())?;
        let prepared = self.plane.prepare(&config).map_err(|error| line(&error))?;
        let access = Access::read(&config.admin_access).map_err(|error| line(&error))?;
        if self.log.level != log.level {
            self.level.set(&log.level).map_err(|error| line(&error))?;
        }
        // What was changed by hand is changed back.
        let all = self.backends.all();
        let backends = all.iter().map(|backend| (*backend.config()).clone()).collect();
        let present = Config { backends, ..self.config.clone() };
        let done = Reloaded { warnings, ..difference((&present, &self.log), (&config, &log)) };
        self.backends.apply(&config, Instant::now());
        self.plane.commit(prepared, &self.backends, config.drain_timeout).await;
        self.keep_time();
        self.state.set_access(access);
        // What takes a restart stays what it is, so that the next reload says so again.
        let Config { workers, admin, .. } = std::mem::replace(&mut self.config, config);
        (self.config.workers, self.config.admin) = (workers, admin);
        self.log.level = log.level;
        Ok(done)
    }
}

/// What a configuration changes of the one before.
fn difference((old, old_log): (&Config, &Log), (new, new_log): (&Config, &Log)) -> Reloaded {
    let same = |a: &config::Backend, b: &config::Backend| {
        a.name == b.name && a.protocol.label() == b.protocol.label()
    };
    let mut done = Reloaded::default();
    for backend in &new.backends {
        match old.backends.iter().find(|other| same(other, backend)) {
            None => done.added.push(backend.name.to_string()),
            Some(other) if other != backend => done.changed.push(backend.name.to_string()),
            Some(_) => {}
        }
    }
    let gone = old.backends.iter().filter(|old| !new.backends.iter().any(|new| same(old, new)));
    done.removed = gone.map(|backend| backend.name.to_string()).collect();
    let live = [
        ("admin_token_file", old.admin_access.token_file != new.admin_access.token_file),
        ("admin_hosts", old.admin_access.hosts != new.admin_access.hosts),
        ("drain_delay", old.drain_delay != new.drain_delay),
        ("drain_timeout", old.drain_timeout != new.drain_timeout),
        ("log_level", old_log.level != new_log.level),
    ];
    let fixed = [
        ("workers", old.workers != new.workers),
        ("admin", old.admin != new.admin),
        ("log_format", old_log.format != new_log.format),
    ];
    let changed = |settings: &[(&'static str, bool)]| {
        settings.iter().filter(|(_, changed)| *changed).map(|(name, _)| *name).collect()
    };
    done.settings = changed(&live);
    done.needs_restart = changed(&fixed);
    done
}
