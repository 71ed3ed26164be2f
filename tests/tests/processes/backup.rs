//! `alertctl backup`: a copy of the store of a busy alertd, and a restart from the copy.

#![expect(clippy::unwrap_used, reason = "a test says where it failed")]

use std::{
    fs,
    io::{Read, Write},
    os::unix::{
        fs::PermissionsExt,
        net::{UnixListener, UnixStream},
    },
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use dogwatch_daemon::unix_http::Client;
use dogwatch_tests::{
    crash::{
        heard::Heard,
        victim::{Agent, LOST_AFTER},
    },
    host::{Host, words},
    process::{binary, wait_for},
};
use dogwatch_wire::State;
use serde_json::{Value, json};

fn agent(host: &Host, name: &str) -> Agent {
    Agent::new(name, Client::new(host.alertd_socket(), Duration::from_secs(20)))
}

fn config(heard: &Heard) -> String {
    format!(
        "[[route]]\nreceiver = \"far\"\ngroup_wait = \"0s\"\ngroup_interval = \"0s\"\n\
         [receiver.far]\nrate = {{ burst = 1000000, every = \"1ms\" }}\n\
         [receiver.far.webhook]\nurl = \"http://127.0.0.1:{}/\"\n",
        heard.listen().unwrap()
    )
}

/// What `alertctl status` says of each incident: number, title's host, who acknowledged.
fn incident_of<'a>(status: &'a Value, host: &str) -> &'a Value {
    let incidents = status["incidents"].as_array().unwrap();
    incidents.iter().find(|incident| incident["group"]["host"] == host).unwrap_or(&Value::Null)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_a_backup_taken_under_load_a_killed_alertd_knows_all_of_then_and_tells_nobody_twice() {
    let heard = Heard::default();
    let mut host = Host::new();
    tokio::task::block_in_place(|| host.start_alertd(&config(&heard)));
    let (mut db1, mut db2) = (agent(&host, "db1"), agent(&host, "db2"));
    for steady in [&mut db1, &mut db2] {
        steady.change(State::Critical, &heard, 1).await;
    }
    let number = incident_of(&host.ask(&["status"]), "db1")["number"].to_string();
    host.ask(&["ack", &number, "the", "array"]);
    host.ask(&["silence", "host=db9", "--for", "2h", "--comment", "not yet there"]);

    let over = Arc::new(AtomicBool::new(false));
    let flow: Vec<_> = (0..8)
        .map(|n| {
            let (mut flowing, heard, over) = (agent(&host, &format!("web{n}")), heard.clone(), over.clone());
            tokio::spawn(async move {
                for episode in 1.. {
                    flowing.one_episode(&heard, episode).await.unwrap();
                    if over.load(Ordering::Relaxed) {
                        return episode;
                    }
                }
                0
            })
        })
        .collect();
    tokio::task::block_in_place(|| {
        wait_for("alerts of all to flow", || (0..8).all(|n| heard.count(&format!("web{n}"), "recovery") > 3));
    });
    let (file, told_before) = (host.path("backup.db"), heard.arrived());
    let about = tokio::task::block_in_place(|| host.ask(&["backup", file.to_str().unwrap()]));
    tokio::task::block_in_place(|| {
        wait_for("alerts to flow on", || heard.arrived() > told_before + 16);
        let later = host.alertctl(&["silence", "host=late", "--for", "2h", "--comment", "after the backup"]);
        assert!(later.status.success(), "{}", words(&later));
    });
    over.store(true, Ordering::Relaxed);
    for flowing in flow {
        assert!(flowing.await.unwrap() > 3);
    }
    assert_eq!(about["bytes"], fs::metadata(&file).unwrap().len());
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(about["open_incidents"].as_u64().unwrap() >= 2, "{about}");
    let audit = host.ask(&["audit"]);
    let noted = audit.as_array().unwrap().iter().find(|entry| entry["kind"] == "backed_up").unwrap();
    assert!(noted["text"].as_str().unwrap().starts_with(&format!("{} bytes", about["bytes"])), "{noted}");

    // As the answer says that it is restored.
    host.alertd.as_mut().unwrap().kill();
    let store = host.path("alertd/alertd.db");
    assert_eq!(about["store"], store.to_str().unwrap());
    for suffix in ["-wal", "-shm"] {
        let _ = fs::remove_file(format!("{}{suffix}", store.display()));
    }
    fs::copy(&file, &store).unwrap();
    let connection = rusqlite::Connection::open(&file).unwrap();
    let whole: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(whole, "ok");
    tokio::task::block_in_place(|| host.restart_alertd());

    let status = host.ask(&["status"]);
    let acked = incident_of(&status, "db1");
    assert_eq!((acked["number"].to_string(), &acked["ack"]["comment"]), (number, &json!("the array")));
    assert!(incident_of(&status, "db2")["ack"].is_null(), "{status}");
    let silences = host.ask(&["silence", "list"]);
    assert_eq!(silences.as_array().unwrap().len(), 1, "{silences}");
    for steady in [&mut db1, &mut db2] {
        let recovered = tokio::time::timeout(LOST_AFTER, steady.change(State::Ok, &heard, 1)).await;
        assert!(recovered.is_ok(), "nobody was told that {} is well\n{}", steady.host, host.log("alertd"));
    }
    for name in ["db1", "db2"] {
        assert_eq!((heard.count(name, "problem"), heard.count(name, "recovery")), (1, 1), "{name}");
    }
    // Notified in both lives under one id, with the same text.
    assert_eq!(heard.faults(), Vec::<String>::new());
}

#[test]
fn one_backup_at_a_time_and_who_hangs_up_leaves_nothing_behind() {
    let mut host = Host::new();
    host.start_alertd(&config(&Heard::default()));
    host.alertd.as_mut().unwrap().stop();
    // More than sockets and queues can take, so that alertd has to wait for a reader that stops.
    // The rows are recent: alertd deletes old history.
    let connection = rusqlite::Connection::open(host.path("alertd/alertd.db")).unwrap();
    let long = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 4000)
                INSERT INTO history (at_us, kind, reason, text) SELECT unixepoch() * 1000000 + i, 'x', 'y', hex(zeroblob(2000)) FROM n;";
    connection.execute_batch(long).unwrap();
    drop(connection);
    host.restart_alertd();
    let copy = host.path("alertd/alertd.backup");

    let mut slow = UnixStream::connect(host.alertd_socket()).unwrap();
    slow.write_all(b"POST /v1/backup HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n").unwrap();
    // The head only: what is not read keeps alertd waiting.
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        slow.read_exact(&mut byte).unwrap();
        head.extend(byte);
    }
    let answer = String::from_utf8_lossy(&head).into_owned();
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.contains("dogwatch-backup: {"), "{answer}");
    let file = host.path("b.db");
    let second = host.alertctl(&["backup", file.to_str().unwrap()]);
    assert!(words(&second).contains("another backup is running"), "{}", words(&second));
    assert_eq!(second.status.code(), Some(1));
    assert!(copy.exists() && !file.exists() && !host.path("b.db.part").exists());

    drop(slow);
    wait_for("alertd to see that nobody reads", || !copy.exists());
    let third = host.alertctl(&["backup", file.to_str().unwrap()]);
    assert!(third.status.success(), "{}", words(&third));
    assert!(words(&third).contains("systemctl stop alertd"), "{}", words(&third));
    assert!(file.exists() && !copy.exists() && !host.path("b.db.part").exists());
    let again = host.alertctl(&["backup", file.to_str().unwrap()]);
    assert!(words(&again).contains("--force"), "{}", words(&again));
    let piped = host.alertctl(&["backup", "-"]);
    assert_eq!(
        piped.stdout.get(..15),
        Some(&b"SQLite format 3"[..]),
        "{}",
        String::from_utf8_lossy(&piped.stderr)
    );
    assert!(String::from_utf8_lossy(&piped.stderr).contains("FILE: "));
}

#[test]
fn without_room_for_the_copy_nothing_is_made_and_the_words_say_how_much_it_takes() {
    let Some(disk) = dogwatch_tests::process::root_or_skip("a small disk").then(tempfile::tempdir) else {
        return;
    };
    let disk = disk.unwrap();
    let mount =
        Command::new("mount").args(["-t", "tmpfs", "-o", "size=60m", "tmpfs"]).arg(disk.path()).status();
    if !mount.is_ok_and(|status| status.success()) {
        dogwatch_tests::process::skip("a small disk: no tmpfs can be mounted");
        return;
    }
    let mut host = Host::new();
    std::os::unix::fs::symlink(disk.path(), host.path("alertd")).unwrap();
    host.start_alertd(&config(&Heard::default()));
    let refused = host.alertctl(&["backup", host.path("b.db").to_str().unwrap()]);
    host.alertd.take();
    let _ = Command::new("umount").arg("--lazy").arg(disk.path()).status();
    assert!(words(&refused).contains("not enough disk space"), "{}", words(&refused));
    assert_eq!(refused.status.code(), Some(1));
    assert!(!host.path("b.db").exists() && !host.path("b.db.part").exists());
}

#[test]
fn what_is_cut_short_or_changed_on_the_way_is_no_backup() {
    let folder = tempfile::tempdir().unwrap();
    for (name, body, words) in
        [("cut", "half", "no answer"), ("other", "whole but wrong", "the backup is damaged")]
    {
        let said = fetch(folder.path(), name, body);
        assert!(!said.status.success() && self::words(&said).contains(words), "{}", self::words(&said));
        let left = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
        assert!(left.into_iter().all(|name| !name.to_string_lossy().contains(".db")));
    }
}

/// `alertctl backup` from a server that announces 15 bytes and sends `body`.
fn fetch(folder: &Path, name: &str, body: &'static str) -> std::process::Output {
    let socket = folder.join(name);
    let listener = UnixListener::bind(&socket).unwrap();
    let serving = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.read(&mut [0; 4_096]).unwrap();
        let about = json!({ "taken_at": "2026-11-22T02:20:00Z", "bytes": 15, "sha256": "00", "open_incidents": 0, "incidents": 0,
                            "alerts": 0, "silences": 0, "store": "/s/alertd.db", "warning": null });
        let head = format!("HTTP/1.1 200 OK\r\ndogwatch-backup: {about}\r\ncontent-length: 15\r\n\r\n{body}");
        stream.write_all(head.as_bytes()).unwrap();
    });
    let output = Command::new(binary("alertctl"))
        .arg("--socket")
        .arg(&socket)
        .arg("backup")
        .arg(folder.join("b.db"))
        .output()
        .unwrap();
    serving.join().unwrap();
    output
}
