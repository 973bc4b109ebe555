//! Which capabilities are missing.

/// Those that steering needs, with their numbers (capabilities(7)).
const NEEDED: [(u32, &str); 4] = [
    (12, "CAP_NET_ADMIN"),
    (13, "CAP_NET_RAW"),
    (38, "CAP_PERFMON"),
    (39, "CAP_BPF"),
];
/// It stands for `CAP_PERFMON` and `CAP_BPF` too.
const SYS_ADMIN: u32 = 21;

/// Those that the calling thread does not have, of which ports need all. None are missing if that cannot be read.
#[must_use]
pub fn missing() -> Vec<&'static str> {
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    missing_of(&status)
}

/// What to do about them, in a sentence.
#[must_use]
pub fn lacking(missing: &[&str]) -> String {
    match missing {
        [] => {
            "run this as root of the initial user namespace: a container's root has not all rights"
                .to_owned()
        }
        missing => format!(
            "this process lacks {}: run it as root, or add that to AmbientCapabilities= of its unit",
            missing.join(" and ")
        ),
    }
}

fn missing_of(status: &str) -> Vec<&'static str> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let Some(have) = line.and_then(|line| u64::from_str_radix(line.trim(), 16).ok()) else {
        return Vec::new();
    };
    let has = |number: u32| have >> number & 1 == 1;
    let may = |number: u32| has(number) || (number >= 38 && has(SYS_ADMIN));
    let missing = NEEDED.iter().filter(|(number, _)| !may(*number));
    missing.map(|(_, name)| *name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_what_is_missing() {
        let of = |have: u64| missing_of(&format!("Name:\tx\nCapEff:\t{have:016x}\nCapBnd:\t0\n"));
        let all = 1 << 12 | 1 << 13 | 1 << 38 | 1 << 39;
        assert!(of(all).is_empty());
        assert_eq!(of(all & !(1 << 38)), ["CAP_PERFMON"]);
        assert_eq!(of(1 << 21), ["CAP_NET_ADMIN", "CAP_NET_RAW"]);
        assert_eq!(of(0).len(), 4);
        assert!(missing_of("nothing").is_empty());
    }
}
