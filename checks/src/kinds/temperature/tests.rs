use std::{fs, os::unix::fs::symlink};

use super::*;
use crate::{
    built_in,
    testing::{findings, fixture, lines},
};

fn at_once(fixture_name: &str, options: &[(&str, &str)]) -> Findings {
    findings("temperature", options, &fixture(fixture_name), &mut Past::default(), Duration::from_hours(1))
}

#[test]
fn processors_and_disks_are_judged_by_their_own_limits() {
    let found = at_once("sensors-server", &[]);
    assert_eq!(
        lines(&found),
        [
            "coretemp.0/Package id 0 OK 52 °C",
            "coretemp.1/Package id 1 CRITICAL 101 °C, above 100 °C",
            "sda/temp1 OK 38 °C",
            "nvme0/Composite OK 36 °C",
            "nvme1/Composite WARNING 83 °C, above 81.85 °C",
            "acpitz OK 28 °C",
        ]
    );
    assert_eq!(found.list[1].lasting, None, "three results in a row");
    assert_eq!(found.list[4].lasting, Some(Duration::from_mins(10)));
    assert!(built_in(&fixture("sensors-server")).any(|kind| kind.name == "temperature"));
    assert!(!built_in(&fixture("debian12-vm")).any(|kind| kind.name == "temperature"));
}

#[test]
fn open_inputs_of_a_board_are_listed_and_do_not_alert() {
    let found = at_once("sensors-desktop", &[]);
    assert_eq!(
        lines(&found),
        ["k10temp/Tdie OK 68 °C", "nct6798/SYSTIN OK 33 °C", "nct6798/CPUTIN OK 41 °C"],
        "k10temp's constant 70 °C is no limit, and Tctl is 27 °C too high"
    );
    let blind: Vec<_> = found.blind.iter().map(|blind| format!("{}: {}", blind.thing, blind.why)).collect();
    assert_eq!(
        blind,
        [
            "nct6798/AUXTIN0: above its limit since it was first seen: probably not connected",
            "nct6798/AUXTIN1: not plausible: probably not connected",
            "nct6798/AUXTIN2: not connected, says the chip",
            "nct6798/AUXTIN3: not plausible: probably not connected",
        ]
    );
}

#[test]
fn limits_and_sensors_can_be_configured() {
    let state = |options: &[(&str, &str)]| lines(&at_once("sensors-server", options));
    assert_eq!(state(&[("crit", "110")])[1], "coretemp.1/Package id 1 WARNING 101 °C, above 90 °C");
    assert!(state(&[("crit", "110"), ("warn", "105")])[1].starts_with("coretemp.1/Package id 1 OK"));
    assert_eq!(state(&[("crit", "110"), ("warn", "30")])[2], "sda/temp1 WARNING 38 °C, above 30 °C");
    let found = at_once("sensors-server", &[("exclude", "sd*"), ("exclude", "nvme?/*")]);
    assert_eq!(found.list.len(), 3);
    assert_eq!(found.blind.len(), 2);
}

/// A host with one sensor that changes.
struct One(tempfile::TempDir, Past, Duration);

impl One {
    fn new(chip: &str) -> Self {
        let one = Self(tempfile::tempdir().unwrap(), Past::default(), Duration::from_hours(1));
        one.set("name", chip);
        one
    }

    fn set(&self, file: &str, text: &str) {
        let at = self.0.path().join("sys/class/hwmon/hwmon0");
        fs::create_dir_all(&at).unwrap();
        fs::write(at.join(file), format!("{text}\n")).unwrap();
    }

    fn line(&mut self, millidegrees: i64) -> String {
        self.set("temp1_input", &millidegrees.to_string());
        self.2 += Duration::from_mins(1);
        let host = Host::new(Root::captured(self.0.path()));
        let found = findings("temperature", &[], &host, &mut self.1, self.2);
        lines(&found).first().cloned().unwrap_or_else(|| "not watched".into())
    }
}

#[test]
fn a_warning_ends_a_tenth_below_the_limit() {
    let mut one = One::new("cpu_thermal");
    assert_eq!(one.line(60_000), "cpu_thermal/temp1 OK 60 °C");
    assert_eq!(one.line(81_000), "cpu_thermal/temp1 WARNING 81 °C, above 80 °C");
    assert!(one.line(75_000).contains("WARNING"));
    assert_eq!(one.line(71_000), "cpu_thermal/temp1 OK 71 °C");
    assert_eq!(one.line(91_000), "cpu_thermal/temp1 CRITICAL 91 °C, above 90 °C");
}

#[test]
fn a_board_sensor_counts_once_it_has_been_within_its_limits() {
    let mut one = One::new("nct6798");
    assert_eq!(one.line(95_000), "not watched");
    assert_eq!(one.line(40_000), "nct6798/temp1 OK 40 °C");
    assert!(one.line(95_000).contains("CRITICAL"));
}

#[test]
fn a_laptop_at_its_limit_is_a_warning_at_most() {
    let mut one = One::new("coretemp");
    one.set("temp1_crit", "100000");
    one.set("temp1_max", "100000");
    assert_eq!(one.line(100_500), "coretemp/temp1 CRITICAL 100 °C, above 100 °C");
    let dmi = one.0.path().join("sys/class/dmi/id");
    fs::create_dir_all(&dmi).unwrap();
    fs::write(dmi.join("chassis_type"), "9\n").unwrap();
    assert_eq!(one.line(100_500), "coretemp/temp1 WARNING 100 °C, above 100 °C");
}

#[test]
fn an_alarm_alone_is_a_warning_if_the_chip_has_limits() {
    let mut one = One::new("jc42");
    one.set("temp1_crit_alarm", "1");
    assert_eq!(one.line(40_000), "jc42/temp1 OK 40 °C");
    one.set("temp1_crit", "95000");
    assert_eq!(one.line(40_000), "jc42/temp1 WARNING 40 °C, but the chip reports an alarm");
    // lm-sensors#260: min = max = 0 ALARM.
    one.set("temp1_crit", "0");
    assert_eq!(one.line(40_000), "jc42/temp1 OK 40 °C");
}

#[test]
fn odd_files_are_survived() {
    let mut one = One::new("odd");
    let at = one.0.path().join("sys/class/hwmon/hwmon0");
    for text in ["", "x", "-", "99999999999999999999", "nan", "inf", "\u{fffd}"] {
        for file in ["temp1_crit", "temp1_max", "temp1_alarm", "temp2_input", "temp1_label"] {
            one.set(file, text);
        }
        one.line(30_000);
    }
    symlink("../nowhere", at.join("device")).unwrap();
    fs::remove_file(at.join("name")).unwrap();
    assert_eq!(one.line(30_000), "not watched");
}
