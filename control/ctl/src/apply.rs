//! `twinseal ctl apply` and `replace`.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use twinseal_api::client::Error;
use twinseal_api::v1::{self, change::Change};

use serde_json::{Value, json};

use super::client::{self, Client, Target};
use super::output::Output;
use crate::print;
use twinseal_base::mistake::Mistake;
use twinseal_base::{forbid_dumps, time};
use twinseal_statefile::{StateFile, StateFileError};

#[derive(Clone, Debug, clap::Args)]
pub(super) struct ApplyArgs {
    /// The state file; - is standard input.
    #[arg(short = 'f', long = "file", value_name = "FILE")]
    file: PathBuf,
    /// Check everything and print what would change; change nothing.
    #[arg(long)]
    dry_run: bool,
    /// Refuse if the owner's items have changed since the node's tables were at this generation.
    #[arg(long, value_name = "N")]
    expect_generation: Option<u64>,
    /// Roll back unless `ctl confirm` follows within so many seconds.
    #[arg(long, value_name = "SECS", value_parser = clap::value_parser!(u32).range(1..=86_400))]
    confirm_within: Option<u32>,
    /// A name for this request: the same again under it is answered but not applied again.
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    request_id: String,
    /// Whose becomes what the file sets, and whose else is replaced; without it: the controller's.
    #[arg(
        long,
        value_name = "NAME",
        default_value = "",
        hide_default_value = true
    )]
    owner: String,
    /// Also what another owner has: it becomes this one's.
    #[arg(long)]
    take_over: bool,
    #[command(flatten)]
    output: Output,
}

#[derive(Clone, Debug, clap::Args)]
pub(super) struct ReplaceArgs {
    #[command(flatten)]
    apply: ApplyArgs,
    /// Take a file without items, which deletes everything.
    #[arg(long)]
    allow_empty: bool,
}

/// Sets what the file says, and leaves the rest.
pub(super) async fn apply(target: Target, args: ApplyArgs) -> anyhow::Result<ExitCode> {
    let Some((mut file, mut client)) = begin(target, &args).await? else {
        return Ok(ExitCode::FAILURE);
    };
    let request = v1::ApplyRequest {
        changes: std::mem::take(&mut file.changes),
        dry_run: args.dry_run,
        expected_generation: args.expect_generation,
        request_id: args.request_id.clone(),
        confirm_within_seconds: args.confirm_within.unwrap_or(0),
        owner: args.owner.clone(),
        take_over: args.take_over,
        ..Default::default()
    };
    let answer = client.apply(request).await;
    end(&file, &args, answer)
}

/// Makes the state what the file says, and nothing else.
pub(super) async fn replace(target: Target, args: ReplaceArgs) -> anyhow::Result<ExitCode> {
    let ReplaceArgs {
        apply: args,
        allow_empty,
    } = args;
    let Some((mut file, mut client)) = begin(target, &args).await? else {
        return Ok(ExitCode::FAILURE);
    };
    let mut items = Vec::with_capacity(file.changes.len());
    for (change, index) in std::mem::take(&mut file.changes).into_iter().zip(0..) {
        match change.change {
            Some(Change::Set(item)) => items.push(item),
            _ => {
                let why = "a whole state has no section `delete`";
                let fix = "leave it out: what is not in the file goes by itself";
                return unfit(&file, &args, index, "delete", why, fix);
            }
        }
    }
    if items.is_empty() && !allow_empty {
        let why = "a state without items deletes everything";
        let fix = "add --allow-empty if that is meant";
        return unfit(&file, &args, -1, "", why, fix);
    }
    let head = v1::ReplaceRequest {
        allow_empty,
        request_id: args.request_id.clone(),
        dry_run: args.dry_run,
        expected_generation: args.expect_generation,
        confirm_within_seconds: args.confirm_within.unwrap_or(0),
        owner: args.owner.clone(),
        take_over: args.take_over,
        ..Default::default()
    };
    let answer = client.replace(head, items).await;
    end(&file, &args, answer)
}

/// Tells why a file is no whole state, of which the node need not hear.
fn unfit(
    file: &StateFile,
    args: &ApplyArgs,
    change: i32,
    field: &str,
    reason: &str,
    fix: &str,
) -> anyhow::Result<ExitCode> {
    if args.output.table() {
        bail!("{}: {reason}: {fix}", args.file.display());
    }
    let item = v1::RefusedItem {
        change,
        field: field.to_owned(),
        reason: reason.to_owned(),
        fix: fix.to_owned(),
        code: v1::RefusalCode::Invalid.into(),
        ..v1::RefusedItem::default()
    };
    let told = refusal_json(vec![item_json(file, &item)]);
    args.output.whole(&mut io::stdout(), &told)?;
    Ok(ExitCode::FAILURE)
}

/// Nothing for a file whose mistakes were told to a program.
async fn begin(target: Target, args: &ApplyArgs) -> anyhow::Result<Option<(StateFile, Client)>> {
    // This process is about to hold secrets too.
    forbid_dumps().context("cannot switch core dumps off")?;
    let file = match StateFile::load(&args.file) {
        Ok(file) => file,
        Err(StateFileError::Invalid(mistakes)) if !args.output.table() => {
            let told: Vec<_> = mistakes.iter().map(mistake_json).collect();
            args.output.whole(&mut io::stdout(), &refusal_json(told))?;
            return Ok(None);
        }
        Err(error) => return Err(error.into()),
    };
    Ok(Some((file, target.connect().await?)))
}

fn end(
    file: &StateFile,
    args: &ApplyArgs,
    answer: Result<v1::ApplyResponse, Error>,
) -> anyhow::Result<ExitCode> {
    let answer = match answer {
        Ok(answer) => answer,
        Err(Error::Refused(refusal)) if !args.output.table() => {
            let told = by_line(file, &refusal.items).into_iter();
            let told = told.map(|item| item_json(file, item));
            args.output
                .whole(&mut io::stdout(), &refusal_json(told.collect()))?;
            return Ok(ExitCode::FAILURE);
        }
        Err(Error::Refused(refusal)) => {
            eprint!("{}", refusal_text(file, &refusal));
            return Ok(ExitCode::FAILURE);
        }
        Err(error) => return Err(client::advise(error)),
    };
    let mut out = io::stdout().lock();
    if !args.output.table() {
        args.output
            .whole(&mut out, &answer_json(file, args.dry_run, &answer)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let diff = answer.diff.unwrap_or_default();
    if args.dry_run {
        print_diff(&mut out, &diff)?;
    }
    let generation = answer.generation;
    // What the file names and the node has so already is none.
    let changes = match diff.created + diff.updated + diff.deleted {
        1 => "1 change".to_owned(),
        count => format!("{count} changes"),
    };
    if args.dry_run {
        write!(out, "{changes} would be applied to generation {generation}")?;
    } else if answer.repeated {
        write!(
            out,
            "generation {generation}: applied before under this request id"
        )?;
    } else {
        write!(out, "generation {generation}: {changes} applied")?;
    }
    match file.installed {
        0 => writeln!(out)?,
        1 => writeln!(out, "; 1 key without a secret in the file left as it is")?,
        n => writeln!(
            out,
            "; {n} keys without a secret in the file left as they are"
        )?,
    }
    if answer.not_stored {
        writeln!(
            out,
            "not in the state directory yet: a restart would not restore it; see the node's log"
        )?;
    }
    for warning in &answer.warnings {
        writeln!(out, "WARNING: {warning}")?;
    }
    if let Some(pending) = &answer.pending {
        let until = time::rfc3339(pending.until_unix_nanos);
        writeln!(
            out,
            "rolled back at {until} unless `twinseal ctl confirm {}{}` comes first",
            pending.generation,
            of_owner(&args.owner)
        )?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The option that says for which owner.
fn of_owner(owner: &str) -> String {
    match owner {
        "" => String::new(),
        owner => format!(" --owner {owner}"),
    }
}

/// What would go, with -, and what would come, with +, in the words of state files.
fn print_diff(out: &mut impl Write, diff: &v1::Diff) -> anyhow::Result<()> {
    for change in &diff.changes {
        for (sign, item) in [('-', &change.old), ('+', &change.new)] {
            if let Some(item) = item {
                let file = twinseal_statefile::json(std::slice::from_ref(item))?;
                for (section, entries) in file.as_object().into_iter().flatten() {
                    for entry in entries.as_array().into_iter().flatten() {
                        writeln!(out, "{sign} {section}: {entry}")?;
                    }
                }
            }
        }
    }
    let v1::Diff {
        created,
        updated,
        deleted,
        changes,
    } = diff;
    let more = created + updated + deleted - changes.len() as u64;
    if more > 0 {
        writeln!(out, "... and {more} items more")?;
    }
    writeln!(
        out,
        "{created} created, {updated} updated, {deleted} deleted"
    )?;
    Ok(())
}

/// What [`end`] tells people.
fn answer_json(
    file: &StateFile,
    dry_run: bool,
    answer: &v1::ApplyResponse,
) -> serde_json::Result<Value> {
    let diff = answer.diff.clone().unwrap_or_default();
    let side = |item: &Option<v1::Item>| match item {
        Some(item) => twinseal_statefile::json(std::slice::from_ref(item)),
        None => Ok(Value::Null),
    };
    let mut changes = Vec::with_capacity(diff.changes.len());
    for change in &diff.changes {
        changes.push(json!({ "old": side(&change.old)?, "new": side(&change.new)? }));
    }
    let pending = answer.pending.as_ref();
    Ok(json!({
        "dry_run": dry_run,
        "generation": answer.generation,
        "repeated": answer.repeated,
        "created": diff.created,
        "updated": diff.updated,
        "deleted": diff.deleted,
        "changes": changes,
        "keys_without_secret": file.installed,
        "not_stored": answer.not_stored,
        "warnings": answer.warnings,
        "pending": pending.map(|it| json!({
            "generation": it.generation,
            "until_unix_nanos": it.until_unix_nanos,
        })),
    }))
}

/// Why nothing was changed.
fn refusal_json(reasons: Vec<Value>) -> Value {
    json!({ "refused": reasons })
}

/// In the order of the file, which people go through from its first line; the node has it by sections. What has no line
/// stays where it is: before the others what is about the whole, and last how many more there are.
fn by_line<'a>(file: &StateFile, items: &'a [v1::RefusedItem]) -> Vec<&'a v1::RefusedItem> {
    let mut items: Vec<_> = items.iter().collect();
    let line = |item: &&v1::RefusedItem| file.line(item.change);
    let first = items.iter().position(|it| line(it).is_some());
    let last = items.iter().rposition(|it| line(it).is_some());
    if let (Some(first), Some(last)) = (first, last) {
        items[first..=last].sort_by_key(line);
    }
    items
}

fn item_json(file: &StateFile, item: &v1::RefusedItem) -> Value {
    let mut object = print::refused_json(item);
    object["place"] = file
        .place(item.change)
        .map(|place| place.to_string())
        .into();
    object
}

fn mistake_json(mistake: &Mistake) -> Value {
    let mut object = print::refused_json(&v1::RefusedItem {
        field: mistake.field.clone(),
        reason: mistake.reason.clone(),
        fix: mistake.fix.clone(),
        code: v1::RefusalCode::Invalid.into(),
        ..v1::RefusedItem::default()
    });
    object["place"] = mistake.place().into();
    object
}

/// Why the node refused, a line each with the place in the file.
fn refusal_text(file: &StateFile, refusal: &v1::Refusal) -> String {
    let mut text = String::new();
    for item in by_line(file, &refusal.items) {
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
    text
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn shows_each_reason_at_its_place() {
        let file = "routes:\n- { vrf: v, prefix: ::/0 }\nvrfs:\n- name: a\n- name: b\n";
        let file = StateFile::parse(Path::new("s.yaml"), file).unwrap();
        let item = |change, field: &str, fix: &str| v1::RefusedItem {
            change,
            item: "vrf \"b\"".into(),
            field: field.into(),
            reason: "is wrong".into(),
            fix: fix.into(),
            code: v1::RefusalCode::Invalid.into(),
        };
        let refusal = v1::Refusal {
            items: vec![
                item(-1, "first", ""),
                item(0, "", ""),
                item(1, "name", "write another"),
                item(2, "", ""),
                item(-1, "", ""),
            ],
        };
        // The node has sections in an order of its own.
        assert_eq!(
            refusal_text(&file, &refusal),
            "vrf \"b\": first: is wrong\n\
             s.yaml:2: routes[0]: vrf \"b\": is wrong\n\
             s.yaml:4: vrfs[0]: vrf \"b\": is wrong\n\
             s.yaml:5: vrfs[1]: vrf \"b\": name: is wrong; write another\n\
             vrf \"b\": is wrong\n\
             refused: nothing was changed\n"
        );
    }
}
