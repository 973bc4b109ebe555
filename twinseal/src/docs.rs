//! That the links of the documentation lead somewhere: files and headings move.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Where pages are.
const FOLDERS: [&str; 4] = ["", "docs", "docs/decisions", "examples/controller"];

fn pages() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let files = FOLDERS.map(|folder| std::fs::read_dir(root.join(folder)).expect("a folder"));
    let files = files
        .into_iter()
        .flatten()
        .map(|file| file.expect("a file").path());
    files
        .filter(|file| file.extension().is_some_and(|it| it == "md"))
        .collect()
}

/// What a heading is called in links.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().to_lowercase();
    let kept = kept
        .chars()
        .filter(|c| c.is_alphanumeric() || "-_ ".contains(*c));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

fn anchors(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    headings
        .map(|line| anchor(line.trim_start_matches('#')))
        .collect()
}

/// The targets of `[text](target)`.
fn links(text: &str) -> impl Iterator<Item = &str> {
    let after = text.split("](").skip(1);
    after.filter_map(|rest| Some(rest.split_once(')')?.0))
}

#[test]
fn links_lead_to_files_and_headings_that_are_there() {
    let pages = pages();
    assert!(pages.len() > 5, "{pages:?}");
    let (mut dead, mut checked) = (Vec::new(), 0);
    for page in &pages {
        let text = std::fs::read_to_string(page).expect("a page");
        for link in links(&text).filter(|link| !link.contains("://")) {
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = match file.is_empty() {
                true => page.clone(),
                false => page.parent().expect("a folder").join(file),
            };
            let is_there = match heading.is_empty() {
                true => target.exists(),
                false => std::fs::read_to_string(&target)
                    .is_ok_and(|text| anchors(&text).contains(heading)),
            };
            checked += 1;
            if !is_there {
                dead.push(format!("{}: {link}", page.display()));
            }
        }
    }
    assert!(
        checked > 50 && dead.is_empty(),
        "{checked} links, dead: {dead:#?}"
    );
}
