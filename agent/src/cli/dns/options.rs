//! Options that all commands of `dogwatch dns` share.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use dogwatch_dns::{
    Control,
    config::{Config, DEFAULT_PATH},
};
use serde::Serialize;

use crate::cli::{fail, print};

#[derive(Debug, clap::Args)]
pub(super) struct How {
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
    /// Control socket of the cache [default: the socket in the config]
    #[arg(long, value_name = "PATH")]
    pub(super) socket: Option<PathBuf>,
    /// Config file of the cache
    #[arg(long, value_name = "FILE", default_value = DEFAULT_PATH)]
    pub(super) config: PathBuf,
}

impl How {
    pub(super) fn control(&self) -> Option<Control> {
        match &self.socket {
            Some(socket) => Some(Control::at(socket)),
            None => Self::configured(&self.config),
        }
    }

    fn configured(file: &Path) -> Option<Control> {
        match Config::load(file) {
            Ok(config) => Some(Control::at(&config.control_socket)),
            Err(problems) => {
                fail(&problems.to_string());
                None
            }
        }
    }

    pub(super) fn print<T: Serialize>(&self, answer: &T, text: impl Fn(&T) -> String) -> ExitCode {
        if !self.json {
            print(text(answer));
            return ExitCode::SUCCESS;
        }
        match serde_json::to_string_pretty(answer) {
            Ok(json) => {
                print(format_args!("{json}\n"));
            }
            Err(error) => return fail(&error.to_string()),
        }
        ExitCode::SUCCESS
    }
}
