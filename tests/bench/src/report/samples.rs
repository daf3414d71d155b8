use crate::figure::{Figure, Series, Target, Unit};

/// A figure for tests.
pub(crate) fn figure() -> Figure {
    let series = |who: &str, values: &[f64]| Series { who: who.into(), values: values.into() };
    Figure {
        bench: "plain-64".into(),
        frame: 64,
        ring: 256,
        unit: Unit::Mpps,
        ours: series("livepath", &[10.0, 12.0, 11.0]),
        peer: Some(series("testpmd-io", &[5.0, 8.0, 5.0])),
        target: Target::AtLeast(1.6),
        note: String::new(),
        round_trips: Vec::new(),
    }
}
