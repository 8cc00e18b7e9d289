//! The load generator against this very broker: every scenario runs and every answer is good.
//! Nothing here is a measurement.

use std::path::PathBuf;

use dayfly_bench::{Load, Plan, Report, Scenario, cfssl, crl, flood, leaves, measure, memory, owner, serials};

/// The runner said that there is no `openssl`, which makes the RSA key that signs the evidence.
fn skipped() -> bool {
    std::env::var("DAYFLY_TEST_SKIP").is_ok_and(|skip| skip.split(',').any(|skipped| skipped == "openssl"))
}

const CLOSED: Load = Load::Closed { connections: 2 };

async fn run(scenario: Scenario, load: Load) -> Option<Report> {
    if skipped() {
        return None;
    }
    let broker = PathBuf::from(env!("CARGO_BIN_EXE_dayfly"));
    let plan = Plan { scenario, load, n: 20, warm_up: 4, broker, log: "info".into() };
    let report = measure(&plan).await.unwrap_or_else(|fault| panic!("{fault}"));
    assert_eq!((report.n, report.errors, &report.first_error), (20, 0, &None));
    Some(report)
}

#[tokio::test]
async fn exchanges_are_measured() {
    let Some(report) = run(Scenario::Exchange, CLOSED).await else { return };
    assert!(report.bytes_written > 0 && report.times.p50_us > 0.0 && report.rss_kb_after > 0);
    let line: serde_json::Value = serde_json::from_str(&report.line()).unwrap();
    for member in [
        "scenario",
        "mode",
        "n",
        "errors",
        "cpu_us_per_op",
        "rate_per_s",
        "p50_us",
        "p99_us",
        "p999_us",
        "rss_kb_before",
        "rss_kb_after",
        "bytes_written",
        "machine",
    ] {
        assert!(line.get(member).is_some(), "{member}");
    }
}

#[tokio::test]
async fn an_open_loop_is_measured() {
    let Some(report) = run(Scenario::Exchange, Load::Open { connections: 2, rate: 200.0 }).await else { return };
    assert_eq!((report.mode.as_str(), report.asked_rate_per_s), ("open", Some(200.0)));
}

#[tokio::test]
async fn introspections_are_measured() {
    run(Scenario::IntrospectByAssertion, CLOSED).await;
    run(Scenario::IntrospectBySocket, CLOSED).await;
}

#[tokio::test]
async fn ends_by_possession_are_measured() {
    run(Scenario::RevokeByToken, CLOSED).await;
}

#[tokio::test]
async fn ends_by_handle_are_measured() {
    run(Scenario::RevokeByHandle, CLOSED).await;
}

#[tokio::test]
async fn ends_of_a_task_and_beats_are_measured() {
    run(Scenario::RevokeTask, CLOSED).await;
    run(Scenario::Beat, CLOSED).await;
}

#[tokio::test]
async fn certificates_are_measured() {
    let Some(report) = run(Scenario::Certificate, CLOSED).await else { return };
    assert!(report.bytes_written > 0, "they are durable");
}

#[tokio::test]
async fn ocsp_answers_are_measured() {
    run(Scenario::Ocsp, CLOSED).await;
    run(Scenario::OcspWithNonce, CLOSED).await;
}

#[tokio::test]
async fn the_same_requests_are_signed_by_cfssl_where_it_is() {
    if skipped() {
        return;
    }
    let report = cfssl(&twelve()).await.unwrap_or_else(|fault| panic!("{fault}"));
    assert_eq!((report.n, report.errors, &report.first_error), (12, 0, &None));
    assert_eq!(report.dayfly_cpu_us.len(), 3);
    let missing = report.cfssl_cpu_us.is_empty() && report.table().contains("is missing here");
    assert!(missing || report.cfssl_cpu_us.len() == 3, "{}", report.table());
}

#[tokio::test]
async fn serial_numbers_of_one_key_are_distinct() {
    if skipped() {
        return;
    }
    let report = serials(&Plan { n: 120, ..twelve() }).await.unwrap_or_else(|fault| panic!("{fault}"));
    assert_eq!((report.n, report.tasks, report.distinct, report.errors, report.first_error), (120, 2, 120, 0, None));
}

#[test]
fn serial_numbers_that_are_drawn_in_this_process_are_counted() {
    let report = leaves::measure(24).unwrap();
    assert_eq!((report.n, report.distinct), (24, 24));
}

#[test]
fn a_crl_is_measured() {
    let report = crl::measure(60).unwrap();
    assert!(report.entries == 60 && report.bytes > 60 * 40, "{}", report.line());
}

fn twelve() -> Plan {
    let broker = PathBuf::from(env!("CARGO_BIN_EXE_dayfly"));
    Plan { scenario: Scenario::Exchange, load: CLOSED, n: 12, warm_up: 0, broker, log: "info".into() }
}

#[tokio::test]
async fn the_end_of_all_that_an_owner_has_is_measured() {
    if skipped() {
        return;
    }
    let report = owner(&twelve()).await.unwrap_or_else(|fault| panic!("{fault}"));
    assert_eq!((report.n, report.ended, report.errors, &report.first_error), (12, 12, 0, &None));
    assert!(report.effective_ms > 0.0 && report.caught_up_ms >= report.answered_ms && report.asked >= report.samples);
}

#[tokio::test]
async fn what_live_leases_take_is_measured() {
    if skipped() {
        return;
    }
    let report = memory(&twelve()).await.unwrap_or_else(|fault| panic!("{fault}"));
    assert_eq!((report.n, report.errors), (12, 0));
    assert!(report.rss_kb_started_again > 0 && report.started_again_ms > 0.0, "{}", report.table());
}

#[tokio::test]
async fn a_flood_of_unknown_key_ids_is_measured() {
    if skipped() {
        return;
    }
    let broker = PathBuf::from(env!("CARGO_BIN_EXE_dayfly"));
    let plan = Plan { scenario: Scenario::Exchange, load: CLOSED, n: 24, warm_up: 4, broker, log: "info".into() };
    let report = flood(&plan, 40).await.unwrap_or_else(|fault| panic!("{fault}"));
    assert_eq!((report.n, report.unknown, report.errors, report.first_error), (24, 240, 0, None));
    assert_eq!(report.fetches, 1, "it takes less than a cooldown");
}

#[tokio::test]
async fn a_program_that_is_no_broker_is_told_apart_from_a_slow_one() {
    if skipped() {
        return;
    }
    let plan = Plan {
        scenario: Scenario::Exchange,
        load: CLOSED,
        n: 1,
        warm_up: 0,
        broker: "/bin/false".into(),
        log: "info".into(),
    };
    let fault = measure(&plan).await.unwrap_err().to_string();
    assert!(fault.starts_with("the broker did not come up"), "{fault}");
}
