//! Which alertd to ask, and how. The command line overrides the environment, the environment
//! overrides `~/.config/dogwatch/alertctl.toml`, and the default is the alertd on this host.
//!
//! ```toml
//! url = "https://mon1.example.org:9093"
//! token_file = "alertctl.token"           # relative to this file, or absolute
//! ca_file = "/etc/dogwatch/ca.pem"        # trust these CAs; default: the system's
//! ```

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use dogwatch_daemon::{
    config::{Problems, Source, parse},
    http_client::{Client, Remote},
};
use serde::Deserialize;

/// The settings from one source.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Said {
    pub(super) socket: Option<PathBuf>,
    pub(super) url: Option<String>,
    pub(super) token_file: Option<PathBuf>,
    pub(super) ca_file: Option<PathBuf>,
}

/// How to reach alertd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Address {
    Socket(PathBuf),
    Url { url: String, token_file: PathBuf, ca_file: Option<PathBuf> },
}

const SOCKET_DEFAULT: &str = "/run/alertd/alertd.sock";

impl Address {
    /// Combines all sources. The error is shown to the user.
    pub(super) fn find(line: Said) -> Result<Self, String> {
        Self::choose([line, Said::of_environment(), Said::of_file()?])
    }

    /// The first source that names an alertd decides which one to ask. Token file and CA file each
    /// come from the first source that names one.
    fn choose(places: [Said; 3]) -> Result<Self, String> {
        let token_file = places.iter().find_map(|said| said.token_file.clone());
        let ca_file = places.iter().find_map(|said| said.ca_file.clone());
        let named = places.into_iter().find(|said| said.socket.is_some() || said.url.is_some());
        match named.map(|said| (said.socket, said.url)) {
            Some((Some(_), Some(_))) => Err("both a socket and a URL are given; use only one of them".into()),
            Some((None, Some(url))) => {
                let token_file = token_file.ok_or_else(|| {
                    format!("{url} requires a token; name its file with --token-file or ALERTD_TOKEN_FILE")
                })?;
                Ok(Self::Url { url, token_file, ca_file })
            }
            Some((Some(socket), None)) => Ok(Self::Socket(socket)),
            _ => Ok(Self::Socket(SOCKET_DEFAULT.into())),
        }
    }

    pub(super) fn client(&self, deadline: Duration) -> Result<Client, String> {
        match self {
            Self::Socket(path) => Ok(Client::new(path, deadline)),
            Self::Url { url, token_file, ca_file } => {
                let remote = Remote::new(url, token_file.clone(), ca_file.clone())?;
                Ok(Client::remote(remote, deadline))
            }
        }
    }
}

impl Said {
    fn of_environment() -> Self {
        let var = |name| env::var_os(name).filter(|value| !value.is_empty());
        Self {
            socket: var("ALERTD_SOCKET").map(Into::into),
            url: var("ALERTD_URL").map(|url| url.to_string_lossy().into_owned()),
            token_file: var("ALERTD_TOKEN_FILE").map(Into::into),
            ca_file: var("ALERTD_CA_FILE").map(Into::into),
        }
    }

    fn of_file() -> Result<Self, String> {
        let set = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let folder = set("XDG_CONFIG_HOME").or_else(|| Some(set("HOME")?.join(".config")));
        let Some(folder) = folder.map(|folder| folder.join("dogwatch")) else { return Ok(Self::default()) };
        let path = folder.join("alertctl.toml");
        match fs::read_to_string(&path) {
            Ok(text) => Self::of_text(&Source { path, text }, &folder),
            // Ignore a file of another user: sudo and su may keep HOME.
            Err(error)
                if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) =>
            {
                Ok(Self::default())
            }
            Err(error) => Err(format!("cannot read {}: {error}", path.display())),
        }
    }

    fn of_text(source: &Source, folder: &Path) -> Result<Self, String> {
        let mut problems = Problems::default();
        let said: Option<Self> = parse(source, &mut problems);
        let said = problems.or(said.unwrap_or_default()).map_err(|problems| problems.to_string())?;
        let beside = |path: Option<PathBuf>| path.map(|path| folder.join(path));
        Ok(Self { token_file: beside(said.token_file), ca_file: beside(said.ca_file), ..said })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(url: &str) -> Said {
        Said { url: Some(url.into()), ..Said::default() }
    }

    fn socket(path: &str) -> Said {
        Said { socket: Some(path.into()), ..Said::default() }
    }

    fn token(path: &str) -> Said {
        Said { token_file: Some(path.into()), ..Said::default() }
    }

    #[test]
    fn what_is_typed_counts_before_the_environment_and_that_before_the_file() {
        let none = Said::default;
        let choose = |line, environment, file| match Address::choose([line, environment, file]) {
            Ok(Address::Socket(path)) => path.display().to_string(),
            Ok(Address::Url { url, token_file, .. }) => format!("{url} {}", token_file.display()),
            Err(words) => words,
        };
        assert_eq!(choose(none(), none(), none()), SOCKET_DEFAULT);
        let file = || Said { token_file: Some("/f".into()), ..url("https://file") };
        assert_eq!(choose(none(), none(), file()), "https://file /f");
        assert_eq!(choose(none(), url("https://env"), file()), "https://env /f");
        assert_eq!(choose(token("/l"), none(), file()), "https://file /l");
        assert_eq!(choose(socket("/s"), url("https://env"), file()), "/s");
        assert!(choose(url("https://line"), none(), none()).contains("--token-file"));
        assert!(
            choose(Said { socket: Some("/s".into()), ..url("x") }, none(), none()).contains("use only one")
        );
    }

    #[test]
    fn the_file_names_files_beside_it_and_its_mistakes_are_said_with_their_place() {
        let read = |text: &str| {
            Said::of_text(&Source { path: "/c/alertctl.toml".into(), text: text.into() }, Path::new("/c"))
        };
        let said = read("url = \"https://mon1\"\ntoken_file = \"t\"\nca_file = \"/etc/ca.pem\"\n").unwrap();
        assert_eq!(said.token_file, Some("/c/t".into()));
        assert_eq!(said.ca_file, Some("/etc/ca.pem".into()));
        let wrong = read("url = \"https://mon1\"\ntoken = \"secret\"\n").unwrap_err();
        assert!(wrong.starts_with("/c/alertctl.toml:2:1: ") && wrong.contains("token_file"), "{wrong}");
    }
}
