//! The hosts of every run, from their configuration files: the same texts an operator would write.
//!
//! ```text
//! host 1: vm5 ─► inspect: SPI 1 svm1 svm2 svm3, SPI 2 svm1 svm4 svm3 ─► vm6
//! host 2: vm7 ─► guard: SPI 3 svm7 svm8, SPI 4 svm9 ─► vm8
//! host 3: vm9, vm10: tables, and nothing of its own
//! ```

use std::path::Path;
use std::sync::OnceLock;

use controller_stub::api::{Chain, HostId, Name};
use nsh::Spi;
use vhost_backend::chain::{OnFailure, PortId, PortSpec, TablesRef};
use vhost_backend::frame::{Frame, Imprint};
use vhost_backend::host::in_tables;
use vhost_backend::liveness::Profile;
use vhost_backend::port::Role;
use vmm_glue::config::Config;
use vmm_glue::tables::Directory;

/// Everything about a host that its file says.
#[derive(Debug)]
pub(crate) struct HostSite {
    pub(crate) id: HostId,
    pub(crate) config: Config,
    pub(crate) directory: Directory,
    ports: Vec<PortSpec>,
    /// Its services, by name.
    pub(crate) services: Vec<(Name, PortId, Profile)>,
    /// Flows between its tenants, there and back.
    pub(crate) flows: Vec<[Flow; 2]>,
}

/// One direction of a flow.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Flow {
    pub(crate) from: PortId,
    pub(crate) frame: Frame,
    /// What its packets have in common that a verdict about them depends on.
    pub(crate) imprint: Imprint,
}

impl HostSite {
    /// What the tables are made of under an intent.
    pub(crate) fn tables<'a>(&'a self, intent: &'a vhost_backend::host::Intent) -> TablesRef<'a> {
        intent.tables(&self.ports)
    }
}

/// The hosts whose chains do this when no path is left.
pub(crate) fn sites(on_failure: OnFailure) -> &'static [HostSite] {
    static SITES: OnceLock<[Vec<HostSite>; 3]> = OnceLock::new();
    let sites = SITES.get_or_init(|| ["block", "allow", "bypass"].map(hosts));
    match on_failure {
        OnFailure::Block => &sites[0],
        OnFailure::Allow => &sites[1],
        OnFailure::Bypass => &sites[2],
    }
}

/// What is added to a path's identifier for its replies.
const REVERSE: u32 = 100;

/// Whether it is the path of replies.
pub(crate) fn is_reverse(spi: Spi) -> bool {
    spi.get() > REVERSE
}

/// A chain that no host can carry out, since its path leads over two of them.
pub(crate) fn far() -> (Name, Chain) {
    let text = r#"{"paths": [{"spi": 5, "reverse_spi": 105, "hops": ["svm1", "svm7"]}],
        "policies": [{"priority": 900, "from": ["vm5", "vm7"]}]}"#;
    (name("far"), serde(text))
}

fn serde(text: &str) -> Chain {
    serde_json::from_str(text).expect("a chain")
}

fn name(text: &str) -> Name {
    Name::new(text).expect("a name")
}

fn hosts(on_failure: &str) -> Vec<HostSite> {
    let chain = |name: &str, from: &str, paths: &[(u32, &str)]| {
        let mut text = format!("[[chain]]\nname = \"{name}\"\non_failure = \"{on_failure}\"\n");
        for (spi, hops) in paths {
            text += &format!("[[chain.path]]\nspi = {spi}\nreverse_spi = {}\nhops = {hops}\n", spi + REVERSE);
        }
        text + &format!("[[policy]]\nchain = \"{name}\"\npriority = 100\nfrom = [\"{from}\"]\n")
    };
    let inspect =
        chain("inspect", "vm5", &[(1, r#"["svm1","svm2","svm3"]"#), (2, r#"["svm1","svm4","svm3"]"#)]);
    let guard = chain("guard", "vm7", &[(3, r#"["svm7","svm8"]"#), (4, r#"["svm9"]"#)]);
    vec![
        host(1, [5, 6], &[1, 2, 3, 4], &inspect),
        host(2, [7, 8], &[7, 8, 9], &guard),
        host(3, [9, 10], &[], ""),
    ]
}

fn host(number: u8, tenants: [u8; 2], services: &[u8], chains: &str) -> HostSite {
    let mut text = format!(
        "[host]\nid = {number}\nname = \"host-{number}\"\nadmin = \"/admin.sock\"\n[controller]\nurl = \"http://c:1\"\n"
    );
    for vm in tenants {
        text += &format!(
            "[[port]]\nname = \"vm{vm}\"\nrole = \"tenant\"\nsocket = \"/vm{vm}\"\nmac = \"52:54:00:00:00:{vm:02x}\"\n"
        );
    }
    for svm in services {
        text += &format!(
            "[[port]]\nname = \"svm{svm}\"\nrole = \"service\"\nuuid = \"0d1a7e6a-6d0c-4f0b-9f5e-{svm:012}\"\n\
             socket = \"/svm{svm}\"\nmac = \"52:54:00:00:01:{svm:02x}\"\n\
             liveness = {{ interval = \"1ms\", timeout = \"1ms\", multiplier = 3, idle_interval = \"4ms\", \
             stall = \"3ms\", recover = 3, hold_down = \"3ms\", hold_down_max = \"12ms\" }}\n"
        );
    }
    let config = Config::parse(&(text + chains), Path::new("livepathd.toml"));
    let config = config.unwrap_or_else(|error| panic!("{error}"));
    let directory = Directory::new(&config.ports);
    let specs: Vec<_> = config.ports.iter().map(|port| port.spec.clone()).collect();
    let ports = in_tables(&specs).expect("few ports");
    let services =
        config.ports.iter().zip((0..).map(PortId::new)).filter_map(|(port, id)| match &port.spec.role {
            Role::Service(service) => Some((port.name.clone(), id, service.profile)),
            _ => None,
        });
    let [a, b] = tenants;
    let both = |client: u16| {
        let there = flow(PortId::new(0), &datagram(a, b, client, 53));
        let back = flow(PortId::new(1), &datagram(b, a, 53, client));
        [there, back]
    };
    HostSite {
        id: config.host.id,
        services: services.collect(),
        flows: (40_000..40_004).map(both).collect(),
        directory,
        ports,
        config,
    }
}

/// The flow of such packets.
fn flow(from: PortId, packet: &[u8]) -> Flow {
    let frame = Frame::parse(packet, packet.len()).expect("a datagram");
    Flow { from, frame, imprint: Imprint::plain(packet, packet.len()).expect("a common one") }
}

/// A UDP datagram from one tenant to another.
fn datagram(from: u8, to: u8, src_port: u16, dst_port: u16) -> Vec<u8> {
    let mut bytes = vec![0x52, 0x54, 0, 0, 0, to, 0x52, 0x54, 0, 0, 0, from, 0x08, 0x00];
    bytes.extend([0x45, 0, 0, 32, 0, 7, 0, 0, 64, 17, 0, 0, 10, 0, 0, from, 10, 0, 0, to]);
    bytes.extend([src_port, dst_port, 12, 0].into_iter().flat_map(u16::to_be_bytes));
    bytes.extend([0xA5; 4]);
    bytes
}
