//! Asks the time service of the host whether it is synchronised: chrony, ntpd or
//! systemd-timesyncd.

use std::{
    fs,
    process::Stdio,
    time::{Duration, UNIX_EPOCH},
};

use tokio::{io::AsyncReadExt as _, process::Command};

use crate::root::Root;

/// What a time service says about the clock.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Sync {
    pub(super) service: &'static str,
    pub(super) synchronised: bool,
    /// Seconds that the clock is off; timesyncd does not tell.
    pub(super) offset: Option<f64>,
}

/// The first service that answers. `wall` is the Unix time.
pub(super) async fn look(root: &Root, wall: Duration) -> Option<Sync> {
    for (program, arguments, parse) in PROGRAMS {
        let path = root.path(program);
        if root.is_live()
            && path.exists()
            && let Some(printed) = ask(program, arguments).await
            && let Some(sync) = parse(&printed, wall)
        {
            return Some(sync);
        }
    }
    timesyncd(root, wall)
}

type Parse = fn(&str, Duration) -> Option<Sync>;

const PROGRAMS: [(&str, &[&str], Parse); 3] = [
    ("/usr/bin/chronyc", &["-c", "-n", "tracking"], chrony),
    ("/usr/bin/ntpq", NTPQ, ntpd),
    ("/usr/sbin/ntpq", NTPQ, ntpd),
];
const NTPQ: &[&str] = &["-n", "-c", "rv 0 leap,stratum,offset"];

/// What a program prints; `None` if it fails, as `chronyc` does without a `chronyd`. Dropping the
/// future kills it.
async fn ask(program: &str, arguments: &[&str]) -> Option<String> {
    let mut child = Command::new(program)
        .args(arguments)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .ok()?;
    let mut printed = Vec::new();
    child.stdout.take()?.take(PRINTED_MAX).read_to_end(&mut printed).await.ok()?;
    let status = child.wait().await.ok()?;
    status.success().then(|| String::from_utf8_lossy(&printed).into_owned())
}

const PRINTED_MAX: u64 = 4_096;

/// `chronyc -c tracking`: reference, address, stratum, time of the reference, offset, last and RMS
/// offset, frequency, residual, skew, root delay and dispersion, update interval, leap status.
fn chrony(printed: &str, wall: Duration) -> Option<Sync> {
    let fields: Vec<_> = printed.trim().split(',').collect();
    let number = |at: usize| fields.get(at)?.parse::<f64>().ok();
    let leap = *fields.get(13)?;
    let distance = number(10)? / 2.0 + number(11)?;
    // chrony stays "Normal" without its servers; its error bound grows slowly.
    let age = wall.as_secs_f64() - number(3)?;
    let fresh = age < DAY.max(8.0 * number(12)?);
    // An isolated server is its own reference (127.127.1.1), on purpose.
    let isolated = fields.first() == Some(&"7F7F0101");
    Some(Sync {
        service: "chrony",
        synchronised: leap != "Not synchronised" && (isolated || fresh && distance < MAX_ERROR),
        offset: number(4),
    })
}

/// `leap=00, stratum=3, offset=0.126` (milliseconds).
fn ntpd(printed: &str, _: Duration) -> Option<Sync> {
    let field = |name: &str| {
        printed.split([',', '\n']).find_map(|field| field.trim().strip_prefix(name)?.strip_prefix('='))
    };
    let stratum: u32 = field("stratum")?.parse().ok()?;
    let alarm = matches!(field("leap")?, "11" | "3");
    let offset = field("offset").and_then(|offset| offset.parse::<f64>().ok()).map(|millis| millis / 1e3);
    Some(Sync { service: "ntpd", synchronised: !alarm && stratum < 16, offset })
}

/// timesyncd touches a file whenever it has set the clock, at least every 34 minutes
/// (`PollIntervalMaxSec`). Its directory exists while it runs.
fn timesyncd(root: &Root, wall: Duration) -> Option<Sync> {
    let at = root.path("/run/systemd/timesync");
    fs::metadata(&at).ok()?;
    let touched = fs::metadata(at.join("synchronized")).and_then(|file| file.modified()).ok();
    let touched = touched.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    let synchronised = touched.is_some_and(|touched| wall.saturating_sub(touched) < TIMESYNCD_MAX);
    Some(Sync { service: "systemd-timesyncd", synchronised, offset: None })
}

/// Seconds. The kernel, too, calls a clock with a larger error not synchronised (NTP_PHASE_LIMIT).
const MAX_ERROR: f64 = 16.0;
const DAY: f64 = 86_400.0;
const TIMESYNCD_MAX: Duration = Duration::from_hours(2);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn wall() -> Duration {
        Duration::from_secs(1_796_077_900)
    }

    /// Captured from chrony 4.3, but for the middle two.
    const ISOLATED: &str = "7F7F0101,,10,1796077830.470229567,0.000000000,0.000000000,0.000000000,0.000,0.000,0.000,0.000000000,0.000000000,0.0,Normal\n";
    const GOOD: &str = "C0A80101,192.168.1.1,3,1796077830.470229567,-0.000121,-0.000010,0.000020,-12.345,0.001,0.050,0.020,0.001,64.2,Normal\n";
    const STALE: &str = "C0A80101,192.168.1.1,3,1795077830.470229567,-0.000121,-0.000010,0.000020,-12.345,0.001,0.050,0.020,0.001,64.2,Normal\n";
    const LOST: &str = "00000000,,0,0.000000000,0.000000000,0.000000000,0.000000000,0.000,0.000,0.000,1.000000000,1.000000000,0.0,Not synchronised\n";

    #[test]
    fn chrony_is_synchronised_if_it_has_heard_from_a_server_today() {
        let synchronised = |printed| chrony(printed, wall()).unwrap().synchronised;
        assert_eq!([GOOD, ISOLATED, STALE, LOST].map(synchronised), [true, true, false, false]);
        assert_eq!(chrony(GOOD, wall()).unwrap().offset, Some(-0.000_121));
        assert_eq!(chrony("506 Cannot talk to daemon\n", wall()), None);
    }

    #[test]
    fn ntpd_tells_its_stratum_and_offset() {
        let good = ntpd("leap=00, stratum=3, offset=0.126\n", wall()).unwrap();
        assert_eq!((good.synchronised, good.offset), (true, Some(0.000_126)));
        assert!(!ntpd("leap=11, stratum=16,\noffset=0.0\n", wall()).unwrap().synchronised);
        assert_eq!(ntpd("ntpq: read: Connection refused\n", wall()), None);
    }

    #[test]
    fn timesyncd_is_synchronised_if_it_has_set_the_clock_lately() {
        let tree = tempfile::tempdir().unwrap();
        let root = Root::captured(tree.path());
        assert_eq!(timesyncd(&root, wall()), None, "does not run");
        let at = tree.path().join("run/systemd/timesync");
        fs::create_dir_all(&at).unwrap();
        assert!(!timesyncd(&root, wall()).unwrap().synchronised);
        let file = fs::File::create(at.join("synchronized")).unwrap();
        let touched = |ago| {
            file.set_modified(UNIX_EPOCH + wall() - Duration::from_mins(ago)).unwrap();
            timesyncd(&root, wall()).unwrap().synchronised
        };
        assert_eq!([touched(34), touched(100), touched(150)], [true, true, false]);
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parsers_panic(text in "(?s).*", fields in "[-0-9.,A-Za-z =]*") {
            for text in [text, fields] {
                let _ = (chrony(&text, wall()), ntpd(&text, wall()));
            }
        }
    }

    #[tokio::test]
    async fn a_program_that_fails_says_nothing() {
        assert_eq!(ask("/no/such/chronyc", &[]).await, None);
        assert_eq!(ask("/bin/false", &[]).await, None);
        assert_eq!(ask("/bin/echo", &["a"]).await.as_deref(), Some("a\n"));
    }
}
