//! An email through a real mail server, the link in it, and what a browser gets for the link from
//! alertd.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::{
    io::{Read, Write},
    net::TcpStream,
};

use dogwatch_tests::{
    host::{Host, words},
    mail_server::{Mail, MailServer},
    process::{free_port, wait_for},
};
use dogwatch_wire::State;
use serde_json::{Value, json};

struct Page {
    status: u16,
    head: String,
    body: String,
}

/// One request as a phone makes it.
fn request(port: u16, method: &str, path: &str) -> Page {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let text =
        format!("{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    stream.write_all(text.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Page { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
}

/// The link in a mail's plain text, as the mail program puts it together (quoted-printable, RFC
/// 2045 §6.7).
fn link(mail: &Mail) -> String {
    link_to(mail, "ack").unwrap_or_else(|| panic!("no link in\n{}", mail.text))
}

fn link_to(mail: &Mail, what: &str) -> Option<String> {
    let text = mail.text.replace("=\n", "").replace("=3D", "=");
    let at = text.find(&format!("https://alerts.example.org/{what}/"))?;
    Some(text[at..].split(|c: char| c.is_whitespace() || c == '"').next().unwrap().to_owned())
}

fn config(smtp: u16, web: u16) -> String {
    format!(
        "[alertd.web]\nlisten = \"127.0.0.1:{web}\"\nurl = \"https://alerts.example.org/\"\n\n\
         [[route]]\nreceiver = \"ops\"\ngroup_wait = \"0s\"\n\n\
         [receiver.ops.email]\nto = [\"ada@example.org\"]\nfrom = \"dogwatch@example.org\"\n\
         server = \"127.0.0.1\"\nport = {smtp}\n"
    )
}

#[tokio::test]
async fn the_link_of_a_mail_shows_first_acknowledges_when_pressed_and_works_once() {
    let mut host = Host::new();
    let Some(mails) = MailServer::start(host.folder()) else { return };
    let web = free_port();
    host.start_alertd(&config(mails.port, web));
    host.report("web1", "disk", State::Critical, 1).await;
    wait_for("the mail", || mails.mails().len() == 1);
    let link = link(&mails.mails()[0]);
    let path = link.strip_prefix("https://alerts.example.org").unwrap().to_owned();
    let acked = |host: &Host| host.ask(&["why", "1"])["incident"]["ack"].clone();

    // A scanner that follows links, twice.
    for method in ["GET", "HEAD", "GET"] {
        let page = request(web, method, &path);
        assert_eq!(page.status, 200, "{method}: {}", page.body);
        assert!(
            page.body.contains("CRITICAL web1/disk: disk is CRITICAL") || method == "HEAD",
            "{}",
            page.body
        );
        for header in [
            "referrer-policy: no-referrer",
            "cache-control: no-store",
            "default-src 'none'",
            "x-frame-options: deny",
        ] {
            assert!(page.head.contains(header), "{header}\n{}", page.head);
        }
    }
    assert_eq!(acked(&host), Value::Null, "looking is no ack");

    // What is changed, cut or made up is not ours.
    let mut forged = path.clone();
    forged.replace_range("/ack/1".len() - 1.."/ack/1".len(), "2");
    for wrong in [forged.as_str(), &path[..path.len() - 1], "/ack/x", "/ack/1.2.3.4.5"] {
        let page = request(web, "POST", wrong);
        assert!(page.status == 404 && page.body.contains("invalid or incomplete"), "{wrong}: {}", page.body);
    }
    for nowhere in ["/", "/ack/", "/ack", "/metrics", "/v1/status"] {
        assert_eq!(request(web, "GET", nowhere).status, 404, "{nowhere}");
    }
    assert_eq!(acked(&host), Value::Null);

    let page = request(web, "POST", &path);
    assert!(page.status == 200 && page.body.contains("#1 acknowledged"), "{}", page.body);
    assert_eq!(acked(&host)["author"], json!("ada@example.org (email link)"));
    wait_for("the mail that says so", || mails.mails().len() == 2);
    assert!(!mails.mails()[1].text.contains("/ack/"), "nothing to acknowledge in it");

    // Twice is once, also after a restart; an unack does not make it good again.
    host.ask(&["unack", "1"]);
    host.alertd.as_mut().unwrap().kill();
    host.restart_alertd();
    for method in ["POST", "GET"] {
        let page = request(web, method, &path);
        assert!(page.status == 410 && page.body.contains("Already used"), "{method}: {}", page.body);
    }
    assert_eq!(acked(&host), Value::Null);
    let why = words(&host.alertctl(&["why", "1"]));
    assert!(why.contains("ada@example.org (email link)"), "{why}");
    let audit = host.ask(&["audit"]);
    let ack = audit.as_array().unwrap().iter().find(|entry| entry["kind"] == "acked").unwrap();
    assert_eq!((&ack["author"], &ack["from"]), (&json!("ada@example.org (email link)"), &json!("127.0.0.1")));

    host.report("web1", "disk", State::Ok, 2).await;
    wait_for("the recovery", || host.ask(&["status"])["incidents"] == json!([]));
    let page = request(web, "GET", &path);
    assert!(page.status == 410 && page.body.contains("Already resolved"), "{}", page.body);
}

#[tokio::test]
async fn the_link_of_a_digest_lists_what_is_open_and_leads_to_each() {
    let mut host = Host::new();
    let Some(mails) = MailServer::start(host.folder()) else { return };
    let web = free_port();
    let rate = "[receiver.ops]\nrate = { burst = 1, every = \"2s\" }\n[receiver.ops.email]";
    host.start_alertd(&config(mails.port, web).replace("[receiver.ops.email]", rate));
    for name in ["web1", "web2", "web3"] {
        host.report(name, "disk", State::Critical, 1).await;
    }
    wait_for("the digest", || mails.mails().iter().any(|mail| link_to(mail, "open").is_some()));
    let digest = mails.mails().into_iter().find(|mail| link_to(mail, "open").is_some()).unwrap();
    assert!(digest.text.contains("Show open incidents:"), "{}", digest.text);
    let link = link_to(&digest, "open").unwrap();
    let path = link.strip_prefix("https://alerts.example.org").unwrap().to_owned();
    wait_for("all to be told", || request(web, "GET", &path).body.contains("3 open, 0 acknowledged"));
    let page = request(web, "GET", &path);
    assert!(page.head.contains("cache-control: no-store"), "{}", page.head);
    // One of them is taken, from the list.
    let rows: Vec<_> = page.body.lines().filter(|line| line.contains("<li>")).collect();
    let row = rows.iter().find(|row| row.contains("web2/disk")).unwrap();
    let ack = row.split('"').nth(1).unwrap().strip_prefix("..").unwrap();
    assert_eq!(request(web, "GET", ack).status, 200);
    let pressed = request(web, "POST", ack);
    assert!(pressed.status == 200 && pressed.body.contains("Escalation has stopped"), "{}", pressed.body);
    let page = request(web, "GET", &path);
    let rows: Vec<_> = page.body.lines().filter(|line| line.contains("<li>")).collect();
    assert!(page.body.contains("3 open, 1 acknowledged"), "{}", page.body);
    assert!(rows[2].contains("web2/disk") && rows[2].contains("ada@example.org (email link)"), "{rows:?}");
    // A changed link is not one, and an ack's link no list.
    let mut forged = path.clone();
    forged.replace_range("/open/6".len() - 1.."/open/6".len(), "7");
    for wrong in [forged, ack.replace("/ack/", "/open/"), path.replace("/open/", "/ack/")] {
        assert_eq!(request(web, "GET", &wrong).status, 404, "{wrong}");
    }
    for name in ["web1", "web2", "web3"] {
        host.report(name, "disk", State::Ok, 2).await;
    }
    wait_for("the end", || request(web, "GET", &path).body.contains("No open incidents"));
}

#[tokio::test]
async fn a_new_key_leaves_old_links_good_until_it_is_taken_out_and_a_link_ends() {
    let mut host = Host::new();
    let Some(mails) = MailServer::start(host.folder()) else { return };
    let web = free_port();
    host.start_alertd(&config(mails.port, web).replace("[[route]]", "link_lifetime = \"20s\"\n\n[[route]]"));
    let key = host.path("alertd/ack-link.key");
    host.report("web1", "disk", State::Critical, 1).await;
    wait_for("the mail", || mails.mails().len() == 1);
    let link = link(&mails.mails()[0]);
    let path = link.strip_prefix("https://alerts.example.org").unwrap();
    let old = std::fs::read_to_string(&key).unwrap();
    std::fs::write(&key, format!("another-key\n{old}")).unwrap();
    assert_eq!(request(web, "GET", path).status, 200, "the old key is still believed");
    wait_for("the link's end", || request(web, "GET", path).status == 410);
    let page = request(web, "POST", path);
    assert!(page.status == 410 && page.body.contains("has expired"), "{}", page.body);
    std::fs::write(&key, "another-key\n").unwrap();
    assert_eq!(request(web, "GET", path).status, 404, "nobody knows the old key any more");
}

#[tokio::test]
async fn a_flood_of_requests_is_turned_away_and_slow_callers_hold_up_nobody() {
    let mut host = Host::new();
    let Some(mails) = MailServer::start(host.folder()) else { return };
    let web = free_port();
    host.start_alertd(&config(mails.port, web));
    host.report("web1", "disk", State::Critical, 1).await;
    wait_for("the mail", || mails.mails().len() == 1);
    let link = link(&mails.mails()[0]);
    // Callers that say nothing keep their places; the others are served all the same.
    let silent: Vec<_> = (0..40).map(|_| TcpStream::connect(("127.0.0.1", web)).unwrap()).collect();
    let statuses: Vec<_> = (0..200).map(|_| request(web, "GET", "/ack/x").status).collect();
    assert!(statuses.contains(&429), "{statuses:?}");
    assert!(statuses.iter().all(|status| [404, 429].contains(status)), "{statuses:?}");
    let path = link.strip_prefix("https://alerts.example.org").unwrap();
    assert_eq!(request(web, "GET", path).status, 200, "who has a link is let in");
    let huge = format!("/ack/{}", "9".repeat(60_000));
    assert!(request(web, "GET", &huge).status >= 400);
    drop(silent);
    assert!(host.alertctl(&["status"]).status.success());
    assert!(!host.log("alertd").contains("panicked"), "{}", host.log("alertd"));
}

#[tokio::test]
async fn a_reload_opens_the_page_moves_it_and_closes_it() {
    let mut host = Host::new();
    let Some(mails) = MailServer::start(host.folder()) else { return };
    let [web, other] = [free_port(), free_port()];
    let with_page = config(mails.port, web);
    let without = with_page.split_once("\n\n").unwrap().1.to_owned();
    host.start_alertd(&without);
    let answers = |port| TcpStream::connect(("127.0.0.1", port)).is_ok();

    host.reload_alertd(&with_page);
    wait_for("the page", || answers(web));
    host.report("web1", "disk", State::Critical, 1).await;
    wait_for("the mail", || mails.mails().len() == 1);
    let link = link(&mails.mails()[0]);
    let path = link.strip_prefix("https://alerts.example.org").unwrap();
    assert_eq!(request(web, "GET", path).status, 200);

    host.reload_alertd(&config(mails.port, other));
    wait_for("the page at its new place", || answers(other) && !answers(web));
    assert_eq!(request(other, "GET", path).status, 200, "links outlive a move");

    // A port in use: the page stays at its address, and the log says why.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    host.reload_alertd(&config(mails.port, taken.local_addr().unwrap().port()));
    wait_for("the reason", || host.log("alertd").contains("change [alertd.web] listen"));
    assert_eq!(request(other, "GET", path).status, 200);

    host.reload_alertd(&without);
    wait_for("the end of the page", || !answers(other));
}
