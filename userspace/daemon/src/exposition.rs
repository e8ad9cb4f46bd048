//! Metrics in Prometheus' text format (prometheus.io, Exposition formats, 0.0.4).
//!
//! Everything is read when it is asked for, so there is no registry: a daemon writes its families one after the other.

use std::fmt::Write as _;

/// The format's media type.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Kind of a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, but for restarts.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Buckets.
    Histogram,
}

/// Metrics being written.
#[derive(Clone, Debug, Default)]
pub struct Exposition {
    text: String,
}

impl Exposition {
    /// Begins a family; its samples follow.
    pub fn family(&mut self, name: &str, kind: Kind, help: &str) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// A sample of the family that was begun last.
    pub fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        self.text.push_str(name);
        for (n, (label, value)) in labels.iter().enumerate() {
            let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.text, "{}{label}=\"{value}\"", if n == 0 { '{' } else { ',' });
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        let _ = writeln!(self.text, " {value}");
    }

    /// A family with one sample.
    pub fn single(&mut self, name: &str, kind: Kind, help: &str, value: impl std::fmt::Display) {
        self.family(name, kind, help);
        self.sample(name, &[], value);
    }

    /// A histogram.
    pub fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) {
        self.family(name, Kind::Histogram, help);
        let bucket = format!("{name}_bucket");
        let mut sum = 0;
        for (bound, count) in histogram.bounds.iter().zip(&histogram.counts) {
            sum += count;
            self.sample(&bucket, &[("le", &bound.to_string())], sum);
        }
        self.sample(&bucket, &[("le", "+Inf")], histogram.count);
        self.sample(&format!("{name}_sum"), &[], histogram.sum);
        self.sample(&format!("{name}_count"), &[], histogram.count);
    }

    /// The coverage counters and stopwatches of this process under the names that exporters of OVN's daemons give them: `PREFIX_lflow_run`,
    /// `PREFIX_flow_installation_maximum`, …
    pub fn process(&mut self, prefix: &str) {
        for (name, total) in crate::coverage::totals() {
            let name = format!("{prefix}_{name}");
            self.single(&name, Kind::Counter, "Events since the start of the process (coverage/show).", total);
        }
        for (name, figures) in crate::stopwatch::figures() {
            let name = format!("{prefix}_{}", name.replace('-', "_"));
            let mut one = |suffix: &str, kind, help: &str, value: f64| {
                self.single(&format!("{name}_{suffix}"), kind, help, value);
            };
            one("total_samples", Kind::Counter, "Samples of the stopwatch (stopwatch/show).", figures.samples as f64);
            one("maximum", Kind::Gauge, "Longest sample, milliseconds.", figures.maximum as f64);
            one("minimum", Kind::Gauge, "Shortest sample, milliseconds.", figures.minimum as f64);
            one("95th_percentile", Kind::Gauge, "95th percentile, milliseconds.", figures.percentile);
            one("short_term_avg", Kind::Gauge, "Short-term average, milliseconds.", figures.short_term);
            one("long_term_avg", Kind::Gauge, "Long-term average, milliseconds.", figures.long_term);
        }
    }

    /// The text.
    pub fn finish(self) -> String {
        self.text
    }
}

/// Numbers of observations by size.
#[derive(Clone, Debug, PartialEq)]
pub struct Histogram {
    bounds: &'static [f64],
    counts: Vec<u64>,
    sum: f64,
    count: u64,
}

impl Histogram {
    /// A histogram with these upper bounds, ascending.
    pub fn new(bounds: &'static [f64]) -> Self {
        Histogram { bounds, counts: vec![0; bounds.len()], sum: 0.0, count: 0 }
    }

    /// Counts an observation.
    pub fn observe(&mut self, value: f64) {
        if let Some(at) = self.bounds.iter().position(|bound| value <= *bound) {
            self.counts[at] += 1;
        }
        self.sum += value;
        self.count += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_samples_and_labels_are_written_as_the_format_wants() {
        let mut metrics = Exposition::default();
        metrics.family("x_total", Kind::Counter, "A \\ count.\nTwo lines.");
        metrics.sample("x_total", &[("reason", "a \"b\" \\ c"), ("n", "1")], 3);
        metrics.single("y", Kind::Gauge, "A gauge.", 0.5);
        assert_eq!(
            metrics.finish(),
            "# HELP x_total A \\\\ count.\\nTwo lines.\n# TYPE x_total counter\nx_total{reason=\"a \\\"b\\\" \\\\ c\",n=\"1\"} 3\n\
             # HELP y A gauge.\n# TYPE y gauge\ny 0.5\n"
        );
    }

    #[test]
    fn buckets_are_cumulative() {
        let mut histogram = Histogram::new(&[0.1, 1.0]);
        for value in [0.05, 0.5, 0.5, 7.0] {
            histogram.observe(value);
        }
        let mut metrics = Exposition::default();
        metrics.histogram("h", "Times.", &histogram);
        let text = metrics.finish();
        for line in
            ["h_bucket{le=\"0.1\"} 1", "h_bucket{le=\"1\"} 3", "h_bucket{le=\"+Inf\"} 4", "h_sum 8.05", "h_count 4"]
        {
            assert!(text.lines().any(|found| found == line), "{line} is not in {text}");
        }
    }
}
