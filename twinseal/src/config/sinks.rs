//! Sections `events`, `audit` and `usage`: what the node tells and keeps.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Spanned;

use crate::config::file::Check;
use twinseal_model::json;
use twinseal_node::events::DEFAULT_RING;
use twinseal_node::events::file::EventsConfig;
use twinseal_node::jsonl::Output;
use twinseal_node::usage::UsageConfig;

/// Events that may be kept in memory: each takes some hundred octets.
const MAX_RING: u64 = 1 << 20;
const DEFAULT_MAX_BYTES: u64 = 100 << 20;
const DEFAULT_KEEP: u32 = 5;
/// Two full segments: less could not keep the last minutes.
const MIN_USAGE_BYTES: u64 = 8 << 20;

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Events {
    ring: Option<Spanned<u64>>,
    file: Option<Spanned<PathBuf>>,
    kinds: Option<Vec<Spanned<String>>>,
    max_bytes: Option<u64>,
    keep: Option<u32>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Audit {
    file: Option<Spanned<PathBuf>>,
    max_bytes: Option<u64>,
    keep: Option<u32>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Usage {
    interval: Option<Spanned<u64>>,
    max_bytes: Option<Spanned<u64>>,
    keep_days: Option<Spanned<u64>>,
}

impl Check<'_> {
    pub(super) fn events(&mut self, events: Events) -> EventsConfig {
        let ring = self.number(
            events.ring,
            "events.ring",
            DEFAULT_RING as u64,
            16..=MAX_RING,
        );
        let mut kinds = Vec::new();
        for word in events.kinds.into_iter().flatten() {
            match json::kind_of(word.get_ref()) {
                Some(kind) => kinds.push(kind),
                None => {
                    let reason = format!("{:?} is no kind of events", word.get_ref());
                    let fix = "write fault, configuration, accounting, performance or security";
                    self.wrong(word.span(), "events.kinds", reason, fix);
                }
            }
        }
        EventsConfig {
            ring: ring as usize,
            output: self.output(events.file, "events.file", events.max_bytes, events.keep),
            kinds,
        }
    }

    pub(super) fn audit(&mut self, audit: Audit) -> Option<Output> {
        self.output(audit.file, "audit.file", audit.max_bytes, audit.keep)
    }

    /// A file of JSON lines; `-` is standard output.
    pub(super) fn output(
        &mut self,
        file: Option<Spanned<PathBuf>>,
        field: &str,
        max_bytes: Option<u64>,
        keep: Option<u32>,
    ) -> Option<Output> {
        let file = file?;
        if file.get_ref() == Path::new("-") {
            return Some(Output::Stdout);
        }
        if !file.get_ref().is_absolute() {
            let reason = format!("{} is not absolute", file.get_ref().display());
            let fix = "write a path from `/`, or \"-\" for standard output";
            self.wrong(file.span(), field, reason, fix);
        }
        Some(Output::File {
            path: file.into_inner(),
            max_bytes: max_bytes.unwrap_or(DEFAULT_MAX_BYTES),
            keep: keep.unwrap_or(DEFAULT_KEEP),
        })
    }

    pub(super) fn usage(&mut self, usage: Usage) -> UsageConfig {
        let default = UsageConfig::default();
        let interval = self.number(
            usage.interval,
            "usage.interval",
            default.interval.into(),
            1..=86400,
        );
        let keep_days = self.number(
            usage.keep_days,
            "usage.keep_days",
            default.keep_days.into(),
            1..=36500,
        );
        UsageConfig {
            interval: interval as u32,
            max_bytes: self.number(
                usage.max_bytes,
                "usage.max_bytes",
                default.max_bytes,
                MIN_USAGE_BYTES..=1 << 50,
            ),
            keep_days: keep_days as u32,
        }
    }

    pub(super) fn number(
        &mut self,
        value: Option<Spanned<u64>>,
        field: &str,
        default: u64,
        range: std::ops::RangeInclusive<u64>,
    ) -> u64 {
        let Some(value) = value else { return default };
        if !range.contains(value.get_ref()) {
            let reason = format!("{} is out of range", value.get_ref());
            let fix = format!("write {} to {}", range.start(), range.end());
            self.wrong(value.span(), field, reason, fix);
        }
        value.into_inner()
    }
}
