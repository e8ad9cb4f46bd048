//! Calendar time for log lines, without a calendar crate: UTC dates from seconds since the epoch, and the `strftime`
//! conversions that log patterns use.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const WEEKDAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// A moment broken down in the Gregorian calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Calendar {
    year: i64,
    /// From 1.
    month: u8,
    /// From 1.
    day: u8,
    /// From 0.
    day_of_year: u16,
    /// From Sunday, 0.
    weekday: u8,
    hour: u8,
    minute: u8,
    second: u8,
    millisecond: u16,
}

impl Calendar {
    /// Breaks `time`, shifted by `utc_offset` seconds, down.
    pub(super) fn new(time: SystemTime, utc_offset: i64) -> Calendar {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let seconds = since.as_secs() as i64 + utc_offset;
        let (days, in_day) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
        // Count in years that begin on 1 March, so that the leap day is the last of its year: 146,097 days are 400 such
        // years, and month lengths from March on follow 153 days in five months.
        let shifted = days + 719_468;
        let era = shifted.div_euclid(146_097);
        let in_era = shifted.rem_euclid(146_097);
        let year_in_era = (in_era - in_era / 1_460 + in_era / 36_524 - in_era / 146_096) / 365;
        let in_year = in_era - (365 * year_in_era + year_in_era / 4 - year_in_era / 100);
        let march_month = (5 * in_year + 2) / 153;
        let day = in_year - (153 * march_month + 2) / 5 + 1;
        let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
        let year = year_in_era + era * 400 + i64::from(month <= 2);
        let leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
        let day_of_year = if month > 2 { in_year + 59 + i64::from(leap) } else { in_year - 306 };
        Calendar {
            year,
            month: month as u8,
            day: day as u8,
            day_of_year: day_of_year as u16,
            weekday: (days + 4).rem_euclid(7) as u8,
            hour: (in_day / 3600) as u8,
            minute: (in_day / 60 % 60) as u8,
            second: (in_day % 60) as u8,
            millisecond: since.subsec_millis() as u16,
        }
    }

    /// Expands `template` as strftime(3) does in the C locale, `#` by the digits of the fraction of the second (three
    /// exact ones, then zeros). A conversion that is not known is kept as it is written.
    pub(super) fn format(&self, template: &str, out: &mut String) {
        let mut fraction = 0;
        let mut chars = template.chars();
        while let Some(c) = chars.next() {
            match c {
                '#' => {
                    let digit = [self.millisecond / 100, self.millisecond / 10 % 10, self.millisecond % 10];
                    let _ = write!(out, "{}", digit.get(fraction).copied().unwrap_or(0));
                    fraction += 1;
                }
                '%' => match chars.next() {
                    Some(conversion) => self.convert(conversion, out),
                    None => out.push('%'),
                },
                _ => out.push(c),
            }
        }
    }

    fn convert(&self, conversion: char, out: &mut String) {
        let weekday = WEEKDAYS[usize::from(self.weekday)];
        let month = MONTHS[usize::from(self.month) - 1];
        let hour12 = (self.hour + 11) % 12 + 1;
        let result = match conversion {
            'Y' => write!(out, "{}", self.year),
            'C' => write!(out, "{:02}", self.year / 100),
            'y' => write!(out, "{:02}", self.year % 100),
            'm' => write!(out, "{:02}", self.month),
            'd' => write!(out, "{:02}", self.day),
            'e' => write!(out, "{:2}", self.day),
            'H' => write!(out, "{:02}", self.hour),
            'I' => write!(out, "{hour12:02}"),
            'M' => write!(out, "{:02}", self.minute),
            'S' => write!(out, "{:02}", self.second),
            'p' => write!(out, "{}", if self.hour < 12 { "AM" } else { "PM" }),
            'a' => write!(out, "{}", &weekday[..3]),
            'A' => write!(out, "{weekday}"),
            'b' | 'h' => write!(out, "{}", &month[..3]),
            'B' => write!(out, "{month}"),
            'j' => write!(out, "{:03}", self.day_of_year + 1),
            'u' => write!(out, "{}", (self.weekday + 6) % 7 + 1),
            'w' => write!(out, "{}", self.weekday),
            'n' => writeln!(out),
            't' => write!(out, "\t"),
            '%' => write!(out, "%"),
            'F' => return self.format("%Y-%m-%d", out),
            'T' => return self.format("%H:%M:%S", out),
            'R' => return self.format("%H:%M", out),
            'D' => return self.format("%m/%d/%y", out),
            'c' => return self.format("%a %b %e %T %Y", out),
            'x' => return self.format("%D", out),
            'X' => return self.format("%T", out),
            'r' => return self.format("%I:%M:%S %p", out),
            other => write!(out, "%{other}"),
        };
        // Writing to a String cannot fail.
        debug_assert!(result.is_ok());
    }
}

/// Seconds that local time is ahead of UTC at `time`.
pub(super) fn local_offset(time: SystemTime) -> i64 {
    let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()) as libc::time_t;
    let mut broken_down = std::mem::MaybeUninit::<libc::tm>::zeroed();
    // SAFETY: both pointers are valid for the call, and an all-zero tm (null tm_zone) is a valid value of the type.
    unsafe {
        libc::localtime_r(&seconds, broken_down.as_mut_ptr());
        broken_down.assume_init().tm_gmtoff
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn utc(seconds: u64, millis: u64, template: &str) -> String {
        let mut out = String::new();
        let time = UNIX_EPOCH + Duration::from_millis(seconds * 1000 + millis);
        Calendar::new(time, 0).format(template, &mut out);
        out
    }

    #[test]
    fn known_moments() {
        assert_eq!(utc(0, 0, "%F %T %a %j"), "1970-01-01 00:00:00 Thu 001");
        assert_eq!(utc(951_782_399, 7, "%Y-%m-%dT%H:%M:%S.###Z"), "2000-02-28T23:59:59.007Z");
        assert_eq!(utc(951_782_400, 0, "%F %j %A"), "2000-02-29 060 Tuesday");
        assert_eq!(utc(978_220_800, 0, "%F %j"), "2000-12-31 366");
        assert_eq!(utc(1_795_357_491, 980, "%Y-%m-%dT%H:%M:%S.###Z"), "2026-11-22T14:24:51.980Z");
        assert_eq!(utc(4_107_542_400, 0, "%F %j %h %e"), "2100-03-01 060 Mar  1");
    }

    #[test]
    fn agrees_with_date_over_many_days() {
        let days: Vec<u64> = (0..400).map(|i| i * 86_400 * 137 + 12_345).collect();
        let input: String = days.iter().map(|seconds| format!("@{seconds}\n")).collect();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), input).unwrap();
        let template = "%Y-%m-%d %H:%M:%S %j %a %b %e %I %p %u";
        let output = std::process::Command::new("date")
            .env("LC_ALL", "C")
            .args(["-u", "-f"])
            .arg(file.path())
            .arg(format!("+{template}"))
            .output()
            .unwrap();
        let expected = String::from_utf8(output.stdout).unwrap();
        let ours: String = days.iter().map(|&seconds| utc(seconds, 0, template) + "\n").collect();
        assert_eq!(ours, expected);
    }
}
