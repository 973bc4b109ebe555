//! `twinseal ctl apply`.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use prost::Message;
use tonic::Status;
use twinseal_api::v1;

use super::client::{self, Target};
use crate::cli::run::forbid_dumps;
use crate::cli::state_file::StateFile;

#[derive(Clone, Debug, clap::Args)]
pub(super) struct ApplyArgs {
    /// The state file; - is standard input.
    #[arg(short = 'f', long = "file", value_name = "FILE")]
    file: PathBuf,
    /// Check everything, change nothing.
    #[arg(long)]
    dry_run: bool,
    /// Refuse if the node's tables are not at this generation.
    #[arg(long, value_name = "N")]
    expect_generation: Option<u64>,
}

pub(super) async fn run(target: Target, args: ApplyArgs) -> anyhow::Result<ExitCode> {
    // This process is about to hold secrets too.
    forbid_dumps().context("cannot switch core dumps off")?;
    let mut file = StateFile::load(&args.file)?;
    let mut client = target.connect().await?;
    let count = file.changes.len();
    let request = v1::ApplyRequest {
        changes: std::mem::take(&mut file.changes),
        dry_run: args.dry_run,
        expected_generation: args.expect_generation,
    };
    let generation = match client.apply(request).await {
        Ok(response) => response.into_inner().generation,
        Err(status) => {
            return match refusal(&file, &status) {
                Some(text) => {
                    eprint!("{text}");
                    Ok(ExitCode::FAILURE)
                }
                None => Err(client::explain(&status)),
            };
        }
    };
    let mut out = io::stdout().lock();
    let changes = if count == 1 {
        "1 change".to_owned()
    } else {
        format!("{count} changes")
    };
    if args.dry_run {
        write!(out, "{changes} would be applied to generation {generation}")?;
    } else {
        write!(out, "generation {generation}: {changes} applied")?;
    }
    match file.installed {
        0 => writeln!(out)?,
        n => writeln!(out, "; {n} installed keys left as they are")?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Why the node refused, a line each with the place in the file; `None` if that is not what happened.
fn refusal(file: &StateFile, status: &Status) -> Option<String> {
    let refusal = v1::Refusal::decode(status.details())
        .ok()
        .filter(|refusal| !refusal.items.is_empty())?;
    let mut text = String::new();
    for item in &refusal.items {
        if let Some(place) = file.place(item.change) {
            text += &format!("{place}: ");
        }
        let v1::RefusedItem {
            item,
            field,
            reason,
            fix,
            ..
        } = item;
        let parts: Vec<_> = [item, field, reason]
            .into_iter()
            .filter(|part| !part.is_empty())
            .cloned()
            .collect();
        text += &parts.join(": ");
        if !fix.is_empty() {
            text += &format!("; {fix}");
        }
        text.push('\n');
    }
    text += "refused: nothing was changed\n";
    Some(text)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn shows_each_reason_at_its_place() {
        let file = StateFile::parse(Path::new("s.yaml"), "vrfs:\n- name: a\n- name: b\n").unwrap();
        let item = |change, field: &str, fix: &str| v1::RefusedItem {
            change,
            item: "vrf \"b\"".into(),
            field: field.into(),
            reason: "is wrong".into(),
            fix: fix.into(),
            code: v1::RefusalCode::Invalid.into(),
        };
        let details = v1::Refusal {
            items: vec![item(1, "name", "write another"), item(-1, "", "")],
        };
        let status = Status::with_details(
            tonic::Code::InvalidArgument,
            "no",
            details.encode_to_vec().into(),
        );
        assert_eq!(
            refusal(&file, &status).unwrap(),
            "s.yaml:3: vrfs[1]: vrf \"b\": name: is wrong; write another\n\
             vrf \"b\": is wrong\n\
             refused: nothing was changed\n"
        );
        assert_eq!(refusal(&file, &Status::unavailable("gone")), None);
        let garbage = Status::with_details(tonic::Code::Internal, "no", vec![0xff; 9].into());
        assert_eq!(refusal(&file, &garbage), None);
    }
}
