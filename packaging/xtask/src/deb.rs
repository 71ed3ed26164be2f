//! `cargo xtask deb`: builds the Debian package with dpkg-deb from the files in `packaging/`.
//!
//! cargo-deb is not used because its defaults break three requirements, which the lab tests: a
//! conffile never changes between versions (an unattended upgrade would stop and ask), an upgrade
//! restarts only `.service` units (the DNS port would be closed for a moment), and a purge removes
//! everything.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

use crate::{
    docs,
    files::{directory, gzip, write},
    sh,
};

/// The programs and their directories.
const PROGRAMS: &[(&str, &str)] = &[("dogwatch", "usr/bin"), ("alertctl", "usr/bin"), ("alertd", "usr/sbin")];
pub(crate) const UNITS: &[&str] =
    &["dogwatch-dns.socket", "dogwatch-dns.service", "alertd.service", "dogwatch.service"];
pub(crate) const SERVICES: &[&str] = &["dogwatch-dns.service", "alertd.service", "dogwatch.service"];
const CONFFILES: &[&str] = &["agent.toml", "alertd.toml", "dns.toml"];
const SCRIPTS: &[&str] = &["postinst", "prerm", "postrm"];
/// The highest exposure permitted for each service by `systemd-analyze security`, in tenths of its
/// scale from 0 to 10.
const EXPOSURE_MAX: &[(&str, u32)] =
    &[("dogwatch.service", 20), ("dogwatch-dns.service", 15), ("alertd.service", 15)];

/// Builds `dist/dogwatch_VERSION_ARCH.deb` from a release build, checks it, and returns its path.
pub(crate) fn build(version: Option<&str>) -> Result<PathBuf> {
    let version = version.unwrap_or(env!("CARGO_PKG_VERSION"));
    println!("building the release profile …");
    sh::run(&mut sh::cargo(&[
        "build",
        "-q",
        "--release",
        "--bins",
        "-p",
        "dogwatch",
        "-p",
        "dogwatch-alertd",
    ]))?;
    let package = pack(version, &sh::target().join("release"), Packing::Small)?;
    check(&package)?;
    Ok(package)
}

/// How to compress.
#[derive(Clone, Copy)]
pub(crate) enum Packing {
    /// For release.
    Small,
    /// For the lab.
    Quick,
}

/// Packs the programs in `binaries`.
pub(crate) fn pack(version: &str, binaries: &Path, packing: Packing) -> Result<PathBuf> {
    let architecture = sh::output(&mut sh::command(&["dpkg", "--print-architecture"]))?;
    let root = sh::target().join("deb/root");
    let _ = fs::remove_dir_all(&root);
    directory(&root)?;
    let mut depends = Depends::default();
    for (program, place) in PROGRAMS {
        let to = root.join(place).join(program);
        install(&binaries.join(program), &to, 0o755)?;
        sh::run(sh::command(&["strip", "--strip-unneeded"]).arg(&to))?;
        depends.add(&to)?;
    }
    let packaging = sh::root().join("packaging");
    for unit in UNITS {
        install(
            &packaging.join("systemd").join(unit),
            &root.join("usr/lib/systemd/system").join(unit),
            0o644,
        )?;
    }
    install(&packaging.join("systemd/sysusers.conf"), &root.join("usr/lib/sysusers.d/dogwatch.conf"), 0o644)?;
    for file in CONFFILES {
        install(&packaging.join("etc").join(file), &root.join("etc/dogwatch").join(file), 0o644)?;
    }
    for rules in ["prometheus/dogwatch-dns.rules.yml", "prometheus/dogwatch-alertd.rules.yml"] {
        install(&packaging.join(rules), &root.join("usr/share/dogwatch").join(rules), 0o644)?;
    }
    docs::install(&root)?;
    documents(&root, &packaging, version)?;
    control(&root, &packaging, version, &architecture, &depends.line()?)?;

    let place = match packing {
        Packing::Small => sh::root().join("dist"),
        Packing::Quick => sh::target().join("lab"),
    };
    fs::create_dir_all(&place)?;
    let package = place.join(format!("dogwatch_{version}_{architecture}.deb"));
    let packing: &[&str] = match packing {
        Packing::Small => &["-Zxz"],
        Packing::Quick => &["-Zgzip", "-z1"],
    };
    let mut build = sh::command(&["dpkg-deb", "--root-owner-group"]);
    sh::output(build.args(packing).arg("--build").arg(&root).arg(&package))?;
    Ok(package)
}

/// Checks that need no installation.
fn check(package: &Path) -> Result<()> {
    let root = sh::target().join("deb/root");
    if sh::has("systemd-analyze") {
        for (unit, most) in EXPOSURE_MAX {
            let mut security = sh::command(&["systemd-analyze", "security", "--offline=yes", "--no-pager"]);
            security.arg(format!("--root={}", root.display())).arg(format!("--threshold={most}")).arg(unit);
            let report = sh::output(&mut security)
                .with_context(|| format!("{unit} is more exposed than {}.{}", most / 10, most % 10))?;
            println!("{unit}: {}", report.lines().last().unwrap_or_default().trim_start_matches(['→', ' ']));
        }
    } else {
        println!("SKIPPED exposure of the units: systemd-analyze is not installed");
    }
    if sh::has("lintian") {
        let mut lintian = sh::command(&["lintian", "--allow-root", "--tag-display-limit", "0"]);
        sh::run(lintian.args(["--fail-on", "error,warning"]).arg(package))?;
    } else {
        println!("SKIPPED lintian: not installed");
    }
    Ok(())
}

/// Copyright, changelogs and the pages in `docs/`, as Debian policy §12 requires.
fn documents(root: &Path, packaging: &Path, version: &str) -> Result<()> {
    let doc = root.join("usr/share/doc/dogwatch");
    let mit = fs::read_to_string(sh::root().join("LICENSE-MIT"))?;
    let terms: Vec<_> = mit.lines().skip_while(|line| !line.starts_with("Permission")).collect();
    let copyright = fs::read_to_string(packaging.join("deb/copyright"))?;
    let indented = terms.iter().map(|line| if line.is_empty() { " .".into() } else { format!(" {line}") });
    let copyright = copyright.replace("@MIT@", &indented.collect::<Vec<_>>().join("\n"));
    write(&doc.join("copyright"), copyright.as_bytes(), 0o644)?;
    for folder in ["", "plots"] {
        for page in fs::read_dir(sh::root().join("docs").join(folder))? {
            let page = page?.path();
            let shipped = ["md", "json", "svg"];
            if shipped.iter().any(|kind| page.extension().is_some_and(|extension| extension == *kind)) {
                let name = page.file_name().context("a file has a name")?;
                write(&doc.join(folder).join(name), &fs::read(&page)?, 0o644)?;
            }
        }
    }
    let changes = fs::read(sh::root().join("CHANGELOG.md"))?;
    write(&doc.join("NEWS.md.gz"), &gzip(&changes)?, 0o644)?;
    let date = sh::output(&mut sh::command(&["git", "log", "-1", "--format=%cD"]))?;
    let entry = format!(
        "dogwatch ({version}) unstable; urgency=medium\n\n  * See NEWS.md.gz in this directory.\n\n -- dogwatch maintainers <dogwatch@example.org>  {date}\n"
    );
    write(&doc.join("changelog.gz"), &gzip(entry.as_bytes())?, 0o644)
}

fn control(root: &Path, packaging: &Path, version: &str, architecture: &str, depends: &str) -> Result<()> {
    let size = sh::output(sh::command(&["du", "-sk"]).arg(root))?;
    let sums = sh::output(
        sh::command(&["find", "usr", "-type", "f", "-exec", "md5sum", "{}", "+"]).current_dir(root),
    )?;
    let control = fs::read_to_string(packaging.join("deb/control"))?
        .replace("@VERSION@", version)
        .replace("@ARCHITECTURE@", architecture)
        .replace("@SIZE_KIB@", size.split_whitespace().next().unwrap_or("0"))
        .replace("@DEPENDS@", depends);
    let debian = root.join("DEBIAN");
    write(&debian.join("control"), control.as_bytes(), 0o644)?;
    write(&debian.join("md5sums"), (sums + "\n").as_bytes(), 0o644)?;
    let conffiles = CONFFILES.iter().fold(String::new(), |mut list, file| {
        let _ = writeln!(list, "/etc/dogwatch/{file}");
        list
    });
    write(&debian.join("conffiles"), conffiles.as_bytes(), 0o644)?;
    for script in SCRIPTS {
        install(&packaging.join("deb").join(script), &debian.join(script), 0o755)?;
    }
    Ok(())
}

/// The C library that the programs need, read from the programs.
#[derive(Default)]
struct Depends {
    glibc: (u32, u32),
    libgcc: bool,
}

impl Depends {
    fn add(&mut self, program: &Path) -> Result<()> {
        let needed = sh::output(sh::command(&["readelf", "--wide", "--dynamic"]).arg(program))?;
        for library in needed.lines().filter(|line| line.contains("(NEEDED)")).filter_map(bracketed) {
            match library {
                "libgcc_s.so.1" => self.libgcc = true,
                "libc.so.6" | "libm.so.6" | "ld-linux-x86-64.so.2" | "ld-linux-aarch64.so.1" => {}
                other => {
                    bail!("{} needs {other}, which no dependency of the package provides", program.display())
                }
            }
        }
        let versions = sh::output(sh::command(&["readelf", "--wide", "--version-info"]).arg(program))?;
        self.glibc = self.glibc.max(newest_glibc(&versions));
        Ok(())
    }

    fn line(&self) -> Result<String> {
        let (major, minor) = self.glibc;
        if major == 0 {
            bail!("the programs need no version of glibc: is this a static build?");
        }
        let libgcc = if self.libgcc { ", libgcc-s1 (>= 4.2)" } else { "" };
        Ok(format!("libc6 (>= {major}.{minor}){libgcc}"))
    }
}

fn bracketed(line: &str) -> Option<&str> {
    line.split_once('[')?.1.split_once(']').map(|(inside, _)| inside)
}

/// The newest `GLIBC_x.y` in the output of readelf.
fn newest_glibc(versions: &str) -> (u32, u32) {
    let numbers = versions.split("GLIBC_").skip(1).filter_map(|rest| {
        let end = rest.find(|c: char| c != '.' && !c.is_ascii_digit()).unwrap_or(rest.len());
        let mut parts = rest[..end].split('.').map(|part| part.parse().unwrap_or(0));
        Some((parts.next()?, parts.next()?))
    });
    numbers.max().unwrap_or_default()
}

fn install(from: &Path, to: &Path, mode: u32) -> Result<()> {
    let bytes = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
    write(to, &bytes, mode)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_glibc_are_compared_as_numbers() {
        assert_eq!(newest_glibc("Name: GLIBC_2.9  Flags\n Name: GLIBC_2.34\n Name: GLIBC_2.2.5"), (2, 34));
        assert_eq!(newest_glibc("Name: GCC_3.0"), (0, 0));
    }

    #[test]
    fn conffiles_hold_comments_only_and_every_hardening_line_has_a_reason() {
        let packaging = sh::root().join("packaging");
        for file in CONFFILES {
            let text = fs::read_to_string(packaging.join("etc").join(file)).unwrap();
            assert!(
                text.lines().all(|line| line.is_empty() || line.starts_with('#')),
                "{file}: only comments are allowed"
            );
        }
        for unit in SERVICES {
            let text = fs::read_to_string(packaging.join("systemd").join(unit)).unwrap();
            let lines: Vec<_> = text.lines().collect();
            for (number, line) in lines.iter().enumerate() {
                let hardening = ["Protect", "Private", "Restrict", "NoNew", "MemoryDeny", "Lock"]
                    .iter()
                    .any(|start| line.starts_with(start));
                assert!(!hardening || lines[number - 1].starts_with('#'), "{unit}: no comment above {line}");
            }
        }
    }
}
