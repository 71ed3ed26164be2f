//! The engine with a disk that finishes writes when the test allows it.

use std::{
    hash::RandomState,
    sync::{
        Arc,
        mpsc::{Receiver, Sender, channel},
    },
    time::Duration,
};

use dogwatch_alertd_core::{
    Change, Core, Loaded,
    rules::notification::{Accepted, DeliveryError, Notification},
};
use dogwatch_wire::{
    Batch, BatchReply, Event, EventKind, Heartbeat, PROTOCOL, ServiceState, State, Transition,
};
use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot};

use super::{Access, BatchError, Deliver, Engine, INPUTS_MAX, Input, Order, keyring::Keyring};
use crate::{
    clock::{Clock, wall},
    config::Config,
    store::{Store, StoreError, writer::Writer},
};

const CONFIG: &str = r#"
    [[route]]
    policy = "default"
    group_by = ["host"]
    group_wait = "0s"
    [policy.default]
    step = [{ notify = ["mail"] }]
    [receiver.mail.maildir]
    path = "/m"
"#;
const LONG: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(200);

/// Tells the test when a commit starts, and waits for the test to give its result.
struct SlowDisk {
    begun: mpsc::UnboundedSender<usize>,
    let_go: Receiver<Result<(), StoreError>>,
}

impl Store for SlowDisk {
    fn load(&mut self, _: Timestamp) -> Result<Loaded, StoreError> {
        Ok(Loaded::default())
    }

    fn commit(&mut self, changes: &[Change]) -> Result<(), StoreError> {
        let _ = self.begun.send(changes.len());
        self.let_go.recv().unwrap_or(Ok(()))
    }

    fn prune(&mut self, _: Timestamp) -> Result<(), StoreError> {
        Ok(())
    }
}

struct Ear(mpsc::UnboundedSender<Notification>);

impl Deliver for Ear {
    async fn deliver(
        &self,
        _: &str,
        notification: &Notification,
        _: Duration,
    ) -> Result<Accepted, DeliveryError> {
        let _ = self.0.send(notification.clone());
        Ok(Accepted::default())
    }
}

struct Running {
    inputs: mpsc::Sender<Input>,
    /// Kept because the loop ends when it is dropped.
    _orders: mpsc::Sender<Order<Ear>>,
    begun: mpsc::UnboundedReceiver<usize>,
    let_go: Sender<Result<(), StoreError>>,
    heard: mpsc::UnboundedReceiver<Notification>,
}

impl Running {
    fn start() -> Self {
        let rules = Config::rules_of(CONFIG);
        let (begun_at, begun) = mpsc::unbounded_channel();
        let (let_go, go) = channel();
        let (ear, heard) = mpsc::unbounded_channel();
        let mut clock = Clock::start();
        let core = Core::new(rules, "life".into(), RandomState::new(), Loaded::default(), clock.now().0);
        let writer = Writer::start(SlowDisk { begun: begun_at, let_go: go });
        let keyring = Arc::new(Keyring::new(&[]));
        let engine = Engine::new(core, writer, keyring, Ear(ear), clock, LONG, None);
        let (inputs, inbox) = mpsc::channel(INPUTS_MAX);
        let (orders, obeyed) = mpsc::channel(1);
        tokio::spawn(engine.run(inbox, obeyed));
        Self { inputs, _orders: orders, begun, let_go, heard }
    }

    /// `host/disk` turns CRITICAL.
    async fn report(&self, host: &str) -> oneshot::Receiver<Result<BatchReply, BatchError>> {
        let now = ServiceState {
            service: "disk".into(),
            state: State::Critical,
            since: wall(),
            flapping: false,
            summary: "full".into(),
            detail: String::new(),
            perfdata: String::new(),
            labels: [].into(),
            annotations: [].into(),
        };
        let states = [(now.service.as_str(), now.state, now.flapping)];
        let heartbeat = Heartbeat {
            digest: dogwatch_wire::digest(states),
            next_within_s: 60,
            version: "1".into(),
            services: 1,
            changes: Vec::new(),
        };
        let event = Event {
            seq: 1,
            at: now.since,
            kind: EventKind::Transition(Transition { from: State::Ok, now: now.clone() }),
        };
        let batch = Batch {
            protocol: PROTOCOL,
            agent: format!("id-{host}"),
            host: host.into(),
            epoch: "e1".into(),
            run: String::new(),
            boot: String::new(),
            sent_at: now.since,
            events: vec![event],
            heartbeat: Some(heartbeat),
            states: None,
            states_part: None,
        };
        let (answer, answered) = oneshot::channel();
        self.inputs
            .send(Input::Batch(
                Box::new(batch),
                dogwatch_alertd_core::rules::sender::Sender::default(),
                answer,
            ))
            .await
            .unwrap();
        answered
    }

    async fn open_incidents(&self) -> usize {
        let (answer, answered) = oneshot::channel();
        self.inputs.send(Input::Status(answer)).await.unwrap();
        within(answered).await.unwrap().incidents.len()
    }

    async fn commit_begins(&mut self) {
        within(self.begun.recv()).await.unwrap();
    }
}

async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(LONG, what).await.expect("it finishes in time")
}

async fn not_yet<T>(what: &mut (impl Future<Output = T> + Unpin)) -> bool {
    tokio::time::timeout(SHORT, what).await.is_err()
}

#[tokio::test]
async fn the_loop_decides_during_a_commit_but_answers_only_after_it() {
    let mut running = Running::start();
    let mut first = running.report("web1").await;
    running.commit_begins().await;
    // Both arrive during the first commit: one is new, the other repeats what is not on disk yet.
    let mut second = running.report("web2").await;
    let mut again = running.report("web1").await;
    assert_eq!(running.open_incidents().await, 2, "decided although the disk is busy");
    assert!(not_yet(&mut first).await && not_yet(&mut again).await && running.heard.try_recv().is_err());

    running.let_go.send(Ok(())).unwrap();
    assert_eq!(within(first).await.unwrap().unwrap().acked_seq, 1);
    assert_eq!(within(running.heard.recv()).await.unwrap().firing[0].labels["host"], "web1");
    running.commit_begins().await;
    assert!(not_yet(&mut second).await && not_yet(&mut again).await && running.heard.try_recv().is_err());

    running.let_go.send(Ok(())).unwrap();
    within(second).await.unwrap().unwrap();
    within(again).await.unwrap().unwrap();
    assert_eq!(within(running.heard.recv()).await.unwrap().firing[0].labels["host"], "web2");
}

#[tokio::test]
async fn if_a_commit_fails_people_are_notified_and_it_is_written_later() {
    let mut running = Running::start();
    let first = running.report("web1").await;
    running.commit_begins().await;
    let second = running.report("web2").await;
    running.let_go.send(Err(StoreError::Unavailable("no space left on device".into()))).unwrap();
    let refused = within(first).await.unwrap().unwrap_err();
    assert!(refused.to_string().contains("no space left on device"), "{refused}");
    assert_eq!(within(running.heard.recv()).await.unwrap().firing[0].labels["host"], "web1");

    // The next commit contains what failed and everything since.
    running.commit_begins().await;
    running.let_go.send(Ok(())).unwrap();
    within(second).await.unwrap().unwrap();
    let again = running.report("web1").await;
    // The batch contains nothing new, but outcomes of deliveries may still be written.
    for _ in 0..4 {
        running.let_go.send(Ok(())).unwrap();
    }
    within(again).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_refusal_is_answered_once_it_is_on_the_disk() {
    let mut running = Running::start();
    let (answer, mut answered) = oneshot::channel();
    let refused = Access::Refused("token:eva".into(), "POST /v1/silences: 403 Forbidden".into(), answer);
    running.inputs.send(Input::Access(refused)).await.unwrap();
    running.commit_begins().await;
    assert!(not_yet(&mut answered).await);
    running.let_go.send(Ok(())).unwrap();
    within(answered).await.unwrap();
}

#[tokio::test]
async fn that_an_incident_is_not_open_is_answered_after_the_running_commit() {
    let mut running = Running::start();
    let report = running.report("web1").await;
    running.commit_begins().await;
    let (answer, mut answered) = oneshot::channel();
    running.inputs.send(Input::Incident(99, answer)).await.unwrap();
    assert!(not_yet(&mut answered).await);
    running.let_go.send(Ok(())).unwrap();
    assert_eq!(within(answered).await.unwrap(), None);
    within(report).await.unwrap().unwrap();
}
