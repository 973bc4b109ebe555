//! `twinseal ctl ping`.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Value, json};
use twinseal_api::v1::{self, ping_request::Target};

use super::client::{self, Client};
use super::output::Output;

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Kind {
    /// The node at the other end of a link.
    Link,
    /// The edge at the other end of a circuit, through all nodes between.
    Circuit,
}

#[derive(Clone, Debug, clap::Args)]
pub(super) struct PingArgs {
    #[command(flatten)]
    output: Output,
    /// Whom to ask.
    #[arg(value_enum)]
    kind: Kind,
    /// The link's or circuit's name.
    name: String,
    /// Requests, at most 1000.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    count: u32,
    /// Seconds between two of them, at least 0.02.
    #[arg(long, value_name = "SECS", default_value = "1", value_parser = |text: &str| millis(text, 20, 60_000))]
    interval: u32,
    /// Seconds that each is waited for.
    #[arg(long, value_name = "SECS", default_value = "1", value_parser = |text: &str| millis(text, 1, 10_000))]
    timeout: u32,
}

/// Seconds, as 0.5, in milliseconds.
fn millis(text: &str, least: u32, most: u32) -> Result<u32, String> {
    let bounds = || {
        let seconds = |ms: u32| f64::from(ms) / 1e3;
        format!("give seconds from {} to {}", seconds(least), seconds(most))
    };
    let seconds: f64 = text.parse().map_err(|_| bounds())?;
    let ms = (seconds * 1e3).round();
    match ms >= f64::from(least) && ms <= f64::from(most) {
        true => Ok(ms as u32),
        false => Err(bounds()),
    }
}

/// What came of it so far.
#[derive(Default)]
struct Sums {
    sent: u64,
    answered: u64,
    least: Option<Duration>,
    most: Duration,
    all: Duration,
}

impl Sums {
    fn add(&mut self, it: &v1::PingResponse) {
        self.sent += 1;
        if it.fate() == v1::PingFate::Answered {
            let rtt = Duration::from_nanos(it.rtt_nanos);
            self.answered += 1;
            self.least = Some(self.least.map_or(rtt, |least| least.min(rtt)));
            self.most = self.most.max(rtt);
            self.all += rtt;
        }
    }

    fn average(&self) -> Option<Duration> {
        (self.answered > 0).then(|| self.all / self.answered.min(u32::MAX.into()) as u32)
    }

    fn loss(&self) -> f64 {
        let lost = self.sent - self.answered;
        lost as f64 * 100.0 / self.sent.max(1) as f64
    }

    fn line(&self) -> String {
        let rtt = match (self.least, self.average()) {
            (Some(least), Some(average)) => format!(
                "; RTT min/avg/max {}/{}/{} ms",
                ms(least),
                ms(average),
                ms(self.most)
            ),
            _ => String::new(),
        };
        let (sent, answered, loss) = (self.sent, self.answered, self.loss());
        format!("{sent} sent, {answered} answered, {loss:.1} % lost{rtt}")
    }

    fn json(&self) -> Value {
        let nanos = |it: Option<Duration>| it.map(|it| it.as_nanos() as u64);
        json!({
            "sent": self.sent,
            "answered": self.answered,
            "lost": self.sent - self.answered,
            "loss_percent": self.loss(),
            "rtt_min_nanos": nanos(self.least),
            "rtt_avg_nanos": nanos(self.average()),
            "rtt_max_nanos": nanos(self.least.map(|_| self.most)),
        })
    }
}

fn ms(it: Duration) -> String {
    format!("{:.3}", it.as_secs_f64() * 1e3)
}

fn line(it: &v1::PingResponse) -> String {
    match it.fate() {
        v1::PingFate::Answered => {
            format!(
                "{}: {} ms",
                it.sequence,
                ms(Duration::from_nanos(it.rtt_nanos))
            )
        }
        v1::PingFate::Lost => format!("{}: no answer", it.sequence),
        v1::PingFate::Unspecified => format!("{}: its fate is of a later version", it.sequence),
    }
}

fn one_json(it: &v1::PingResponse) -> Value {
    let answered = it.fate() == v1::PingFate::Answered;
    json!({
        "sequence": it.sequence,
        "answered": answered,
        "rtt_nanos": answered.then_some(it.rtt_nanos),
    })
}

/// Asks, and prints what becomes of each request. Status 1 if none was answered.
pub(super) async fn ping(mut client: Client, args: PingArgs) -> anyhow::Result<ExitCode> {
    let target = match args.kind {
        Kind::Link => Target::Link(args.name),
        Kind::Circuit => Target::Circuit(args.name),
    };
    let request = v1::PingRequest {
        target: Some(target),
        count: args.count,
        interval_ms: args.interval,
        timeout_ms: args.timeout,
    };
    let answer = client.ping(request).await;
    let mut stream = answer
        .map_err(|status| client::explain(&status))?
        .into_inner();
    let mut sums = Sums::default();
    loop {
        let message = tokio::select! {
            message = stream.message() => message.map_err(|status| client::explain(&status))?,
            // What was answered until then is told.
            stop = tokio::signal::ctrl_c() => {
                stop?;
                None
            }
        };
        let Some(message) = message else {
            break;
        };
        if message.limits.is_some() {
            continue;
        }
        sums.add(&message);
        let mut out = io::stdout();
        match args.output.table() {
            true => writeln!(out, "{}", line(&message))?,
            false => args.output.one(&mut out, &one_json(&message))?,
        }
    }
    let mut out = io::stdout();
    match args.output.table() {
        true => writeln!(out, "{}", sums.line())?,
        false => args.output.one(&mut out, &sums.json())?,
    }
    Ok(ExitCode::from(u8::from(sums.answered == 0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(sequence: u64, fate: v1::PingFate, rtt_nanos: u64) -> v1::PingResponse {
        v1::PingResponse {
            limits: None,
            sequence,
            fate: fate.into(),
            rtt_nanos,
        }
    }

    #[test]
    fn sums_are_of_what_was_answered() {
        let mut sums = Sums::default();
        assert_eq!(sums.line(), "0 sent, 0 answered, 0.0 % lost");
        let lost = answer(1, v1::PingFate::Lost, 0);
        sums.add(&lost);
        assert_eq!(sums.line(), "1 sent, 0 answered, 100.0 % lost");
        assert_eq!(sums.json()["rtt_min_nanos"], Value::Null);
        let answered = answer(2, v1::PingFate::Answered, 250_000);
        sums.add(&answered);
        sums.add(&answer(3, v1::PingFate::Answered, 1_750_000));
        sums.add(&answer(4, v1::PingFate::Answered, 1_000_000));
        assert_eq!(
            sums.line(),
            "4 sent, 3 answered, 25.0 % lost; RTT min/avg/max 0.250/1.000/1.750 ms"
        );
        assert_eq!(
            sums.json(),
            json!({
                "sent": 4, "answered": 3, "lost": 1, "loss_percent": 25.0,
                "rtt_min_nanos": 250_000, "rtt_avg_nanos": 1_000_000, "rtt_max_nanos": 1_750_000,
            })
        );
        assert_eq!(line(&lost), "1: no answer");
        assert_eq!(line(&answered), "2: 0.250 ms");
        let told = json!({ "sequence": 2, "answered": true, "rtt_nanos": 250_000 });
        assert_eq!(one_json(&answered), told);
        assert_eq!(one_json(&lost)["rtt_nanos"], Value::Null);
    }

    #[test]
    fn times_are_seconds_within_bounds() {
        for (text, want) in [("1", 1000), ("0.02", 20), ("0.5", 500), ("60", 60_000)] {
            assert_eq!(millis(text, 20, 60_000), Ok(want));
        }
        for wrong in ["", "x", "0", "0.019", "-1", "61", "NaN", "inf"] {
            let told = millis(wrong, 20, 60_000).expect_err(wrong);
            assert_eq!(told, "give seconds from 0.02 to 60");
        }
    }
}
