//! The HTTP receivers with alertd: what they get, in what form, and what follows from each kind of
//! refusal.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::{
    collections::VecDeque,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    process::Command,
    sync::{Arc, Mutex},
    thread,
};

use dogwatch_tests::{
    certificates::Certificates,
    host::{Host, words},
    http_server::{HttpServer, Request, any_json, ntfy, slack},
    pagerduty::{PagerDuty, ROUTING_KEY},
    process::{debian_program, wait_for},
};
use dogwatch_wire::State;
use serde_json::{Value, json};

/// One incident per host, notified at once, followed by `receivers`.
fn routed(to: &str, receivers: &str) -> String {
    format!("[[route]]\nreceiver = \"{to}\"\ngroup_wait = \"0s\"\ngroup_interval = \"0s\"\n\n{receivers}")
}

#[tokio::test]
async fn chat_and_phone_are_told_and_a_busy_server_is_asked_again_when_it_said() {
    let (chat, phone) = (HttpServer::start(slack), HttpServer::start(ntfy));
    let mut host = Host::new();
    let url = host.write("slack.url", &format!("{}/services/T0/B0/x\n", chat.url));
    let token = host.write("ntfy.token", "tk_test\n");
    host.start_alertd(&format!(
        "[policy.default]\nstep = [{{ notify = [\"chat\", \"phone\"] }}]\n\
         [receiver.chat.slack]\nurl_file = \"{}\"\n\
         [receiver.phone.ntfy]\nurl = \"{}/ops-1\"\ntoken_file = \"{}\"\n",
        url.display(),
        phone.url,
        token.display()
    ));
    chat.answer_next(1, 429, "retry-after: 2\r\n");
    host.report("web1", "disk", State::Critical, 1).await;
    wait_for("both to be told", || chat.taken().len() == 1 && phone.taken().len() == 1);
    let said = chat.taken()[0].json();
    assert_eq!(said["text"], "[#1] CRITICAL web1/disk: disk is CRITICAL");
    // The ntfy server has it; whether the phone has it, nobody can tell.
    let states = |why: &Value| [0, 1].map(|at| why["notifications"][at]["state"].clone());
    wait_for("alertd to know", || states(&host.ask(&["why", "1"])) == ["delivered", "accepted"]);
    let why = host.ask(&["why", "1"]);
    let told = &why["notifications"][0];
    assert_eq!((&told["receiver"], &told["attempts"]), (&json!("chat"), &json!(2)));
    let waited =
        why["decisions"].as_array().unwrap().iter().find(|entry| entry["kind"] == "retrying").unwrap();
    // What is asked is a least; up to two seconds of jitter come on top.
    let text = waited["text"].as_str().unwrap();
    assert!(text.contains("again in 2s") || text.contains("again in 3s"), "{waited}");
    assert_eq!((chat.requests()[0].status, &chat.requests()[0].body), (429, &chat.requests()[1].body));
    let pushed = phone.taken()[0].json();
    assert_eq!((&pushed["priority"], &pushed["click"]), (&json!(5), &json!("https://wiki.example/disk")));
    assert!(
        pushed["message"].as_str().unwrap().contains("used 96% (warning above 80, critical above 90)"),
        "{pushed}"
    );

    host.ask(&["ack", "1", "mine"]);
    host.report("web1", "disk", State::Ok, 2).await;
    wait_for("ack and recovery", || chat.taken().len() == 3 && phone.taken().len() == 3);
    let titles: Vec<_> = phone.taken().iter().map(|request| request.json()["title"].clone()).collect();
    assert!(titles[1].as_str().unwrap().contains("acknowledged by root: web1/disk"), "{titles:?}");
    assert_eq!(titles[2], "[#1] OK web1/disk: disk is OK");
    assert!(host.alertctl(&["test-notify", "phone"]).status.success());
}

#[tokio::test]
async fn a_webhook_that_only_queues_has_accepted_and_one_that_is_done_has_delivered() {
    let hook = HttpServer::start(|_| Ok(String::new()));
    let mut host = Host::new();
    host.start_alertd(&routed("hook", &format!("[receiver.hook.webhook]\nurl = \"{}/\"\n", hook.url)));
    hook.answer_next(1, 202, "");
    let state = |host: &Host, at: usize| host.ask(&["why", "1"])["notifications"][at]["state"].clone();
    host.report("web1", "disk", State::Critical, 1).await;
    wait_for("the problem", || state(&host, 0) == "accepted");
    host.report("web1", "disk", State::Ok, 2).await;
    wait_for("the recovery", || state(&host, 1) == "delivered");
    assert_eq!(hook.taken().len() + hook.requests().iter().filter(|one| one.status == 202).count(), 2);
}

#[tokio::test]
async fn a_channel_that_is_gone_fails_for_good_and_its_fallback_and_the_operator_hear_of_it() {
    let (chat, phone) = (HttpServer::start(slack), HttpServer::start(ntfy));
    let mut host = Host::new();
    let token = host.write("ntfy.token", "tk_test\n");
    host.start_alertd(&routed(
        "chat",
        &format!(
            "[receiver.chat]\nfallback = \"phone\"\n[receiver.chat.slack]\nurl = \"{}/services/x\"\n\
             [receiver.phone.ntfy]\nurl = \"{}/ops\"\ntoken_file = \"{}\"\n",
            chat.url,
            phone.url,
            token.display()
        ),
    ));
    chat.answer_next(100, 410, "");
    host.report("web1", "disk", State::Critical, 1).await;
    wait_for("the fallback", || phone.taken().len() == 2);
    assert_eq!(chat.requests().len(), 1, "what is refused for good is not tried again");
    let titles: Vec<_> = phone.taken().iter().map(|request| request.json()["title"].to_string()).collect();
    assert!(titles.iter().any(|title| title.contains("web1/disk")), "{titles:?}");
    assert!(
        titles.iter().any(|title| title.contains("receiver chat accepts no notifications")),
        "{titles:?}"
    );
    let why = host.ask(&["why", "1"]);
    assert_eq!(why["notifications"][0]["state"], "failed");
    assert!(why["notifications"][0]["last_error"].as_str().unwrap().contains("410"), "{why}");
    assert_eq!(why["notifications"][1]["reason"], "fallback");
}

#[tokio::test]
async fn pagerduty_429_and_5xx_are_tried_again_under_one_key_and_400_is_not() {
    let pager = PagerDuty::start();
    let mut host = Host::new();
    let key = host.write("pager.key", &format!("{ROUTING_KEY}\n"));
    host.start_alertd(&routed(
        "pager",
        &format!(
            "[receiver.pager.pagerduty]\nrouting_key_file = \"{}\"\nurl = \"{}\"\n",
            key.display(),
            pager.url
        ),
    ));
    pager.answer_next(&[500, 503]);
    host.report("web1", "disk", State::Critical, 1).await;
    wait_for("the event", || pager.accepted().len() == 1);
    assert_eq!(pager.answered(), [500, 503, 202]);
    assert_eq!(host.ask(&["why", "1"])["notifications"][0]["attempts"], 3);
    // A 429 says nothing of when: half a minute, which no test waits for.
    pager.answer_next(&[429, 400]);
    host.report("web2", "disk", State::Critical, 1).await;
    wait_for("the pause", || {
        let why = host.ask(&["why", "2"]);
        let texts = why["decisions"].as_array().unwrap().iter().map(|entry| entry["text"].to_string());
        texts.into_iter().any(|text| text.contains("429") && text.contains("again in 3"))
    });
    host.report("web3", "disk", State::Critical, 1).await;
    wait_for("the refusal", || host.ask(&["why", "3"])["notifications"][0]["state"] == "failed");
    assert_eq!(pager.answered(), [500, 503, 202, 429, 400]);
    // Only the local mailbox is left to report that the pager refuses.
    wait_for("word of the pager", || {
        host.maildir("alertd/mail")
            .iter()
            .any(|mail| mail.contains("receiver pager accepts no notifications"))
    });
}

#[tokio::test]
async fn with_dedup_alert_each_alert_of_a_group_pages_and_resolves_by_itself() {
    let pager = PagerDuty::start();
    let mut host = Host::new();
    let key = host.write("pager.key", &format!("{ROUTING_KEY}\n"));
    host.start_alertd(&routed(
        "pager",
        &format!(
            "[receiver.pager.pagerduty]\nrouting_key_file = \"{}\"\nurl = \"{}\"\ndedup = \"alert\"\n",
            key.display(),
            pager.url
        ),
    ));
    let known = |event: &Value| {
        (event["event_action"].as_str().unwrap().to_owned(), event["dedup_key"].as_str().unwrap().to_owned())
    };
    host.report("web1", "disk", State::Critical, 1).await;
    wait_for("the first", || pager.accepted().len() == 1);
    host.report("web1", "swap", State::Critical, 2).await;
    wait_for("both again", || pager.accepted().len() == 3);
    let events: Vec<_> = pager.accepted().iter().map(known).collect();
    let new: Vec<_> = events[1..].iter().filter(|event| event.1 != events[0].1).collect();
    assert_eq!(new.len(), 1, "{events:?}");
    let swap = new[0].1.clone();
    host.ask(&["ack", "1", "mine"]);
    wait_for("the ack of both", || pager.accepted().len() == 5);
    host.report("web1", "disk", State::Ok, 3).await;
    host.report("web1", "swap", State::Ok, 4).await;
    wait_for("two resolved", || {
        let all: Vec<_> = pager.accepted().iter().map(known).collect();
        [&events[0].1, &swap].iter().all(|key| all.contains(&("resolve".into(), (*key).clone())))
    });
    assert_eq!(pager.refused(), Vec::<String>::new());
}

#[tokio::test]
async fn a_signature_is_right_for_openssl_while_the_secret_is_changed_and_a_private_authority_is_trusted() {
    let Some(openssl) = debian_program("openssl", "openssl") else { return };
    let mut host = Host::new();
    let Some(certificates) = Certificates::make(host.folder()) else { return };
    let hook = HttpServer::start_tls(any_json, &certificates.certificate, &certificates.key);
    let secret = host.write("secret", "new-one\nold-one\n");
    let receivers = format!(
        "[receiver.hook.webhook]\nurl = \"{0}/x\"\nsecret_file = \"{1}\"\nca_file = \"{2}\"\n\
         [receiver.strict.webhook]\nurl = \"{0}/x\"\n",
        hook.url,
        secret.display(),
        certificates.authority.display()
    );
    host.start_alertd(&routed("hook", &receivers));
    host.report("web1", "disk", State::Critical, 1).await;
    wait_for("the hook", || hook.taken().len() == 1);
    let request = hook.taken()[0].clone();
    let sign = |secret: &str, request: &Request| {
        let mut signed = request.headers["x-dogwatch-timestamp"].clone().into_bytes();
        signed.push(b'.');
        signed.extend(&request.body);
        std::fs::write(host.path("signed"), signed).unwrap();
        let mut command = Command::new(&openssl);
        let output = command
            .args(["dgst", "-sha256", "-hmac", secret, "-r"])
            .arg(host.path("signed"))
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        format!("v1={}", text.split(' ').next().unwrap())
    };
    let both = format!("{},{}", sign("new-one", &request), sign("old-one", &request));
    assert_eq!(request.headers["x-dogwatch-signature"], both);
    assert_eq!(request.json()["id"], request.headers["x-dogwatch-id"]);

    // The old one is taken out; nothing is reloaded.
    host.write("secret", "new-one\n");
    host.report("web1", "disk", State::Ok, 2).await;
    wait_for("the recovery", || hook.taken().len() == 2);
    let request = hook.taken()[1].clone();
    assert_eq!(request.headers["x-dogwatch-signature"], sign("new-one", &request));

    let strict = host.alertctl(&["test-notify", "strict"]);
    assert!(!strict.status.success() && words(&strict).contains("certificate"), "{}", words(&strict));
}

#[tokio::test]
async fn a_template_that_fails_in_the_night_keeps_nothing_back_and_says_so_until_it_works_again() {
    let phone = HttpServer::start(ntfy);
    let mut host = Host::new();
    let token = host.write("ntfy.token", "tk_test\n");
    let config = routed(
        "phone",
        &format!(
            "[receiver.phone.ntfy]\nurl = \"{}/ops\"\ntoken_file = \"{}\"\n[receiver.phone.template]\n\
             subject = '''own {{% if firing and firing[0].summary == \"swap is CRITICAL\" %}}{{{{ firing[0].no.no }}}}{{% endif %}}{{{{ title }}}}'''\n",
            phone.url,
            token.display()
        ),
    );
    host.start_alertd(&config);
    let titles = || -> Vec<String> {
        phone.taken().iter().map(|request| request.json()["title"].as_str().unwrap().to_owned()).collect()
    };
    host.report("web1", "disk", State::Critical, 1).await;
    wait_for("own words", || titles() == ["own [#1] CRITICAL web1/disk: disk is CRITICAL"]);
    host.report("web2", "swap", State::Critical, 1).await;
    wait_for("built-in words and word of the template", || titles().len() == 3);
    let said = titles();
    assert_eq!(said[1], "[#2] CRITICAL web2/swap: swap is CRITICAL");
    assert!(
        said[2].starts_with("own [#3] CRITICAL mon1/template: receiver phone uses the built-in text"),
        "{said:?}"
    );
    assert!(said[2].contains("template subject, line 1 column"), "{said:?}");
    let firing = host.ask(&["status"])["incidents"].as_array().unwrap().len();
    assert_eq!(firing, 3, "it fires on, though it could say that it does");
    host.report("web1", "disk", State::Ok, 2).await;
    wait_for("it works again", || titles().len() == 5);
    let said = titles();
    assert!(said.iter().any(|title| title.starts_with("own [#3] OK mon1/template")), "{said:?}");

    // A mistake that a sample finds never gets so far.
    let wrong = config.replace("own ", "{{ sumary }} ");
    let text = std::fs::read_to_string(host.path("alertd.toml")).unwrap();
    host.write("wrong.toml", &text.replace(&config, &wrong));
    let mut check = Command::new(dogwatch_tests::process::binary("alertd"));
    let output = check.arg("--check").arg("--config").arg(host.path("wrong.toml")).output().unwrap();
    assert!(!output.status.success());
    let said = words(&output);
    assert!(said.contains("wrong.toml:") && said.contains("line 1 column 4 at \"sumary\""), "{said}");
}

/// A mail server that answers RCPT as set, and 250 by default.
struct Smtp {
    port: u16,
    answers: Arc<Mutex<VecDeque<&'static str>>>,
    /// Message ids of the mails that were taken.
    taken: Arc<Mutex<Vec<String>>>,
}

impl Smtp {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (answers, taken) = (Arc::default(), Arc::default());
        let smtp = Self { port: listener.local_addr().unwrap().port(), answers, taken };
        let (answers, taken) = (Arc::clone(&smtp.answers), Arc::clone(&smtp.taken));
        // Ends with the test's process.
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (answers, taken) = (Arc::clone(&answers), Arc::clone(&taken));
                thread::spawn(move || Self::serve(stream, &answers, &taken));
            }
        });
        smtp
    }

    fn serve(mut stream: TcpStream, answers: &Mutex<VecDeque<&'static str>>, taken: &Mutex<Vec<String>>) {
        let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
        let mut say = |line: &str| stream.write_all(format!("{line}\r\n").as_bytes());
        let _ = say("220 mail ESMTP");
        while let Some(line) = lines.next() {
            let verb = line.split([' ', ':']).next().unwrap_or_default().to_ascii_uppercase();
            let answer = match verb.as_str() {
                "RCPT" => answers.lock().unwrap().pop_front().unwrap_or("250 ok"),
                "DATA" => {
                    let _ = say("354 go");
                    let mail: Vec<_> = lines.by_ref().take_while(|line| line != ".").collect();
                    let id = mail.iter().find(|line| line.starts_with("Message-ID:")).cloned();
                    taken.lock().unwrap().push(id.unwrap_or_default());
                    "250 queued"
                }
                "QUIT" => "221 bye",
                _ => "250 ok",
            };
            let _ = say(answer);
        }
    }
}

#[tokio::test]
async fn smtp_4xx_is_tried_again_until_one_mail_is_taken_and_5xx_goes_to_the_fallback_at_once() {
    let (smtp, phone) = (Smtp::start(), HttpServer::start(ntfy));
    let mut host = Host::new();
    let token = host.write("ntfy.token", "tk_test\n");
    host.start_alertd(&routed(
        "ops",
        &format!(
            "[receiver.ops]\nfallback = \"phone\"\n[receiver.ops.email]\nto = [\"ada@example.org\"]\n\
             from = \"dogwatch@example.org\"\nserver = \"127.0.0.1\"\nport = {}\n\
             [receiver.phone.ntfy]\nurl = \"{}/ops\"\ntoken_file = \"{}\"\n",
            smtp.port,
            phone.url,
            token.display()
        ),
    ));
    smtp.answers.lock().unwrap().extend(["451 greylisted", "450 mailbox busy"]);
    host.report("web1", "disk", State::Critical, 1).await;
    wait_for("the mail", || host.ask(&["why", "1"])["notifications"][0]["state"] == "accepted");
    let why = host.ask(&["why", "1"]);
    assert_eq!(why["notifications"][0]["attempts"], 3, "{why}");
    let mails = smtp.taken.lock().unwrap().clone();
    assert!(mails.len() == 1 && phone.taken().is_empty(), "{mails:?}");

    smtp.answers.lock().unwrap().push_back("550 no such user");
    host.report("web2", "disk", State::Critical, 1).await;
    wait_for("the fallback", || phone.taken().len() == 2);
    let failed = host.ask(&["why", "2"])["notifications"][0].clone();
    assert_eq!((&failed["state"], &failed["attempts"]), (&json!("failed"), &json!(1)), "{failed}");
    assert!(failed["last_error"].as_str().unwrap().contains("no such user"), "{failed}");
    let titles: Vec<_> = phone.taken().iter().map(|request| request.json()["title"].to_string()).collect();
    assert!(titles.iter().any(|title| title.contains("receiver ops accepts no notifications")), "{titles:?}");
    // The next mail is taken: the complaint is over.
    host.report("web3", "disk", State::Critical, 1).await;
    wait_for("its end", || {
        phone.taken().iter().any(|request| {
            let title = request.json()["title"].to_string();
            title.contains(" OK ") && title.contains("mon1/receiver")
        })
    });
}
