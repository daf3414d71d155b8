//! Everything that can be wrong with a file, one case each: line, key, value and remedy are told.

use rstest::rstest;

use super::super::{ConfigError, Fault};
use super::{GOOD, faults, parse};

#[rstest]
#[case::unknown_key(
    "id = 1\n",
    "id = 1\ncolour = 3\n",
    "3: host: colour = 3: there is no such key; use one of id, name, workers, cpus, flows, admin, metrics, metrics_names"
)]
#[case::unknown_table(
    "[[policy]]",
    "[[polizei]]",
    "41: polizei: there is no such key; use one of host, controller, port, chain, policy"
)]
#[case::wrong_type(
    "id = 1\n",
    "id = \"one\"\n",
    "2: host: id = \"one\": is text, not a whole number; write a number from 0 to 65535, without quotes"
)]
#[case::not_toml(
    "id = 1\n",
    "id = one\n",
    "2: not TOML: id = one: string values must be quoted; write text in quotes, numbers, true, false or [lists]"
)]
#[case::missing_key(
    "role = \"tenant\"\n",
    "",
    "7: port vm5: role: is missing; say what is behind the port: role = \"tenant\""
)]
#[case::unknown_role(
    "role = \"tenant\"",
    "role = \"guest\"",
    "8: port vm5: role = \"guest\": is none of the words it may be; use one of tenant, service, tap, uplink"
)]
#[case::unknown_timer(
    "multiplier = 4",
    "patience = 4",
    "18: port svm1: liveness.patience = 4: there is no such key; use one of interval, timeout"
)]
#[case::bad_duration(
    "\"20ms\"",
    "\"20 parsecs\"",
    "18: port svm1: liveness.interval = \"20 parsecs\": is not a duration; write a number and a unit in quotes"
)]
#[case::duration_without_quotes(
    "\"20ms\"",
    "20",
    "18: port svm1: liveness.interval = 20: is a number, not a duration; write a number and a unit in quotes"
)]
#[case::misspelt_key(
    "si_decrement = \"service\"",
    "si_decrememt = \"service\"",
    "26: port svm2: si_decrememt = \"service\": there is no such key; did you mean si_decrement? use one of"
)]
#[case::misspelt_word(
    "si_decrement = \"service\"",
    "si_decrement = \"proxi\"",
    "26: port svm2: si_decrement = \"proxi\": is none of the words it may be; did you mean proxy? use one of"
)]
#[case::no_word(
    "role = \"tenant\"",
    "role = 3",
    "8: port vm5: role = 3: is no word; write one of the words it may be, in quotes"
)]
#[case::text_is_needed(
    "name = \"host-a\"",
    "name = true",
    "3: host: name = true: is true or false, not text; write text in quotes"
)]
#[case::list_is_needed(
    "hops = [\"svm1\"]",
    "hops = \"svm1\"",
    "36: chain inspect: path 2: hops = \"svm1\": is text, not a list; write a list in brackets"
)]
#[case::list_of_text_is_needed(
    "hops = [\"svm1\"]",
    "hops = [\"svm1\", 4]",
    "36: chain inspect: path 2: hops = [\"svm1\", 4]: is a number, not text; write text in quotes"
)]
#[case::large_number(
    "spi = 2",
    "spi = 4294967296",
    "spi = 4294967296: is out of range; write a number from 0 to 4294967295"
)]
#[case::negative(
    "id = 1\n",
    "id = 1\ncpus = [-1]\n",
    "3: host: cpus = [-1]: is out of range; write a whole number from 0 on, without quotes"
)]
#[case::fraction(
    "priority = 200",
    "priority = 1.5",
    "40: policy 1: priority = 1.5: is a number with a fraction, not a whole number"
)]
#[case::single_brackets(
    "[[policy]]\nchain = \"inspect\"\npriority = 200\n[[policy]]",
    "[policy]",
    "38: policy: is one table, and there may be several; write [[policy]], with two brackets"
)]
#[case::key_twice(
    "id = 1\n",
    "id = 1\nid = 2\n",
    "3: not TOML: id = 2: the key is given twice; remove one of them"
)]
#[case::no_host_id("id = 1\n", "", "1: host: id: is missing; give the host a number")]
#[case::no_host_name("name = \"host-a\"\n", "", "1: host: name: is missing; give the host a name")]
#[case::no_port_name(
    "name = \"svm2\"\n",
    "",
    "20: port (line 20): name: is missing; give every port its own name"
)]
#[case::no_chain_name("name = \"inspect\"\n", "", "28: chain (line 28): name: is missing; name the chain")]
#[case::no_chain(
    "chain = \"inspect\"\npriority = 100\n",
    "priority = 100\n",
    "41: policy 2: chain: is missing; name a [[chain]]"
)]
#[case::no_spi("spi = 2\n", "", "34: chain inspect: path (line 34): spi: is missing; number the path")]
#[case::no_hops_key(
    "hops = [\"svm1\"]\n",
    "",
    "34: chain inspect: path 2: hops: is missing; list its service ports"
)]
#[case::no_url(
    "[[chain]]\n",
    "[controller]\n[[chain]]\n",
    "controller: url: is missing; say where the controller is"
)]
#[case::socket_spelt_otherwise(
    "/tmp/svm2.sock",
    "/tmp/../tmp/./svm1.sock",
    "24: port svm2: socket = \"/tmp/../tmp/./svm1.sock\": port svm1 has it; give every port its own socket"
)]
#[case::socket_of_the_command_line(
    "/tmp/svm2.sock",
    "/tmp/admin.sock",
    "24: port svm2: socket = \"/tmp/admin.sock\": the command line (admin in [host]) has it"
)]
#[case::folder_is_a_file(
    "/tmp/svm2.sock",
    "/etc/passwd/svm2.sock",
    "24: port svm2: socket = \"/etc/passwd/svm2.sock\": /etc/passwd is no folder; name a folder"
)]
#[case::policies_overlap(
    "[[policy]]\nchain = \"inspect\"\npriority = 100\n",
    "[[chain]]\nname = \"other\"\n[[chain.path]]\nspi = 9\nhops = [\"svm2\"]\n[[policy]]\nchain = \"other\"\npriority = 200\n",
    "48: policy 2: priority = 200: policy 1 (line 38), of chain inspect, has the same, and some packets match both; give them different priorities"
)]
#[case::host_zero("id = 1\n", "id = 0\n", "2: host: id = 0: is no host number; use 1 to 65535")]
#[case::host_name(
    "\"host-a\"",
    "\"host a\"",
    "3: host: name = \"host a\": is no name; use 1 to 64 of A-Z a-z 0-9"
)]
#[case::no_worker(
    "id = 1\n",
    "id = 1\nworkers = 0\n",
    "3: host: workers = 0: is no number of workers; use 1 to 64"
)]
#[case::many_workers(
    "id = 1\n",
    "id = 1\nworkers = 65\n",
    "3: host: workers = 65: is no number of workers; use 1 to 64"
)]
#[case::cpus(
    "id = 1\n",
    "id = 1\ncpus = [0, 1]\n",
    "3: host: cpus = [0, 1]: names 2 cores for 1 worker; give one core for each worker, or remove the key"
)]
#[case::same_cpu(
    "id = 1\n",
    "id = 1\ncpus = [2, 1, 2]\n",
    "3: host: cpus = [2, 1, 2]: names core 2 twice; give every worker a core of its own"
)]
#[case::no_such_cpu(
    "id = 1\n",
    "id = 1\ncpus = [4095]\n",
    "3: host: cpus = [4095]: names core 4095, which this machine does not have; use 0"
)]
#[case::no_policy(
    "name = \"inspect\"\n",
    "name = \"inspect\"\non_failure = \"pass\"\n",
    "30: chain inspect: on_failure = \"pass\": is none of the words it may be; use one of block, allow, bypass"
)]
#[case::no_failback(
    "name = \"inspect\"\n",
    "name = \"inspect\"\nfailback = \"none\"\n",
    "30: chain inspect: failback = \"none\": is none of the words it may be; use one of new, all"
)]
#[case::slow_start_without_unit(
    "si_decrement = \"service\"",
    "slow_start = \"10\"",
    "26: port svm2: slow_start = \"10\": is no duration; write a number and a unit, e.g. \"10s\""
)]
#[case::slow_start_of_days(
    "si_decrement = \"service\"",
    "slow_start = \"10d\"",
    "26: port svm2: slow_start = \"10d\": is longer than the share of a recovered service may grow; use up to \"1h\""
)]
#[case::slow_start_of_a_tenant(
    "mac = \"52:54:00:00:00:05\"\n",
    "mac = \"52:54:00:00:00:05\"\nslow_start = \"10s\"\n",
    "11: port vm5: slow_start = \"10s\": means nothing on a tenant port; remove the key or make the role \"service\""
)]
#[case::no_flows(
    "id = 1\n",
    "id = 1\nflows = 0\n",
    "3: host: flows = 0: is no number of flows to remember; use 1024 to 16777216, or remove the key for 65536"
)]
#[case::many_flows(
    "id = 1\n",
    "id = 1\nflows = 16777217\n",
    "3: host: flows = 16777217: is no number of flows"
)]
#[case::metrics(
    "id = 1\n",
    "id = 1\nmetrics = \"localhost:9300\"\n",
    "3: host: metrics = \"localhost:9300\": is no address to listen on; write an IP address and a port, e.g. \"127.0.0.1:9300\""
)]
#[case::metrics_names(
    "id = 1\n",
    "id = 1\nmetrics_names = [\"host-a\", \"host-a:9300\"]\n",
    "3: host: metrics_names = [\"host-a\", \"host-a:9300\"]: a host's name has letters, digits, '-', '_' and '.', and no scheme or port; write names as in a URL"
)]
#[case::admin_folder(
    "/tmp/admin.sock",
    "/nowhere/admin.sock",
    "4: host: admin = \"/nowhere/admin.sock\": the folder /nowhere does not exist; make it: mkdir -p /nowhere, or name another place"
)]
#[case::controller_url(
    "[[chain]]\n",
    "[controller]\nurl = \"https://c:8300\"\n[[chain]]\n",
    "controller: url = \"https://c:8300\":"
)]
#[case::same_name(
    "name = \"svm2\"",
    "name = \"svm1\"",
    "21: port svm1: name = \"svm1\": line 13 has a port of that name"
)]
#[case::same_socket(
    "/tmp/svm2.sock",
    "/tmp/svm1.sock",
    "24: port svm2: socket = \"/tmp/svm1.sock\": port svm1 has it"
)]
#[case::same_mac(
    "52:54:00:00:01:02",
    "52:54:00:00:01:01",
    "25: port svm2: mac = \"52:54:00:00:01:01\": port svm1 has it"
)]
#[case::same_uuid("000000000002", "000000000001", "port svm1 has it; give every service VM its own")]
#[case::short_mac(
    "52:54:00:00:01:02",
    "52:54:00:00:01",
    "25: port svm2: mac = \"52:54:00:00:01\": is no MAC address; write six hex pairs"
)]
#[case::signed_mac("52:54:00:00:01:02", "52:54:00:00:01:+2", "is no MAC address")]
#[case::group_mac("52:54:00:00:01:02", "53:54:00:00:01:02", "is zero or a group address")]
#[case::socket_folder(
    "/tmp/svm2.sock",
    "/nowhere/svm2.sock",
    "24: port svm2: socket = \"/nowhere/svm2.sock\": the folder /nowhere does not exist; make it: mkdir -p /nowhere"
)]
#[case::no_uuid(
    "uuid = \"0d1a7e6a-6d0c-4f0b-9f5e-000000000002\"\n",
    "",
    "21: port svm2: uuid: is missing; reports and tables name a service VM by it; give the VM's UUID"
)]
#[case::bad_uuid("9f5e-000000000002", "9f5e-2", "is no UUID; write 32 hex digits as 8-4-4-4-12")]
#[case::queues(
    "role = \"tenant\"",
    "role = \"tenant\"\nqueues = 0",
    "9: port vm5: queues = 0: a vNIC cannot have that many queue pairs; use 1 to 64"
)]
#[case::tenant_liveness(
    "role = \"tenant\"",
    "role = \"tenant\"\nliveness = \"fast\"",
    "9: port vm5: liveness = \"fast\": means nothing on a tenant port; remove the key"
)]
#[case::uplink(
    "role = \"tenant\"",
    "role = \"uplink\"",
    "8: port vm5: role = \"uplink\": uplink ports are not in this version"
)]
#[case::tap_without_interface(
    "role = \"tenant\"\nsocket = \"/tmp/vm5.sock\"",
    "role = \"tap\"",
    "7: port vm5: interface: is missing; a tap port is an interface of this host; name the interface"
)]
#[case::tap_with_socket(
    "role = \"tenant\"",
    "role = \"tap\"\ninterface = \"lp0\"",
    "10: port vm5: socket = \"/tmp/vm5.sock\": means nothing on a tap port; remove the key"
)]
#[case::tap_with_mode(
    "role = \"tenant\"\nsocket = \"/tmp/vm5.sock\"",
    "role = \"tap\"\ninterface = \"lp0\"\nmode = \"client\"",
    "10: port vm5: mode = \"client\": means nothing on a tap port; remove the key"
)]
#[case::tap_with_service_keys(
    "role = \"tenant\"\nsocket = \"/tmp/vm5.sock\"",
    "role = \"tap\"\ninterface = \"lp0\"\nliveness = \"fast\"",
    "10: port vm5: liveness = \"fast\": means nothing on a tap port"
)]
#[case::long_interface(
    "role = \"tenant\"\nsocket = \"/tmp/vm5.sock\"",
    "role = \"tap\"\ninterface = \"a-rather-long-name\"",
    "9: port vm5: interface = \"a-rather-long-name\": is no name of an interface; an interface's name has 1 to 15 bytes"
)]
#[case::interface_of_a_tenant(
    "role = \"tenant\"",
    "role = \"tenant\"\ninterface = \"lp0\"",
    "9: port vm5: interface = \"lp0\": means nothing but on a tap port; remove the key or make the role \"tap\""
)]
#[case::no_socket(
    "socket = \"/tmp/vm5.sock\"\n",
    "",
    "7: port vm5: socket: is missing; the VM attaches there; give a path"
)]
#[case::no_mac(
    "mac = \"52:54:00:00:00:05\"\n",
    "",
    "7: port vm5: mac: is missing; frames are delivered by it; give the vNIC's address"
)]
#[case::carrier(
    "si_decrement = \"service\"",
    "carrier = \"wire\"",
    "carrier = \"wire\": is none of the words it may be; use one of nsh, vnet-header, none"
)]
#[case::unaware_with_si(
    "si_decrement = \"service\"",
    "carrier = \"none\"\nsi_decrement = \"service\"",
    "27: port svm2: si_decrement = \"service\": is for services that get an NSH"
)]
#[case::unaware_with_metadata(
    "si_decrement = \"service\"",
    "carrier = \"none\"\noffload = \"metadata\"",
    "27: port svm2: offload = \"metadata\": is for services that get an NSH"
)]
#[case::hold(
    "si_decrement = \"service\"",
    "hold = \"8MB\"",
    "26: port svm2: hold = \"8MB\": is no size; write bytes, KiB or MiB, e.g. \"8MiB\""
)]
#[case::retain(
    "si_decrement = \"service\"",
    "retain = \"2000MiB\"",
    "26: port svm2: retain = \"2000MiB\": is no size; write bytes, KiB or MiB, e.g. \"8MiB\", 1024MiB at most"
)]
#[case::profile(
    "si_decrement = \"service\"",
    "liveness = \"slow\"",
    "26: port svm2: liveness = \"slow\": there is no such profile; use \"default\", \"fast\", \"relaxed\""
)]
#[case::timers(
    "multiplier = 4",
    "multiplier = 1",
    "18: port svm1: liveness = { interval = \"20ms\", multiplier = 1 }: multiplier must be at least 2"
)]
#[case::hop_unknown(
    "hops = [\"svm1\"]",
    "hops = [\"svm9\"]",
    "36: chain inspect: path 2: hops = [\"svm9\"]: there is no port svm9; name service ports of this file: svm1, svm2"
)]
#[case::hop_tenant(
    "hops = [\"svm1\"]",
    "hops = [\"vm5\"]",
    "vm5 is not a service port; name service ports of this file: svm1, svm2"
)]
#[case::no_hops("hops = [\"svm1\"]", "hops = []", "a path has 1 to 255 hops")]
#[case::spi_twice("spi = 2", "spi = 1", "35: chain inspect: path: spi = 1: a path of chain inspect has it")]
#[case::reverse_twice(
    "reverse_spi = 101",
    "reverse_spi = 1",
    "reverse_spi = 1: a path of chain inspect has it"
)]
#[case::spi_large(
    "spi = 2",
    "spi = 16777216",
    "35: chain inspect: path: spi = 16777216: is no service path identifier, which has 24 bits; use 0 to 16777215"
)]
#[case::policy_chain(
    "chain = \"inspect\"\npriority = 100",
    "chain = \"expect\"\npriority = 100",
    "42: policy 2: chain = \"expect\": there is no such chain; name a [[chain]]"
)]
#[case::from_service(
    "from = [\"vm5\"]",
    "from = [\"svm1\"]",
    "svm1 is not a tenant or tap port; name tenant or tap ports of this file: vm5"
)]
#[case::from_nobody(
    "from = [\"vm5\"]",
    "from = []",
    "names no port; name tenant or tap ports of this file: vm5, or remove the key"
)]
#[case::prefix(
    "\"10.0.0.0/24\"",
    "\"10.0.0.9/24\"",
    "45: policy 2: match.dst = \"10.0.0.9/24\": is no prefix; clear the bits behind the prefix length"
)]
#[case::range(
    "\"80-443\"",
    "\"443-80\"",
    "policy 2: match.dport = \"443-80\": is no port or range of ports; give the smaller port first"
)]
#[case::protocol(
    "\"tcp\"",
    "\"tpc\"",
    "policy 2: match.proto = \"tpc\": is no protocol; write tcp, udp, sctp"
)]
#[case::ports_of_icmp("\"tcp\"", "\"icmp\"", "protocol 1 has no ports")]
#[case::versions(
    "src = \"10.0.0.5\"",
    "src = \"::5\"",
    "are of different IP versions; use addresses of one IP version"
)]
#[case::vlan(
    "proto = \"tcp\"",
    "vlan = 4096, proto = \"tcp\"",
    "policy 2: match.vlan = 4096: is no VLAN id; use 0 to 4095"
)]
fn a_fault_is_told_with_line_key_value_and_remedy(#[case] good: &str, #[case] bad: &str, #[case] told: &str) {
    assert!(GOOD.contains(good), "the case changes nothing");
    // The last one, which is that of the port, path or policy the case is about.
    let text = match GOOD.rfind(good) {
        Some(at) => format!("{}{bad}{}", &GOOD[..at], &GOOD[at + good.len()..]),
        None => String::new(),
    };
    let message = faults(&text);
    let first = message.lines().next().unwrap();
    assert!(first.contains(told), "not told \"{told}\" but:\n{message}");
    // What refers to something that is wrong may be told too.
    assert!(message.lines().all(|line| line.starts_with("t.toml:")), "{message}");
    let Err(ConfigError::Faults { faults, .. }) = parse(&text) else { panic!("{message}") };
    for Fault { place, key, value, problem, remedy } in &faults {
        assert!(place.line > 0 && !key.is_empty() && !remedy.is_empty(), "{message}");
        let without = ["is missing", "there is no such key", "is one table"];
        assert!(!value.is_empty() || without.iter().any(|none| problem.starts_with(none)), "{message}");
        let mut lines = text.lines().skip(place.line - 1);
        assert_eq!(lines.next().map(str::trim_end), Some(place.text.as_str()), "{message}");
    }
}

#[test]
fn every_fault_is_told_at_once_in_the_order_of_the_file() {
    let text = GOOD
        .replace("id = 1\n", "id = 0\n")
        .replace("00:01:01", "01")
        .replace("si_decrement = \"service\"", "si_decrement = 3\ncolour = \"red\"")
        .replace("dport = \"80-443\"", "dport = \"x\"");
    let message = faults(&text);
    let lines: Vec<&str> = message.lines().map(|line| line.split(": ").next().unwrap()).collect();
    assert_eq!(lines, ["t.toml:2", "t.toml:17", "t.toml:26", "t.toml:27", "t.toml:46"], "{message}");
}

#[test]
fn everything_that_is_missing_is_told_at_once_and_what_is_wrong_is_not_called_missing() {
    let message = faults("[host]\nname = 7\n[[port]]\nrole = \"service\"\nmac = 5\n");
    let told: Vec<&str> = message.lines().map(|line| line.split(';').next().unwrap()).collect();
    let expected = [
        "t.toml:1: host: id: is missing",
        "t.toml:2: host: name = 7: is a number, not text",
        "t.toml:3: port (line 3): name: is missing",
        "t.toml:3: port (line 3): socket: is missing",
        "t.toml:3: port (line 3): uuid: is missing",
        "t.toml:5: port (line 3): mac = 5: is a number, not text",
    ];
    // Nothing is asked of the folder of the command line's socket here.
    let told: Vec<&str> = told.into_iter().filter(|line| !line.contains("host: admin")).collect();
    assert_eq!(told, expected, "{message}");
}

#[test]
fn an_empty_file_is_told_how_to_begin() {
    let message = faults("");
    assert!(message.contains("1: host: is missing; begin the file with [host]"), "{message}");
    assert!(message.contains("1: port: there is no port; give one [[port]]"), "{message}");
}

#[test]
fn a_flood_of_faults_is_cut_off() {
    let message =
        faults(&format!("[host]\n{}", (0..1000).map(|n| format!("k{n} = 1\n")).collect::<String>()));
    assert_eq!(message.lines().count(), 100, "{message}");
}

#[test]
fn policies_that_share_no_packet_may_share_a_priority() {
    let other = "[[chain]]\nname = \"other\"\n[[chain.path]]\nspi = 9\nhops = [\"svm2\"]\n[[policy]]\nchain = \"other\"\n";
    let with = |keys: &str| format!("{GOOD}{other}priority = 100\n{keys}\n");
    for keys in [
        "from = [\"vm6\"]",
        "match = { proto = \"udp\" }",
        "match = { dport = \"444\" }",
        "match = { src = \"10.0.0.6\" }",
    ] {
        let vm6 = "[[port]]\nname = \"vm6\"\nrole = \"tenant\"\nsocket = \"/tmp/vm6\"\nmac = \"52:54:00:00:00:06\"\n";
        parse(&format!("{}{vm6}", with(keys))).unwrap_or_else(|error| panic!("{keys}: {error}"));
    }
    for keys in ["", "match = { proto = \"tcp\" }", "match = { dport = \"443-500\" }", "match = { vlan = 7 }"]
    {
        assert!(faults(&with(keys)).contains("has the same, and some packets match both"), "{keys}");
    }
    // Both lead to the same place.
    parse(&with("").replace("chain = \"other\"", "chain = \"inspect\"")).unwrap();
}
