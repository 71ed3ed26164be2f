//! The real agent with real plugins against an alertd that remembers.

mod common;

use std::fs;

use common::{Alertd, Place, stderr, stdout};
use dogwatch_wire::State;

/// A plugin that says what is in a file, every 100 ms, believed at once.
fn switch(place: &std::path::Path, name: &str) -> String {
    format!(
        "[check.{name}]\nkind = \"plugin\"\ninterval = \"100ms\"\nmax_attempts = 1\nflapping = {{ detect = false }}\n\
         command = [\"/bin/sh\", \"-c\", \"exit $(cat {}/{name})\"]\n",
        place.display()
    )
}

#[tokio::test]
async fn a_problem_reaches_alertd_and_its_recovery_too() {
    let place = Place::new("");
    place.write_config(&switch(place.dir.path(), "web"));
    fs::write(place.path("web"), "0").unwrap();
    let alertd = Alertd::new();
    let _serving = alertd.serve(&place.path("alertd.sock"));
    let agent = place.start();
    place.wait_until_up();
    fs::write(place.path("web"), "2").unwrap();
    assert_eq!(alertd.states_of("web", 1).await, [State::Critical]);
    fs::write(place.path("web"), "0").unwrap();
    assert_eq!(alertd.states_of("web", 2).await, [State::Critical, State::Ok]);
    let status = place.ask(&["status"]);
    assert!(stdout(&status).contains("web      OK"), "{}{}", stdout(&status), stderr(&status));
    assert_eq!(agent.stop(), Some(0));
}
