//! The recorder behind `/metrics`: one for the process.

use std::sync::OnceLock;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();

/// Seconds; an exchange takes a millisecond or so, a refused one within two seconds.
const SECONDS: [f64; 10] = [0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.1, 0.5, 2.0, 10.0];

/// Groups in one commit.
const GROUPS: [f64; 6] = [1.0, 4.0, 16.0, 64.0, 128.0, 256.0];

/// Installs the recorder, once. Before it, counts go nowhere.
pub fn install() {
    RECORDER.get_or_init(|| {
        let sizes = Matcher::Full("dayfly_commit_batch_size".to_owned());
        let builder = PrometheusBuilder::new()
            .set_buckets(&SECONDS)
            .and_then(|builder| builder.set_buckets_for_metric(sizes, &GROUPS));
        // INVARIANT: the buckets are a constant that is not empty.
        let recorder = builder.expect("the buckets are not empty").build_recorder();
        let handle = recorder.handle();
        // A library user's own recorder is left in place.
        let _ = metrics::set_global_recorder(recorder);
        metrics::gauge!("dayfly_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
        handle
    });
}

pub(super) fn render() -> String {
    RECORDER.get().map(PrometheusHandle::render).unwrap_or_default()
}

pub(super) fn keep_up() {
    if let Some(handle) = RECORDER.get() {
        handle.run_upkeep();
    }
}
