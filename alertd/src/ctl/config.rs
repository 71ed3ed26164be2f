//! `alertctl config check`: reads the config as alertd would, without asking alertd.

use std::path::Path;

use dogwatch_alertd_core::Rules;
use dogwatch_daemon::config::Problems;
use serde_json::json;

use super::{Answer, Exit, pretty};
use crate::config::{Config, DEFAULT_PATH};

/// A file that you name must exist. If the default file does not exist, all defaults apply.
pub(super) fn check(named: Option<&Path>, as_json: bool) -> Answer {
    let path = named.unwrap_or(Path::new(DEFAULT_PATH));
    match Config::read(path) {
        Ok(config) => Answer { text: fine(path, &config, as_json), exit: Exit::Done },
        Err(problems) => refused(&problems, as_json),
    }
}

/// The rules of the named config.
pub(super) fn rules(named: &Path) -> Result<Rules, Problems> {
    Ok(Config::read(named)?.rules)
}

pub(super) fn refused(problems: &Problems, as_json: bool) -> Answer {
    Answer { text: wrong(problems, as_json), exit: Exit::Refused }
}

fn fine(path: &Path, config: &Config, as_json: bool) -> String {
    let receivers: Vec<_> = config.rules.receivers.keys().collect();
    if as_json {
        return pretty(
            &json!({ "ok": true, "problems": [], "warnings": config.warnings, "receivers": receivers }),
        );
    }
    let names: Vec<_> = receivers.iter().map(|name| name.as_str()).collect();
    let missing = if path.exists() { "" } else { " (not found, all defaults apply)" };
    let warnings: String = config.warnings.iter().map(|words| format!("warning: {words}\n")).collect();
    format!("{warnings}{}{missing}: valid; receivers: {}\n", path.display(), names.join(", "))
}

fn wrong(problems: &Problems, as_json: bool) -> String {
    if !as_json {
        return format!("{problems}\n");
    }
    let list: Vec<_> = problems
        .0
        .iter()
        .map(|problem| {
            let (line, column) = problem.at.unzip();
            json!({ "file": problem.file, "line": line, "column": column, "message": problem.message })
        })
        .collect();
    pretty(&json!({ "ok": false, "problems": list }))
}
