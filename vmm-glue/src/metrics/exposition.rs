//! The text of the metrics, in the form of OpenMetrics 1.0 and in the older one of Prometheus (text 0.0.4).
//!
//! Names and labels are promised to dashboards and alerts: add to them, change none.

use std::collections::HashSet;
use std::fmt;
use std::time::Duration;

use controller_stub::api::State;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeGaugeValue, EncodeLabelSet, MetricEncoder, NoLabelSet,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use super::reading::Reading;
use vhost_backend::chain::OnFailure;

/// Media type of [`open_metrics`].
pub(super) const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Media type of [`text`].
pub(super) const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The metrics as OpenMetrics has them.
///
/// # Errors
/// Never, as a string takes whatever is written to it.
pub(super) fn open_metrics(reading: Reading) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("livepath");
    registry.register_collector(Box::new(reading));
    let mut page = String::new();
    encode(&mut page, &registry)?;
    Ok(page)
}

/// The same as older readers have them: a counter's family has the name of its samples, and there are no units.
pub(super) fn text(open_metrics: &str) -> String {
    let counter = |line| str::strip_prefix(line, "# TYPE ")?.strip_suffix(" counter");
    let counters: HashSet<&str> = open_metrics.lines().filter_map(counter).collect();
    let mut page = String::with_capacity(open_metrics.len());
    for line in open_metrics.lines() {
        let mut words = line.splitn(4, ' ');
        let (mark, kind, name, rest) = (words.next(), words.next(), words.next(), words.next());
        match (mark, kind, name, rest) {
            (Some("#"), Some("EOF" | "UNIT"), ..) => continue,
            (Some("#"), Some(kind), Some(name), Some(rest)) if counters.contains(name) => {
                page.extend(["# ", kind, " ", name, "_total ", rest]);
            }
            _ => page.push_str(line),
        }
        page.push('\n');
    }
    page
}

impl Collector for Reading {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.encode_ports(&mut encoder)?;
        self.encode_liveness(&mut encoder)?;
        self.encode_states(&mut encoder)?;
        self.encode_chains(&mut encoder)?;
        self.encode_failover(&mut encoder)?;
        self.encode_workers(&mut encoder)
    }
}

impl Reading {
    fn encode_ports(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Frames handed to the guest (rx) and taken from it (tx).";
        let mut packets = encoder.encode_descriptor("port_packets", help, None, MetricType::Counter)?;
        for port in &self.ports {
            let (name, counters) = (port.name.as_str(), &port.counters);
            count(&mut packets, &[("port", name), ("direction", "rx")], counters.rx_packets)?;
            count(&mut packets, &[("port", name), ("direction", "tx")], counters.tx_packets)?;
        }
        let help = "Bytes of these frames, without virtio-net headers.";
        let unit = Some(&Unit::Bytes);
        let mut bytes = encoder.encode_descriptor("port", help, unit, MetricType::Counter)?;
        for port in &self.ports {
            let (name, counters) = (port.name.as_str(), &port.counters);
            count(&mut bytes, &[("port", name), ("direction", "rx")], counters.rx_bytes)?;
            count(&mut bytes, &[("port", name), ("direction", "tx")], counters.tx_bytes)?;
        }
        let help = "Frames for a service VM that waited for room in its ring.";
        let mut held = encoder.encode_descriptor("port_held", help, None, MetricType::Counter)?;
        for port in self.ports.iter().filter(|port| port.counters.held > 0) {
            count(&mut held, &[("port", port.name.as_str())], port.counters.held)?;
        }
        let help = "Frames that went no further, at the port that took or should have got them; \
                    reasons that never happened are left out.";
        let mut drops = encoder.encode_descriptor("port_drops", help, None, MetricType::Counter)?;
        for port in &self.ports {
            for (reason, dropped) in &port.counters.drops {
                count(&mut drops, &[("port", port.name.as_str()), ("reason", reason.as_str())], *dropped)?;
            }
        }
        Ok(())
    }

    fn encode_liveness(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Queries to a service VM, on a packet (in_band) or alone (probe).";
        let mut queries = encoder.encode_descriptor("liveness_queries", help, None, MetricType::Counter)?;
        for service in &self.services {
            let name = service.name.as_str();
            count(&mut queries, &[("service", name), ("kind", "in_band")], service.counters.in_band)?;
            count(&mut queries, &[("service", name), ("kind", "probe")], service.counters.probes)?;
        }
        let help = "Answers of a service VM that were valid.";
        let mut responses =
            encoder.encode_descriptor("liveness_responses", help, None, MetricType::Counter)?;
        for service in &self.services {
            count(&mut responses, &[("service", service.name.as_str())], service.counters.responses)?;
        }
        let help = "Responses that proved nothing: to what was answered before (duplicate), of an earlier life (stale), \
                    to what was not asked (unknown).";
        let mut rejected = encoder.encode_descriptor("liveness_rejected", help, None, MetricType::Counter)?;
        for service in &self.services {
            let (name, counters) = (service.name.as_str(), &service.counters);
            let reasons =
                [("duplicate", counters.duplicate), ("stale", counters.stale), ("unknown", counters.unknown)];
            for (reason, times) in reasons {
                count(&mut rejected, &[("service", name), ("reason", reason)], times)?;
            }
        }
        let help = "Queries that were not answered within the timeout.";
        let mut misses = encoder.encode_descriptor("liveness_misses", help, None, MetricType::Counter)?;
        for service in &self.services {
            count(&mut misses, &[("service", service.name.as_str())], service.counters.misses)?;
        }
        let help = "From a query to its answer.";
        let unit = Some(&Unit::Seconds);
        let mut rtt = encoder.encode_descriptor("liveness_rtt", help, unit, MetricType::Histogram)?;
        for service in &self.services {
            let (sum, buckets) = (service.rtt.sum(), service.rtt.buckets());
            histogram(&mut rtt, &[("service", service.name.as_str())], sum, buckets)?;
        }
        Ok(())
    }

    fn encode_states(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "What each mechanism says of a service VM: 1 up, 0 down, -1 unknown.";
        let mut states = encoder.encode_descriptor("service_state", help, None, MetricType::Gauge)?;
        for service in &self.services {
            let mechanisms = [
                ("data_plane", service.mechanisms.data_plane.state),
                ("control_plane", service.mechanisms.control_plane.state),
                ("management", service.mechanisms.management.state),
            ];
            for (mechanism, state) in mechanisms {
                let labels = [("service", service.name.as_str()), ("mechanism", mechanism)];
                show(&mut states, &labels, &number(state))?;
            }
        }
        self.encode_evidence(encoder)?;
        let help = "Changes of a service VM's state or of its cause; those that never happened are left out.";
        let mut changes =
            encoder.encode_descriptor("service_transitions", help, None, MetricType::Counter)?;
        for service in &self.services {
            for (to, cause, times) in service.transitions.iter() {
                let labels = [("service", service.name.as_str()), ("to", to.name()), ("cause", cause.name())];
                count(&mut changes, &labels, times)?;
            }
        }
        let help = "Whether a service path takes packets: 1 up, 0 down.";
        let mut paths = encoder.encode_descriptor("path_state", help, None, MetricType::Gauge)?;
        for path in &self.paths {
            let spi = path.spi.to_string();
            let labels = [("chain", path.chain.as_str()), ("spi", spi.as_str())];
            show(&mut paths, &labels, &number(path.state))?;
        }
        Ok(())
    }

    fn encode_chains(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Whether no path of a chain is up, so that its failure policy is in force: 1 yes, 0 no.";
        let mut active = encoder.encode_descriptor("chain_policy_active", help, None, MetricType::Gauge)?;
        for chain in &self.chains {
            let labels = [("chain", chain.name.as_str()), ("policy", chain.on_failure.as_str())];
            show(&mut active, &labels, &i64::from(chain.in_force))?;
        }
        let help = "Packets that found no path of their chain up, by what its policy made of them.";
        let mut packets =
            encoder.encode_descriptor("chain_policy_packets", help, None, MetricType::Counter)?;
        for chain in &self.chains {
            for policy in OnFailure::ALL {
                let labels = [("chain", chain.name.as_str()), ("policy", policy.as_str())];
                count(&mut packets, &labels, chain.packets.of(policy))?;
            }
        }
        Ok(())
    }

    fn encode_evidence(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Whether a service VM shows itself at this level: 1 yes, 0 no.";
        let mut evidence = encoder.encode_descriptor("service_evidence", help, None, MetricType::Gauge)?;
        for service in &self.services {
            let seen = &service.evidence;
            let levels = [
                ("attached", seen.attached),
                ("driver", seen.driver),
                ("service", seen.service),
                ("forwarding", seen.forwarding),
            ];
            for (level, holds) in levels {
                let labels = [("service", service.name.as_str()), ("level", level)];
                show(&mut evidence, &labels, &i64::from(holds))?;
            }
        }
        let help = "Whether a service VM answers, but later than its timeout: 1 yes, 0 no.";
        let mut degraded = encoder.encode_descriptor("service_degraded", help, None, MetricType::Gauge)?;
        for service in &self.services {
            show(&mut degraded, &[("service", service.name.as_str())], &i64::from(service.degraded))?;
        }
        Ok(())
    }

    fn encode_failover(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Frames that a dead service VM was to get and never took, steered again.";
        let all = self.departed.salvaged + self.ports.iter().map(|port| port.counters.salvaged).sum::<u64>();
        let mut salvaged = encoder.encode_descriptor("failover_salvaged", help, None, MetricType::Counter)?;
        salvaged.encode_counter::<NoLabelSet, u64, f64>(&all, None)?;
        let help = "Frames that a dead service VM had taken and not answered, steered again from copies.";
        let all = self.departed.replayed + self.ports.iter().map(|port| port.counters.replayed).sum::<u64>();
        let mut replayed = encoder.encode_descriptor("failover_replayed", help, None, MetricType::Counter)?;
        replayed.encode_counter::<NoLabelSet, u64, f64>(&all, None)?;
        let help = "Frames that met a dead service VM and were given back to their classifier.";
        let all =
            self.departed.reflected + self.ports.iter().map(|port| port.counters.reflected).sum::<u64>();
        let mut reflected =
            encoder.encode_descriptor("failover_reflected", help, None, MetricType::Counter)?;
        reflected.encode_counter::<NoLabelSet, u64, f64>(&all, None)
    }

    fn encode_workers(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help =
            "Part of the last full second in which a worker served frames; polling in vain is not busy.";
        let unit = Unit::Other("ratio".to_owned());
        let mut busy = encoder.encode_descriptor("worker_busy", help, Some(&unit), MetricType::Gauge)?;
        for (worker, reading) in self.workers.iter().enumerate() {
            show(&mut busy, &[("worker", worker.to_string())], &reading.busy_ratio)?;
        }
        let help = "Flows forgotten to make room for newer ones.";
        let mut displaced = encoder.encode_descriptor("flows_displaced", help, None, MetricType::Counter)?;
        for (worker, reading) in self.workers.iter().enumerate() {
            count(&mut displaced, &[("worker", worker.to_string())], reading.flows_displaced)?;
        }
        let help = "How much later than it could have a worker began a round; 100 us and more.";
        let unit = Some(&Unit::Seconds);
        let mut pauses = encoder.encode_descriptor("worker_pause", help, unit, MetricType::Histogram)?;
        for (worker, reading) in self.workers.iter().enumerate() {
            let (sum, buckets) = (reading.pauses.sum(), reading.pauses.buckets());
            histogram(&mut pauses, &[("worker", worker.to_string())], sum, buckets)?;
        }
        Ok(())
    }
}

fn number(state: State) -> i64 {
    match state {
        State::Up => 1,
        State::Down => 0,
        State::Unknown => -1,
    }
}

fn count(family: &mut MetricEncoder<'_>, labels: &impl EncodeLabelSet, value: u64) -> fmt::Result {
    family.encode_family(labels)?.encode_counter::<NoLabelSet, u64, f64>(&value, None)
}

fn show(
    family: &mut MetricEncoder<'_>,
    labels: &impl EncodeLabelSet,
    value: &impl EncodeGaugeValue,
) -> fmt::Result {
    family.encode_family(labels)?.encode_gauge(value)
}

/// The bound of the last bucket is [`Duration::MAX`].
fn histogram(
    family: &mut MetricEncoder<'_>,
    labels: &impl EncodeLabelSet,
    sum: Duration,
    buckets: impl Iterator<Item = (Duration, u64)>,
) -> fmt::Result {
    let bound = |bound: Duration| if bound == Duration::MAX { f64::INFINITY } else { bound.as_secs_f64() };
    let buckets: Vec<_> = buckets.map(|(upper, count)| (bound(upper), count)).collect();
    let all = buckets.iter().map(|(_, count)| count).sum();
    family.encode_family(labels)?.encode_histogram::<NoLabelSet>(sum.as_secs_f64(), all, &buckets, None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use vhost_backend::telemetry::WorkerCounters;

    #[test]
    fn every_worker_tells_its_own_pauses() {
        let (held, quiet) = (WorkerCounters::default(), WorkerCounters::default());
        held.paused(Duration::from_millis(20));
        held.paused(Duration::from_micros(150));
        held.flows_displaced(7);
        quiet.paused(Duration::from_micros(99));
        let workers = vec![held.read(), quiet.read()];
        let page = open_metrics(Reading { workers, ..Reading::default() }).unwrap();
        let value = |series: &str| {
            let line = page.lines().find_map(|line| line.strip_prefix(&format!("livepath_{series} ")));
            line.unwrap_or_else(|| panic!("no {series} in {page}")).parse::<f64>().unwrap()
        };
        let pauses = |part: &str| value(&format!("worker_pause_seconds_{part}"));
        let bucket =
            |bound: &str, worker: u8| pauses(&format!("bucket{{le=\"{bound}\",worker=\"{worker}\"}}"));
        assert_eq!(
            [bucket("0.0002", 0), bucket("0.01", 0), bucket("0.02", 0), bucket("+Inf", 0)],
            [1.0, 1.0, 2.0, 2.0]
        );
        assert_eq!([bucket("0.02", 1), bucket("+Inf", 1)], [0.0, 0.0]);
        assert!((pauses("sum{worker=\"0\"}") - 0.020_15).abs() < 1e-9);
        let displaced = |worker: u8| value(&format!("flows_displaced_total{{worker=\"{worker}\"}}"));
        assert_eq!([displaced(0), displaced(1)], [7.0, 0.0]);
    }
}
