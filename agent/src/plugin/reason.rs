//! Why a plugin or a handler did not start, or started something that does not exist. The kernel
//! says only "no such file or directory" if the interpreter of a script is missing, so this looks
//! at the file.

use std::{
    fs,
    io::{self, ErrorKind, Read as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use rustix::{
    fs::StatVfsMountFlags,
    io::Errno,
    process::{getegid, geteuid},
};

use super::Role;

/// A program as in the config, and where it is looked up if it has no slash.
#[derive(Clone, Copy)]
pub(super) struct Program<'a> {
    /// How it is called in errors: `plugin`.
    pub(super) role: Role,
    pub(super) name: &'a str,
    pub(super) path: &'a str,
}

impl Program<'_> {
    /// The file that the kernel tried; the first one if there are several.
    fn file(self) -> Option<PathBuf> {
        if self.name.contains('/') {
            return Some(Path::new("/").join(self.name));
        }
        in_path(self.name, self.path)
    }
}

fn in_path(name: &str, path: &str) -> Option<PathBuf> {
    path.split(':').map(|folder| Path::new(folder).join(name)).find(|file| fs::metadata(file).is_ok())
}

/// Why it did not start.
pub(super) fn not_started(program: Program<'_>, error: &io::Error) -> String {
    let (role, name) = (program.role, program.name);
    let file = program.file();
    let file = file.as_deref();
    match error.kind() {
        ErrorKind::NotFound => file.and_then(|file| not_found(program, file)),
        ErrorKind::PermissionDenied => file.and_then(|file| forbidden(program, file)),
        _ => match error.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::NOEXEC) => file.map(|file| no_program(program, file)),
            Some(Errno::TXTBSY) => Some(format!("{role} {name:?} is being written")),
            Some(Errno::AGAIN) => {
                Some(format!("cannot start {role} {name:?}: too many processes (TasksMax= of the service?)"))
            }
            _ => None,
        },
    }
    .unwrap_or_else(|| match error.kind() {
        ErrorKind::NotFound => format!("{role} {name:?} does not exist"),
        ErrorKind::PermissionDenied => format!("no permission to execute {role} {name:?}"),
        _ => format!("cannot start {role} {name:?}: {error}"),
    })
}

/// What an exit code that is not a state means.
pub(super) fn exit_code(code: i32, program: Program<'_>) -> String {
    let script = matches!(code, 126 | 127).then(|| program.file()).flatten();
    let meaning = match (script.and_then(|file| first_line_problem(&file, program.path)), code) {
        (Some(problem), _) => format!(": {problem}"),
        (None, 126) => " (in a shell script: a command cannot be executed)".to_owned(),
        (None, 127) => " (in a shell script: a command does not exist)".to_owned(),
        (None, 129..=192) => format!(" (in a shell script: a command was killed by signal {})", code - 128),
        _ => String::new(),
    };
    match program.role {
        Role::Plugin => format!("plugin exited with code {code}, expected 0 to 3{meaning}"),
        Role::Handler => format!("handler exited with code {code}{meaning}"),
    }
}

/// The kernel has found no file, but there is one.
fn not_found(program: Program<'_>, file: &Path) -> Option<String> {
    let Program { role, name, path } = program;
    if let Ok(target) = fs::read_link(file)
        && fs::metadata(file).is_err()
    {
        return Some(format!("{role} {name:?} is a link to {}, which does not exist", target.display()));
    }
    fs::metadata(file).ok()?;
    if let Some(problem) = first_line_problem(file, path) {
        return Some(format!("cannot start {role} {name:?}: {problem}"));
    }
    start_of(file).starts_with(b"\x7fELF").then(|| {
        format!("cannot start {role} {name:?}: its loader does not exist (built for another system or architecture?)")
    })
}

fn forbidden(Program { role, name, .. }: Program<'_>, file: &Path) -> Option<String> {
    let refused = format!("no permission to execute {role} {name:?}");
    let user = geteuid().as_raw();
    let metadata = match fs::metadata(file) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            return Some(format!("{refused}: user {user} may not enter a directory above it"));
        }
        Err(_) => return None,
    };
    let mode = metadata.mode() & 0o7777;
    if metadata.is_dir() {
        return Some(format!("{role} {name:?} is a directory"));
    }
    if mode & 0o111 == 0 {
        return Some(format!("{refused}: it is not executable (mode {mode:04o}); run chmod +x on it"));
    }
    let mount = rustix::fs::statvfs(file).ok();
    if mount.is_some_and(|mount| mount.f_flag.contains(StatVfsMountFlags::NOEXEC)) {
        return Some(format!("{refused}: its file system is mounted with noexec"));
    }
    if let Some(interpreter) = interpreter(file)
        && fs::metadata(&interpreter).is_ok_and(|metadata| metadata.is_dir() || metadata.mode() & 0o111 == 0)
    {
        return Some(format!(
            "{refused}: the interpreter {interpreter:?} in its first line is not executable"
        ));
    }
    let (owner, group) = (metadata.uid(), metadata.gid());
    Some(format!(
        "{refused}: it belongs to {owner}:{group} with mode {mode:04o}, and this is {user}:{}",
        getegid().as_raw()
    ))
}

/// The kernel knows no way to execute it.
fn no_program(Program { role, name, .. }: Program<'_>, file: &Path) -> String {
    let start = start_of(file);
    let why = match &start[..] {
        [] => "it is empty",
        [0x7f, b'E', b'L', b'F', ..] => "it is a program for another architecture",
        [0xef, 0xbb, 0xbf, b'#', b'!', ..] => {
            "its first line starts with a byte order mark, which must be removed"
        }
        [b'#', b'!', ..] => "its first line names no interpreter",
        _ => "it is not a program, and its first line does not start with #!",
    };
    format!("cannot start {role} {name:?}: {why}")
}

/// What is wrong with the `#!` line of a script.
fn first_line_problem(file: &Path, path: &str) -> Option<String> {
    let line = shebang(file)?;
    if line.ends_with('\r') {
        return Some(format!(
            "its first line ends with a carriage return (Windows line ends), so {:?} is not found; run dos2unix on it",
            line.split_whitespace().next().unwrap_or_default()
        ));
    }
    let mut words = line.split_whitespace().filter(|word| *word != "-S");
    let interpreter = words.next()?;
    if fs::metadata(interpreter).is_err() {
        return Some(format!("the interpreter {interpreter:?} in its first line does not exist"));
    }
    let wanted = words.next().filter(|word| {
        interpreter.ends_with("/env") && !word.starts_with('-') && !word.contains(['=', '/'])
    })?;
    in_path(wanted, path)
        .is_none()
        .then(|| format!("the interpreter {wanted:?} in its first line is not in PATH ({path})"))
}

fn interpreter(file: &Path) -> Option<String> {
    shebang(file)?.split_whitespace().next().map(str::to_owned)
}

/// The first line after `#!`.
fn shebang(file: &Path) -> Option<String> {
    let start = start_of(file);
    let line = start.strip_prefix(b"#!")?.split(|&byte| byte == b'\n').next()?;
    Some(String::from_utf8_lossy(line).into_owned())
}

/// What the kernel looks at (`BINPRM_BUF_SIZE`).
fn start_of(file: &Path) -> Vec<u8> {
    let mut start = Vec::new();
    // A FIFO would block, and no other special file is a program.
    if fs::metadata(file).is_ok_and(|metadata| metadata.is_file())
        && let Ok(file) = fs::File::open(file)
    {
        let _ = file.take(256).read_to_end(&mut start);
    }
    start
}
