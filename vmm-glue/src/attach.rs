//! What to start a VM with so that it is on a port.

use std::fmt::Write as _;

use vhost_backend::device::Mode;
use vhost_backend::frame::Mac;
use vhost_backend::port::Role;

use crate::admin::PortView;
use crate::config::PortConfig;

/// A VMM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Vmm {
    /// QEMU, by its command line.
    Qemu {
        /// It emulates the processor even where there is KVM.
        emulated: bool,
    },
    /// Cloud Hypervisor, by its command line.
    CloudHypervisor,
    /// libvirt, by the domain's XML.
    Libvirt,
}

/// What a VMM must know of a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    port: String,
    socket: String,
    /// livepathd listens on the socket, else the VMM does.
    daemon_listens: bool,
    mac: String,
    queues: u16,
    mtu: u16,
}

/// What a vNIC has unless it is told otherwise.
const DEFAULT_MTU: u16 = 1500;

impl Attachment {
    /// Of a port of the file; `None` for a tap, which no VM is attached to.
    #[must_use]
    pub fn of_config(port: &PortConfig) -> Option<Self> {
        (!matches!(port.spec.role, Role::Tap(_))).then(|| Self {
            port: port.name.to_string(),
            socket: port.spec.socket.display().to_string(),
            daemon_listens: port.spec.mode == Mode::Server,
            mac: Mac(port.spec.mac).to_string(),
            queues: port.spec.queue_pairs,
            mtu: port.spec.mtu,
        })
    }

    /// Of a port of the running daemon, likewise.
    #[must_use]
    pub fn of_view(port: &PortView) -> Option<Self> {
        Some(Self {
            port: port.name.clone(),
            socket: port.socket.clone()?,
            daemon_listens: port.mode.as_deref() == Some("server"),
            mac: port.mac.clone()?,
            queues: port.queues,
            mtu: port.mtu,
        })
    }

    /// The text to paste, with what to mind as comments of its own language. `further`: arguments for the VMM, such as
    /// disks; they are quoted for a shell.
    #[must_use]
    pub fn text(&self, vmm: Vmm, further: &[String]) -> String {
        match vmm {
            Vmm::Qemu { emulated } => self.qemu(further, !emulated && has_kvm()),
            Vmm::CloudHypervisor => self.cloud_hypervisor(further),
            Vmm::Libvirt => self.libvirt(),
        }
    }

    /// The guest's memory is shared with livepathd: a file mapped by both. QEMU 7.2 crashes when it emulates the processor
    /// and a vhost-user vNIC uses MSI-X, so there the vNIC has none; with several queues each has an interrupt otherwise.
    /// A service VM is told by `host_mtu` that frames behind an NSH are longer.
    fn qemu(&self, further: &[String], kvm: bool) -> String {
        let Self { port, socket, mac, queues, mtu, .. } = self;
        let side = if self.daemon_listens { "reconnect=1" } else { "server=on,wait=off" };
        let long = if *mtu == DEFAULT_MTU { String::new() } else { format!(",host_mtu={mtu}") };
        let several = if *queues > 1 { ",mq=on" } else { "" };
        let vectors = match (kvm, *queues) {
            (false, _) => ",vectors=0".to_owned(),
            (true, 1) => String::new(),
            (true, queues) => format!(",vectors={}", 2 * queues + 2),
        };
        let mut text = format!("# port {port}: the memory size is an example");
        text += match (further.is_empty(), kvm) {
            (true, _) => "; append your disks and CPUs.\n",
            (false, _) => ".\n",
        };
        if !kvm {
            text += "# Without KVM the processor is emulated, and the vNIC does without MSI-X.\n";
        }
        let accelerator = if kvm { "kvm" } else { "tcg" };
        let mut lines = vec![
            format!("qemu-system-x86_64 -accel {accelerator} -m 1G -nographic"),
            "-object memory-backend-memfd,id=mem,size=1G,share=on -numa node,memdev=mem".to_owned(),
            format!(
                "-chardev {}",
                quoted(&format!("socket,id=livepath-{port},path={},{side}", doubled(socket)))
            ),
            format!("-netdev vhost-user,id=net-{port},chardev=livepath-{port},queues={queues}"),
            format!("-device virtio-net-pci,netdev=net-{port},mac={mac}{long}{several}{vectors}"),
        ];
        lines.extend(joined(further));
        text += &lines.join(" \\\n    ");
        text.push('\n');
        text
    }

    /// Its queues are counted singly, two to a pair, and it starts no VM with fewer vCPUs than pairs.
    fn cloud_hypervisor(&self, further: &[String]) -> String {
        let Self { port, socket, mac, .. } = self;
        let mode = if self.daemon_listens { "" } else { ",vhost_mode=server" };
        let (pairs, queues) = (self.queues, 2 * self.queues);
        let net =
            format!("mac={mac},vhost_user=true,socket={socket},num_queues={queues},queue_size=256{mode}");
        let mut lines = vec![
            format!("cloud-hypervisor --cpus boot={pairs} --memory size=1G,shared=on"),
            format!("--net {}", quoted(&net)),
        ];
        lines.extend(joined(further));
        let add = if further.is_empty() { "add --kernel and --disk; " } else { "" };
        format!("# port {port}: {add}the sizes are examples.\n{}\n", lines.join(" \\\n    "))
    }

    fn libvirt(&self) -> String {
        let Self { port, socket, mac, queues, mtu, .. } = self;
        let mode = if self.daemon_listens { "client" } else { "server" };
        let mut text = format!("<!-- port {port}: these parts belong into <domain> of `virsh edit` -->\n");
        text += "<memoryBacking>\n  <source type='memfd'/>\n  <access mode='shared'/>\n</memoryBacking>\n";
        text += "<!-- and this one into <devices> -->\n<interface type='vhostuser'>\n";
        // Writing to a String does not fail.
        let _ = writeln!(text, "  <mac address='{mac}'/>");
        let _ = write!(text, "  <source type='unix' path='{}' mode='{mode}'", escape(socket));
        text += if self.daemon_listens {
            ">\n    <reconnect enabled='yes' timeout='1'/>\n  </source>\n"
        } else {
            "/>\n"
        };
        text += "  <model type='virtio'/>\n";
        if *mtu != DEFAULT_MTU {
            let _ = writeln!(text, "  <mtu size='{mtu}'/>");
        }
        if *queues > 1 {
            let _ = writeln!(text, "  <driver queues='{queues}'/>");
        }
        text += "</interface>\n";
        text
    }
}

/// The processor can be had for guests, by this user.
fn has_kvm() -> bool {
    std::fs::File::options().read(true).write(true).open("/dev/kvm").is_ok()
}

/// Arguments as one line of a command, if there are any.
fn joined(arguments: &[String]) -> Option<String> {
    let quoted: Vec<String> = arguments.iter().map(|argument| quoted(argument)).collect();
    (!quoted.is_empty()).then(|| quoted.join(" "))
}

/// A word as a shell takes it for one.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:,=+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

/// A value among QEMU's options, where a comma stands for itself when it is doubled.
fn doubled(value: &str) -> String {
    value.replace(',', ",,")
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('\'', "&apos;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(queues: u16, daemon_listens: bool) -> Attachment {
        Attachment {
            port: "vm5".into(),
            socket: "/run/livepath/vm5.sock".into(),
            daemon_listens,
            mac: "52:54:00:00:00:05".into(),
            queues,
            mtu: 1500,
        }
    }

    #[test]
    fn a_service_vm_is_told_of_its_longer_frames() {
        let service = Attachment { mtu: 65_535, ..port(1, true) };
        assert!(service.qemu(&[], true).contains(",host_mtu=65535\n"), "{}", service.qemu(&[], true));
        assert!(service.text(Vmm::Libvirt, &[]).contains("<mtu size='65535'/>"));
        assert!(!port(1, true).qemu(&[], true).contains("mtu"));
    }

    #[test]
    fn qemu_gets_shared_memory_and_the_vnic() {
        let text = port(1, true).qemu(&[], true);
        for word in [
            "memory-backend-memfd,id=mem,size=1G,share=on",
            "path=/run/livepath/vm5.sock,reconnect=1",
            "virtio-net-pci,netdev=net-vm5,mac=52:54:00:00:00:05\n",
            "append your disks",
        ] {
            assert!(text.contains(word), "no {word} in:\n{text}");
        }
        assert!(port(4, false).qemu(&[], true).contains("server=on,wait=off"));
        assert!(port(4, true).qemu(&[], true).contains("queues=4 "));
        assert!(port(4, true).qemu(&[], true).contains("mq=on,vectors=10"));
    }

    #[test]
    fn without_kvm_the_vnic_has_no_msi_x() {
        for queues in [1, 4] {
            let text = port(queues, true).qemu(&[], false);
            assert!(text.contains("-accel tcg ") && text.contains(",vectors=0\n"), "{text}");
        }
    }

    #[test]
    fn further_arguments_are_quoted_for_a_shell() {
        let further = ["-append", "console=ttyS0 quiet", "it's"].map(str::to_owned);
        let text = port(1, true).qemu(&further, true);
        assert!(text.ends_with(" \\\n    -append 'console=ttyS0 quiet' 'it'\\''s'\n"), "{text}");
        let odd = Attachment { socket: "/run/my vms/a,b.sock".into(), ..port(1, true) };
        let text = odd.qemu(&[], true);
        assert!(
            text.contains("-chardev 'socket,id=livepath-vm5,path=/run/my vms/a,,b.sock,reconnect=1'"),
            "{text}"
        );
    }

    /// The keys that Cloud Hypervisor's `--net` and `--memory` know, by its documentation (v40) and the source of today.
    #[test]
    fn cloud_hypervisor_gets_keys_that_it_knows_and_counts_rings() {
        let text = port(2, false).text(Vmm::CloudHypervisor, &[]);
        assert!(text.contains("num_queues=4,queue_size=256,vhost_mode=server"), "{text}");
        let options = |name: &str| {
            let (_, rest) = text.split_once(name).expect("the option");
            let value = rest.split_whitespace().next().expect("its value");
            value.split(',').map(|pair| pair.split_once('=').expect("KEY=VALUE").0).collect::<Vec<_>>()
        };
        let net = [
            "tap",
            "ip",
            "mask",
            "mac",
            "fd",
            "iommu",
            "num_queues",
            "queue_size",
            "id",
            "vhost_user",
            "socket",
            "vhost_mode",
        ];
        assert!(options("--net ").iter().all(|key| net.contains(key)), "{text}");
        assert_eq!(options("--memory "), ["size", "shared"]);
        assert!(text.contains("--cpus boot=2 "), "it refuses more queue pairs than vCPUs: {text}");
    }

    #[test]
    fn libvirt_is_the_other_side_of_the_socket() {
        assert!(port(1, true).text(Vmm::Libvirt, &[]).contains("mode='client'>"));
        let text = port(2, false).text(Vmm::Libvirt, &[]);
        assert!(text.contains("mode='server'/>") && text.contains("<driver queues='2'/>"), "{text}");
    }
}
