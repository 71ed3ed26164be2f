use super::*;

const NOW: i64 = 1_800_000_000;

fn waiting(updates: &[(&str, Duration)], held: &[&str]) -> Waiting {
    let since = |age: &Duration| NOW - i64::try_from(age.as_secs()).unwrap();
    Waiting {
        updates: updates.iter().map(|(name, age)| ((*name).to_owned(), since(age))).collect(),
        held: held.iter().map(|&name| name.to_owned()).collect(),
    }
}

const LIMITS: Limits = Limits {
    warn: DAY.saturating_mul(3),
    crit: DAY.saturating_mul(14),
    lists: DAY.saturating_mul(7),
    held: false,
};

fn judged(reading: &Reading, past: &mut Past) -> (State, String) {
    let result = judge(reading, LIMITS, past).summed_up();
    (result.state, result.summary)
}

fn reading(waiting: Waiting) -> Reading {
    Reading { waiting, fetched: NOW - 3_600, read: 1, compressed: 0, now: NOW }
}

#[test]
fn an_update_may_wait_for_three_days() {
    let mut past = Past::default();
    let said = judged(&reading(waiting(&[], &[])), &mut past);
    assert_eq!(said, (State::Ok, "no security updates waiting".into()));
    let hours = Duration::from_hours;
    let said = judged(&reading(waiting(&[("openssl", hours(70))], &[])), &mut past);
    assert_eq!(said, (State::Ok, "1 security update waiting, the oldest for 2 days: openssl".into()));
    let said = judged(&reading(waiting(&[("openssl", 5 * DAY), ("bash", 4 * DAY)], &[])), &mut past);
    let text = "2 security updates waiting, the oldest for 5 days: openssl, bash";
    assert_eq!(said, (State::Warning, text.into()));
    assert_eq!(judged(&reading(waiting(&[("openssl", 15 * DAY)], &[])), &mut past).0, State::Critical);
}

#[test]
fn a_list_that_is_published_anew_does_not_make_an_update_younger() {
    let mut past = Past::default();
    let mut days = |day: i64| {
        let now = NOW + day * 86_400;
        let updates = [("openssl".to_owned(), now - 3_600)].into_iter().collect();
        let waiting = Waiting { updates, held: Vec::new() };
        let reading = Reading { now, fetched: now, ..reading(waiting) };
        let state = judged(&reading, &mut past).0;
        past = past.facts_only();
        state
    };
    assert_eq!([0, 2, 4, 15].map(&mut days), [State::Ok, State::Ok, State::Warning, State::Critical]);
    judged(&reading(waiting(&[], &[])), &mut past);
    assert!(!past.has_facts(), "installed");
}

#[test]
fn packages_on_hold_do_not_count_and_old_lists_do() {
    let mut old = reading(waiting(&[("linux-image-amd64", 20 * DAY)], &["linux-image-amd64"]));
    let said = judged(&old, &mut Past::default());
    assert_eq!(said, (State::Ok, "no security updates waiting; 1 on hold".into()));
    old.fetched = NOW - 9 * 86_400;
    let said = judged(&old, &mut Past::default());
    assert_eq!(said.0, State::Warning);
    assert!(said.1.ends_with("package lists are 9 days old, so newer updates are unknown"), "{}", said.1);
}

#[test]
fn compressed_lists_are_not_taken_for_good_news() {
    let compressed = Reading { read: 0, compressed: 1, ..reading(waiting(&[], &[])) };
    let found = judge(&compressed, LIMITS, &mut Past::default());
    assert_eq!(found.list[0].result.state, State::Unknown);
    assert!(found.blind[0].why.contains("GzipIndexes"));
}

/// As in Debian's images for containers and clouds.
#[test]
fn a_compressed_list_is_read_with_apts_own_tool() {
    if !can_unpack() {
        return eprintln!("SKIPPED: there is no {APT_HELPER}");
    }
    let folder = tempfile::tempdir().unwrap();
    let list = folder.path().join("security_main_binary-amd64_Packages.gz");
    let text = "Package: openssl\nArchitecture: amd64\nVersion: 3.0.17-1~deb12u2\n\n";
    let plain = folder.path().join("plain");
    fs::write(&plain, text).unwrap();
    let packed = Command::new("gzip").arg("-c").arg(&plain).output().unwrap();
    fs::write(&list, &packed.stdout).unwrap();
    let mut read = String::new();
    unpacked(&list, |from| from.read_to_string(&mut read).map(drop)).unwrap();
    assert_eq!(read, text);
    fs::remove_file(&list).unwrap();
    assert!(unpacked(&list, |from| from.read_to_string(&mut read).map(drop)).is_err());
}

#[test]
fn the_files_of_a_host_are_compared() {
    let tree = tempfile::tempdir().unwrap();
    let write = |path: &str, text: &str| {
        let path = tree.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    let status = |version| {
        format!(
            "Package: openssl\nStatus: install ok installed\nArchitecture: amd64\nVersion: {version}\n\n\
             Package: bash\nStatus: install ok installed\nArchitecture: amd64\nVersion: 5.2.15-2\n"
        )
    };
    write("usr/bin/dpkg-query", "");
    write("var/lib/dpkg/status", &status("3.0.16-1~deb12u1"));
    let prefix = "var/lib/apt/lists/deb.debian.org_debian-security_dists_bookworm-security";
    write(
        &format!("{prefix}_main_binary-amd64_Packages"),
        "Package: openssl\nArchitecture: amd64\nVersion: 3.0.17-1~deb12u2\n\n\
         Package: nginx\nArchitecture: amd64\nVersion: 9\n",
    );
    write(
        "var/lib/apt/lists/deb.debian.org_debian_dists_bookworm_main_binary-amd64_Packages",
        "Package: bash\nArchitecture: amd64\nVersion: 9\n",
    );
    let host = Host::new(Root::captured(tree.path()));
    assert!(built_in(&host));
    let check = Updates { root: host.root, limits: LIMITS };
    let names = || check.read().unwrap().waiting.updates.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(), ["openssl"]);
    write("var/lib/dpkg/status", &status("3.0.17-1~deb12u2+local"));
    assert_eq!(names(), [""; 0]);
}
