//! Names in certificates, and rules for them.

use std::fmt;

/// A name that a certificate is for.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum San {
    /// A DNS name, in lower case.
    Dns(String),
    /// A URI, such as a SPIFFE id.
    Uri(String),
}

impl fmt::Display for San {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(name) | Self::Uri(name) => f.write_str(name),
        }
    }
}

/// Which names have a role: `spiffe://example.org/controller`, all below a path as `spiffe://example.org/ops/*`, a DNS
/// name, or all of one label below a domain as `*.ops.example.org`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NameRule(Pattern);

#[derive(Clone, PartialEq, Eq, Debug)]
enum Pattern {
    Uri(String),
    /// Ends with a slash.
    UriBelow(String),
    Dns(String),
    /// Begins with a dot.
    DnsBelow(String),
}

impl NameRule {
    /// `None` if the text is neither a URI nor a DNS name.
    pub fn new(text: &str) -> Option<Self> {
        if let Some((scheme, rest)) = text.split_once("://") {
            let below = text.strip_suffix('*');
            let sound = !scheme.is_empty()
                && scheme.bytes().all(|b| b.is_ascii_alphanumeric())
                // A whole trust domain is named by its domain and a path below it, not by half a domain.
                && below.map_or(!rest.is_empty(), |below| {
                    below.ends_with('/') && !below.ends_with("://")
                })
                && !below.unwrap_or(text).contains('*');
            return sound.then(|| {
                Self(match below {
                    Some(below) => Pattern::UriBelow(below.to_owned()),
                    None => Pattern::Uri(text.to_owned()),
                })
            });
        }
        let lower = text.to_ascii_lowercase();
        let domain = lower.strip_prefix("*.").unwrap_or(&lower);
        let sound = domain.split('.').all(|label| {
            !label.is_empty()
                && label
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        });
        sound.then(|| {
            Self(match lower.strip_prefix('*') {
                Some(below) => Pattern::DnsBelow(below.to_owned()),
                None => Pattern::Dns(lower.clone()),
            })
        })
    }

    /// Whether it is meant.
    pub fn matches(&self, name: &San) -> bool {
        match (&self.0, name) {
            (Pattern::Uri(rule), San::Uri(name)) | (Pattern::Dns(rule), San::Dns(name)) => {
                rule == name
            }
            (Pattern::UriBelow(rule), San::Uri(name)) => {
                // A path that climbs is below nothing.
                let path = name.strip_prefix(rule.as_str());
                path.is_some_and(|path| {
                    !path.is_empty() && path.split('/').all(|part| part != ".." && part != ".")
                })
            }
            (Pattern::DnsBelow(rule), San::Dns(name)) => {
                let label = name.strip_suffix(rule.as_str());
                label.is_some_and(|label| !label.is_empty() && !label.contains(['.', '*']))
            }
            _ => false,
        }
    }
}
