//! Logs to stderr, one line per event. Under systemd each line starts with `<N>`, the priority for
//! the journal (sd-daemon(3)), and has no time stamp, because the journal adds its own.

use std::{env, fmt, io::IsTerminal, io::stderr};

use tracing::{Event, Level, Subscriber, level_filters::LevelFilter};
use tracing_subscriber::{
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer, time::FormatTime},
    registry::LookupSpan,
};

/// Starts logging. `DOGWATCH_LOG` (`error`, `warn`, `info`, `debug`, `trace`) overrides `default`.
pub fn init(default: Level) {
    let level = env::var("DOGWATCH_LOG").ok().and_then(|text| text.parse().ok()).unwrap_or(default);
    let builder =
        tracing_subscriber::fmt().with_max_level(LevelFilter::from_level(level)).with_writer(stderr);
    // A second start (tests) keeps the first.
    let _ = if env::var_os("JOURNAL_STREAM").is_some() {
        tracing::subscriber::set_global_default(builder.with_ansi(false).event_format(ForJournal).finish())
    } else {
        let colour = stderr().is_terminal() && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let builder = builder.with_ansi(colour).with_target(false).with_timer(WallTime);
        tracing::subscriber::set_global_default(builder.finish())
    };
}

struct ForJournal;

impl<S, N> FormatEvent<S, N> for ForJournal
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut to: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let priority = match *event.metadata().level() {
            Level::ERROR => 3,
            Level::WARN => 4,
            Level::INFO => 6,
            Level::DEBUG | Level::TRACE => 7,
        };
        write!(to, "<{priority}>")?;
        context.format_fields(to.by_ref(), event)?;
        writeln!(to)
    }
}

struct WallTime;

impl FormatTime for WallTime {
    #[expect(clippy::disallowed_methods, reason = "the time in a log line is for people")]
    fn format_time(&self, to: &mut Writer<'_>) -> fmt::Result {
        write!(to, "{:.3}", jiff::Timestamp::now())
    }
}
