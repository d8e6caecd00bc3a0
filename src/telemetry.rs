//! Logs: one line an event, on standard error, as text or JSON, in UTC.
//!
//! Absent on purpose: waiting for whoever reads them, see [`outlet`]; what is logged, which is the business of whoever knows it, and metrics, which are figures
//! and live in [`crate::metrics`].

pub mod outlet;

use std::io::{self, IsTerminal, Write};

use tracing::Subscriber;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{EnvFilter, Registry, reload};

use self::outlet::Outlet;
use crate::config::{Log, LogFormat};

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The level is neither a level nor a list of directives; a [`Log`] of [`crate::config`] has none such.
    #[error("log level: {0}")]
    Level(#[from] tracing_subscriber::filter::ParseError),
    /// Something else in this process has set up logging already.
    #[error("logging is set up already")]
    Twice(#[from] tracing::subscriber::SetGlobalDefaultError),
    /// The system refuses the thread that writes.
    #[error("logging cannot be set up: {0}")]
    Thread(#[from] io::Error),
    /// The logs that the level is for are no more.
    #[error("log level: {0}")]
    Gone(#[from] reload::Error),
}

/// What is logged, to be changed while it is.
#[derive(Debug, Clone)]
pub struct Level(reload::Handle<EnvFilter, Registry>);

impl Level {
    /// Logs this level, or what these directives say, from now on.
    ///
    /// # Errors
    /// [`TelemetryError::Level`].
    pub fn set(&self, level: &str) -> Result<(), TelemetryError> {
        Ok(self.0.reload(EnvFilter::try_new(level)?)?)
    }
}

/// Sends events to standard error from now on. What has not been written when the process ends is lost: flush it.
///
/// # Errors
/// [`TelemetryError`].
pub fn init(log: &Log) -> Result<(Level, Outlet), TelemetryError> {
    let colour =
        io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let outlet = Outlet::start(io::stderr())?;
    let (subscriber, level) = subscriber(log, colour, outlet.clone())?;
    tracing::subscriber::set_global_default(subscriber)?;
    Ok((level, outlet))
}

/// What [`init`] installs, with any writer.
///
/// # Errors
/// [`TelemetryError::Level`].
pub fn subscriber<W>(
    log: &Log,
    colour: bool,
    writer: W,
) -> Result<(Box<dyn Subscriber + Send + Sync>, Level), TelemetryError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let (filter, handle) = reload::Layer::new(EnvFilter::try_new(&log.level)?);
    let (registry, lines) =
        (Registry::default().with(filter), tracing_subscriber::fmt::layer().with_writer(OneLine(writer)));
    let subscriber: Box<dyn Subscriber + Send + Sync> = match log.format {
        LogFormat::Text => Box::new(registry.with(lines.with_ansi(colour))),
        LogFormat::Json => {
            let lines = lines.json().flatten_event(true).with_current_span(false).with_span_list(false);
            Box::new(registry.with(lines))
        }
    };
    Ok((subscriber, Level(handle)))
}

/// Keeps an event on one line: whoever can put a line break into a field (a server's error text, a file name)
/// could otherwise forge a log line.
struct OneLine<W>(W);

impl<'a, W: MakeWriter<'a>> MakeWriter<'a> for OneLine<W> {
    type Writer = OneLineWriter<W::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        OneLineWriter(self.0.make_writer())
    }

    fn make_writer_for(&'a self, meta: &tracing::Metadata<'_>) -> Self::Writer {
        OneLineWriter(self.0.make_writer_for(meta))
    }
}

struct OneLineWriter<W>(W);

impl<W: Write> Write for OneLineWriter<W> {
    /// Takes a whole event, which is how the formatter writes it.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let (body, end) = match event.split_last() {
            Some((b'\n', body)) => (body, "\n"),
            _ => (event, ""),
        };
        if body.iter().any(|byte| matches!(byte, b'\n' | b'\r')) {
            let body = String::from_utf8_lossy(body).replace('\n', "\\n").replace('\r', "\\r");
            self.0.write_all(format!("{body}{end}").as_bytes())?;
        } else {
            self.0.write_all(event)?;
        }
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: LogFormat, level: &str, body: impl FnOnce()) -> String {
        let captured = Captured::default();
        let writer = captured.clone();
        let log = Log { format, level: level.to_owned() };
        let (subscriber, _) = subscriber(&log, false, move || writer.clone()).unwrap();
        tracing::subscriber::with_default(subscriber, body);
        String::from_utf8(captured.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn json_lines_are_flat_and_stamped_in_utc() {
        let text = logged(LogFormat::Json, "info", || {
            let _span = tracing::info_span!("connection", peer = 1).entered();
            tracing::info!(backend = "cache", retry_after = 30, "tripped");
        });
        let value: serde_json::Value = serde_json::from_str(text.trim_end()).unwrap();
        assert_eq!(value["message"], "tripped");
        assert_eq!(value["backend"], "cache");
        assert_eq!(value["retry_after"], 30);
        assert_eq!(value["level"], "INFO");
        let stamp = value["timestamp"].as_str().unwrap();
        assert!(stamp.ends_with('Z') && humantime::parse_rfc3339(stamp).is_ok(), "{stamp}");
        assert_eq!(text.matches('\n').count(), 1);
    }

    #[test]
    fn text_lines_are_stamped_in_utc_and_have_the_fields() {
        let text = logged(LogFormat::Text, "info", || tracing::warn!(backend = "cache", "tripped"));
        let stamp = text.split_whitespace().next().unwrap();
        assert!(stamp.ends_with('Z') && humantime::parse_rfc3339(stamp).is_ok(), "{stamp}");
        assert!(
            text.contains("WARN") && text.contains("tripped") && text.contains("backend=\"cache\""),
            "{text}"
        );
    }

    #[test]
    fn a_line_break_in_a_field_cannot_forge_a_line() {
        for format in [LogFormat::Text, LogFormat::Json] {
            let text = logged(format, "info", || {
                tracing::info!(error = %"bad\r\n2026-01-01T00:00:00Z INFO forged", "failed");
            });
            assert_eq!(text.matches('\n').count(), 1, "{text}");
            assert!(text.ends_with('\n') && !text.contains('\r'), "{text}");
        }
    }

    #[test]
    fn the_level_changes_while_it_logs() {
        let captured = Captured::default();
        let writer = captured.clone();
        let log = Log { format: LogFormat::Text, level: "error".to_owned() };
        let (subscriber, level) = subscriber(&log, false, move || writer.clone()).unwrap();
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!("before");
            level.set("info").unwrap();
            tracing::info!("after");
            assert!(level.set("nonsense[").is_err());
            tracing::info!("still");
        });
        let text = String::from_utf8(captured.0.lock().unwrap().clone()).unwrap();
        assert!(!text.contains("before") && text.contains("after") && text.contains("still"), "{text}");
    }

    #[test]
    fn the_level_and_directives_filter() {
        let both = || {
            tracing::debug!("fine");
            tracing::error!("grave");
        };
        assert_eq!(logged(LogFormat::Text, "error", both).lines().count(), 1);
        assert_eq!(logged(LogFormat::Text, "off", both), "");
        assert_eq!(logged(LogFormat::Text, "off,fusewire::telemetry=debug", both).lines().count(), 2);
    }
}
