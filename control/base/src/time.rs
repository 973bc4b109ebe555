//! The time of day, and its text without a library for calendars.

use std::time::{Duration, SystemTime};

/// Now, since 1970 by the system's clock; zero if that is before.
#[must_use]
pub fn unix() -> Duration {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap_or_default()
}

/// The same in nanoseconds, which last until 2554.
#[must_use]
pub fn unix_nanos() -> u64 {
    unix().as_nanos() as u64
}

/// Since the machine's start. The hours in which it slept count, and nobody can set it.
#[must_use]
pub fn since_boot() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

const DAY: u64 = 86400;

/// Nanoseconds since 1970 as `2026-11-20T14:40:00.123Z`.
#[must_use]
pub fn rfc3339(unix_nanos: u64) -> String {
    let (seconds, millis) = (unix_nanos / 1_000_000_000, unix_nanos / 1_000_000 % 1000);
    let (year, month, day) = date(seconds / DAY);
    let of_day = seconds % DAY;
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

/// The Gregorian date of a day, counted from 1970-01-01.
fn date(mut day: u64) -> (u64, usize, u64) {
    let leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    let mut year = 1970;
    loop {
        let length = if leap(year) { 366 } else { 365 };
        if day < length {
            break;
        }
        day -= length;
        year += 1;
    }
    let february = if leap(year) { 29 } else { 28 };
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if day < length {
            break;
        }
        day -= length;
        month += 1;
    }
    (year, month, day + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_since_the_start_counts_sleep() {
        let uptime = || {
            // proc(5): time elapsed since boot, including time spent in suspend.
            let text = std::fs::read_to_string("/proc/uptime").expect("it is Linux");
            let seconds = text.split_whitespace().next().expect("two numbers");
            Duration::from_secs_f64(seconds.parse().expect("a number"))
        };
        let before = uptime();
        let now = since_boot();
        // It is told in hundredths.
        let after = uptime() + Duration::from_millis(10);
        assert!(
            (before..=after).contains(&now),
            "{before:?} {now:?} {after:?}"
        );
    }

    #[test]
    fn knows_the_calendar() {
        // By `date -u -d @SECONDS`.
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399, "2000-02-28T23:59:59.000Z"),
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (978_307_199, "2000-12-31T23:59:59.000Z"),
            (1_795_185_600, "2026-11-20T14:40:00.000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(rfc3339(seconds * 1_000_000_000), text);
        }
        assert_eq!(rfc3339(1_999_999), "1970-01-01T00:00:00.001Z");
        assert_eq!(rfc3339(u64::MAX), "2554-07-21T23:34:33.709Z");
    }
}
