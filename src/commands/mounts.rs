//! `bigsmall mounts`.

use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;
use std::process::ExitCode;

use bigsmall_fs::mounts::{Answer, Mount, our_mounts};
use bigsmall_fs::stats::Stats;
use serde::Serialize;

use crate::failure::Failure;
use crate::ui::size::show_size;
use crate::ui::table::Table;
use crate::ui::{self, printable};

const EXAMPLES: &str = "\
Examples:
  bigsmall mounts
  bigsmall mounts --json
  bigsmall mounts --prometheus > /var/lib/node_exporter/bigsmall.prom
      for the textfile collector of Prometheus

A mount that is dead lost its process; `bigsmall umount` removes it.";

/// List what is mounted, and what each mount has done
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Give the list as JSON, with exact numbers
    #[arg(long)]
    json: bool,

    /// Give the numbers in the text format of Prometheus
    #[arg(long, conflicts_with = "json")]
    prometheus: bool,
}

/// A mount in the JSON.
#[derive(Serialize)]
struct Listed {
    mountpoint: String,
    source: String,
    /// `alive`, `dead`, `silent` or `unknown`.
    status: &'static str,
    /// Why it is unknown.
    error: Option<String>,
    hit_rate: Option<f64>,
    stats: Option<Stats>,
}

/// Lists.
///
/// # Errors
/// When the kernel's list cannot be read.
pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    let listed: Vec<Listed> = our_mounts()?.iter().map(listed).collect();
    if args.json {
        #[derive(Serialize)]
        struct Json {
            mounts: Vec<Listed>,
        }
        ui::print_json(&Json { mounts: listed })?;
    } else if args.prometheus {
        ui::print(&prometheus(&listed))?;
    } else if !listed.is_empty() {
        ui::print(&table(&listed))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn listed(mount: &Mount) -> Listed {
    let (status, error, stats) = match mount.ask() {
        Answer::Alive(stats) => ("alive", None, Some(*stats)),
        Answer::Dead => ("dead", None, None),
        Answer::Silent => ("silent", None, None),
        Answer::Unknown(why) => ("unknown", Some(why), None),
    };
    let text = |path: &std::path::Path| String::from_utf8_lossy(path.as_os_str().as_bytes()).into_owned();
    Listed {
        mountpoint: text(&mount.mountpoint),
        source: text(&mount.original_source()),
        status,
        error,
        hit_rate: stats.as_ref().and_then(Stats::hit_rate),
        stats,
    }
}

fn table(listed: &[Listed]) -> String {
    let mut table = Table::new(&["mounted on", "status", "served", "errors", "hit rate", "decoding", "cache"]);
    for mount in listed {
        let shown = |show: &dyn Fn(&Stats) -> String| mount.stats.as_ref().map_or_else(|| "-".to_owned(), show);
        table.row([
            printable(&mount.mountpoint),
            mount.status.to_owned(),
            shown(&|stats| show_size(stats.bytes_served)),
            shown(&|stats| stats.read_errors.to_string()),
            mount.hit_rate.map_or_else(|| "-".to_owned(), |rate| format!("{:.1} %", 100.0 * rate)),
            shown(&|stats| format!("{:.2} s", stats.decode_seconds)),
            shown(&|stats| show_size(stats.cache_bytes)),
        ]);
    }
    let mut text = table.render("");
    for mount in listed {
        let _ = write!(text, "\n{}: shows {}", printable(&mount.mountpoint), printable(&mount.source));
        if let Some(error) = &mount.error {
            let _ = write!(text, "; {}", printable(error));
        }
    }
    text + "\n"
}

/// A number of a mount: its name, what it is, and how to get it.
type Metric = (&'static str, &'static str, &'static str, fn(&Stats) -> f64);

const METRICS: [Metric; 12] = [
    ("uptime_seconds", "gauge", "Time since it was mounted.", |s| s.uptime_seconds),
    ("open_files", "gauge", "Files that are open.", |s| s.open_files as f64),
    ("reads_total", "counter", "Reads that the kernel asked for.", |s| s.reads as f64),
    ("served_bytes_total", "counter", "Bytes that the kernel got.", |s| s.bytes_served as f64),
    ("read_errors_total", "counter", "Reads that failed.", |s| s.read_errors as f64),
    ("cache_hits_total", "counter", "Parts of chunks that were at hand.", |s| s.cache_hits as f64),
    ("chunks_decoded_total", "counter", "Chunks that were decoded.", |s| s.chunks_decoded as f64),
    ("chunks_decoded_ahead_total", "counter", "Chunks that a GPU decoded before they were asked for.", |s| {
        s.chunks_decoded_ahead as f64
    }),
    ("chunks_failed_total", "counter", "Chunks that are damaged or could not be read.", |s| s.chunks_failed as f64),
    ("chunks_healed_total", "counter", "Damaged chunks that were restored.", |s| s.chunks_healed as f64),
    ("decode_seconds_total", "counter", "Time that decoding took, of all threads.", |s| s.decode_seconds),
    ("cache_bytes", "gauge", "Bytes of decoded chunks that are kept.", |s| s.cache_bytes as f64),
];

/// The text format, version 0.0.4.
fn prometheus(listed: &[Listed]) -> String {
    let escaped = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let labels = |mount: &Listed| {
        format!("{{mountpoint=\"{}\",source=\"{}\"}}", escaped(&mount.mountpoint), escaped(&mount.source))
    };
    let mut text = "# HELP bigsmall_up Whether the mount is served.\n# TYPE bigsmall_up gauge\n".to_owned();
    for mount in listed {
        let _ = writeln!(text, "bigsmall_up{} {}", labels(mount), u8::from(mount.status == "alive"));
    }
    for (name, kind, help, value) in METRICS {
        let _ = writeln!(text, "# HELP bigsmall_{name} {help}\n# TYPE bigsmall_{name} {kind}");
        for mount in listed {
            if let Some(stats) = &mount.stats {
                let _ = writeln!(text, "bigsmall_{name}{} {}", labels(mount), value(stats));
            }
        }
    }
    text
}
