//! `twinseal ctl trace`, `capture` and `explain`.

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use twinseal_api::v1;

use super::client::{self, Client};
use super::output::Output;
use super::pcapng;
use crate::print;
use twinseal_base::time::unix_nanos;

#[derive(Clone, Debug, clap::Args)]
struct FilterArgs {
    /// From this address, or one of this prefix.
    #[arg(
        long,
        value_name = "PREFIX",
        default_value = "",
        hide_default_value = true
    )]
    source: String,
    /// To this address, or one of this prefix.
    #[arg(
        long,
        value_name = "PREFIX",
        default_value = "",
        hide_default_value = true
    )]
    destination: String,
    /// tcp, udp, icmp, icmpv6, or a number.
    #[arg(long, value_name = "PROTOCOL", value_parser = protocol)]
    protocol: Option<u32>,
    /// From this port.
    #[arg(long, value_name = "PORT")]
    source_port: Option<u16>,
    /// To this port.
    #[arg(long, value_name = "PORT")]
    destination_port: Option<u16>,
}

fn protocol(text: &str) -> Result<u32, String> {
    match text {
        "icmp" => Ok(1),
        "tcp" => Ok(6),
        "udp" => Ok(17),
        "icmpv6" => Ok(58),
        number => match number.parse::<u8>() {
            Ok(number) => Ok(number.into()),
            Err(_) => Err("give tcp, udp, icmp, icmpv6, or a number up to 255".to_owned()),
        },
    }
}

impl FilterArgs {
    fn filter(self) -> v1::PacketFilter {
        v1::PacketFilter {
            source: self.source,
            destination: self.destination,
            protocol: self.protocol,
            source_port: self.source_port.map(u32::from),
            destination_port: self.destination_port.map(u32::from),
        }
    }
}

#[derive(Clone, Debug, clap::Args)]
struct Bounds {
    /// End after so many. The node has limits of its own.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    count: Option<u32>,
    /// End after so many seconds; 60 without it.
    #[arg(long, value_name = "SECS", value_parser = clap::value_parser!(u32).range(1..=3600))]
    timeout: Option<u32>,
}

#[derive(Clone, Debug, clap::Args)]
pub(super) struct TraceArgs {
    #[command(flatten)]
    output: Output,
    /// Packets that come in by this port.
    #[arg(
        long,
        value_name = "NAME",
        default_value = "",
        hide_default_value = true
    )]
    from_port: String,
    /// Packets that come by this link, or are to leave by it.
    #[arg(
        long,
        value_name = "NAME",
        default_value = "",
        hide_default_value = true
    )]
    link: String,
    /// Packets that come out of this circuit, or are to go into it.
    #[arg(
        long,
        value_name = "NAME",
        default_value = "",
        hide_default_value = true
    )]
    circuit: String,
    /// Packets that are routed in this VRF.
    #[arg(
        long,
        value_name = "NAME",
        default_value = "",
        hide_default_value = true
    )]
    vrf: String,
    #[command(flatten)]
    filter: FilterArgs,
    /// Only packets that are dropped.
    #[arg(long)]
    dropped: bool,
    #[command(flatten)]
    bounds: Bounds,
}

/// Prints what becomes of packets. Status 1 if there was none.
pub(super) async fn trace(mut client: Client, args: TraceArgs) -> anyhow::Result<ExitCode> {
    let request = v1::TraceRequest {
        port: args.from_port,
        link: args.link,
        circuit: args.circuit,
        vrf: args.vrf,
        filter: Some(args.filter.filter()),
        dropped: args.dropped,
        count: args.bounds.count.unwrap_or(0),
        seconds: args.bounds.timeout.unwrap_or(0),
    };
    let answer = client.trace(request).await;
    let mut stream = answer
        .map_err(|status| client::explain(&status))?
        .into_inner();
    let mut seen = Seen::default();
    loop {
        let Some(message) = next(stream.message(), &seen).await? else {
            break;
        };
        if let Some(limits) = &message.limits {
            seen.began("tracing", limits);
        }
        // Not locked across a wait.
        let mut out = io::stdout();
        for packet in &message.packets {
            seen.count += 1;
            match args.output.table() {
                true => writeln!(out, "{}", print::traced(packet))?,
                false => args.output.one(&mut out, &print::traced_json(packet))?,
            }
        }
        seen.stands(message.lost, message.end());
    }
    seen.over("packets");
    Ok(ExitCode::from(u8::from(seen.count == 0)))
}

#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
enum Direction {
    #[default]
    Both,
    In,
    Out,
}

#[derive(Clone, Debug, clap::Args)]
pub(super) struct CaptureArgs {
    #[command(flatten)]
    output: Output,
    /// The port.
    #[arg(long, value_name = "NAME")]
    port: String,
    /// Received frames, sent ones, or both.
    #[arg(long, value_enum, default_value_t)]
    direction: Direction,
    #[command(flatten)]
    filter: FilterArgs,
    /// Octets to take of each frame; all without it.
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    snaplen: u32,
    #[command(flatten)]
    bounds: Bounds,
    /// Write pcapng to this file, readable for this user alone; - is standard output. Without it, a line a frame.
    #[arg(short = 'w', long = "write", value_name = "FILE")]
    write: Option<PathBuf>,
}

/// Copies frames of a port. Status 1 if there was none.
pub(super) async fn capture(mut client: Client, args: CaptureArgs) -> anyhow::Result<ExitCode> {
    let direction = match args.direction {
        Direction::Both => v1::CaptureDirection::Both,
        Direction::In => v1::CaptureDirection::In,
        Direction::Out => v1::CaptureDirection::Out,
    };
    let request = v1::CaptureRequest {
        port: args.port.clone(),
        direction: direction.into(),
        filter: Some(args.filter.filter()),
        snap_length: args.snaplen,
        count: args.bounds.count.unwrap_or(0),
        seconds: args.bounds.timeout.unwrap_or(0),
    };
    let answer = client.capture(request).await;
    let mut stream = answer
        .map_err(|status| client::explain(&status))?
        .into_inner();
    let mut file = None;
    let mut seen = Seen::default();
    loop {
        let Some(message) = next(stream.message(), &seen).await? else {
            break;
        };
        if let Some(limits) = &message.limits {
            seen.began("capturing", limits);
            if let Some(path) = &args.write {
                file = Some(pcapng::File::begin(
                    open(path)?,
                    &args.port,
                    limits.snap_length,
                )?);
            }
        }
        for frame in &message.frames {
            seen.count += 1;
            let mut out = io::stdout();
            match &mut file {
                Some(file) => file.frame(frame)?,
                None if args.output.table() => writeln!(out, "{}", print::frame(frame))?,
                None => args.output.one(&mut out, &print::frame_json(frame))?,
            }
        }
        if let Some(file) = &mut file {
            // Whoever reads on the other side of a pipe sees them now.
            file.flush()?;
        }
        seen.stands(message.lost, message.end());
    }
    if let Some(file) = &mut file {
        file.end(unix_nanos(), seen.lost)?;
    }
    seen.over("frames");
    Ok(ExitCode::from(u8::from(seen.count == 0)))
}

fn open(path: &Path) -> anyhow::Result<Box<dyn Write>> {
    use std::os::unix::fs::OpenOptionsExt;
    if path == Path::new("-") {
        return Ok(Box::new(BufWriter::new(io::stdout())));
    }
    let file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(Box::new(BufWriter::new(file)))
}

/// The next message; `None` at the end, or when the user has seen enough: what was taken until then is whole.
async fn next<M>(
    message: impl Future<Output = Result<Option<M>, tonic::Status>>,
    seen: &Seen,
) -> anyhow::Result<Option<M>> {
    tokio::select! {
        message = message => match message {
            Ok(message) => Ok(message),
            // It has told its end: what comes after that is the connection's.
            Err(_) if seen.end != v1::TapEnd::Unspecified => Ok(None),
            Err(status) => Err(client::explain(&status)),
        },
        stop = tokio::signal::ctrl_c() => {
            stop?;
            Ok(None)
        }
    }
}

/// What came so far.
#[derive(Default)]
struct Seen {
    count: u64,
    lost: u64,
    end: v1::TapEnd,
}

impl Seen {
    /// On stderr: what is on standard output may be for a program.
    fn began(&self, what: &str, limits: &v1::TapLimits) {
        eprintln!(
            "{what}: at most {} within {} s",
            limits.count, limits.seconds
        );
    }

    /// What each message says of the tap itself.
    fn stands(&mut self, lost: u64, end: v1::TapEnd) {
        self.lost = lost;
        if end != v1::TapEnd::Unspecified {
            self.end = end;
        }
    }

    fn over(&self, what: &str) {
        let why = match self.end {
            v1::TapEnd::Count => "the count is reached",
            v1::TapEnd::Time => "the time is over",
            v1::TapEnd::Gone => "what it was of is gone, or the node stops",
            v1::TapEnd::Unspecified => "stopped",
        };
        let lost = match self.lost {
            0 => String::new(),
            lost => format!(", {lost} more were lost, as we were too slow: narrow it down"),
        };
        eprintln!("{} {what}{lost}; {why}", self.count);
    }
}

#[derive(Clone, Debug, clap::Args)]
pub(super) struct ExplainArgs {
    #[command(flatten)]
    output: Output,
    /// Where it is routed.
    #[arg(long, value_name = "NAME")]
    vrf: String,
    /// To whom.
    #[arg(long, value_name = "ADDRESS")]
    destination: String,
    /// From whom; with protocol and ports it decides which member of a group is taken.
    #[arg(
        long,
        value_name = "ADDRESS",
        default_value = "",
        hide_default_value = true
    )]
    source: String,
    /// tcp, udp, icmp, icmpv6, or a number.
    #[arg(long, value_name = "PROTOCOL", value_parser = protocol, default_value = "udp")]
    protocol: u32,
    /// From this port.
    #[arg(
        long,
        value_name = "PORT",
        default_value_t = 0,
        hide_default_value = true
    )]
    source_port: u16,
    /// To this port.
    #[arg(
        long,
        value_name = "PORT",
        default_value_t = 0,
        hide_default_value = true
    )]
    destination_port: u16,
}

/// Prints where a packet would go. Status 1 if it would not arrive there.
pub(super) async fn explain(mut client: Client, args: ExplainArgs) -> anyhow::Result<ExitCode> {
    let request = v1::ExplainRequest {
        vrf: args.vrf,
        source: args.source,
        destination: args.destination,
        protocol: args.protocol,
        source_port: args.source_port.into(),
        destination_port: args.destination_port.into(),
    };
    let answer = client.explain(request).await;
    let told = answer
        .map_err(|status| client::explain(&status))?
        .into_inner();
    let mut out = io::stdout().lock();
    match args.output.table() {
        true => write!(out, "{}", print::explained(&told))?,
        false => args.output.whole(&mut out, &print::explained_json(&told))?,
    }
    Ok(ExitCode::from(u8::from(!told.problem.is_empty())))
}
