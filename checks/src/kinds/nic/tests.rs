use std::{fmt::Write as _, fs};

use tempfile::TempDir;

use super::*;
use crate::{
    built_in,
    testing::{findings, fixture, lines, run},
};

/// A host whose interfaces change between the runs of one check.
struct World {
    tree: TempDir,
    past: Past,
    now: Duration,
    packets: u64,
    errors: u64,
    drops: u64,
}

impl World {
    fn new() -> Self {
        let tree = tempfile::tempdir().unwrap();
        let now = Duration::from_hours(1);
        Self { tree, past: Past::default(), now, packets: 0, errors: 0, drops: 0 }
    }

    /// A server with one card.
    fn server() -> Self {
        let world = Self::new();
        world.card("eth0", "igb");
        world.set("eth0", "speed", "1000");
        world
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.tree.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("{text}\n")).unwrap();
    }

    fn set(&self, interface: &str, file: &str, text: &str) {
        self.write(&format!("sys/class/net/{interface}/{file}"), text);
    }

    fn card(&self, interface: &str, driver: &str) {
        self.set(interface, "device/uevent", &format!("DRIVER={driver}"));
        self.set(interface, "uevent", &format!("INTERFACE={interface}"));
        self.set(interface, "type", "1");
        self.set(interface, "flags", "0x1003");
        self.set(interface, "carrier", "1");
        self.set(interface, "duplex", "full");
    }

    fn other(&self, interface: &str, kind: &str) {
        self.set(interface, "uevent", &format!("DEVTYPE={kind}\nINTERFACE={interface}"));
        self.set(interface, "type", "1");
        self.set(interface, "flags", "0x1003");
        self.set(interface, "carrier", "1");
    }

    /// A minute passes in which `packets` arrive at each interface.
    fn minute(&mut self, packets: u64) -> Findings {
        self.now += Duration::from_mins(1);
        self.packets += packets;
        let (packets, errors, drops) = (self.packets, self.errors, self.drops);
        let names = fs::read_dir(self.tree.path().join("sys/class/net")).unwrap();
        let mut table = "Inter-| Receive | Transmit\n face |bytes\n".to_owned();
        for name in names.flatten() {
            let name = name.file_name().into_string().unwrap();
            let bytes = packets * 600;
            let _ =
                writeln!(table, "{name}: {bytes} {packets} {errors} {drops} 0 0 0 0 0 {packets} 0 0 0 0 0 0");
        }
        self.write("proc/net/dev", &table);
        findings("nic", &[], &self.host(), &mut self.past, self.now)
    }

    fn host(&self) -> Host {
        Host::new(Root::captured(self.tree.path()))
    }
}

#[test]
fn a_lost_link_is_critical_after_half_a_minute_and_survives_a_restart_of_the_agent() {
    let mut world = World::server();
    assert_eq!(lines(&world.minute(0)), ["eth0 OK 1 Gbit/s"]);
    assert_eq!(lines(&world.minute(6_000)), ["eth0 OK 1 Gbit/s, in 58.6 KiB/s, out 0 B/s"]);
    world.set("eth0", "carrier", "0");
    world.set("eth0", "speed", "-1");
    let found = world.minute(0);
    assert_eq!(lines(&found), ["eth0 CRITICAL no link"]);
    assert_eq!(found.list[0].lasting, Some(Duration::from_secs(30)));
    assert_eq!(lines(&world.minute(0)), ["eth0 CRITICAL no link for 1 min"]);
    world.past = world.past.facts_only();
    assert_eq!(lines(&world.minute(0)), ["eth0 CRITICAL no link"]);
    world.set("eth0", "carrier", "1");
    world.set("eth0", "speed", "1000");
    assert!(lines(&world.minute(0))[0].starts_with("eth0 OK 1 Gbit/s"));
}

#[test]
fn a_port_that_never_had_a_cable_is_listed_and_one_that_was_taken_down_too() {
    let mut world = World::server();
    world.card("eth1", "igb");
    world.set("eth1", "carrier", "0");
    world.card("eth2", "igb");
    world.set("eth2", "flags", "0x1002");
    let found = world.minute(0);
    assert_eq!(lines(&found), ["eth0 OK 1 Gbit/s"]);
    let blind: Vec<_> = found.blind.iter().map(|blind| format!("{}: {}", blind.thing, blind.why)).collect();
    assert_eq!(
        blind,
        ["eth2: taken down by an administrator", "eth1: has not had a link since the agent was installed"]
    );
    assert!(found.all);
}

#[test]
fn a_slower_link_is_a_warning_and_so_is_an_unknown_speed() {
    let mut world = World::server();
    world.minute(0);
    world.set("eth0", "speed", "100");
    assert!(lines(&world.minute(0))[0].starts_with("eth0 WARNING only 100 Mbit/s, 1 Gbit/s is normal"));
    world.set("eth0", "speed", "-1");
    assert!(lines(&world.minute(0))[0].starts_with("eth0 WARNING speed unknown, 1 Gbit/s is normal"));
    world.set("eth0", "speed", "1000");
    world.set("eth0", "duplex", "half");
    assert!(lines(&world.minute(0))[0].starts_with("eth0 WARNING half duplex"));
    world.set("eth0", "duplex", "full");
    world.set("eth0", "speed", "10000");
    assert!(lines(&world.minute(0))[0].starts_with("eth0 OK 10 Gbit/s"));
}

#[test]
fn the_speed_of_a_card_in_a_virtual_machine_means_nothing() {
    let mut world = World::server();
    world.card("eth0", "hv_netvsc");
    world.set("eth0", "speed", "40000");
    world.minute(0);
    world.set("eth0", "speed", "10000");
    assert!(lines(&world.minute(0))[0].starts_with("eth0 OK"), "migrated to another host");
}

#[test]
fn errors_and_drops_are_judged_only_with_enough_packets() {
    let mut world = World::server();
    world.minute(0);
    world.errors += 20;
    assert!(lines(&world.minute(100))[0].starts_with("eth0 OK"), "20 of 120 packets");
    world.errors += 200;
    assert!(lines(&world.minute(10_000))[0].starts_with("eth0 WARNING 2.1% errors over 10 min"));
    world.errors += 2_000;
    assert!(lines(&world.minute(10_000))[0].starts_with("eth0 CRITICAL 9.9% errors over 10 min"));
    for _ in 0..12 {
        world.minute(10_000);
    }
    // netdata#5158: spanning tree and the loop detection of a switch.
    world.drops += 300;
    assert!(lines(&world.minute(100))[0].starts_with("eth0 OK"));
    world.drops += 9_000;
    assert!(lines(&world.minute(10_000))[0].starts_with("eth0 WARNING 9."), "the ring overflows");
}

#[test]
fn a_card_in_a_bridge_or_in_promiscuous_mode_drops_what_is_not_for_it() {
    for (file, text) in [("flags", "0x1103"), ("brport/port_id", "0x8001")] {
        let mut world = World::server();
        world.set("eth0", file, text);
        world.minute(0);
        world.drops += 9_000;
        assert!(lines(&world.minute(10_000))[0].starts_with("eth0 OK"), "{file}");
    }
}

#[test]
fn only_interfaces_that_lead_outside_are_watched_on_a_kubernetes_node() {
    let mut world = World::server();
    world.card("bonding_masters_of_eth9", "igb");
    fs::remove_dir_all(world.tree.path().join("sys/class/net/bonding_masters_of_eth9")).unwrap();
    world.write("sys/class/net/bonding_masters", "bond0");
    for (name, kind) in [
        ("cali0123456789a", ""),
        ("cni0", "bridge"),
        ("docker0", "bridge"),
        ("flannel.1", "vxlan"),
        ("kube-ipvs0", ""),
        ("tap0", ""),
        ("veth1", ""),
        ("virbr0", "bridge"),
        ("wg0", "wireguard"),
    ] {
        world.other(name, kind);
        world.set(name, "carrier", "1");
    }
    world.set("cni0", "brif/veth1/state", "3");
    world.other("eth0.10", "vlan");
    world.other("vmbr0", "bridge");
    world.set("vmbr0", "brif/eth0.10/state", "3");
    // The host's end of a function that belongs to a container.
    world.card("eth0_0", "mlx5_core");
    world.set("eth0_0", "phys_port_name", "pf0vf0");
    let found = world.minute(0);
    assert_eq!(lines(&found), ["eth0 OK 1 Gbit/s", "eth0.10 OK link is up", "vmbr0 OK link is up"]);
    assert_eq!(found.blind.len(), 1, "{:?}", found.blind);
    for name in ["cali0123456789a", "docker0", "veth1", "eth0.10", "vmbr0"] {
        world.set(name, "carrier", "0");
    }
    let found = world.minute(0);
    assert!(found.list.iter().all(|finding| finding.result.state == State::Ok), "{:?}", lines(&found));
}

#[test]
fn a_laptop_without_a_cable_and_without_a_network_does_not_alert() {
    let mut world = World::server();
    world.write("sys/class/dmi/id/chassis_type", "10");
    world.card("wlan0", "iwlwifi");
    world.set("wlan0", "phy80211/index", "0");
    world.minute(0);
    world.set("eth0", "speed", "100");
    world.set("wlan0", "carrier", "0");
    let said = lines(&world.minute(0));
    assert!(said[0].starts_with("eth0 OK 100 Mbit/s"), "{said:?}");
    assert_eq!(said[1], "wlan0 OK not connected");
    world.set("eth0", "carrier", "0");
    assert_eq!(lines(&world.minute(0))[0], "eth0 OK no link");
}

#[test]
fn the_link_of_a_port_of_a_bond_is_judged_by_the_check_for_bonds() {
    let mut world = World::server();
    world.set("eth0", "bonding_slave/state", "active");
    world.minute(0);
    world.set("eth0", "carrier", "0");
    assert_eq!(lines(&world.minute(0)), ["eth0 OK no link; its bond is checked by bond"]);
}

#[test]
fn the_usb_card_of_a_bmc_may_lose_its_link() {
    let mut world = World::new();
    world.card("idrac", "cdc_ether");
    world.minute(0);
    world.set("idrac", "carrier", "0");
    assert_eq!(lines(&world.minute(0)), ["idrac OK no link"]);
}

#[test]
fn a_configured_interface_must_exist_and_have_a_link() {
    let mut world = World::server();
    world.minute(0);
    world.other("wg0", "wireguard");
    world.set("wg0", "flags", "0x90");
    let options = [("interface", "eth0"), ("interface", "wg0"), ("interface", "eth7")];
    let found = findings("nic", &options, &world.host(), &mut Past::default(), world.now);
    assert_eq!(
        lines(&found),
        ["eth0 OK 1 Gbit/s", "wg0 OK link is up", "eth7 CRITICAL does not exist"],
        "an interface that has a carrier is up enough"
    );
    world.set("eth0", "carrier", "0");
    let found = findings("nic", &[("interface", "eth0")], &world.host(), &mut Past::default(), world.now);
    assert_eq!(lines(&found), ["eth0 CRITICAL no link"], "even if it never had one");
    let found = findings("nic", &[("exclude", "eth*")], &world.host(), &mut Past::default(), world.now);
    assert!(found.list.is_empty());
    assert_eq!(found.blind[0].why, "excluded by exclude = \"eth*\"");
}

#[test]
fn limits_may_differ_from_interface_to_interface() {
    let world = World::server();
    let mut options = crate::Options::default();
    options.set_for("eth0", [("min_speed", "10000")].into_iter().collect());
    options.set_for("eth1", [("min_speed", "0"), ("no_link_ok", "true")].into_iter().collect());
    world.write("proc/net/dev", "a\nb\neth0: 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0");
    world.card("eth1", "igb");
    let mut past = Past::default();
    let mut run = || {
        let check = crate::kind("nic").unwrap().build(&options, &world.host()).unwrap();
        let Check::Blocking(check) = check else { panic!("blocks") };
        lines(&check.run().judge(&mut past, world.now))
    };
    assert_eq!(run(), ["eth0 WARNING only 1 Gbit/s, 10 Gbit/s is normal, 1 Gbit/s", "eth1 OK link is up"]);
    world.set("eth1", "carrier", "0");
    assert_eq!(run()[1], "eth1 OK no link");
}

#[test]
fn this_host_and_a_captured_one_can_be_read() {
    let host = fixture("debian12-vm");
    assert!(built_in(&host).any(|kind| kind.name == "nic"));
    assert_eq!(run("nic", &host).summary, "eth0 link is up");
    assert!(!built_in(&fixture("empty")).any(|kind| kind.name == "nic"));
    // A container has no cards.
    let result = run("nic", &Host::live());
    assert!(!result.summary.contains("cannot"), "{}", result.summary);
}
