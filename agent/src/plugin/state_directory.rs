//! The private directory of a plugin: `plugins/CHECK` below the state directory of the agent, mode
//! 0700. The rest of the file system is read-only for a plugin of the package's agent.
//!
//! Nothing is deleted here. Plugins keep files between their runs, also in `$TMPDIR`.

use std::{
    fmt::Write as _,
    fs,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

/// The directory for the plugin of a check.
pub(super) fn of(agent: &Path, check: &str) -> PathBuf {
    agent.join("plugins").join(file_name(check))
}

/// Creates the directory and returns the environment variables for it; none if that fails, because
/// many plugins need no files.
pub(super) fn environment(directory: &Path) -> Vec<(&'static str, PathBuf)> {
    let temporary = directory.join("tmp");
    let created = fs::DirBuilder::new().recursive(true).mode(0o700).create(&temporary);
    if created.is_err() {
        return Vec::new();
    }
    vec![
        // monitoring-plugins up to 2.2 and Nagios Plugins, then later versions.
        ("NAGIOS_PLUGIN_STATE_DIRECTORY", directory.to_owned()),
        ("MP_STATE_PATH", directory.to_owned()),
        ("TMPDIR", temporary),
    ]
}

/// A check may have any name, a file may not.
fn file_name(check: &str) -> String {
    let mut name = String::new();
    for byte in check.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_".contains(&byte) || (byte == b'.' && !name.is_empty()) {
            name.push(char::from(byte));
        } else {
            let _ = write!(name, "%{byte:02X}");
        }
    }
    // 100 bytes of a name can become 300, which is more than a file name can have.
    name.truncate(NAME_MAX);
    name
}

const NAME_MAX: usize = 250;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_of_a_check_is_a_directory_of_its_own() {
        let names = ["web", "a/b", "a b", "..", "../../etc", ".", "ä"].map(file_name);
        assert_eq!(names, ["web", "a%2Fb", "a%20b", "%2E.", "%2E.%2F..%2Fetc", "%2E", "%C3%A4"]);
        assert!(file_name(&"ä".repeat(100)).len() <= NAME_MAX);
    }

    #[test]
    fn a_directory_that_cannot_be_created_is_left_out() {
        assert_eq!(environment(Path::new("/proc/no/such")), []);
    }
}
