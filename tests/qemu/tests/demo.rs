//! `livepath demo --guests qemu --json`: what it reports is what INTERFACES promises of it, and what can happen to eight
//! stock guests of which one is frozen, or killed.
#![forbid(unsafe_code)]

use std::process::Command;

use anyhow::{Context, Result, ensure};
use qemu_guests::{Programs, Progress};
use qemu_vm::Kit;
use serde_json::{Value, json};

#[test]
fn the_demo_on_guests_reports_what_happened() {
    if let Err(missing) = Kit::find() {
        return skip::skip("the demo on guests reports what happened", &missing.to_string());
    }
    let programs = Programs::build().unwrap();
    let progress = Progress::start();
    for (fault, cause, attached) in [("freeze", "driver-stalled", true), ("kill", "detached", false)] {
        let report = demo(&programs, fault).unwrap();
        progress.step(&format!("{fault}: {report}"));
        check(&report, cause, attached).with_context(|| format!("{fault}: {report}")).unwrap();
    }
}

fn demo(programs: &Programs, fault: &str) -> Result<Value> {
    let folder = tempfile::tempdir()?;
    let capture = folder.path().join("svm2.pcapng");
    let mut demo = Command::new(&programs.livepath);
    demo.args(["demo", "--guests", "qemu", "--json", "--duration", "3s", "--fault", fault]);
    let output = demo.arg("--capture").arg(&capture).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{fault}: {}: {said}", output.status);
    // A section header, an interface, and frames.
    ensure!(std::fs::metadata(&capture)?.len() > 1_000, "nothing was captured");
    serde_json::from_slice(&output.stdout).context("not one JSON object")
}

fn check(report: &Value, cause: &str, attached: bool) -> Result<()> {
    let number = |pointer: &str| {
        report.pointer(pointer).and_then(Value::as_u64).with_context(|| format!("no number {pointer}"))
    };
    let [sent, delivered, lost, duplicated] =
        ["sent", "delivered", "lost", "duplicated"].map(|name| number(&format!("/packets/{name}")));
    let (sent, delivered) = (sent?, delivered?);
    ensure!(sent > 500 && sent == delivered + lost?, "the packets do not add up");
    ensure!(duplicated? == 0, "packets came twice");
    // What svm2 had taken is lost with it, and frames wait in the rings of guests that are not run for a while; before
    // the fault and after it they come.
    ensure!(delivered > sent / 2, "most packets were lost");

    let detection = &report["detection"];
    ensure!(detection["cause"] == cause, "noticed as {detection}");
    let [detected, switched, reported, all_hosts] = ["detected", "switched", "reported", "all_hosts"]
        .map(|what| number(&format!("/detection/{what}_after_us")));
    let detected = detected?;
    ensure!(detected > 0 && detected <= switched?, "switched before it was noticed");
    ensure!(detected <= reported? && detected <= all_hosts?, "reported before it was noticed");

    let svm2 = report["services"].as_array().into_iter().flatten().find(|service| service["name"] == "svm2");
    let svm2 = svm2.context("no svm2")?;
    ensure!((&svm2["state"], &svm2["cause"]) == (&json!("down"), &json!(cause)), "{svm2}");
    let evidence = json!({ "attached": attached, "driver": false, "service": false, "forwarding": false });
    ensure!(svm2["evidence"] == evidence, "{svm2}");
    let paths =
        json!([{ "spi": 1, "state": "down" }, { "spi": 2, "state": "up" }, { "spi": 3, "state": "up" }]);
    ensure!(report["paths"] == paths, "paths");
    ensure!(number("/liveness/in_band")? > 0 && number("/liveness/responses")? > 0, "no queries");
    for rate in ["before_mpps", "after_mpps"] {
        ensure!(report["rate"][rate].as_f64().is_some_and(|rate| rate > 0.0), "{rate}");
    }
    // What guests cannot tell is not made up.
    ensure!(report["guests"] == json!({ "stood_still_us": null, "swallowed": null }), "guests");
    Ok(())
}
