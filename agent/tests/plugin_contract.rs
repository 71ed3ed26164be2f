//! Plugins that misbehave, each a small shell script.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use dogwatch::plugin::{Plugin, PluginError};
use dogwatch_checks::{CheckResult, State, output};
use tempfile::TempDir;

/// Longer than any of these plugins needs.
const PATIENCE: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(300);

#[tokio::test]
async fn the_exit_code_is_the_state_and_the_text_is_kept() {
    let home = Home::new();
    let result = home.run("echo 'all fine | a=1 b=2'; exit 0").await;
    assert_eq!((result.state, result.summary.as_str()), (State::Ok, "all fine"));
    assert_eq!(result.perfdata_text(), "a=1 b=2");
    for (code, state) in [(1, State::Warning), (2, State::Critical), (3, State::Unknown)] {
        assert_eq!(home.run(&format!("echo text; exit {code}")).await.state, state);
    }
    assert_eq!(home.run("exit 0").await.summary, "(no output)");
}

#[tokio::test]
async fn other_exit_codes_are_unknown_with_the_reason_first() {
    let home = Home::new();
    for (script, reason) in [
        ("exit 4", "plugin exited with code 4, expected 0 to 3"),
        ("exit 255", "plugin exited with code 255, expected 0 to 3"),
        (
            "no-such-command",
            "plugin exited with code 127, expected 0 to 3 (in a shell script: a command does not exist)",
        ),
        (
            "/etc/passwd",
            "plugin exited with code 126, expected 0 to 3 (in a shell script: a command cannot be executed)",
        ),
        ("kill -SEGV $$", "plugin was killed by signal 11"),
    ] {
        let result = home.run(&format!("echo hm; {script}")).await;
        assert_eq!((result.state, result.summary.as_str()), (State::Unknown, reason));
        assert!(result.detail.starts_with("output: hm"), "{}", result.detail);
    }
}

#[tokio::test]
async fn a_handler_is_not_called_a_plugin() {
    let run = async |argv: &[&str], patience| {
        let argv = argv.iter().map(|&word| word.to_owned()).collect();
        Plugin::handler(argv, BTreeMap::new()).unwrap().run(patience).await.summary
    };
    let sh = async |script: &str| run(&["/bin/sh", "-c", script], PATIENCE).await;
    assert_eq!(run(&["/no/such/handler"], PATIENCE).await, "handler \"/no/such/handler\" does not exist");
    assert_eq!(run(&["/etc"], PATIENCE).await, "handler \"/etc\" is a directory");
    assert_eq!(sh("exit 1").await, "handler exited with code 1");
    assert_eq!(sh("echo no such unit; exit 1").await, "handler exited with code 1: no such unit");
    assert_eq!(sh("echo no such unit >&2; exit 5").await, "handler exited with code 5");
    assert_eq!(sh("kill -9 $$").await, "handler was killed by signal 9");
    assert_eq!(run(&["/bin/sleep", "60"], SHORT).await, "handler timed out after 0.3 s");
    assert_eq!(Plugin::handler(Vec::new(), BTreeMap::new()).err(), Some(PluginError::Empty));
}

#[tokio::test]
async fn a_plugin_that_is_missing_or_not_executable_is_unknown() {
    let home = Home::new();
    let run = async |program: &str| plugin(&[program]).run(PATIENCE).await;
    let missing = run("/no/such/plugin").await;
    assert_eq!(missing.state, State::Unknown);
    assert_eq!(missing.summary, "plugin \"/no/such/plugin\" does not exist");
    assert_eq!(run("no-such-plugin").await.summary, "plugin \"no-such-plugin\" does not exist");
    let script = home.not_executable();
    let refused = run(script.to_str().unwrap()).await;
    assert!(refused.summary.starts_with("no permission to execute plugin "), "{}", refused.summary);
}

#[tokio::test]
async fn a_plugin_that_hangs_is_stopped_at_its_deadline() {
    let home = Home::new();
    let result = home.run_for("echo waiting for the database; sleep 60", SHORT).await;
    assert_eq!((result.state, result.summary.as_str()), (State::Unknown, "plugin timed out after 0.3 s"));
    assert_eq!(result.detail, "output: waiting for the database");
    home.nobody_is_left().await;
}

#[tokio::test]
async fn the_state_of_a_timeout_can_be_configured() {
    let home = Home::new();
    let plugin = Plugin::new(home.argv("sleep 60"), home.env(), State::Critical).unwrap();
    assert_eq!(plugin.run(SHORT).await.state, State::Critical);
    home.nobody_is_left().await;
}

#[tokio::test]
async fn a_plugin_that_ignores_sigterm_is_killed_with_its_children() {
    let home = Home::new();
    let script = "trap '' TERM; (trap '' TERM; sleep 60) & while :; do sleep 1; done";
    let result = home.run_for(script, SHORT).await;
    assert_eq!(result.summary, "plugin timed out after 0.3 s");
    home.nobody_is_left().await;
}

#[tokio::test]
async fn a_plugin_can_clean_up_after_sigterm() {
    let home = Home::new();
    let mark = home.path().join("mark");
    let tidy = format!("trap 'echo tidied > {}; exit 0' TERM; while :; do sleep 0.05; done", mark.display());
    let result = home.run_for(&tidy, SHORT).await;
    assert_eq!(result.state, State::Unknown, "it timed out all the same");
    assert_eq!(fs::read_to_string(mark).unwrap(), "tidied\n");
}

#[tokio::test]
async fn a_grandchild_that_keeps_the_pipe_is_not_waited_for() {
    let home = Home::new();
    let result = home.run("sleep 60 & echo 'done | a=1'; exit 1").await;
    assert_eq!((result.state, result.summary.as_str()), (State::Warning, "done"));
    assert_eq!(result.perfdata_text(), "a=1");
    home.nobody_is_left().await;
}

#[tokio::test]
async fn a_grandchild_that_floods_the_pipe_after_the_end_is_not_waited_for() {
    let home = Home::new();
    assert_eq!(home.run("yes & echo first; exit 2").await.state, State::Critical);
    home.nobody_is_left().await;
}

#[tokio::test]
async fn a_flood_of_output_is_read_to_its_end_and_costs_no_memory() {
    let home = Home::new();
    let before = resident_kib();
    let result = home.run("echo first line; head -c 300000000 /dev/zero | tr '\\0' x; exit 1").await;
    let grown = resident_kib().saturating_sub(before);
    assert_eq!((result.state, result.summary.as_str()), (State::Warning, "first line"));
    assert!(result.detail.len() <= output::DETAIL_MAX);
    assert!(grown < 32 * 1_024, "300 MB were printed and {grown} KiB stayed");
}

#[tokio::test]
async fn an_endless_flood_is_stopped_at_the_deadline() {
    let home = Home::new();
    let result = home.run_for("yes 'y | x=1'", SHORT).await;
    assert_eq!(result.summary, "plugin timed out after 0.3 s");
    home.nobody_is_left().await;
}

#[tokio::test]
async fn a_plugin_may_close_stdout_early() {
    let home = Home::new();
    let result = home.run("echo early; exec >&-; sleep 0.2; exit 1").await;
    assert_eq!((result.state, result.summary.as_str()), (State::Warning, "early"));
}

#[tokio::test]
async fn garbage_bytes_become_text() {
    let home = Home::new();
    let result = home.run(r"printf '\377\000\033[31mred\033[0m \340\200|x=1\377\n'; exit 2").await;
    assert_eq!(result.state, State::Critical);
    assert_eq!(result.summary, "\u{fffd}red \u{fffd}\u{fffd}");
    assert_eq!(result.perfdata_text(), "x=1\u{fffd}");
}

#[tokio::test]
async fn only_stdout_counts_and_stdin_is_empty() {
    let home = Home::new();
    assert_eq!(home.run("echo noise >&2; wc -c").await.summary.trim(), "0");
}

#[tokio::test]
async fn the_environment_is_clean_and_the_directory_is_the_root() {
    let home = Home::new();
    let result = home.run("pwd; env").await;
    assert_eq!(result.summary, "/");
    let variables: BTreeMap<_, _> = result.detail.lines().filter_map(|line| line.split_once('=')).collect();
    for (name, value) in [("LC_ALL", "C"), ("PASSWORD", "secret"), ("PATH", dogwatch::plugin::PATH)] {
        assert_eq!(variables.get(name), Some(&value), "{name}");
    }
    // Nothing of the test's environment is there. PWD, OLDPWD and _ are set by the shell.
    for name in ["HOME", "USER", "CARGO_MANIFEST_DIR", "CARGO"] {
        assert_eq!(variables.get(name), None, "{name}");
    }
}

#[tokio::test]
async fn no_shell_reads_the_arguments() {
    let result = plugin(&["/bin/echo", "$(id)", ";", "`id`", "a b"]).run(PATIENCE).await;
    assert_eq!(result.summary, "$(id) ; `id` a b");
}

#[tokio::test]
async fn dropping_a_run_kills_the_plugin_and_its_children() {
    let home = Home::new();
    let ready = home.path().join("ready");
    let script = format!("sleep 60 & touch {}; sleep 60", ready.display());
    {
        let run = home.run(&script);
        tokio::pin!(run);
        while !ready.exists() {
            tokio::select! {
                result = &mut run => panic!("ended: {result:?}"),
                () = tokio::task::yield_now() => {}
            }
        }
        assert!(!home.left().is_empty());
    }
    home.nobody_is_left().await;
}

#[tokio::test]
async fn many_plugins_at_once_are_all_reaped() {
    let home = Home::new();
    let mut runs = tokio::task::JoinSet::new();
    for code in 0..40 {
        let plugin = home.plugin(&format!("sleep 0.0{}; exit {}", code % 10, code % 4));
        runs.spawn(async move { (code, plugin.run(PATIENCE).await) });
    }
    while let Some(ended) = runs.join_next().await {
        let (code, result) = ended.unwrap();
        assert_eq!(Some(result.state), State::from_exit_code(code % 4));
    }
    home.nobody_is_left().await;
}

#[test]
fn invalid_arguments_and_environments_are_errors_before_the_run() {
    let make = |argv: &[&str], env: &[(&str, &str)]| {
        let argv = argv.iter().map(|&text| text.to_owned()).collect();
        let env = env.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
        Plugin::new(argv, env, State::Unknown).map(drop)
    };
    assert_eq!(make(&[], &[]), Err(PluginError::Empty));
    assert_eq!(make(&[""], &[]), Err(PluginError::Empty));
    assert_eq!(make(&["x", "a\0b"], &[]), Err(PluginError::Nul));
    assert_eq!(make(&["x"], &[("a=b", "c")]), Err(PluginError::EnvName("a=b".into())));
    assert_eq!(make(&["x"], &[("a", "c=d")]), Ok(()));
}

#[test]
fn secrets_are_not_printed() {
    let env = BTreeMap::from([("TOKEN".into(), "s3cret".into())]);
    let shown = format!("{:?}", Plugin::new(vec!["x".into()], env, State::Unknown).unwrap());
    assert!(shown.contains("TOKEN") && !shown.contains("s3cret"), "{shown}");
}

/// A directory whose name marks all processes of one test.
struct Home(TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn not_executable(&self) -> PathBuf {
        let path = self.path().join("plugin");
        fs::write(&path, "#!/bin/sh\necho hello\n").unwrap();
        path
    }

    #[expect(clippy::unused_self, reason = "reads like the other helpers")]
    fn argv(&self, script: &str) -> Vec<String> {
        vec!["/bin/sh".into(), "-c".into(), script.into()]
    }

    fn env(&self) -> BTreeMap<String, String> {
        let mark = self.path().to_str().unwrap().to_owned();
        BTreeMap::from([("MARK".into(), mark), ("PASSWORD".into(), "secret".into())])
    }

    fn plugin(&self, script: &str) -> Plugin {
        Plugin::new(self.argv(script), self.env(), State::Unknown).unwrap()
    }

    async fn run(&self, script: &str) -> CheckResult {
        self.run_for(script, PATIENCE).await
    }

    async fn run_for(&self, script: &str, deadline: Duration) -> CheckResult {
        self.plugin(script).run(deadline).await
    }

    /// Running processes of this test.
    fn left(&self) -> Vec<String> {
        let mark = format!("MARK={}", self.path().display());
        processes()
            .filter(|process| {
                fs::read(process.join("environ")).is_ok_and(|environ| {
                    environ.split(|&byte| byte == 0).any(|entry| entry == mark.as_bytes())
                })
            })
            .map(|process| fs::read_to_string(process.join("cmdline")).unwrap_or_default())
            .collect()
    }

    /// A killed process takes a moment to disappear, and tokio needs a turn to reap it. Then none
    /// is left, not even a zombie.
    async fn nobody_is_left(&self) {
        let gone = async {
            while !self.left().is_empty() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let in_time = tokio::time::timeout(PATIENCE, gone).await;
        assert!(in_time.is_ok(), "left: {:?}", self.left());
    }
}

/// Zombies have no environment, so they are counted separately, at the end: the plugins of all
/// tests are children of this process.
#[tokio::test]
async fn a_plugin_is_reaped_however_it_ends() {
    let home = Home::new();
    for (script, deadline) in
        [("exit 0", PATIENCE), ("sleep 60", SHORT), ("trap '' TERM; while :; do :; done", SHORT)]
    {
        let plugin = Plugin::new(
            vec!["/bin/sh".into(), "-c".into(), format!("echo $$; {script}")],
            home.env(),
            State::Unknown,
        );
        let result = plugin.unwrap().run(deadline).await;
        let said = if result.detail.is_empty() { &result.summary } else { &result.detail };
        let pid: u32 = said.trim_start_matches("output: ").parse().unwrap();
        assert!(!Path::new(&format!("/proc/{pid}")).exists(), "{script}: {result:?}");
    }
}

fn processes() -> impl Iterator<Item = PathBuf> {
    fs::read_dir("/proc").unwrap().filter_map(|entry| Some(entry.ok()?.path()))
}

fn plugin(argv: &[&str]) -> Plugin {
    let argv = argv.iter().map(|&text| text.to_owned()).collect();
    Plugin::new(argv, BTreeMap::new(), State::Unknown).unwrap()
}

fn resident_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
