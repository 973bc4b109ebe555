//! Texts that somebody else wrote, or that name what somebody else wrote, as messages and logs show them: in one line,
//! without control characters, and no longer than a person reads. All that quotes such a text goes through here.

use std::borrow::Cow;
use std::path::Path;

/// Bytes of a name, a value or a path.
const WORD: usize = 256;
/// Bytes of a sentence that may have several of them.
const SENTENCE: usize = 1024;
/// Characters of a value that is quoted.
const QUOTED: usize = 64;
/// Stands for a secret.
const HIDDEN: &str = "(not shown: it looks like a secret)";
/// Stands for what is left out.
const LEFT_OUT: char = '…';

/// A name or value as it is, if it is short and plain.
pub fn word(text: &str) -> Cow<'_, str> {
    bounded(text, WORD)
}

/// A whole message, whatever it quotes. What libraries say has the value first and what is wrong with it last, so both ends
/// are kept.
pub fn sentence(text: &str) -> Cow<'_, str> {
    bounded(text, SENTENCE)
}

/// A path.
pub fn path(path: &Path) -> String {
    word(&path.to_string_lossy()).into_owned()
}

/// A value in quotes. Not shown is what looks like a secret and can be no name: names may be hashes.
pub fn quoted(text: &str) -> String {
    if is_secret(text) && text.contains(['+', '/', '=']) {
        return HIDDEN.to_owned();
    }
    match text.char_indices().nth(QUOTED) {
        None => format!("{text:?}"),
        Some((end, _)) => format!("{:?}{LEFT_OUT}", &text[..end]),
    }
}

/// A text without what looks like a secret of ours: 32 bytes in hex or base64.
pub fn hide_secrets(text: &str) -> Cow<'_, str> {
    let is_part = |char: char| char.is_ascii_alphanumeric() || "+/=-_".contains(char);
    let mut shown = String::new();
    let (mut done, mut rest) = (0, 0);
    while let Some(begin) = text[rest..].find(is_part).map(|at| rest + at) {
        let run = &text[begin..];
        let run = &run[..run.find(|char| !is_part(char)).unwrap_or(run.len())];
        rest = begin + run.len();
        if is_secret(run) {
            shown += &text[done..begin];
            shown += HIDDEN;
            done = rest;
        }
    }
    match done {
        0 => Cow::Borrowed(text),
        _ => Cow::Owned(shown + &text[done..]),
    }
}

fn is_secret(text: &str) -> bool {
    let base64 = |b: u8| b.is_ascii_alphanumeric() || b"+/-_".contains(&b);
    let digits = text.trim().trim_end_matches('=');
    // What people write has hardly all three.
    let kinds = [
        u8::is_ascii_digit,
        u8::is_ascii_lowercase,
        u8::is_ascii_uppercase,
    ];
    match digits.len() {
        43 => {
            digits.bytes().all(base64) && kinds.iter().all(|kind| digits.bytes().any(|b| kind(&b)))
        }
        64 => digits.bytes().all(|b| b.is_ascii_hexdigit()),
        _ => false,
    }
}

/// The same for a text that is ours to change.
pub fn shorten(text: &mut String, bounded: fn(&str) -> Cow<'_, str>) {
    if let Cow::Owned(short) = bounded(text) {
        *text = short;
    }
}

/// At most so many bytes, and the sign of what is left out between the first three quarters and the last one.
fn bounded(text: &str, most: usize) -> Cow<'_, str> {
    if text.len() <= most && !text.chars().any(is_unseen) {
        return Cow::Borrowed(text);
    }
    let (whole, all) = first(text.chars(), most);
    if all {
        return Cow::Owned(whole.concat());
    }
    let (mut head, _) = first(text.chars(), most / 4 * 3);
    let (tail, _) = first(text.chars().rev(), most / 4);
    head.push(LEFT_OUT.to_string());
    head.extend(tail.into_iter().rev());
    Cow::Owned(head.concat())
}

/// As many characters, escaped where they must be, as have so many bytes, and whether these are all.
fn first(chars: impl Iterator<Item = char>, most: usize) -> (Vec<String>, bool) {
    let (mut taken, mut bytes) = (Vec::new(), 0);
    for char in chars {
        let shown = match is_unseen(char) {
            true => char.escape_default().to_string(),
            false => char.to_string(),
        };
        bytes += shown.len();
        if bytes > most {
            return (taken, false);
        }
        taken.push(shown);
    }
    (taken, true)
}

/// Whether a terminal obeys it, or shows what stands around it otherwise than it is.
fn is_unseen(char: char) -> bool {
    char.is_control()
        || matches!(
            char,
            '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_short_and_plain_stays() {
        for text in ["", "a-b", "tenant 1: größer", "\u{7d2f}\u{8a08}"] {
            assert!(matches!(word(text), Cow::Borrowed(same) if same == text));
        }
        assert_eq!(quoted("a\tb"), "\"a\\tb\"");
    }

    #[test]
    fn what_is_long_is_cut_in_the_middle_and_both_ends_are_told() {
        for fill in ["x", "é", "\u{1F600}", "\u{1b}", "\u{202e}"] {
            let text = format!("begin{}end", fill.repeat(1 << 20));
            for (short, most) in [(word(&text), WORD), (sentence(&text), SENTENCE)] {
                assert!(short.len() <= most + LEFT_OUT.len_utf8(), "{}", short.len());
                assert!(short.len() > most - 32, "{}", short.len());
                assert!(
                    short.starts_with("begin") && short.ends_with("end"),
                    "{short}"
                );
                assert_eq!(short.matches(LEFT_OUT).count(), 1);
            }
        }
        assert_eq!(
            quoted(&"\n".repeat(60_000)),
            format!("\"{}\"…", "\\n".repeat(64))
        );
    }

    #[test]
    fn secrets_are_known_by_their_look() {
        let base64 = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
        let hex = "00".repeat(32);
        for secret in [base64, &base64[..43], &hex] {
            assert_eq!(hide_secrets(secret), HIDDEN);
            assert_eq!(
                hide_secrets(&format!("é: \"{secret}\" is, {secret}.")),
                format!("é: \"{HIDDEN}\" is, {HIDDEN}.")
            );
        }
        assert_eq!(quoted(base64), HIDDEN);
        // Names may be hashes.
        assert_eq!(quoted(&hex), format!("{hex:?}"));
        for text in ["", "a-b", "10.0.0.0/8", &base64[..20], &hex[..63]] {
            assert_eq!(hide_secrets(text), text);
        }
    }

    #[test]
    fn nothing_unseen_is_shown() {
        let text = "a\u{1b}[2J\r\nb\u{7f}\u{9b}c\u{202e}d\u{2028}e\0";
        let shown = word(text);
        assert!(!shown.chars().any(is_unseen), "{shown:?}");
        assert_eq!(
            shown,
            "a\\u{1b}[2J\\r\\nb\\u{7f}\\u{9b}c\\u{202e}d\\u{2028}e\\u{0}"
        );
    }
}
