//! `dogwatch dns enable|disable|status`: whether programs on this host use the cache.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    process::ExitCode,
};

use dogwatch_dns::{
    Control,
    config::{Config, DEFAULT_PATH},
    host_resolver::{self, HostStatus, Real, Switch, SwitchError, report},
    serve::explain,
};
use dogwatch_dns_core::resolver::Status;
use serde::Serialize;

use super::options::How;
use crate::cli::{fail, print};

#[derive(Debug, clap::Args)]
pub(super) struct Enable {
    /// Show the changes without making them
    #[arg(long)]
    dry_run: bool,
    /// Name that must resolve before and after the change [default: search domains and package
    /// mirrors of this host]
    #[arg(long, value_name = "NAME")]
    name: Vec<String>,
    /// If enabled, only adopt changed servers (for the hooks of DHCP clients)
    #[arg(long, hide = true)]
    refresh: bool,
    #[command(flatten)]
    with: With,
}

#[derive(Debug, clap::Args)]
pub(super) struct Disable {
    #[command(flatten)]
    with: With,
}

#[derive(Debug, clap::Args)]
struct With {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Config file of the cache
    #[arg(long, value_name = "FILE", default_value = DEFAULT_PATH)]
    config: PathBuf,
}

pub(super) async fn enable(arguments: Enable) -> ExitCode {
    let Enable { dry_run, name, refresh, with } = arguments;
    if !dry_run && !is_root() {
        return fail("only root may change the resolver configuration; to see the changes, use --dry-run");
    }
    with.switch(move |switch, json| {
        if dry_run {
            let preview = switch.preview()?;
            print(report::preview(&preview));
        } else if refresh {
            for path in switch.refresh()?.unwrap_or_default() {
                print(format_args!("updated {}\n", path.display()));
            }
        } else {
            let done = switch.enable(&name)?;
            if json {
                print_json(&done);
            } else {
                print(report::enabled(&done));
            }
        }
        Ok(())
    })
    .await
}

pub(super) async fn disable(arguments: Disable) -> ExitCode {
    if !is_root() {
        return fail("only root may change the resolver configuration");
    }
    let With { json, config } = arguments.with;
    // Works even if the config is invalid or missing: the journal has all that is needed.
    let loaded = Config::load(&config).unwrap_or_default();
    let undo = blocking(config, loaded, None, |switch| switch.disable().map_err(|error| error.to_string()));
    match undo.await {
        Ok(done) if json => print_json(&done),
        Ok(done) => {
            print(report::disabled(done.as_ref()));
        }
        Err(message) => return fail(&message),
    }
    ExitCode::SUCCESS
}

impl With {
    /// Runs `work` on a thread that may block.
    async fn switch(
        self,
        work: impl FnOnce(&mut Switch<'_, Real>, bool) -> Result<(), SwitchError> + Send + 'static,
    ) -> ExitCode {
        let Self { json, config } = self;
        let loaded = match Config::load(&config) {
            Ok(loaded) => loaded,
            Err(problems) => return fail(&problems.to_string()),
        };
        let work = move |switch: &mut Switch<'_, Real>| work(switch, json).map_err(|error| error.to_string());
        match blocking(config, loaded, None, work).await {
            Ok(()) => ExitCode::SUCCESS,
            Err(message) => fail(&message),
        }
    }
}

/// The status of the cache and of the host.
#[derive(Serialize)]
struct Both {
    #[serde(flatten)]
    cache: Option<Status>,
    /// Why the cache did not answer.
    error: Option<String>,
    host: Option<HostStatus>,
}

pub(super) async fn status(how: How) -> ExitCode {
    let Some(control) = how.control() else { return ExitCode::FAILURE };
    let (cache, error) = match control.status().await {
        Ok(status) => (Some(status), None),
        Err(error) => {
            (None, Some(format!("{error}; is the cache running? See `systemctl status dogwatch-dns`")))
        }
    };
    let loaded = Config::load(&how.config).unwrap_or_default();
    let looked = blocking(how.config.clone(), loaded, how.socket.clone(), |switch| {
        report::look(switch).map_err(|error| error.to_string())
    });
    let host = match looked.await {
        Ok(host) => Some(host),
        Err(error) => {
            fail(&format!("cannot read the host's resolver configuration: {error}"));
            None
        }
    };
    let both = Both { cache, error, host };
    if how.json {
        print_json(&both);
    } else {
        if let Some(cache) = &both.cache {
            print(explain::status(cache));
        }
        if let Some(host) = &both.host {
            print(report::text(host));
        }
    }
    match both.error {
        None => ExitCode::SUCCESS,
        Some(error) => fail(&error),
    }
}

async fn blocking<T: Send + 'static>(
    config: PathBuf,
    loaded: Config,
    socket: Option<PathBuf>,
    work: impl FnOnce(&mut Switch<'_, Real>) -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    let cache: IpAddr = host_resolver::address_for_hosts(&loaded.listen)
        .ok_or("the cache does not listen on port 53, and resolv.conf cannot use another port")?;
    let control = Control::at(&socket.unwrap_or(loaded.control_socket));
    let mut real = Real::new(control, tokio::runtime::Handle::current());
    let done = tokio::task::spawn_blocking(move || {
        work(&mut Switch::new(Path::new("/"), &config, cache, &mut real))
    });
    done.await.map_err(|error| error.to_string())?
}

fn print_json<T: Serialize>(value: &T) {
    match serde_json::to_string_pretty(value) {
        Ok(json) => {
            print(format_args!("{json}\n"));
        }
        Err(error) => drop(fail(&error.to_string())),
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
