mod faults;

use std::path::{Path, PathBuf};

use controller_stub::api;
use controller_stub::server::HostName;
use vhost_backend::chain::{Failback, OnFailure, PortId};
use vhost_backend::frame::VlanId;
use vhost_backend::liveness::Profile;
use vhost_backend::port::{Carrier, Role, ServiceOffload};

use super::{Config, ConfigError};

/// The folder `/tmp` is there on every machine the tests run on.
const GOOD: &str = r#"[host]
id = 1
name = "host-a"
admin = "/tmp/admin.sock"

[[port]]
name = "vm5"
role = "tenant"
socket = "/tmp/vm5.sock"
mac = "52:54:00:00:00:05"

[[port]]
name = "svm1"
role = "service"
uuid = "0d1a7e6a-6d0c-4f0b-9f5e-000000000001"
socket = "/tmp/svm1.sock"
mac = "52:54:00:00:01:01"
liveness = { interval = "20ms", multiplier = 4 }

[[port]]
name = "svm2"
role = "service"
uuid = "0d1a7e6a-6d0c-4f0b-9f5e-000000000002"
socket = "/tmp/svm2.sock"
mac = "52:54:00:00:01:02"
si_decrement = "service"

[[chain]]
name = "inspect"
[[chain.path]]
spi = 1
hops = ["svm1", "svm2"]
reverse_spi = 101
[[chain.path]]
spi = 2
hops = ["svm1"]

[[policy]]
chain = "inspect"
priority = 200
[[policy]]
chain = "inspect"
priority = 100
from = ["vm5"]
match = { src = "10.0.0.5", dst = "10.0.0.0/24", proto = "tcp", dport = "80-443" }
"#;

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, Path::new("t.toml"))
}

fn faults(text: &str) -> String {
    parse(text).expect_err("a fault").to_string()
}

#[test]
fn what_becomes_of_flows_is_the_chains_and_the_ports_to_say() {
    let text = GOOD
        .replace("name = \"inspect\"\n", "name = \"inspect\"\non_failure = \"bypass\"\nfailback = \"all\"\n")
        .replace("si_decrement = \"service\"", "slow_start = \"1m 30s\"");
    let slow_starts = |config: &Config| -> Vec<u64> {
        let services = config.ports.iter().filter_map(|port| match &port.spec.role {
            Role::Service(service) => Some(service.slow_start.as_secs()),
            Role::Tenant | Role::Tap(_) => None,
        });
        services.collect()
    };
    let (said, unsaid) = (parse(&text).unwrap(), parse(GOOD).unwrap());
    let chain = |config: &Config| (config.intent.chains[0].on_failure, config.intent.chains[0].failback);
    assert_eq!(chain(&said), (OnFailure::Bypass, Failback::All));
    assert_eq!(chain(&unsaid), (OnFailure::Block, Failback::New));
    assert_eq!((slow_starts(&said), slow_starts(&unsaid)), (vec![0, 90], vec![0, 0]));
    let offer = said.offer.values().next().unwrap();
    assert_eq!((offer.on_failure, offer.failback), (api::OnFailure::Bypass, api::Failback::All));
}

#[test]
fn a_carrier_says_how_a_service_is_asked_and_what_it_sees() {
    let with = |carrier: &str| {
        let text = GOOD.replace("si_decrement = \"service\"", carrier);
        let config = parse(&text).unwrap();
        let Role::Service(service) = &config.ports[2].spec.role else { panic!("svm2 is a service") };
        (service.carrier, config.ports[2].spec.mtu)
    };
    assert_eq!(with(""), (Carrier::Nsh, 2000));
    assert_eq!(with("carrier = \"vnet-header\""), (Carrier::VnetHeader, 2000));
    assert_eq!(with("carrier = \"none\""), (Carrier::None, 1500));
}

#[test]
fn a_path_cannot_pass_a_service_twice_that_knows_nothing_of_nsh() {
    let twice = GOOD.replace("hops = [\"svm1\"]", "hops = [\"svm2\", \"svm1\", \"svm2\"]");
    parse(&twice).expect("others are told apart by their index");
    let message = faults(&twice.replace("si_decrement = \"service\"", "carrier = \"none\""));
    let told = "chain inspect: path 2: hops = [\"svm2\", \"svm1\", \"svm2\"]: svm2 knows nothing of NSH";
    assert!(message.contains(told), "{message}");
}

#[test]
fn a_service_that_is_handed_super_frames_has_room_for_them() {
    let with = |offload: &str| {
        let text = GOOD.replace("si_decrement = \"service\"", offload);
        let config = parse(&text).unwrap();
        let Role::Service(service) = &config.ports[2].spec.role else { panic!("svm2 is a service") };
        (service.offload, config.ports[2].spec.mtu)
    };
    assert_eq!(with(""), (ServiceOffload::Software, 2000));
    assert_eq!(with("offload = \"software\""), (ServiceOffload::Software, 2000));
    assert_eq!(with("offload = \"metadata\""), (ServiceOffload::Metadata, u16::MAX));
}

#[test]
fn frames_wait_unless_the_file_says_otherwise_and_are_retained_only_if_it_says_so() {
    let keeps = |keys: &str| {
        let config = parse(&GOOD.replace("si_decrement = \"service\"", keys)).unwrap();
        let Role::Service(service) = &config.ports[2].spec.role else { panic!("svm2 is a service") };
        (service.keeps.hold, service.keeps.retain)
    };
    assert_eq!(keeps(""), (8 << 20, 0));
    assert_eq!(keeps("hold = \"0\"\nretain = \"64KiB\""), (0, 64 << 10));
}

#[test]
fn a_good_file_is_held_in_the_datapaths_types() {
    let config = parse(GOOD).unwrap();
    assert_eq!((config.host.id.get(), config.host.name.as_str()), (1, "host-a"));
    assert_eq!(config.host.admin, PathBuf::from("/tmp/admin.sock"));
    assert_eq!((config.host.workers, config.host.flows, config.host.metrics), (1, 65536, None));
    assert!(config.host.cpus.is_empty());
    assert_eq!(config.ports[0].spec.role, Role::Tenant);
    let Role::Service(service) = &config.ports[1].spec.role else { panic!("svm1 is a service") };
    // What a service VM hands on is a tenant's frame behind an Ethernet header and an NSH.
    let longest = config.ports[0].spec.mtu + u16::try_from(nsh::ENCAP_LEN).unwrap();
    assert!(config.ports[1].spec.mtu >= longest);
    let interval = std::time::Duration::from_millis(20);
    let timers = (service.profile.interval, service.profile.timeout, service.profile.multiplier);
    assert_eq!(timers, (interval, interval, 4));
    assert_eq!((service.profile.idle_interval, service.profile.stall), (10 * interval, 4 * interval));
    assert_eq!(service.profile.hold_down, Profile::DEFAULT.hold_down);
    let chain = &config.intent.chains[0];
    assert_eq!(chain.paths[0].hops, [PortId::new(1), PortId::new(2)]);
    // The first path listed is preferred, and the lowest priority is asked first.
    assert_eq!(chain.paths.iter().map(|path| path.preference).collect::<Vec<_>>(), [0, 1]);
    assert_eq!(config.intent.policies[0].from, Some(vec![PortId::new(0)]));
    assert_eq!(config.intent.policies[1].from, None);
    assert!(config.intent.policies[0].priority < config.intent.policies[1].priority);
    let offer = &config.offer["inspect"];
    assert_eq!(offer.paths.len(), 2);
    assert_eq!(offer.policies.iter().map(|policy| policy.priority).collect::<Vec<_>>(), [100, 200]);
}

#[test]
fn what_the_host_runs_on_is_as_written() {
    let keys = "id = 1\nworkers = 2\ncpus = [1, 0]\nflows = 1048576\nmetrics = \"[::1]:0\"\n\
                metrics_names = [\"a.example\", \"b\"]\n";
    let host = parse(&GOOD.replace("id = 1\n", keys)).unwrap().host;
    assert_eq!((host.workers, host.cpus, host.flows), (2, vec![1, 0], 1 << 20));
    assert_eq!(host.metrics, Some("[::1]:0".parse().unwrap()));
    assert_eq!(host.metrics_names.iter().map(HostName::as_str).collect::<Vec<_>>(), ["a.example", "b"]);
}

const WORLD: &str = "[[port]]\nname = \"world\"\nrole = \"tap\"\ninterface = \"lp0\"\n";

#[test]
fn a_tap_is_known_by_its_interface_and_policies_may_name_it() {
    let text = GOOD.replace("from = [\"vm5\"]", "from = [\"vm5\", \"world\"]") + WORLD;
    let config = parse(&text).unwrap();
    let world = &config.ports[3].spec;
    assert_eq!(world.role, Role::Tap("lp0".parse().unwrap()));
    assert_eq!((world.mac, world.queue_pairs), ([0; 6], 1));
    let from = config.intent.policies[0].from.clone().unwrap();
    assert_eq!(from, [PortId::new(0), PortId::new(3)]);
}

#[test]
fn two_taps_cannot_have_one_interface() {
    let message = faults(&(GOOD.to_owned() + WORLD + &WORLD.replace("world", "away")));
    assert!(message.contains("port away: interface = \"lp0\": port world has it"), "{message}");
}

#[test]
fn vlans_are_matched_without_a_controller_only() {
    let text = GOOD.replace("proto = \"tcp\"", "vlan = 7, proto = \"tcp\"");
    let config = parse(&text).unwrap();
    assert_eq!(config.intent.policies[0].matches.vlan.map(VlanId::get), Some(7));
    let message = faults(&(text + "[controller]\nurl = \"http://127.0.0.1:8300\"\n"));
    assert!(message.contains("the controller of this version cannot match VLANs"), "{message}");
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = Config::load(Path::new("/nowhere/livepathd.toml")).unwrap_err();
    assert!(error.to_string().contains("/nowhere/livepathd.toml"));
    assert!(matches!(error, ConfigError::Read { .. }));
}

/// The example of the documents, with its sockets where this test may have them.
#[test]
fn the_example_is_a_good_file() {
    let folder = tempfile::tempdir().unwrap();
    let example = include_str!("../../../docs/example.toml");
    let text = example.replace("/run/livepath", &folder.path().display().to_string());
    let config = Config::parse(&text, Path::new("example.toml")).unwrap();
    assert_eq!((config.ports.len(), config.intent.chains.len(), config.intent.policies.len()), (6, 1, 1));
    let with_controller = text.replace("# [controller]", "[controller]").replace("# url", "url");
    assert!(Config::parse(&with_controller, Path::new("example.toml")).unwrap().controller.is_some());
}
