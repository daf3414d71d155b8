//! Firewall rules as text: `drop udp dport 53`, `allow any src 10.0.0.0/8`, `drop tcp dst 10.0.0.0/24 dport 80-443`.
//!
//! ```text
//! rule     = action [protocol] { "src" prefix | "dst" prefix | "sport" ports | "dport" ports }
//! action   = "drop" | "allow"
//! protocol = "any" | "tcp" | "udp" | "sctp" | "icmp" | "icmpv6" | "proto" number
//! prefix   = address [ "/" length ]
//! ports    = port [ "-" port ]
//! ```

use core::fmt;
use core::net::IpAddr;
use core::str::FromStr;

use thiserror::Error;

use crate::Flow;

/// What a rule does with what it matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The packet ends here.
    Drop,
    /// The packet goes on, whatever later rules say.
    Allow,
}

/// An address prefix, host bits zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    address: IpAddr,
    len: u8,
}

impl Prefix {
    /// `None` if the length exceeds the address or bits behind it are set.
    pub fn new(address: IpAddr, len: u8) -> Option<Prefix> {
        let prefix = Prefix { address, len };
        (len <= address_bits(address) && prefix.network(address) == prefix.network_bits()).then_some(prefix)
    }

    /// Whether the address is of the same family and begins with the prefix.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.address.is_ipv4() == address.is_ipv4() && self.network(address) == self.network_bits()
    }

    /// The address as a left-aligned 128-bit number.
    fn network_bits(&self) -> u128 {
        left_aligned(self.address)
    }

    fn network(&self, address: IpAddr) -> u128 {
        let mask = u128::MAX.checked_shl(128 - u32::from(self.len)).unwrap_or(0);
        left_aligned(address) & mask
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.len)
    }
}

fn address_bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn left_aligned(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(u32::from(v4)) << 96,
        IpAddr::V6(v6) => u128::from(v6),
    }
}

/// A range of ports, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    first: u16,
    last: u16,
}

impl Ports {
    /// `None` if the range is empty.
    pub const fn new(first: u16, last: u16) -> Option<Ports> {
        if first <= last { Some(Ports { first, last }) } else { None }
    }

    /// Whether the port is in the range.
    pub const fn contains(&self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }
}

/// One rule. Fields that are not given match everything; `any` alone matches what is not IP, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    action: Action,
    protocol: Option<u8>,
    src: Option<Prefix>,
    dst: Option<Prefix>,
    sport: Option<Ports>,
    dport: Option<Ports>,
}

impl Rule {
    /// What the rule does with what it matches.
    pub const fn action(&self) -> Action {
        self.action
    }

    /// Whether the rule matches; `None`: a packet that is not IP.
    pub fn matches(&self, flow: Option<&Flow>) -> bool {
        let Some(flow) = flow else { return self.matches_everything() };
        let port = |wanted: Option<Ports>, which: fn((u16, u16)) -> u16| {
            wanted.is_none_or(|ports| flow.ports.is_some_and(|pair| ports.contains(which(pair))))
        };
        self.protocol.is_none_or(|protocol| protocol == flow.protocol)
            && self.src.is_none_or(|prefix| prefix.contains(flow.src))
            && self.dst.is_none_or(|prefix| prefix.contains(flow.dst))
            && port(self.sport, |(sport, _)| sport)
            && port(self.dport, |(_, dport)| dport)
    }

    fn matches_everything(&self) -> bool {
        let Rule { action: _, protocol, src, dst, sport, dport } = self;
        protocol.is_none() && src.is_none() && dst.is_none() && sport.is_none() && dport.is_none()
    }
}

/// A rule that cannot be read: the whole rule and what is wrong in it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("rule `{rule}`: {problem}")]
pub struct RuleError {
    /// The rule as it was given.
    pub rule: String,
    /// What is wrong in it.
    pub problem: Problem,
}

/// What is wrong in a rule.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Problem {
    /// It does not begin with an action.
    #[error("`{0}` is not an action: a rule begins with `drop` or `allow`")]
    Action(String),
    /// There is nothing after the action.
    #[error("nothing to match: write `any` for every frame")]
    Empty,
    /// A word that means nothing where it stands.
    #[error(
        "`{0}` means nothing here: expected a protocol first (any, tcp, udp, sctp, icmp, icmpv6, proto NUMBER), then src, dst, sport or dport"
    )]
    Word(String),
    /// A key at the end of the rule.
    #[error("`{0}` lacks its value")]
    Missing(String),
    /// The same key twice.
    #[error("`{0}` is given twice")]
    Twice(String),
    /// Not an IP protocol number.
    #[error("`{0}` is not a protocol number: expected 0 to 255")]
    Protocol(String),
    /// Not a port or a range of ports.
    #[error("`{0}` is not a port or range: expected 0 to 65535, or a range like 80-443")]
    Ports(String),
    /// Not an address prefix.
    #[error("`{0}` is not an address or prefix: expected one like 10.0.0.0/24 or fd00::/64")]
    Prefix(String),
    /// An address prefix with bits behind its length.
    #[error("`{given}` has bits set behind the prefix: did you mean `{meant}`?")]
    HostBits {
        /// As given.
        given: String,
        /// With these bits cleared.
        meant: Prefix,
    },
    /// IPv4 and IPv6 in one rule.
    #[error("src and dst are of different address families, so nothing would match")]
    Families,
    /// Ports with a protocol that has none.
    #[error("`{0}` has no ports, so nothing would match")]
    NoPorts(String),
}

impl FromStr for Rule {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Rule, RuleError> {
        parse(text).map_err(|problem| RuleError { rule: text.to_string(), problem })
    }
}

fn parse(text: &str) -> Result<Rule, Problem> {
    let mut words = text.split_whitespace().peekable();
    let action = match words.next() {
        Some("drop") => Action::Drop,
        Some("allow") => Action::Allow,
        other => return Err(Problem::Action(other.unwrap_or_default().to_string())),
    };
    let first = *words.peek().ok_or(Problem::Empty)?;
    let mut rule = Rule { action, protocol: None, src: None, dst: None, sport: None, dport: None };
    if let Some(protocol) = named_protocol(first) {
        words.next();
        rule.protocol = protocol;
    }
    while let Some(key) = words.next() {
        let known = matches!(key, "proto" | "src" | "dst" | "sport" | "dport");
        let value = words.next().filter(|_| known).ok_or_else(|| {
            let key = key.to_string();
            if known { Problem::Missing(key) } else { Problem::Word(key) }
        })?;
        let twice = match key {
            "proto" if named_protocol(first).is_some() => return Err(Problem::Word(key.to_string())),
            "proto" => rule.protocol.replace(protocol_number(value)?).is_some(),
            "src" => rule.src.replace(prefix(value)?).is_some(),
            "dst" => rule.dst.replace(prefix(value)?).is_some(),
            "sport" => rule.sport.replace(ports(value)?).is_some(),
            _ => rule.dport.replace(ports(value)?).is_some(),
        };
        if twice {
            return Err(Problem::Twice(key.to_string()));
        }
    }
    check(rule)
}

/// Refuses rules that cannot match anything: they are mistakes.
fn check(rule: Rule) -> Result<Rule, Problem> {
    if let (Some(src), Some(dst)) = (rule.src, rule.dst)
        && src.address.is_ipv4() != dst.address.is_ipv4()
    {
        return Err(Problem::Families);
    }
    let asks_for_ports = rule.sport.is_some() || rule.dport.is_some();
    match rule.protocol {
        Some(protocol) if asks_for_ports && ![6, 17, 132].contains(&protocol) => {
            Err(Problem::NoPorts(protocol_name(protocol)))
        }
        _ => Ok(rule),
    }
}

const PROTOCOLS: [(&str, u8); 5] = [("icmp", 1), ("tcp", 6), ("udp", 17), ("icmpv6", 58), ("sctp", 132)];

/// `Some(None)`: any.
fn named_protocol(word: &str) -> Option<Option<u8>> {
    if word == "any" {
        return Some(None);
    }
    PROTOCOLS.iter().find(|(name, _)| *name == word).map(|(_, number)| Some(*number))
}

fn protocol_name(number: u8) -> String {
    let named = PROTOCOLS.iter().find(|(_, known)| *known == number);
    named.map_or_else(|| format!("proto {number}"), |(name, _)| (*name).to_string())
}

fn protocol_number(value: &str) -> Result<u8, Problem> {
    value.parse().map_err(|_| Problem::Protocol(value.to_string()))
}

fn ports(value: &str) -> Result<Ports, Problem> {
    let (first, last) = value.split_once('-').unwrap_or((value, value));
    let range = first.parse().ok().zip(last.parse().ok()).and_then(|(first, last)| Ports::new(first, last));
    range.ok_or_else(|| Problem::Ports(value.to_string()))
}

fn prefix(value: &str) -> Result<Prefix, Problem> {
    let invalid = || Problem::Prefix(value.to_string());
    let (address, len) = value.split_once('/').map_or((value, None), |(address, len)| (address, Some(len)));
    let address: IpAddr = address.parse().map_err(|_| invalid())?;
    let bits = address_bits(address);
    let len = len.map_or(Ok(bits), |len| len.parse().map_err(|_| invalid()))?;
    if len > bits {
        return Err(invalid());
    }
    Prefix::new(address, len).ok_or_else(|| {
        let network = Prefix { address, len }.network(address);
        let address = match address {
            IpAddr::V4(_) => IpAddr::V4(((network >> 96) as u32).into()),
            IpAddr::V6(_) => IpAddr::V6(network.into()),
        };
        Problem::HostBits { given: value.to_string(), meant: Prefix { address, len } }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rule(text: &str) -> Rule {
        text.parse().unwrap_or_else(|error| panic!("{error}"))
    }

    fn error(text: &str) -> String {
        text.parse::<Rule>().expect_err(text).to_string()
    }

    fn flow(protocol: u8, src: &str, dst: &str, ports: Option<(u16, u16)>) -> Flow {
        Flow { src: src.parse().unwrap(), dst: dst.parse().unwrap(), protocol, ports }
    }

    #[test]
    fn every_field_is_matched() {
        let web = flow(6, "10.0.0.5", "10.0.1.6", Some((1234, 443)));
        for text in [
            "drop any",
            "drop tcp",
            "drop proto 6",
            "drop dport 443",
            "allow tcp dport 80-443",
            "drop tcp sport 1234 dst 10.0.1.0/24 src 10.0.0.5 dport 443-443",
            "drop src 10.0.0.0/8",
            "drop dst 0.0.0.0/0",
        ] {
            assert!(rule(text).matches(Some(&web)), "{text}");
        }
        for text in [
            "drop udp",
            "drop tcp dport 444-65535",
            "drop tcp sport 443",
            "drop src 10.0.0.4/31 dst 10.0.1.7",
            "drop dst ::/0",
            "drop src 10.0.1.0/24",
        ] {
            assert!(!rule(text).matches(Some(&web)), "{text}");
        }
        assert_eq!(rule("drop any").action(), Action::Drop);
        assert_eq!(rule("allow any").action(), Action::Allow);
    }

    #[test]
    fn what_has_no_ports_matches_no_port() {
        let fragment = flow(17, "fd00::5", "fd00::6", None);
        assert!(rule("drop udp dst fd00::/64").matches(Some(&fragment)));
        assert!(!rule("drop udp dport 0-65535").matches(Some(&fragment)));
    }

    #[test]
    fn only_any_matches_what_is_not_ip() {
        assert!(rule("drop any").matches(None));
        assert!(!rule("drop any dst 0.0.0.0/0").matches(None));
        assert!(!rule("drop icmp").matches(None));
    }

    #[test]
    fn errors_say_what_is_wrong_and_what_would_be_right() {
        let cases = [
            ("", "rule ``: `` is not an action: a rule begins with `drop` or `allow`"),
            ("deny udp", "rule `deny udp`: `deny` is not an action: a rule begins with `drop` or `allow`"),
            ("drop", "rule `drop`: nothing to match: write `any` for every frame"),
            ("drop udp dport", "rule `drop udp dport`: `dport` lacks its value"),
            (
                "drop udp dport 99999",
                "rule `drop udp dport 99999`: `99999` is not a port or range: expected 0 to 65535, or a range like 80-443",
            ),
            (
                "drop udp dport 443-80",
                "rule `drop udp dport 443-80`: `443-80` is not a port or range: expected 0 to 65535, or a range like 80-443",
            ),
            (
                "drop tcp dst 10.0.0.0/33",
                "rule `drop tcp dst 10.0.0.0/33`: `10.0.0.0/33` is not an address or prefix: expected one like 10.0.0.0/24 or fd00::/64",
            ),
            (
                "drop tcp dst 10.0.0.5/24",
                "rule `drop tcp dst 10.0.0.5/24`: `10.0.0.5/24` has bits set behind the prefix: did you mean `10.0.0.0/24`?",
            ),
            (
                "drop src fd00::1/64",
                "rule `drop src fd00::1/64`: `fd00::1/64` has bits set behind the prefix: did you mean `fd00::/64`?",
            ),
            ("drop icmp dport 53", "rule `drop icmp dport 53`: `icmp` has no ports, so nothing would match"),
            (
                "drop proto 47 sport 1",
                "rule `drop proto 47 sport 1`: `proto 47` has no ports, so nothing would match",
            ),
            ("drop proto gre", "rule `drop proto gre`: `gre` is not a protocol number: expected 0 to 255"),
            ("drop tcp dport 1 dport 2", "rule `drop tcp dport 1 dport 2`: `dport` is given twice"),
            (
                "drop src 10.0.0.1 dst fd00::1",
                "rule `drop src 10.0.0.1 dst fd00::1`: src and dst are of different address families, so nothing would match",
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(error(text), expected);
        }
        for word in ["drop udp port 53", "drop 53", "drop udp tcp", "drop udp proto 6", "drop udp bogus"] {
            assert!(error(word).contains("means nothing here: expected a protocol first"), "{word}");
        }
    }

    proptest! {
        #[test]
        fn a_prefix_contains_what_begins_with_it(network in any::<u32>(), other in any::<u32>(), len in 0..=32u8) {
            let mask = u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0);
            let prefix = Prefix::new(IpAddr::V4((network & mask).into()), len).unwrap();
            prop_assert!(prefix.contains(IpAddr::V4((network & mask | other & !mask).into())));
            prop_assert_eq!(prefix.contains(IpAddr::V4(other.into())), network & mask == other & mask);
            prop_assert_eq!(Prefix::new(IpAddr::V4(network.into()), len).is_some(), network & !mask == 0);
        }

        #[test]
        fn any_text_is_a_rule_or_an_error(text in "(drop|allow)?( (any|tcp|icmp|proto|src|dst|sport|dport|[0-9:./-]{0,9}|\\PC{0,4})){0,6}") {
            if let Err(error) = text.parse::<Rule>() {
                prop_assert!(error.to_string().contains(&text));
            }
        }
    }
}
