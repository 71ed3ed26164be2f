//! The part of the loop that reloads the config.

use dogwatch_daemon::systemd;
use tracing::{error, info, warn};

use super::{Engine, outbox_limits};
use crate::{
    config::{self, Check, Settings},
    report::client::Alertds,
};

impl Engine {
    /// Applies the config on disk, or changes nothing if it is invalid.
    pub(super) fn reload(&mut self) {
        let now = self.clock.now();
        if self.had_config_file && !self.config_path.exists() {
            let problem = format!("{} is gone", self.config_path.display());
            error!("reload failed: {problem}; the running config is unchanged");
            self.config_problem = Some(problem);
            self.check_self(now);
            return;
        }
        let config = match config::load(&self.config_path, &self.host) {
            Ok(config) => config,
            Err(problems) => {
                for problem in &problems.0 {
                    error!("{problem}");
                }
                error!("reload failed: invalid config; the running config is unchanged");
                self.config_problem = problems.0.first().map(ToString::to_string);
                self.check_self(now);
                return;
            }
        };
        self.config_problem = None;
        self.had_config_file = self.config_path.exists();
        let (old, new) = (&self.config.agent, &config.agent);
        for (what, differs) in [
            ("state_dir", old.state_dir != new.state_dir),
            ("socket", old.socket != new.socket),
            ("metrics", old.metrics != new.metrics),
            ("machine_id_file", old.machine_id_file != new.machine_id_file),
            ("max_concurrent", old.max_concurrent != new.max_concurrent),
        ] {
            if differs {
                warn!("agent.{what} has changed; restart the agent to apply it");
            }
        }
        let said = |settings: &Settings| (settings.labels.clone(), settings.annotations.clone());
        let relabelled = self.config.checks.iter().any(|(name, old)| {
            config.checks.get(name).is_some_and(|new| {
                let of_things = |check: &Check| {
                    check.things.iter().map(|(_, part)| part.as_ref().map(said)).collect::<Vec<_>>()
                };
                said(&new.settings) != said(&old.settings) || of_things(new) != of_things(old)
            })
        });
        self.alertds = Alertds::new(&config.alertd);
        self.outbox.set_limits(outbox_limits(&config));
        self.config = config;
        self.watch(now);
        self.check_self(now);
        if relabelled {
            self.outbox.offer_states(now.moment);
        }
        for warning in self.config.warnings() {
            warn!("{warning}");
        }
        info!("config reloaded; {}", self.config.summary());
        systemd::ready(&format!("{} checks", self.config.checks.len()));
    }
}
