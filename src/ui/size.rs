//! Sizes as people write and read them.

/// How sizes on the command line are written, for help texts.
pub const SIZE_HELP: &str =
    "a number of bytes, or with a unit: K, M, G, T and KiB, MiB, GiB, TiB are powers of 1024, kB, MB, GB, TB of 1000";

/// The units that [`parse_size`] knows, in lower case, and their sizes in bytes.
const UNITS: [(&str, u64); 14] = [
    ("", 1),
    ("b", 1),
    ("k", 1 << 10),
    ("kib", 1 << 10),
    ("kb", 1_000),
    ("m", 1 << 20),
    ("mib", 1 << 20),
    ("mb", 1_000_000),
    ("g", 1 << 30),
    ("gib", 1 << 30),
    ("gb", 1_000_000_000),
    ("t", 1 << 40),
    ("tib", 1 << 40),
    ("tb", 1_000_000_000_000),
];

/// More digits behind the point than this say nothing: a unit has at most 2^40 bytes.
const MOST_DECIMALS: usize = 12;

/// The bytes that `text` means: `262144`, `256K`, `256KiB`, `1MB`, `1.5 GiB`.
///
/// As with `dd` and `ls`, a bare letter or `KiB` is a power of 1024 and `KB` a power of 1000; upper or lower case does
/// not matter. A fraction of a byte is dropped.
///
/// # Errors
/// A sentence for people, without the text itself: clap quotes it.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim_start().to_ascii_lowercase();
    let Some(&(_, unit)) = UNITS.iter().find(|(name, _)| *name == unit) else {
        return Err(format!("unknown unit; a size is {SIZE_HELP}"));
    };
    let (whole, decimals) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && decimals.is_empty() || decimals.contains('.') || decimals.len() > MOST_DECIMALS {
        return Err(format!("not a number; a size is {SIZE_HELP}"));
    }
    let too_large = || "larger than 16 EiB, the most that a file can have".to_owned();
    let number: u128 = format!("{whole}{decimals}").parse().map_err(|_| too_large())?;
    let bytes = number.checked_mul(u128::from(unit)).ok_or_else(too_large)? / 10u128.pow(decimals.len() as u32);
    u64::try_from(bytes).map_err(|_| too_large())
}

/// `bytes` for people, in decimal units as drives and the Hugging Face Hub count: `512 B`, `91.0 MB`, `15.2 GB`.
pub fn show_size(bytes: u64) -> String {
    const NAMES: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let mut unit = 1000u64;
    let mut name = 0;
    // From 999.95 on a number would be shown as 1000.0.
    while name + 1 < NAMES.len() && u128::from(bytes) * 100 >= u128::from(unit) * 99_995 {
        unit *= 1000;
        name += 1;
    }
    format!("{:.1} {}", bytes as f64 / unit as f64, NAMES[name])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binary_and_decimal_units_are_told_apart() {
        for (text, bytes) in [
            ("0", 0),
            ("262144", 262_144),
            ("17b", 17),
            ("256K", 262_144),
            ("256k", 262_144),
            ("256KiB", 262_144),
            ("256kb", 256_000),
            ("1MB", 1_000_000),
            ("1M", 1_048_576),
            ("4 MiB", 4_194_304),
            ("1.5G", 1_610_612_736),
            (".5kB", 500),
            ("91.0 MB", 91_000_000),
            ("2t", 2 << 40),
            ("1TB", 1_000_000_000_000),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in ["", " ", ".", "K", "-1", "+1", "1e3", "1.2.3", "12X", "1 M B", "0x10", "١", "1.0000000000001G"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
        for text in ["18446744073709551616", "16777216T", &"9".repeat(50)] {
            assert!(parse_size(text).unwrap_err().contains("16 EiB"), "{text}");
        }
    }

    #[test]
    fn sizes_are_shown_in_decimal_units() {
        for (bytes, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (999_949, "999.9 kB"),
            (999_950, "1.0 MB"),
            (90_868_376, "90.9 MB"),
            (999_949_999, "999.9 MB"),
            (999_950_000, "1.0 GB"),
            (15_200_000_000, "15.2 GB"),
            (u64::MAX, "18.4 EB"),
        ] {
            assert_eq!(show_size(bytes), text);
        }
    }
}
