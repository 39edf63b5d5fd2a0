//! Where the log of a mount goes: to standard error, a line an event, or to the system's log.
//!
//! `bigsmall: warn: what happened`: the program, how grave it is, and the event as people say it.

use std::fmt;
use std::io::{self, Write};
use std::os::unix::net::UnixDatagram;

use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::fmt::format::{DefaultFields, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::registry::LookupSpan;

use crate::ui;

/// The socket of the system's log, which systemd's journal and every syslog read.
const SYSTEM_LOG: &str = "/dev/log";

/// syslog's number for programs that serve.
const DAEMON: u8 = 3;

/// How much is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogLevel {
    /// What programs that read see as an error
    Error,
    /// Also what is wrong with the source
    Warn,
    /// Also that something is mounted or unmounted
    Info,
    /// Also what helps to find faults
    Debug,
    /// Everything, each request of the kernel too
    Trace,
}

impl From<LogLevel> for Level {
    fn from(level: LogLevel) -> Level {
        match level {
            LogLevel::Error => Level::ERROR,
            LogLevel::Warn => Level::WARN,
            LogLevel::Info => Level::INFO,
            LogLevel::Debug => Level::DEBUG,
            LogLevel::Trace => Level::TRACE,
        }
    }
}

/// Where lines go.
#[derive(Debug)]
pub enum Sink {
    /// Standard error, whatever that leads to.
    StandardError,
    /// The system's log.
    System(UnixDatagram),
}

impl Sink {
    /// The system's log, which may come later or be started anew.
    pub fn system() -> Sink {
        let socket = UnixDatagram::unbound().and_then(|socket| {
            // A system log that does not keep up must not hold up a mount: what it cannot take is lost.
            socket.set_nonblocking(true)?;
            Ok(socket)
        });
        socket.map_or(Sink::StandardError, Sink::System)
    }
}

/// Logs what is at least as grave as `level` to `sink`, from now on.
pub fn start(level: LogLevel, sink: Sink) {
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(Level::from(level))
        .event_format(OneLine { named: matches!(sink, Sink::StandardError), all: level == LogLevel::Trace })
        .fmt_fields(DefaultFields::new())
        .with_writer(sink);
    subscriber.try_init().expect("no other log was set up");
}

/// An event as a line.
struct OneLine {
    /// Whether the line names the program; the system's log does so by itself.
    named: bool,
    /// Whether what the FUSE library says of its own doings is for anyone.
    all: bool,
}

/// Where events come from that libraries report through the crate `log`.
const LIBRARIES: &str = "log";

impl<S, N> FormatEvent<S, N> for OneLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let metadata = event.metadata();
        if metadata.target() == LIBRARIES && *metadata.level() > Level::ERROR && !self.all {
            return Ok(());
        }
        let mut text = String::new();
        context.format_fields(Writer::new(&mut text), event)?;
        let level = metadata.level().as_str().to_lowercase();
        // Names of files may hold what a terminal takes for commands.
        let text = ui::printable(&text).replace('\n', " ");
        writeln!(out, "{}{level}: {text}", if self.named { "bigsmall: " } else { "" })
    }
}

impl<'a> MakeWriter<'a> for Sink {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line { sink: self, level: Level::INFO }
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> Line<'a> {
        Line { sink: self, level: *metadata.level() }
    }
}

/// A line on its way.
pub struct Line<'a> {
    sink: &'a Sink,
    level: Level,
}

impl Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if line.is_empty() {
            return Ok(0);
        }
        match self.sink {
            Sink::StandardError => io::stderr().write_all(line)?,
            Sink::System(socket) => {
                let severity = match self.level {
                    Level::ERROR => 3,
                    Level::WARN => 4,
                    Level::INFO => 6,
                    _ => 7,
                };
                let mut message =
                    format!("<{}>bigsmall[{}]: ", DAEMON << 3 | severity, std::process::id()).into_bytes();
                message.extend_from_slice(line.trim_ascii_end());
                // By its name each time: one that was started anew has a new socket. If there is none, there is nobody to tell.
                let _ = socket.send_to(&message, SYSTEM_LOG);
            }
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
