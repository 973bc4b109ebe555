//! `twinseal ctl confirm` and `rollback`.

use std::io::{self, Write};
use std::process::ExitCode;

use twinseal_api::v1;

use serde_json::json;

use super::client::{self, Target};
use super::output::Output;
use crate::print::refused_json;
use twinseal_model::refusal::text;

#[derive(Clone, Debug, clap::Args)]
pub(super) struct PendingArgs {
    /// The generation that `apply --confirm-within` told. Without it: whatever waits.
    #[arg(
        value_name = "GENERATION",
        default_value_t = 0,
        hide_default_value = true
    )]
    generation: u64,
    /// Whose transaction it is; without it: the controller's.
    #[arg(
        long,
        value_name = "NAME",
        default_value = "",
        hide_default_value = true
    )]
    owner: String,
    #[command(flatten)]
    output: Output,
}

pub(super) async fn confirm(target: Target, args: PendingArgs) -> anyhow::Result<ExitCode> {
    let mut client = target.connect().await?;
    let request = v1::ConfirmRequest {
        generation: args.generation,
        owner: args.owner.clone(),
    };
    let answer = client.confirm(request).await;
    let answer = answer.map_err(|status| client::explain(&status))?;
    let generation = answer.into_inner().generation;
    let mut out = io::stdout().lock();
    match args.output.table() {
        true => writeln!(out, "generation {generation} stays")?,
        false => args
            .output
            .whole(&mut out, &json!({ "generation": generation }))?,
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn rollback(target: Target, args: PendingArgs) -> anyhow::Result<ExitCode> {
    let mut client = target.connect().await?;
    let request = v1::RollbackRequest {
        generation: args.generation,
        owner: args.owner.clone(),
    };
    let answer = client.rollback(request).await;
    let answer = answer.map_err(|status| client::explain(&status))?;
    let answer = answer.into_inner();
    let mut out = io::stdout().lock();
    if args.output.table() {
        writeln!(out, "rolled back: generation {}", answer.generation)?;
        for item in &answer.not_restored {
            writeln!(out, "not restored, with all that needs it: {}", text(item))?;
        }
    } else {
        let left = answer.not_restored.iter().map(refused_json);
        let left: Vec<_> = left.collect();
        let all = json!({ "generation": answer.generation, "not_restored": left });
        args.output.whole(&mut out, &all)?;
    }
    Ok(match answer.not_restored.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}
