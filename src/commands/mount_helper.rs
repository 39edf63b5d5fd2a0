//! `mount.bigsmall`: how `mount -t bigsmall` and `/etc/fstab` call this program, by a link of that name.

use std::ffi::OsString;

use crate::failure::Failure;

/// The name by which `mount` finds the helper for file systems of the type `bigsmall`.
pub const NAME: &str = "mount.bigsmall";

/// Options that say nothing to a read-only FUSE mount, or that are `mount`'s own business.
const IGNORED: [&str; 22] = [
    "ro",
    "defaults",
    "auto",
    "noauto",
    "user",
    "nouser",
    "users",
    "owner",
    "group",
    "nofail",
    "_netdev",
    "nosuid",
    "nodev",
    "exec",
    "async",
    "atime",
    "noatime",
    "relatime",
    "norelatime",
    "diratime",
    "nodiratime",
    "rw",
];

/// The arguments of `bigsmall mount` that those of `mount.bigsmall SRC MNT [-sfnv] [-N NS] [-t TYPE] [-o OPTIONS]` mean;
/// none where nothing is to be done.
///
/// # Errors
/// When they cannot be understood.
pub fn arguments(arguments: impl IntoIterator<Item = OsString>) -> Result<Option<Vec<OsString>>, Failure> {
    let mut arguments = arguments.into_iter();
    let (mut places, mut options, mut sloppy, mut fake) = (Vec::new(), Vec::new(), false, false);
    while let Some(argument) = arguments.next() {
        match argument.to_str() {
            Some("-o") => {
                let list = arguments.next().ok_or_else(|| Failure::new(format!("{NAME}: -o needs options")))?;
                let list =
                    list.into_string().map_err(|l| Failure::new(format!("{NAME}: {}: not Unicode", l.display())))?;
                options.extend(list.split(',').filter(|option| !option.is_empty()).map(str::to_owned));
            }
            Some("-t" | "-N") => drop(arguments.next()),
            Some(flags) if flags.len() > 1 && flags.starts_with('-') => {
                for flag in flags[1..].chars() {
                    match flag {
                        's' => sloppy = true,
                        'f' => fake = true,
                        'n' | 'v' | 'r' => {}
                        _ => return Err(Failure::new(format!("{NAME}: -{flag}: there is no such option"))),
                    }
                }
            }
            _ => places.push(argument),
        }
    }
    let [source, mountpoint]: [OsString; 2] = places
        .try_into()
        .map_err(|_| Failure::new(format!("usage: {NAME} SRC MNT [-o OPTIONS]\n`bigsmall mount --help` says more")))?;
    let mut line: Vec<OsString> = ["bigsmall", "mount"].map(OsString::from).into();
    for option in options {
        match long_option(&option) {
            Some(long) => line.push(long.into()),
            None if sloppy || option.starts_with("x-") || IGNORED.contains(&option.as_str()) => {}
            None => return Err(Failure::new(format!("{NAME}: {option}: there is no such option"))),
        }
    }
    line.extend(["--".into(), source, mountpoint]);
    Ok((!fake).then_some(line))
}

/// The option of `bigsmall mount` that one of `-o` means: `cache_size=1G` is `--cache-size=1G`.
fn long_option(option: &str) -> Option<String> {
    let (name, value) = option.split_once('=').map_or((option, None), |(name, value)| (name, Some(value)));
    let known = [
        "cache_size",
        "tensor_cache_size",
        "read_ahead",
        "log",
        "log_level",
        "allow_other",
        "noexec",
        "hf_cache",
        "base",
        "auto_unmount",
        "device",
    ];
    // A value that is missing or too much is refused where options are understood, with a message that says so.
    let long = known.contains(&name).then(|| format!("--{}", name.replace('_', "-")))?;
    Some(value.map_or_else(|| long.clone(), |value| format!("{long}={value}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(line: &str) -> Result<Option<String>, String> {
        let line = arguments(line.split(' ').map(OsString::from)).map_err(|failure| failure.message)?;
        Ok(line.map(|line| line.join(" ".as_ref()).into_string().unwrap()))
    }

    #[test]
    fn fstab_is_understood() {
        assert_eq!(
            said("/models /mnt -o rw,nofail,x-systemd.automount,cache_size=1G,hf_cache,noexec -n"),
            Ok(Some("bigsmall mount --cache-size=1G --hf-cache --noexec -- /models /mnt".to_owned()))
        );
        assert_eq!(said("/models /mnt -f"), Ok(None));
        assert_eq!(said("/models /mnt -s -o whatever"), Ok(Some("bigsmall mount -- /models /mnt".to_owned())));
        assert_eq!(said("/models /mnt -o colour"), Err("mount.bigsmall: colour: there is no such option".to_owned()));
        assert!(said("/models").unwrap_err().starts_with("usage: "));
    }
}
